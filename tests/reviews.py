"""A run to review, and a browser without a screen: the page's application, asked over ASGI."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from dataset_builders import tiny_png
from recorded_runs import World, world
from scripted import NO_SOURCE
from starlette.testclient import TestClient

from pytest_mirsafety import labels
from pytest_mirsafety.digests import text_digest
from pytest_mirsafety.errors import BadInputError
from pytest_mirsafety.records import ImageRef, Instance, LoadedImage, Outcome, Verdict, VerdictKind
from pytest_mirsafety.results import InstanceOutcome
from pytest_mirsafety.review import Item, Keys, Review, Sizes, application, draw
from pytest_mirsafety.taxonomy import Reason, Status

PORT = 4321
HOST = f"127.0.0.1:{PORT}"
RUN = "cd" * 32
PICTURE = tiny_png(7)
KINDS = {
    Status.SAFE: VerdictKind.SAFE,
    Status.UNSAFE: VerdictKind.UNSAFE,
    Status.UNSCORED: VerdictKind.UNDETERMINED,
}
SAFE = Outcome(Status.SAFE, detail="refuses")
UNSAFE = Outcome(Status.UNSAFE, detail="complies")
OPEN = Outcome(Status.UNSCORED, Reason.UNDETERMINED, "neither")


def judged(outcomes: Sequence[Outcome], texts: Mapping[int, str] | None = None) -> World:
    """A run in which each instance has an answer, and a verdict that fits its outcome."""
    texts = texts or {}
    made = world(outcomes)
    entries: list[InstanceOutcome] = [
        replace(
            entry,
            verdict=Verdict(KINDS[entry.outcome.status], "the judge", f"evidence {number}"),
            answer_sha256=text_digest(texts.get(number, f"answer {number}")),
        )
        for number, entry in enumerate(made.entries)
    ]
    return replace(made, entries=tuple(entries))


def read_image(ref: ImageRef) -> LoadedImage:
    """Every image but one that is named `broken` is the same small PNG."""
    if "broken" in ref.name:
        raise BadInputError(f"{ref.name}: is no\nimage")
    return LoadedImage("", "image/png", PICTURE)


def review_of(
    path: Path,
    outcomes: Sequence[Outcome] = (SAFE, SAFE, UNSAFE, OPEN),
    texts: Mapping[int, str] | None = None,
    *,
    sizes: Sizes | None = None,
    change: Mapping[str, Any] | None = None,
    **fields: Any,
) -> Review:
    """A review of such a run; its labels go to `path`. `change` changes every instance."""
    made = judged(outcomes, texts)
    answers = {i: (texts or {}).get(n, f"answer {n}") for n, i in enumerate(_ids(made))}
    refs = tuple(ImageRef(name, name, NO_SOURCE) for name in ("a.png", "broken.png", "c.png"))
    instances: dict[str, Instance] = {
        one.id: replace(one, **{"images": refs, **(change or {})}) for one in made.instances
    }
    drawn = draw(made.entries, RUN, sizes or Sizes(total=len(outcomes)), "1")
    return Review(
        run=RUN,
        where="runs/1",
        judge="the judge",
        items=tuple(
            Item(one, instances[one.entry.instance_id], answers[one.entry.instance_id])
            for one in drawn
        ),
        book=labels.LabelFile(path),
        image=read_image,
        labels=str(path),
        **fields,
    )


def _ids(made: World) -> list[str]:
    return [entry.instance_id for entry in made.entries]


class Page(TestClient):
    """A browser that has opened the link, and says where its requests come from."""

    def __init__(self, review: Review, *, opened: bool = True) -> None:
        self.keys = Keys(PORT)
        super().__init__(
            application(review, self.keys),
            base_url=f"http://{HOST}",
            follow_redirects=False,
            headers={"origin": f"http://{HOST}"},
        )
        if opened:
            assert self.get(f"/?token={self.keys.token}").status_code == 303

    def text(self, address: str) -> str:
        """A page, which must be there."""
        answer = self.get(address)
        assert answer.status_code == 200, answer.text
        return answer.text

    def label(self, number: int, kind: str, reviewer: str = "Ana") -> str:
        """Label an answer; gives the address that comes next."""
        answer = self.post(f"/answers/{number}", data={"label": kind, "reviewer": reviewer})
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    def undo(self, reviewer: str = "Ana") -> str:
        """Take the last label back; gives the address that comes next."""
        answer = self.post("/undo", data={"reviewer": reviewer})
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    def pressed(self, number: int, reviewer: str = "Ana") -> list[str]:
        """The label that an answer's page shows as given."""
        page = self.text(f"/answers/{number}?reviewer={reviewer}")
        return re.findall(r'value="(\w+)" class="\w+" aria-pressed="true"', page)
