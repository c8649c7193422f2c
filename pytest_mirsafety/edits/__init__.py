"""Changes to an instance that do not change what it asks: values, and what they do to a text."""

from .steps import (
    LEVELS,
    Edit,
    Family,
    ImageKind,
    ImageStep,
    Reorder,
    Step,
    TextKind,
    TextStep,
    identity_order,
)
from .wording import reworded

__all__ = [
    "LEVELS",
    "Edit",
    "Family",
    "ImageKind",
    "ImageStep",
    "Reorder",
    "Step",
    "TextKind",
    "TextStep",
    "identity_order",
    "reworded",
]
