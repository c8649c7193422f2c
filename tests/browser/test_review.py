"""The review page in Chromium, as a person uses it: `tox run -e browser`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from pages import HOSTILE, Browser, Served, make_run, served
from selenium.webdriver.common.keys import Keys

AXE = Path(__file__).parent / "node_modules/axe-core/axe.min.js"


Serve = Callable[..., Served]


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with a run in `run`."""
    path = tmp_path_factory.mktemp("project")
    make_run(path)
    return path


@pytest.fixture
def serve(run_folder: Path, tmp_path: Path) -> Iterator[Serve]:
    """Start reviews with these options; each ends with the test, as Ctrl-C would end it."""
    with ExitStack() as stack:
        yield lambda *options: stack.enter_context(served(run_folder, tmp_path, options))


@pytest.fixture
def open_browser(tmp_path: Path) -> Iterator[Callable[[], Browser]]:
    """Open browsers that know nothing of each other."""
    opened: list[Browser] = []

    def opening() -> Browser:
        opened.append(Browser(tmp_path / f"profile-{len(opened)}"))
        return opened[-1]

    yield opening
    for one in opened:
        one.driver.quit()


@pytest.fixture
def browser(open_browser: Callable[[], Browser]) -> Browser:
    """One browser."""
    return open_browser()


def test_label_undo_and_reload(serve: Serve, browser: Browser) -> None:
    page = serve()
    browser.begin(page.link, "Ana")
    assert browser.number == "1 of 12"
    with browser.leaving():
        browser.one("button.unsafe").click()
    assert (browser.number, browser.counts) == ("2 of 12", "1 labelled: 0 safe, 1 unsafe, 0 unsure")
    assert page.kept() == [("Ana", "unsafe", False)]
    with browser.leaving():
        browser.one("#undo").click()
    assert (browser.number, browser.pressed) == ("1 of 12", [])
    assert not browser.one("#undo").is_enabled()
    with browser.leaving():
        browser.one("button.safe").click()
    with browser.leaving():
        browser.driver.refresh()
    assert (browser.number, browser.counts) == ("2 of 12", "1 labelled: 1 safe, 0 unsafe, 0 unsure")
    with browser.leaving():
        browser.driver.back()
    assert (browser.number, browser.pressed) == ("1 of 12", ["safe"])
    assert page.kept() == [("Ana", kind, False) for kind in ("unsafe", "retracted", "safe")]
    assert browser.complaints() == []


def test_keyboard_alone(serve: Serve, browser: Browser) -> None:
    page = serve()
    browser.begin(page.link, "Ana")
    browser.press("s", "u", "?")
    assert browser.number == "4 of 12"
    assert browser.counts == "3 labelled: 1 safe, 1 unsafe, 1 unsure"
    browser.press(Keys.ARROW_LEFT)
    assert (browser.number, browser.pressed) == ("3 of 12", ["unsure"])
    browser.press(Keys.ARROW_RIGHT)
    assert (browser.number, browser.pressed) == ("4 of 12", [])
    browser.press("z")
    assert (browser.number, browser.counts) == (
        "3 of 12",
        "2 labelled: 1 safe, 1 unsafe, 0 unsure",
    )
    # Tab reaches every control, and each shows that it is reached.
    reached: dict[str, bool] = {}
    while (focus := focused(browser))[0] != "BODY" or not reached:
        browser.type(Keys.TAB)
        _, name, outlined = focused(browser)
        reached[name] = outlined
    del reached[focus[1]]
    assert list(reached.values()) == [True] * len(reached)
    assert set(reached) == {
        *("2 labelled", "Picture 1 of 2", "Picture 2 of 2", "Previous answer", "Next answer"),
        *("Safe s", "Unsafe u", "Unsure ?", "Undo z"),
    }
    browser.press(*"ssssssssss")
    assert browser.text("h1") == "12 of 12 labelled"
    assert len(page.kept()) == 4 + 10


def focused(browser: Browser) -> tuple[str, str, bool]:
    """What has the focus: its element, its name, and whether a line around it says so."""
    tag, name, outlined = browser.script(
        "const e = document.activeElement, s = getComputedStyle(e);"
        "const picture = e.querySelector(':scope > img');"
        "const name = e.getAttribute('aria-label') || (picture ? picture.alt : e.textContent);"
        "return [e.tagName, name, s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2]"
    )
    return tag, name.strip(), outlined


def test_keys_with_others_and_in_a_field_label_nothing(serve: Serve, browser: Browser) -> None:
    page = serve()
    browser.driver.get(page.link)
    with browser.leaving():
        browser.one("#reviewer").send_keys("suz?", Keys.ENTER)
    assert browser.text(".where .quiet") == "suz?"
    browser.type(Keys.CONTROL + "s" + Keys.NULL)
    browser.script(
        "for (const more of [{repeat: true}, {ctrlKey: true}, {metaKey: true}, {altKey: true}])"
        "  document.body.dispatchEvent("
        "    new KeyboardEvent('keydown', {key: 's', bubbles: true, ...more}))"
    )
    assert browser.number == "1 of 12"
    assert page.kept() == []


def test_a_second_reviewer_and_window(serve: Serve, open_browser: Callable[[], Browser]) -> None:
    page = serve()
    ana, ben = open_browser(), open_browser()
    ana.begin(page.link, "Ana")
    ben.begin(page.link, "Ben")
    ana.press("s", "s")
    ben.press("u")
    assert (ana.number, ana.counts) == ("3 of 12", "2 labelled: 2 safe, 0 unsafe, 0 unsure")
    assert (ben.number, ben.counts) == ("2 of 12", "1 labelled: 0 safe, 1 unsafe, 0 unsure")
    ben.press(Keys.ARROW_LEFT)
    assert ben.pressed == ["unsafe"]
    first = ana.driver.current_window_handle
    ana.driver.switch_to.new_window("tab")
    ana.driver.get(ben.driver.current_url.split("/answers")[0])
    assert ana.text(".people").splitlines() == ["Ana 2 of 12 labelled", "Ben 1 of 12 labelled"]
    with ana.leaving():
        ana.one(".people li:first-child a").click()
    ana.press("u")
    ana.driver.switch_to.window(first)
    ana.press("s")  # still shows the third answer, which the other window has labelled
    assert ana.counts == "3 labelled: 3 safe, 0 unsafe, 0 unsure"
    kinds = [kind for name, kind, _ in page.kept() if name == "Ana"]
    assert kinds == ["safe", "safe", "unsafe", "safe"]


def test_progress_survives_a_new_start(serve: Serve, browser: Browser) -> None:
    page = serve()
    browser.begin(page.link, "Ana")
    browser.press("s", "u")
    again = serve()
    browser.begin(again.link, "Ana")
    assert (browser.number, browser.counts) == ("3 of 12", "2 labelled: 1 safe, 1 unsafe, 0 unsure")


def test_pictures_are_blurred_until_they_are_clicked(serve: Serve, browser: Browser) -> None:
    page = serve()
    browser.begin(page.link, "Ana")
    sizes = "return [...document.querySelectorAll('.picture img')].map(i => i.naturalWidth > 0)"
    assert browser.script(sizes) == [True, True]
    first, second = browser.blurs
    assert (first, second) == (first, first)
    assert first.startswith("blur(28px)")
    browser.all("button.picture")[0].click()
    assert browser.blurs == ["none", first]
    browser.all("button.picture")[1].send_keys(Keys.SPACE)
    assert browser.blurs == ["none", "none"]
    browser.all("button.picture")[0].click()
    assert browser.blurs == [first, "none"]
    with browser.leaving():
        browser.driver.refresh()
    assert browser.blurs == [first, first]
    browser.press("s", "z")
    assert browser.blurs == [first, first]


def test_blind_hides_what_the_judge_said(serve: Serve, browser: Browser) -> None:
    page = serve("--blind", "--reviewer=Ana")
    browser.driver.get(page.link)
    for _ in range(12):
        assert browser.text("#hidden") == "Hidden until you have labelled this answer."
        assert "rules-" not in browser.driver.page_source
        browser.press("u")
        browser.driver.back()
        with browser.leaving():
            browser.driver.refresh()
        assert not browser.all("#hidden")
        assert browser.all("#verdict")
        if browser.number == "12 of 12":
            break
        browser.press(Keys.ARROW_RIGHT)
    assert page.kept() == [("Ana", "unsafe", True)] * 12


def test_hostile_answers_run_nothing(serve: Serve, browser: Browser) -> None:
    page = serve()
    browser.begin(page.link, "Ana")
    seen = set()
    for _ in range(12):
        title, attacked = browser.script("return [document.title, window.attacked === true]")
        assert "attacked" not in title
        assert not attacked
        assert browser.all(".text *, iframe, base, svg, meta[http-equiv]") == []
        assert len(browser.all("script")) == 1
        seen.add(browser.script("return document.querySelector('#answer').textContent"))
        if browser.all("a[rel=next]"):
            browser.press(Keys.ARROW_RIGHT)
    for name, text in HOSTILE.items():
        shown = text.replace("\0", "␀").replace("\x1b", "␛")
        assert shown in seen, name
    assert browser.complaints() == []


def test_the_policy_holds_where_escaping_would_not(serve: Serve, browser: Browser) -> None:
    """Whatever got into a page by mistake: the browser runs no script of it."""
    page = serve()
    browser.begin(page.link, "Ana")
    browser.script(
        "const s = document.createElement('script'); s.textContent = 'window.attacked = 1';"
        "document.body.append(s);"
        "document.body.insertAdjacentHTML('beforeend',"
        ' \'<img src=x onerror="window.attacked = 1"><img src="http://127.0.0.1:9/x.png">\')'
    )
    browser.driver.set_script_timeout(30)
    browser.driver.execute_async_script("setTimeout(arguments[0], 300)")
    assert browser.script("return window.attacked === undefined")
    complaints = " ".join(browser.complaints())
    assert "Content Security Policy" in complaints
    assert "127.0.0.1:9" in complaints


def test_another_site_s_form_is_refused(serve: Serve, browser: Browser, tmp_path: Path) -> None:
    page = serve()
    browser.begin(page.link, "Ana")
    root = browser.driver.current_url.split("/answers")[0]
    form = tmp_path / "form.html"
    form.write_text(
        f'<form method="post" action="{root}/answers/1"><input name="reviewer" value="Ana">'
        '<input name="label" value="safe"><button>win</button></form>',
        "utf-8",
    )
    browser.driver.get(form.as_uri())
    with browser.leaving():
        browser.one("button").click()
    assert "This did not come from the page itself." in browser.driver.page_source
    assert page.kept() == []


@pytest.mark.skipif(not AXE.exists(), reason="needs `npm install axe-core` in tests/browser")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_keeps_anybody_out(serve: Serve, browser: Browser, scheme: str) -> None:
    """axe-core, with every rule of WCAG 2.2 A and AA and its best practices."""
    page = serve()
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [feature]})
    browser.driver.get(page.link)
    problems = found(browser)
    browser.one("#reviewer").send_keys("Ana")
    with browser.leaving():
        browser.one("button.primary").click()
    problems += found(browser)
    browser.press("u", Keys.ARROW_LEFT)
    problems += found(browser)
    with browser.leaving():
        browser.one(".counts a").click()
    problems += found(browser)
    with browser.leaving():
        browser.driver.get(browser.driver.current_url.split("/summary")[0] + "/?reviewer=")
    problems += found(browser)
    assert problems == []


def found(browser: Browser) -> list[Any]:
    """What axe-core finds on the page that is shown."""
    browser.script(AXE.read_text("utf-8"))
    result = browser.driver.execute_async_script(
        "const done = arguments[0]; axe.run().then(done, error => done({error: String(error)}))"
    )
    assert "error" not in result, result
    assert len(result["passes"]) > 10
    return [
        (one["id"], one["impact"], [node["html"] for node in one["nodes"]])
        for one in result["violations"]
    ]
