"""Gives back the memory of what judges hold, so that another model finds room."""

from __future__ import annotations

from collections.abc import Iterable


async def free_all(holders: Iterable[object]) -> None:
    """Let each give back the memory that it holds; one that has no `free` holds none."""
    for holder in holders:
        if (free := getattr(holder, "free", None)) is not None:
            await free()
