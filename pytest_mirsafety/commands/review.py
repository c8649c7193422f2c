"""`mirsafety review`: a local page on which people label a sample of a run's answers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import ConfigurationError, DataError, MissingExtraError
from ..labelling import DRAW_SEED
from ..printable import one_line

if TYPE_CHECKING:
    from ..records import ImageRef, LoadedImage
    from ..results import RecordedRun
    from ..review import Review, Sizes
    from . import Commands

_DEFAULT_SIZE: Final = 100
_LONGEST_SEED: Final = 200
_PARTS: Final = ("safe", "unsafe", "unscored")


def add(commands: Commands) -> None:
    """Declare the command."""
    parser = commands.add_parser("review", help="label a sample of a run's answers, in a browser")
    parser.add_argument("folder", type=Path, metavar="RUN", help="a run folder (--mir-run)")
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        default=Path("labels.jsonl"),
        help="where labels are kept, and found again (labels.jsonl)",
    )
    parser.add_argument("--sample", type=int, metavar="N", help=f"answers in all ({_DEFAULT_SIZE})")
    for part in _PARTS:
        parser.add_argument(
            f"--{part}", type=int, metavar="N", help=f"answers of those that are {part}"
        )
    parser.add_argument(
        "--seed", default=DRAW_SEED, help="draws another sample, which labels and reports then say"
    )
    parser.add_argument("--blind", action="store_true", help="hide verdicts until labelled")
    parser.add_argument("--reviewer", metavar="NAME", help="who labels, instead of asking")
    parser.add_argument("--data", metavar="SOURCE", help="where the run's data is now")
    parser.add_argument("--port", type=int, default=0, help="of 127.0.0.1 (any that is free)")
    parser.add_argument("--open", action="store_true", help="open the page in a browser")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> None:
    """Draw the sample, say where the page is, and serve it until Ctrl-C.

    Raises:
        RunError: the run, its data or the labels cannot be read, or the port cannot be had.
        MissingExtraError: the packages that serve the page are not installed.
    """
    try:
        from .. import review as page
    except ImportError:
        raise MissingExtraError("mirsafety review", "review") from None

    made = prepare(options)
    listener = page.bind(options.port)
    keys = page.Keys(listener.getsockname()[1], lambda link: _say(f"another window: {link}"))
    for line in _about(made, options.labels):
        _say(line)
    _say(f"open {keys.link}  (works once; Ctrl-C ends the review)")
    if options.open:
        import webbrowser

        webbrowser.open(keys.link)
    page.serve(page.application(made, keys), listener)
    _say("")
    for name in made.reviewers():
        standing = made.standing(name)
        _say(f"{name}: {len(standing.labels)} of {standing.total} labelled")
    _say(f"labels: {one_line(str(options.labels))}")


def prepare(options: argparse.Namespace) -> Review:
    """The review that the options ask for.

    Raises:
        RunError: something of it cannot be had; one line says what.
    """
    from .. import labels, recorded_data, run_folder
    from ..images import ImageLimits, ImageReader
    from ..review import Item, Review, draw
    from ..review.app import reviewer_name

    recorded = run_folder.read(options.folder)
    run_folder.refuse_trials(recorded, "review")
    if recorded.redacted:
        raise DataError(
            f"{recorded.where}: was redacted, so there are no answers to read; review the folder "
            "of a run without --mir-redact"
        )
    exchanges = run_folder.Exchanges([(options.folder, recorded)])
    seed = _chosen_seed(options.seed)
    drawn = draw(recorded.outcomes, recorded.digest, _sizes(options), options.seed)
    if not drawn:
        raise DataError(_without_answers(recorded))
    dataset = recorded_data.load(recorded.provenance, options.data)
    instances = {instance.id: instance for instance in dataset.instances}
    items = []
    for one in drawn:
        if (instance := instances.get(one.entry.instance_id)) is None:
            raise DataError(f"{recorded.where}: {one.entry.instance_id} is not in its data")
        exchange = exchanges(instance.id)
        items.append(Item(one, instance, exchange.answer if exchange else None))
    reviewer = None
    if options.reviewer is not None and (reviewer := reviewer_name(options.reviewer)) is None:
        raise ConfigurationError("--reviewer: write a name of up to 100 characters")
    book = labels.LabelFile(options.labels)
    book.standing()  # whatever is wrong with it is said now
    reader = ImageReader(ImageLimits(), None)

    def image(ref: ImageRef) -> LoadedImage:
        return reader.fill(ref, reader.inspect(ref))

    return Review(
        run=recorded.digest,
        where=recorded.where,
        judge=recorded.provenance.judge,
        items=tuple(items),
        book=book,
        image=image,
        labels=str(options.labels),
        reviewer=reviewer,
        blind=options.blind,
        seed=seed,
    )


def _chosen_seed(seed: str) -> str | None:
    """The seed, if it is another than the usual one.

    Raises:
        ConfigurationError: it cannot be written down.
    """
    if len(seed) > _LONGEST_SEED or not seed.isprintable():  # nor is half a surrogate pair
        raise ConfigurationError(f"--seed: write up to {_LONGEST_SEED} printable characters")
    return None if seed == DRAW_SEED else seed


def _sizes(options: argparse.Namespace) -> Sizes:
    from ..review import Sizes, Stratum

    parts = {Stratum(name): n for name in _PARTS if (n := getattr(options, name)) is not None}
    total = options.sample
    if total is None and not parts:
        total = _DEFAULT_SIZE
    return Sizes(total, parts or None)


def _without_answers(recorded: RecordedRun) -> str:
    return (
        f"{recorded.where}: holds no answers: nothing was answered, or a version that kept none "
        "wrote it; run again with --mir-run"
    )


def _about(made: Review, path: Path) -> list[str]:
    """What was drawn, before the link."""
    from ..labels import of_another_draw

    of = {one.drawn.stratum: one.drawn.probability for one in made.items}
    parts = []
    for part, probability in sorted(of.items()):
        n = sum(item.drawn.stratum is part for item in made.items)
        parts.append(f"{n} {part} of {round(n / probability)}")
    blind = ", blind" if made.blind else ""
    lines = [
        f"{made.where}: {len(made.items)} answers to label{blind} ({', '.join(parts)})",
        f"labels: {one_line(str(path))}",
    ]
    if made.seed is not None:
        lines.append(
            f"seed chosen by hand: '{one_line(made.seed, 40)}': each label says so, and so does "
            "mirsafety calibrate"
        )
    others = of_another_draw(path, made.run, DRAW_SEED if made.seed is None else made.seed)
    lines += [f"{name} beside it has labels of another draw of this run" for name in others]
    return lines


def _say(line: str) -> None:
    print(line, flush=True)
