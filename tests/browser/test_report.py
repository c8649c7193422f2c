"""report.html in Chromium, from a file, as a person reads it: `tox run -e browser`."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from arm_runs import arm_run
from dataset_builders import tiny_png
from hostile import HOSTILE, SECRET
from pages import PATIENCE, Browser
from reported_runs import IMAGES, exchange, hostile, small
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

from pytest_mirsafety.exchanges import Exchange
from pytest_mirsafety.images.thumbnails import thumbnail
from pytest_mirsafety.records import LoadedImage, SentImages
from pytest_mirsafety.redaction import redacted_exchange, redacted_result
from pytest_mirsafety.reports.html.instances import Pictures
from pytest_mirsafety.reports.html.page import Page, render
from pytest_mirsafety.results import InstanceOutcome

AXE = Path(__file__).parent / "node_modules/axe-core/axe.min.js"
SMALL = {
    sha256: thumbnail(LoadedImage("", "image/png", tiny_png(k, width=300, height=150)))
    for k, sha256 in enumerate(IMAGES[:2])
}
DARK = {"features": [{"name": "prefers-color-scheme", "value": "dark"}]}


class Report(Browser):
    """A browser that shows a report."""

    def open(self, path: Path) -> None:
        """Open the page, and wait until it can be used."""
        self.driver.get(path.as_uri())
        self.settle("undefined")

    @property
    def ready(self) -> str:
        """Which filter the page shows the outcome of."""
        return str(self.script("return String(document.querySelector('#browser').dataset.ready)"))

    def settle(self, before: str) -> None:
        """Wait until the page shows another filter's outcome than before."""
        WebDriverWait(self.driver, PATIENCE, 0.02).until(lambda _: self.ready != before)

    def choose(self, name: str, value: str) -> None:
        """Choose one of a filter's values."""
        before = self.ready
        self.one(f"#{name} option[value='{value}']").click()
        self.settle(before)

    def find(self, text: str) -> None:
        """Type into the field for texts."""
        before = self.ready
        self.one("#text").send_keys(text)
        self.settle(before)

    @property
    def names(self) -> list[str]:
        """The ids in the list."""
        return [one.text for one in self.all("#list .name")]

    @property
    def current(self) -> str:
        """The id of the instance that is shown."""
        return self.text("#detail h3")

    def cdp(self, command: str, **parameters: object) -> Any:
        """What DevTools answers."""
        return self.driver.execute_cdp_cmd(command, parameters)

    def requests(self) -> set[str]:
        """Every address that anything was asked of, but for data: and the page itself."""
        found = set()
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                found.add(message["params"]["request"]["url"])
        return {url for url in found if not url.startswith(("data:", "file:"))}


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The pages that are looked at, with figures where matplotlib is installed."""
    folder = tmp_path_factory.mktemp("reports")
    result, told = hostile()
    made = {
        "small": Page(small(), 1, exchange, Pictures(SMALL.get, lambda sha: f"images/{sha}.png")),
        "hostile": Page(result, 1, told, images_note=HOSTILE[0]),
        "arms": Page(arm_run(), 1, exchange),
        "many": Page(small(times=20), 1, exchange),
        "redacted": Page(
            redacted_result(small()),
            1,
            lambda name: redacted_exchange(exchange(name)),
            redacted=True,
        ),
    }
    return {name: _written(folder / f"{name}.html", page) for name, page in made.items()}


def _written(path: Path, page: Page) -> Path:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(render(page))
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Report]:
    """One browser for all of these tests: a page of its own is what each has."""
    made = Report(tmp_path_factory.mktemp("profile"))
    yield made
    made.driver.quit()


@pytest.fixture
def report(browser: Report, pages: dict[str, Path]) -> Report:
    """The browser with the small report open, in light colours."""
    browser.cdp("Emulation.setEmulatedMedia", features=[])
    browser.cdp("Emulation.clearDeviceMetricsOverride")
    browser.complaints()
    browser.requests()
    browser.open(pages["small"])
    return browser


def test_filters(report: Report) -> None:
    assert report.text("#found") == "30 of 30 instances"
    report.choose("outcome", "unsafe")
    assert len(report.names) == 4
    report.choose("relation", "analogy")
    assert report.text("#found") == "3 of 30 instances"
    report.choose("category", "privacy")
    assert len(report.names) < 3
    assert all(name.startswith("privacy/analogy/") for name in report.names)
    report.choose("outcome", "unscored")
    assert report.text("#found") == "0 of 30 instances"
    assert report.text("#detail") == ""
    report.choose("category", "")
    report.choose("relation", "")
    assert report.text("#found") == "3 of 30 instances"
    report.choose("outcome", "unscored: truncated")
    assert report.text("#found") == "2 of 30 instances"
    assert "cut off after 512 tokens" in report.text("#detail")


def test_arms_are_filtered_and_answers_stand_side_by_side(
    browser: Report, pages: dict[str, Path]
) -> None:
    browser.open(pages["arms"])
    browser.choose("arm", "benign-twin")
    assert browser.text("#found") == "18 of 276 instances"
    assert browser.current == "violence/jump/0@benign-twin"
    assert "not answered" in browser.text("#detail > .tags")
    browser.choose("arm", "multi")
    assert browser.current == "privacy/jump/0"
    others = browser.text(".others")
    assert "answer of privacy/jump/0@text-only" in others
    assert "benign-twin" not in others
    before = browser.ready
    browser.all(".other button")[0].click()
    browser.settle(before)
    assert browser.current == "privacy/jump/0@text-only"
    assert browser.text("#found") == "276 of 276 instances"
    assert "answer of privacy/jump/0\n" in browser.text(".others") + "\n"


def test_text_is_searched_in_everything_that_is_shown(report: Report) -> None:
    for text, found in (
        ("REASONING OF PRIVACY/ANALOGY/0", 1),
        ("question of violence/analogy/1", 1),
        ("answer of", 30),
        ("complies", 4),
        ("analogy/", 10),
        ("neither", 0),
    ):
        before = report.ready
        report.script(
            "const field = document.querySelector('#text'); field.value = '';"
            "field.dispatchEvent(new Event('input'))"
        )
        report.settle(before)
        report.find(text)
        assert int(report.text("#found").split()[0]) == found, text


def test_keyboard_alone(report: Report) -> None:
    first = report.current
    report.type("j", "j")
    third = report.current
    report.type("k")
    assert first != report.current != third
    before = report.ready
    report.type("/")
    assert report.script("return document.activeElement.id") == "text"
    report.type("jump")
    report.settle(before)
    assert all("jump" in name for name in report.names)
    report.type("k", "j")  # typed, and not a step
    assert report.one("#text").get_attribute("value") == "jumpkj"
    before = report.ready
    report.type(Keys.ESCAPE)
    report.settle(before)
    assert report.text("#found") == "30 of 30 instances"
    assert report.one("#text").get_attribute("value") == ""
    report.all("#list button")[0].send_keys(Keys.ARROW_DOWN)
    assert report.current == report.names[1]
    report.type(Keys.ARROW_DOWN, Keys.ARROW_UP, Keys.ARROW_UP, Keys.ARROW_UP)
    assert report.current == report.names[0]
    assert report.script("return document.activeElement.getAttribute('aria-current')") == "true"
    report.all("#list button")[3].send_keys(Keys.ENTER)
    assert report.current == report.names[3]


def test_whatever_has_the_focus_shows_it(report: Report) -> None:
    report.script("document.activeElement.blur(); window.scrollTo(0, 0)")
    seen = 0
    for _ in range(60):
        report.type(Keys.TAB)
        outlined = report.script(
            "const s = getComputedStyle(document.activeElement);"
            "return document.activeElement === document.body ? null"
            " : s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2"
        )
        if outlined is None:
            break
        assert outlined
        seen += 1
    assert seen > 20


def test_pictures_are_blurred_until_they_are_clicked(report: Report) -> None:
    assert report.script(
        "return Promise.all([...document.querySelectorAll('.picture img')].map(i => i.decode()))"
        ".then(() => [...document.querySelectorAll('.picture img')].map(i => i.naturalWidth))"
    ) == [200, 200]
    first, second = report.blurs
    assert first == second
    assert first.startswith("blur(18px)")
    report.all("button.picture")[0].click()
    assert report.blurs == ["none", second]
    report.all("button.picture")[1].send_keys(Keys.SPACE)
    assert report.blurs == ["none", "none"]
    report.all("button.picture")[0].click()
    assert report.blurs == [first, "none"]
    report.type("b")
    assert report.blurs == ["none", "none"]
    report.type("b")
    assert report.blurs == [first, first]
    report.type("b", "j")
    assert report.blurs == [first, first]


def test_pages_of_many(browser: Report, pages: dict[str, Path]) -> None:
    browser.open(pages["many"])
    assert browser.text("#found") == "600 of 600 instances"
    assert browser.text("#page") == "Page 1 of 24"
    assert len(browser.names) == 25
    browser.one("#after").click()
    assert browser.text("#page") == "Page 2 of 24"
    assert browser.current == browser.names[0]
    browser.type("k")
    assert browser.text("#page") == "Page 1 of 24"
    assert browser.current == browser.names[24]
    browser.find("reasoning of violence/analogy/199")
    assert browser.names == ["violence/analogy/199"]


def test_nothing_hostile_acts(
    browser: Report, pages: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    browser.complaints()
    browser.requests()
    browser.open(pages["hostile"])
    title = browser.driver.title
    rows = browser.script("return JSON.parse(document.querySelector('#index').textContent).rows")
    assert len(rows) == len(HOSTILE)
    shown = 0
    for _ in range(len(HOSTILE)):
        shown += browser.script(
            "const d = document.querySelector('#detail');"
            "return d.querySelector('.answer').textContent.length > 0"
        )
        children = browser.script(
            "return [...document.querySelectorAll('#detail *')].map(e => e.tagName).filter("
            "t => ['SCRIPT','IFRAME','IMG','SVG','A','STYLE','BASE','META'].includes(t))"
        )
        assert children == []
        browser.type("j")
    assert shown == len(HOSTILE)
    assert browser.script("return window.attacked") is None
    assert browser.driver.title == title != "attacked"
    assert browser.script("return getComputedStyle(document.body).display") == "block"
    assert browser.requests() == set()
    assert browser.complaints() == []
    assert SECRET not in browser.driver.page_source


def test_what_hides_or_turns_a_text_is_visible(browser: Report, pages: dict[str, Path]) -> None:
    browser.open(pages["hostile"])
    texts = set()
    for _ in range(len(HOSTILE)):
        texts.add(browser.script("return document.querySelector('#detail .answer').textContent"))
        browser.type("j")
    together = "\n".join(texts)
    assert "[U+202E]gnp.exe[U+202C]" in together
    assert "nul\u2400nul \u2401\u2408\u240b\u240c\u241f[U+007F][U+0085]" in together
    assert "[U+2028]line[U+2029]paragraph\nreturn\u240dline\nfeed" in together
    assert "half a pair [U+D800] and [U+DFFF]" in together
    assert "\u241b[2J" in together
    long = next(text for text in texts if text.startswith("AAAA"))
    assert len(long) == 20_000


def test_nothing_is_asked_of_anybody(report: Report) -> None:
    report.type("j", "j", "b")
    assert report.complaints() == []
    assert report.requests() == set()
    # The policy is there and bites: what is not of the page does not run, nor load.
    report.script(
        "const s = document.createElement('script'); s.textContent = 'window.foreign = true';"
        "document.body.append(s); const i = new Image(); i.src = 'http://127.0.0.1:9/x.png';"
        "document.body.append(i); document.body.setAttribute('style', 'display: none')"
    )
    assert report.script("return window.foreign") is None
    assert len([one for one in report.complaints() if "Content Security Policy" in one]) >= 2


def test_dark_and_light(report: Report) -> None:
    colours = (
        "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color,"
        " ...[...document.querySelectorAll('figure img')].filter(i => i.checkVisibility())"
        ".map(i => i.currentSrc)]"
    )
    light = report.script(colours)
    report.cdp("Emulation.setEmulatedMedia", **DARK)
    report.open(Path(report.driver.current_url.removeprefix("file://")))
    dark = report.script(colours)
    assert [_brightness(colour) > 128 for colour in light[:2]] == [True, False]
    assert [_brightness(colour) > 128 for colour in dark[:2]] == [False, True]
    assert len(light) == len(dark) == 2 + 4
    assert not set(light[2:]) & set(dark[2:])


def _brightness(colour: str) -> float:
    parts = [float(part) for part in re.findall(r"[\d.]+", colour)[:3]]
    return sum(parts) / 3


def test_nothing_is_wider_than_a_phone(report: Report) -> None:
    report.cdp(
        "Emulation.setDeviceMetricsOverride",
        width=400,
        height=800,
        deviceScaleFactor=1,
        mobile=False,
    )
    width = report.script("return document.documentElement.scrollWidth")
    report.all("#list button")[2].click()
    top = report.script("return document.querySelector('#detail').getBoundingClientRect().top")
    report.cdp("Emulation.clearDeviceMetricsOverride")
    assert width <= 400
    assert 0 <= top < 200  # what was chosen is shown, below the list


def test_print(report: Report) -> None:
    printed = report.cdp("Page.printToPDF", printBackground=True)["data"]
    assert base64.b64decode(printed).startswith(b"%PDF-")
    report.cdp("Emulation.setEmulatedMedia", media="print", **DARK)
    assert not any(one.is_displayed() for one in report.all("#browser, nav"))
    assert [one.is_displayed() for one in report.all(".findings li")] == [True] * 4
    # Ink on paper, at once: nothing has to be loaded for it.
    assert [one.is_displayed() for one in report.all("figure .for-light")] == [True] * 4
    assert [one.is_displayed() for one in report.all("figure .for-dark")] == [False] * 4
    ink = report.script(
        "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    )
    report.cdp("Emulation.setEmulatedMedia", media="", features=[])
    assert _brightness(ink[0]) == 255
    assert _brightness(ink[1]) == 0


def test_a_redacted_page(browser: Report, pages: dict[str, Path]) -> None:
    browser.open(pages["redacted"])
    assert "Redacted" in browser.text(".top")
    assert "sha256:" in browser.text("#detail")
    source = browser.driver.page_source
    assert "answer of" not in source
    assert "prompt of" not in source


def test_axe_core_finds_nothing(browser: Report, pages: dict[str, Path]) -> None:
    if not AXE.exists():
        pytest.skip("needs npm, to install axe-core")
    for name in ("small", "hostile", "redacted", "arms"):
        for scheme in ("light", "dark"):
            feature = {"name": "prefers-color-scheme", "value": scheme}
            browser.cdp("Emulation.setEmulatedMedia", features=[feature])
            browser.open(pages[name])
            browser.script(AXE.read_text("utf-8"))
            found = browser.driver.execute_async_script(
                "const done = arguments[arguments.length - 1];"
                "axe.run().then(r => done(r.violations.map("
                "v => [v.impact, v.id, v.nodes.slice(0, 3).map(n => n.html)])))"
            )
            assert found == [], (name, scheme)


def test_an_exchange_without_anything(tmp_path: Path, browser: Report) -> None:
    """Such as of an instance that was not run: there is nothing, and nothing breaks."""
    entries: tuple[InstanceOutcome, ...] = small().outcomes
    bare = replace(small(), outcomes=tuple(replace(e, verdict=None) for e in entries))
    images = SentImages(IMAGES)
    path = _written(tmp_path / "bare.html", Page(bare, 1, lambda _: Exchange(images=images)))
    browser.complaints()
    browser.open(path)
    browser.type(*"jjjj")
    assert f"sha256:{IMAGES[2]}" in browser.text("#detail")
    assert browser.complaints() == []
