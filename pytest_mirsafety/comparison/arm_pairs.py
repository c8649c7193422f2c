"""Which arm an arm is held against, and the pairs of their outcomes."""

from __future__ import annotations

from collections.abc import Iterable

from ..arms import BENIGN_TWIN, ArmKind, kind_of
from ..records import MULTI, item_id, origin_id
from ..results import InstanceOutcome
from .pairs import Pair
from .sides import ItemOutcome


def against(arm: str) -> str | None:
    """`multi`, or of the twins of a defence those without it; None where there is no such arm."""
    match kind_of(arm):
        case ArmKind.SAFETY if arm != MULTI:
            return MULTI
        case ArmKind.TWIN if arm != BENIGN_TWIN:
            return BENIGN_TWIN
    return None


def arm_pairs(base: Iterable[InstanceOutcome], arm: Iterable[InstanceOutcome]) -> list[Pair]:
    """Each instance of the arm with what became of it, in the same draw, in the other arm.

    What was not asked since no gate depended on it any more counts as not selected.
    """
    known = {_key(entry): _item(entry) for entry in base}
    return [Pair(known.get(_key(entry)), _item(entry)) for entry in arm]


def _key(entry: InstanceOutcome) -> tuple[str, int]:
    return origin_id(entry.instance_id), item_id(entry.instance_id)[1]


def _item(entry: InstanceOutcome) -> ItemOutcome:
    return ItemOutcome(
        item=entry.instance_id,
        relation=entry.relation,
        category=entry.category,
        seed=entry.seed,
        status=entry.outcome.status,
        reason=entry.outcome.reason,
        gates=entry.gates,
        selected=entry.selected and not entry.left_out,
    )
