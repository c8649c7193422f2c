"""What teams build their own properties on: strategies that shrink to the identity."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from chat_endpoint import ChatEndpoint
from hypothesis import find, given, settings
from hypothesis import strategies as st
from projects import REFUSAL, Project
from scripted import MemoryStore, make_instance

from pytest_mirsafety import strategies
from pytest_mirsafety.edits import Edit
from pytest_mirsafety.images import ImageLimits, ImageReader
from pytest_mirsafety.records import Instance
from pytest_mirsafety.taxonomy import Category, Relation

INSTANCE = make_instance("a", images=["a", "b", "c"])
ALL = {
    "image_orders": strategies.image_orders(INSTANCE),
    "image_edits": strategies.image_edits(),
    "text_edits": strategies.text_edits(),
    "edits": strategies.edits(INSTANCE),
}
QUICK = settings(derandomize=True, database=None, deadline=None)


@pytest.mark.parametrize("name", ALL)
def test_the_simplest_edit_is_the_identity(name: str) -> None:
    assert find(ALL[name], lambda _: True, settings=QUICK) == Edit()


@pytest.mark.parametrize("name", ALL)
def test_an_edit_shrinks_to_one_weak_step(name: str) -> None:
    found = find(ALL[name], lambda edit: not edit.identity, settings=QUICK)
    assert len(found.steps) == 1
    assert found.strength <= 1 / 2


def test_strength_is_shrunk_as_far_as_it_goes() -> None:
    found = find(strategies.edits(INSTANCE), lambda edit: edit.strength >= 2, settings=QUICK)
    assert 2 <= found.strength <= 2.5


@settings(max_examples=25, deadline=None)
@given(strategies.instances(), st.data())
def test_drawn_instances_can_be_edited_and_sent(instance: Instance, data: st.DataObject) -> None:
    edit = data.draw(strategies.edits(instance))
    found = strategies.edited(instance, edit)
    reader = ImageReader(ImageLimits(), MemoryStore(), pixels=True)
    assert len([reader.inspect(ref) for ref in found.images]) == len(instance.images)
    assert (found is instance) == edit.identity


def test_instances_are_of_what_is_asked_for() -> None:
    drawn = strategies.instances(
        relations=st.just(Relation.JUMP),
        categories=st.just(Category.PRIVACY),
        prompts=st.just("Why?"),
        min_images=4,
    )
    found = find(drawn, lambda _: True, settings=QUICK)
    assert (found.relation, found.category, found.prompt) == ("jump", "privacy", "Why?")
    assert len(found.images) == 4


def test_without_hypothesis_one_line_says_which_extra_is_missing() -> None:
    code = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "try: import pytest_mirsafety.strategies\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == (
        "MissingExtraError pytest_mirsafety.strategies needs more packages: install "
        "pytest-mirsafety with the extra 'metamorphic'\n"
    )


PAGE = Path(__file__).parents[1] / "docs" / "reference" / "strategies.md"


def test_the_example_of_the_documentation_runs(project: Project) -> None:
    """A team's own property: it asks on the spot, and is stored, whatever hypothesis draws."""
    (example,) = re.findall(r"(?ms)^```python\n(.*?)^```", PAGE.read_text("utf-8"))
    project.data({"analogy": 1})
    project.suite(example)
    project.configure("thresholds.overall = 0.9")
    with ChatEndpoint(REFUSAL) as endpoint:
        for _ in range(2):
            result = project.run(model=f"{endpoint.url}#m")
            asked = len({request.images for request in endpoint.requests})
            assert len(endpoint.requests) == asked > 5  # each picture once
    result.assert_outcomes(passed=2)  # the instance and the gate
