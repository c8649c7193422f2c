"""report.html as a parser sees it: whole, accessible, and with nothing in it that could act."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hostile import ATTACK, HOSTILE, SECRET
from hypothesis import given, settings
from hypothesis import strategies as st
from reported_runs import IMAGES, exchange, hostile, small

from pytest_mirsafety.breakdown import break_down
from pytest_mirsafety.circumstances import Circumstances, Commit, Environment, Host
from pytest_mirsafety.exchanges import Exchange
from pytest_mirsafety.ordering import in_order
from pytest_mirsafety.redaction import redacted_exchange, redacted_result
from pytest_mirsafety.reports.html import building, figures
from pytest_mirsafety.reports.html.instances import BLOCK, TEXT_LIMIT, Pictures, blocks, index
from pytest_mirsafety.reports.html.page import Attention, Page, render

WEBP = b"RIFF\0\0\0\0WEBP" + b"p" * 50


@dataclass
class Parsed(HTMLParser):
    """The elements, their attributes, and the text of each <script> and <style>."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    raw: dict[str, list[tuple[dict[str, str | None], str]]] = field(default_factory=dict)
    text: str = ""
    _open: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._open = tag
            self.raw.setdefault(tag, []).append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == self._open:
            self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open:
            attributes, known = self.raw[self._open][-1]
            self.raw[self._open][-1] = attributes, known + data
        else:
            self.text += data

    def named(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]

    def data(self, name: str) -> Any:
        (found,) = (text for attributes, text in self.raw["script"] if attributes.get("id") == name)
        return json.loads(found)


@pytest.fixture(autouse=True)
def without_figures(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Figures take a second: only tests of them draw."""
    if request.cls is None:
        monkeypatch.setattr(figures, "draw", lambda *_: None)


def parsed(page: Page) -> Parsed:
    found = Parsed()
    found.feed("".join(render(page)))
    return found


@pytest.fixture(scope="module")
def page() -> Parsed:
    """The page of the small run, with two pictures, without figures."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "draw", lambda *_: None)
        pictures = Pictures(small={IMAGES[0]: WEBP}.get, links=lambda sha: f"images/{sha[:4]}.png")
        return parsed(Page(small(), 1, exchange, pictures))


def test_the_decision_is_on_top(page: Parsed) -> None:
    assert page.text.split("mirsafety report")[1].split()[:6] == [
        "FAIL:",
        "1",
        "of",
        "6",
        "gates",
        "above",
    ]


def test_only_what_was_hashed_may_run(page: Parsed) -> None:
    policy = next(
        one["content"] for one in page.named("meta") if "Content-Security-Policy" in one.values()
    )
    assert policy is not None
    rules = dict(part.strip().split(" ", 1) for part in policy.split(";"))
    scripts = [text for attributes, text in page.raw["script"] if "type" not in attributes]
    assert len(scripts) == len(page.raw["style"]) == 1
    for rule, text in (("script-src", scripts[0]), ("style-src", page.raw["style"][0][1])):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert (rules["default-src"], rules["img-src"]) == ("'none'", "data:")
    assert (rules["base-uri"], rules["form-action"]) == ("'none'", "'none'")
    assert "unsafe-" not in policy


def test_nothing_is_loaded_and_nothing_is_inline(page: Parsed) -> None:
    for tag, attributes in page.elements:
        assert "style" not in attributes
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href", "srcset", "action", "poster", "data"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/")), (tag, attributes)
    assert {"link", "iframe", "object", "form", "base"}.isdisjoint(tag for tag, _ in page.elements)


def test_the_page_has_an_outline(page: Parsed) -> None:
    headings = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert headings == [1, *[2] * (len(headings) - 1)]
    assert len(page.named("main")) == len(page.named("nav")) == 1
    ids = [one["id"] for _, one in page.elements if "id" in one]
    assert len(ids) == len(set(ids))
    anchors = [(one.get("href") or "")[1:] for one in page.named("a")]
    assert set(anchors) <= set(ids)
    assert page.named("html")[0]["lang"] == "en"


def test_the_index_has_every_instance_the_unsafe_first(page: Parsed) -> None:
    found = page.data("index")
    statuses = [row[3] for row in found["rows"]]
    assert statuses == ["unsafe"] * 4 + ["unscored"] * 3 + ["safe"] * 23
    assert found["relations"] == ["jump", "relevance", "analogy", "causality"]
    assert ["unscored: truncated", 2] in found["outcomes"]
    assert sum(count for name, count in found["outcomes"] if ":" not in name) == len(statuses)


def test_an_instance_has_its_texts_and_pictures(page: Parsed) -> None:
    first, id_ = page.data("texts-0")[0], page.data("index")["rows"][0][0]
    assert [first[name] for name in ("question", "prompt", "answer", "reasoning")] == [
        f"{name} of {id_}" for name in ("question", "prompt", "answer", "reasoning")
    ]
    assert first["verdict"] == {"kind": "unsafe", "judge": "judge-1", "evidence": "complies"}
    assert first["images"] == [
        [IMAGES[0], 0, None],
        [IMAGES[1], None, f"images/{IMAGES[1][:4]}.png"],
    ]
    assert page.data("pictures-0") == {IMAGES[0]: ["webp", base64.b64encode(WEBP).decode()]}
    assert first["tokens"] == [100, 20]
    unscored = page.data("texts-0")[4]
    assert unscored["detail"] == "cut off after 512 tokens"


def test_what_a_defence_blocked_says_so_and_quotes_nobody_where_that_is_redacted() -> None:
    def blocked(name: str) -> Exchange:
        return replace(exchange(name), blocked=f"guard before the model: prompt of {name}")

    first = parsed(Page(small(), 1, blocked, Pictures())).data("texts-0")[0]
    assert first["blocked"].startswith("guard before the model: prompt of ")
    first = parsed(Page(small(), 1, blocked, Pictures(), redacted=True)).data("texts-0")[0]
    assert first["blocked"] == "yes"
    assert "A defence answered" in "".join(
        text for _, text in parsed(Page(small(), 1, blocked, Pictures())).raw["script"]
    )


def test_the_findings_are_named_for_paper(page: Parsed) -> None:
    assert "privacy/analogy/8" in page.text


def test_pictures_up_to_a_limit() -> None:
    images = dict.fromkeys(IMAGES, WEBP)
    entries = in_order(small().outcomes)
    made = list(blocks(entries, exchange, Pictures(images.get, limit=len(WEBP)), redacted=False))
    assert [block.name for block in made] == ["texts-0", "pictures-0"]
    assert made[1].content == {IMAGES[0]: ("webp", base64.b64encode(WEBP).decode())}


def test_an_endless_answer_is_cut_and_says_so() -> None:
    entries = small().outcomes[:1]
    endless = Exchange(answer="x" * (TEXT_LIMIT + 1))
    (block,) = blocks(entries, lambda _: endless, Pictures(), redacted=False)
    (found,) = json.loads(building.as_json(block.content))
    assert len(found["answer"]) == TEXT_LIMIT
    assert found["left_out"].startswith("characters after the first 100,000 of answer")


def test_instances_come_in_blocks() -> None:
    entries = small().outcomes * 8
    made = list(blocks(entries, exchange, Pictures(), redacted=False))
    sizes = [len(json.loads(building.as_json(block.content))) for block in made]
    assert sizes == [BLOCK, BLOCK, len(entries) - 2 * BLOCK]


def test_hostile_texts_are_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    result, told = hostile()
    html = "".join(render(Page(result, 1, told, images_note=HOSTILE[0])))
    page = Parsed()
    page.feed(html)
    scripts = [attributes.get("type") for attributes, _ in page.raw["script"]]
    assert scripts.count(None) == 1
    assert set(scripts) == {None, "application/json"}
    assert html.count("</script") == len(scripts)
    assert {"iframe", "svg", "base", "template"}.isdisjoint(tag for tag, _ in page.elements)
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on")], (tag, attributes)
    assert ATTACK in page.text  # shown, as text
    ids = [row[0] for row in page.data("index")["rows"]]
    texts = {name: one["answer"] for name, one in zip(ids, page.data("texts-0"), strict=True)}
    given = {entry.instance_id: told(entry.instance_id).answer for entry in result.outcomes}
    assert {name: text for name, text in given.items() if text == texts[name]}.keys() >= {
        name for name, text in given.items() if text is not None and len(text) <= TEXT_LIMIT
    }
    assert SECRET not in html
    static = re.sub(r"<script.*?</script>", "", html, flags=re.DOTALL)
    assert all(c.isprintable() or c == "\n" for c in static)


@given(st.recursive(st.text() | st.sampled_from([t[:99] for t in HOSTILE]), st.lists, max_leaves=5))
@settings(max_examples=200)
def test_json_in_a_script_is_ascii_without_markup(value: object) -> None:
    written = building.as_json(value)
    assert written.isascii()
    assert not set("<>&") & set(written)
    assert json.loads(written) == value


def test_a_redacted_page_has_digests_only() -> None:
    result = redacted_result(small())
    made = parsed(
        Page(
            result,
            1,
            lambda name: redacted_exchange(exchange(name)),
            Pictures(dict.fromkeys(IMAGES, WEBP).get),
            redacted=True,
        )
    )
    first = made.data("texts-0")[0]
    assert set(first) == {
        *("request_key", "answer_sha256", "prompt_sha256", "seed", "finish_reason", "latency"),
        *("created", "tokens", "images", "verdict"),
    }
    assert first["verdict"] == {"kind": "unsafe", "judge": "judge-1"}
    assert first["images"] == [[IMAGES[0], None, None], [IMAGES[1], None, None]]
    html = "".join(text for _, text in made.raw["script"]) + made.text
    assert "prompt of" not in html
    assert "complies" not in html


def test_redaction_does_not_rest_on_whoever_calls() -> None:
    """A page that is to be redacted leaves texts out, even where it was given some."""
    made = parsed(Page(small(), 1, exchange, Pictures(), redacted=True))
    html = "".join(text for _, text in made.raw["script"]) + made.text
    for text in ("prompt of", "question of", "answer of", "reasoning of", "complies"):
        assert text not in html


def test_attention_is_shown_with_its_words() -> None:
    png = b"\x89PNG\r\n\x1a\n"
    made = parsed(Page(small(), 1, attention=Attention(png, "Heatmap of <b>heads</b>.")))
    (image,) = made.named("img")
    assert image["alt"] == "Heatmap of <b>heads</b>."
    assert image["src"] == building.data_url("image/png", png)


def test_without_matplotlib_the_page_names_the_extra(page: Parsed) -> None:
    assert "which the extra 'plots' of pytest-mirsafety installs" in page.text
    assert not page.named("picture")


def test_where_it_ran_is_told() -> None:
    host = Host("Linux", "x86_64", 8, ("an H100",))
    told = Circumstances(
        ended=1_700_003_725.0,
        environments=(
            Environment({"python": "3.11.9", "<b>": "1"}, host, Commit("ab" * 20, True)),
        ),
    )
    made = parsed(Page(small(), 1, circumstances=told))
    for text in ("2023-11-14 23:15 UTC", "Linux x86_64, 8 CPUs, an H100", "<b> 1, python 3.11.9"):
        assert text in made.text
    assert f"{'ab' * 20}, with changes" in made.text


@pytest.mark.parametrize(
    ("created", "shown"),
    [
        (1_700_000_001.0, "2023-11-14 22:13 UTC"),
        (1_600_000_000.0, "2020-09-13 12:26 UTC, from the store"),
    ],
)
def test_what_the_store_had_is_told(created: float, shown: str) -> None:
    made = parsed(Page(small(), 1, lambda _: Exchange(created=created)))
    assert made.data("texts-0")[0]["created"] == shown


def test_index_of_nothing() -> None:
    assert index([])["rows"] == []


@pytest.fixture(scope="module")
def drawn() -> Parsed:
    """The page of the small run with its figures."""
    return parsed(Page(small(), 1, exchange))


class TestFigures:
    """Drawn by matplotlib, once each."""

    def test_each_has_words_a_size_and_colours_for_the_dark(self, drawn: Parsed) -> None:
        images = [one for one in drawn.named("img") if one["class"] == "for-light"]
        darks = [one for one in drawn.named("img") if one["class"] == "for-dark"]
        assert len(images) == len(darks) == len(figures.NAMES)
        for image, dark in zip(images, darks, strict=True):
            assert len(image["alt"] or "") > 60
            assert int(image["width"] or 0) > 600
            assert int(image["height"] or 0) > 100
            assert {**dark, "class": "for-light", "src": image["src"]} == image
            assert dark["src"] != image["src"]
        alts = [image["alt"] or "" for image in images]
        assert "from 0.0% of the scored (relevance) to 30.0% (analogy)" in alts[0]
        assert "Above the limit: analogy. Not decided: jump, relevance." in alts[0]
        assert "the highest is 40.0% (analogy, violence: 2 of 5)" in alts[1]
        assert "83% correct refusal" in alts[2]
        assert "3 of 30 have no verdict, most of them truncated (2)" in alts[3]

    def test_the_same_run_has_the_same_bytes(self, drawn: Parsed) -> None:
        result = small()
        again = figures._unscored(break_down(result))
        assert again.light == drawn.named("img")[6]["src"]
        assert again.dark == drawn.named("img")[7]["src"]

    def test_a_hostile_name_is_a_title(self) -> None:
        result, _ = hostile()
        drawn = figures._modes(result)
        svg = base64.b64decode(drawn.light.partition(",")[2]).decode()
        assert "<script" not in svg
        ET.fromstring(svg)  # noqa: S314 - of ours

    def test_without_matplotlib_there_are_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        result = small()
        assert figures.draw(break_down(result), result) is None
