"""What is kept for a run: its store, its place among the attempts, and the verdicts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from .engine.keeping import Keeper
from .metamorphic.subset import is_spent
from .store import ALL, SQLiteStore
from .store.verdicts import Verdicts

if TYPE_CHECKING:
    from .judged import JudgedPair
    from .records import Verdict
    from .run_plan import RunPlan


@dataclass(frozen=True, slots=True)
class RunStore:
    """An open store that knows of this attempt; `keeper` keeps verdicts.

    `attempt` is its number, from 1. `sample_spent` says that an earlier one asked another design of
    the same data, model and judge, `search_spent` that one searched others of its instances, or
    farther, where not all are searched.
    """

    answers: SQLiteStore
    verdicts: Verdicts
    keeper: Keeper[JudgedPair, Verdict]
    attempt: int
    sample_spent: bool
    search_spent: bool = False

    @classmethod
    def open(cls, plan: RunPlan) -> Self:
        """The plan's store, which counts this attempt.

        Raises:
            RunError: it cannot be opened.
        """
        store = SQLiteStore.open(plan.store)
        shard = None if plan.design.shard is None else str(plan.design.shard)
        try:
            store.describe(plan.in_words)
            history = store.begin_attempt(plan.attempted, plan.design_of(ALL), shard)
            search_spent = _begin_search(plan, store, shard)
        except BaseException:
            store.close()
            raise
        verdicts = Verdicts(store)
        spent = bool(history.other_designs)
        return cls(store, verdicts, Keeper(verdicts), history.number, spent, search_spent)

    def close(self) -> None:
        """Write what is still to be written, and let the file go."""
        self.keeper.close()
        self.answers.close()


def _begin_search(plan: RunPlan, store: SQLiteStore, shard: str | None) -> bool:
    """Count a run that searches, and say whether an earlier one looked where it does not."""
    if (searched := plan.searched) is None:
        return False
    identity, design = searched
    history = store.begin_attempt(identity, str(design), shard)
    whole = len(plan.arms.searched) == len(plan.dataset.instances)
    return not whole and is_spent(design, history.other_designs)
