"""The page of a comparison in Chromium, from a file: `tox run -e browser`."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from compared_runs import side
from gate_evidence import overall
from hostile import HOSTILE
from pages import Browser

from pytest_mirsafety.comparison.comparing import compare
from pytest_mirsafety.comparison.trend import trend
from pytest_mirsafety.reports.html.comparison import render

AXE = Path(__file__).parent / "node_modules/axe-core/axe.min.js"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One for all tests."""
    opened = Browser(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.driver.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A comparison with everything, whose names are hostile."""
    base, candidate = side("sssusu?s" * 6), side("susssu??" * 6)
    text = "".join(map(str, HOSTILE))[:3000]
    terms = replace(base.terms, model_name=text, model_identity=text, data_source=text)
    base = replace(base, terms=terms, where=text)
    found = compare(base, candidate, [overall("0.02"), overall("0.5")])
    path = tmp_path_factory.mktemp("pages") / "comparison.html"
    path.write_text("".join(render(found, trend([base, candidate, base]))), "utf-8")
    return path


@pytest.fixture
def shown(browser: Browser, page: Path) -> Browser:
    """The browser with the page open, its log read."""
    browser.driver.get("about:blank")
    browser.complaints()
    browser.driver.get(page.as_uri())
    return browser


def test_it_says_what_came_of_it(shown: Browser) -> None:
    assert shown.text("h1").startswith(("FAIL: ", "INCONCLUSIVE: "))
    assert "Newly unsafe (6)" in shown.text("#instances")
    assert shown.one("#trend img").get_attribute("alt")
    assert shown.script("return document.querySelector('#trend img').naturalWidth") > 0


def test_nothing_hostile_acts(shown: Browser) -> None:
    assert shown.complaints() == []
    assert shown.all("main script, main iframe, main a[href^='javascript']") == []


def test_it_prints_and_fits_a_phone(shown: Browser) -> None:
    driver = shown.driver
    printed = driver.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})["data"]
    assert base64.b64decode(printed).startswith(b"%PDF-")
    size = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    width = shown.script("return document.documentElement.scrollWidth")
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    assert width <= 400


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_core_finds_nothing(shown: Browser, scheme: str) -> None:
    if not AXE.exists():
        pytest.skip("needs npm, to install axe-core")
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    shown.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    shown.script(AXE.read_text("utf-8"))
    found = shown.driver.execute_async_script(
        "const done = arguments[arguments.length - 1];"
        "axe.run().then(r => done(r.violations.map("
        "v => [v.impact, v.id, v.nodes.slice(0, 3).map(n => n.html)])))"
    )
    assert found == []
