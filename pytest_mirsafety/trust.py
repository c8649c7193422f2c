"""The judge that a run rests on: put together, not the model itself, and tried by what is known."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from .config import JudgeSettings, Settings
from .errors import ConfigurationError
from .judge_forms import KINDS, OF_TWINS
from .printable import one_line
from .records import ModelIdentity
from .registry import find_judge

if TYPE_CHECKING:
    from .judges.canaries import CanarySet
    from .protocols import Judge

Build = Callable[[JudgeSettings], "Judge"]
"""Makes a judge that is no panel."""

_PANEL: Final = "panel"
_OF_FORM: Final = frozenset({"rules", "rubric"})
"""Judges that placeholders in the form of compliance are known answers for."""
_BUNDLED: Final = "bundled"
_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Leaf:
    """A judge that asks somebody itself, with the name and the settings that it has."""

    name: str
    settings: JudgeSettings
    judge: Judge


@dataclass(frozen=True, slots=True)
class TrustedJudge:
    """The judge of a run: a cascade where there is more than one stage.

    `settings` bound how fast it is asked: those of its first stage, and no limit of a part is
    exceeded. `leaves` are all the judges that it is made of. `of_twins` is the one that is asked
    about benign twins, if one is.
    """

    judge: Judge
    settings: JudgeSettings
    leaves: tuple[Leaf, ...]
    of_twins: Leaf | None = None

    @property
    def asked(self) -> tuple[Leaf, ...]:
        """Every judge that the run may ask."""
        return self.leaves if self.of_twins is None else (*self.leaves, self.of_twins)


def assemble(names: Sequence[str], settings: Settings, build: Build) -> TrustedJudge:
    """The judge of this name, with the others as the next stages for what it cannot tell.

    Raises:
        ConfigurationError: an unknown name, a judge that is part of itself or there twice, or a
            panel that cannot be.
    """
    leaves: list[Leaf] = []
    stages = [_built(name, settings, build, (), leaves) for name in names]
    _refuse_twins(names, stages, "escalate")
    first = find_judge(names[0], settings)
    if len(stages) == 1:
        return TrustedJudge(stages[0], _within_limits(first, leaves), tuple(leaves))
    from .judges.cascade import Cascade

    return TrustedJudge(Cascade(stages), _within_limits(first, leaves), tuple(leaves))


def of_twins(settings: Settings, build: Build) -> Leaf | None:
    """The judge of twins that terms cannot decide, if one is set: of its kind, or a user's own.

    Raises:
        ConfigurationError: an unknown name, or a judge of what is safe.
    """
    if (name := settings.twin_judge) is None:
        return None
    found = find_judge(name, settings)
    if found.kind != OF_TWINS and kind_of(found) in KINDS:
        raise ConfigurationError(
            f"twin_judge '{one_line(name)}' says what is safe, and a twin has to be answered: "
            f'name a judge of kind "{OF_TWINS}"'
        )
    return Leaf(name, found, build(found))


def canaries_of(
    names: Sequence[str], judge: TrustedJudge, settings: Settings, base: Path
) -> CanarySet | None:
    """What the judge is tried by; None where nothing is known that fits it.

    The first file that a stage, or a part of one, names is for all of it.

    Raises:
        ConfigurationError: the file is not what it should be.
    """
    from .judges import canaries

    stages = [find_judge(name, settings) for name in names]
    chosen = next(
        (s for s in [*stages, *(leaf.settings for leaf in judge.leaves)] if s.canaries is not None),
        None,
    )
    if chosen is None:
        if not all(kind_of(leaf.settings) in _OF_FORM for leaf in judge.leaves):
            return None
        chosen = stages[0]
    if chosen.canaries in (None, _BUNDLED):
        return canaries.bundled(chosen.canary_count, chosen.canary_misses)
    return canaries.from_file(
        base / str(chosen.canaries), chosen.canary_count, chosen.canary_misses
    )


def refuse_same_model(
    judge: TrustedJudge, target: ModelIdentity, base_url: str | None, settings: Settings
) -> tuple[str, ...]:
    """Nothing, if no judge that is asked is the model under test; a note if that is allowed.

    Raises:
        ConfigurationError: one is, and `allow_same_model` is not set.
    """
    same = [leaf.name for leaf in judge.asked if _is_same(leaf, target, base_url)]
    if not same:
        return ()
    what = f"the judge '{one_line(same[0])}' is the model under test, {one_line(target.model)}"
    if not settings.allow_same_model:
        raise ConfigurationError(
            f"{what}: a model does not judge itself; use another judge, or set "
            "allow_same_model = true"
        )
    return (f"{what}; allow_same_model lets it judge itself",)


def kind_of(settings: JudgeSettings) -> str | None:
    """The kind of a judge; of a user's own where it is loaded from."""
    return settings.kind or settings.provider


def _built(
    name: str, settings: Settings, build: Build, within: tuple[str, ...], leaves: list[Leaf]
) -> Judge:
    if name in within:
        path = " > ".join((*within[within.index(name) :], name))
        raise ConfigurationError(one_line(f"judges.{name}: is a member of itself: {path}", 400))
    found = find_judge(name, settings)
    if found.kind == OF_TWINS:
        raise ConfigurationError(
            f"judge '{one_line(name)}' says whether benign twins are answered, and nothing of what "
            "is safe: name it by twin_judge"
        )
    if found.kind != _PANEL:
        judge = build(found)
        leaves.append(Leaf(name, found, judge))
        return judge
    from .judges.panel import Bylaws, Panel, Rule

    try:
        bylaws = Bylaws.of(Rule(found.rule), len(found.members), found.quorum)
    except ValueError as error:
        raise ConfigurationError(one_line(f"judges.{name}: {error}", 400)) from None
    inside = (*within, name)
    members = [_built(member, settings, build, inside, leaves) for member in found.members]
    _refuse_twins(found.members, members, f"judges.{name}.members")
    return Panel(members, bylaws)


def _refuse_twins(names: Sequence[str], judges: Sequence[Judge], where: str) -> None:
    """One judge under two names would have two votes, or be asked again for another word."""
    first: dict[str, str] = {}
    for name, judge in zip(names, judges, strict=True):
        if (other := first.setdefault(judge.identity, name)) != name or names.count(name) > 1:
            raise ConfigurationError(
                one_line(f"{where}: '{other}' and '{name}' are the same judge; keep one", 400)
            )


def _within_limits(first: JudgeSettings, leaves: Sequence[Leaf]) -> JudgeSettings:
    """With the narrowest limits of all parts: each may be asked about each answer."""
    known = [first, *(leaf.settings for leaf in leaves)]
    limits = {
        name: min((n for one in known if (n := getattr(one, name)) is not None), default=None)
        for name in ("requests_per_minute", "tokens_per_minute")
    }
    return first.model_copy(update=limits)


def _is_same(leaf: Leaf, target: ModelIdentity, base_url: str | None) -> bool:
    for model, address in _models(leaf):
        if model.strip().casefold() != target.model.strip().casefold():
            continue
        mine, other = _address(address), _address(target.endpoint or base_url)
        # Weights have one name wherever they are served; `model` at two places may be two.
        if mine is None or other is None or mine == other or "/" in model:
            return True
    return False


def _models(leaf: Leaf) -> Iterator[tuple[str, str | None]]:
    """The models behind a judge, with their addresses: as it says, and as it is configured."""
    declared = getattr(leaf.judge, "model", None)
    if isinstance(declared, ModelIdentity):
        yield declared.model, declared.endpoint
    configured = getattr(leaf.settings, "model", None)
    if isinstance(configured, str):
        yield configured, getattr(leaf.settings, "base_url", None)


def _address(url: str | None) -> tuple[str, int | None, str] | None:
    """A server's address in one spelling."""
    if url is None:
        return None
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError:
        return (url, None, "")
    host = (parts.hostname or "").rstrip(".")
    host = "127.0.0.1" if host in ("localhost", "::1") else host
    return host, port or _PORTS.get(parts.scheme), parts.path.rstrip("/")
