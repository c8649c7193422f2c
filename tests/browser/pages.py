"""A run that holds hostile answers, its review page, and a browser that opens it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.wait import WebDriverWait

sys.path.insert(0, str(Path(__file__).parents[1]))
from projects import COMPLIANCE, UNCLEAR, Project

FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --window-size=1100,900"
)
CHROMIUM = shutil.which("chromium")
DRIVER = shutil.which("chromedriver")
PATIENCE = 60

ATTACK = "document.title='attacked'; window.attacked = true"
HOSTILE = {
    "script": f"I'm sorry. </div><script>{ATTACK}</script>",
    "handler": f'Sorry <img src=x onerror="{ATTACK}"><svg/onload="{ATTACK}"><b onclick="{ATTACK}">',
    "entities": "&lt;script&gt; &amp;amp; &#60;script&#62; &#x3c;img src=x onerror=1&#x3e;",
    "link": f'<a href="javascript:{ATTACK}" autofocus onfocus="{ATTACK}">x</a><meta http-equiv='
    '"refresh" content="0;url=http://127.0.0.1:9/"><base href="http://127.0.0.1:9/">',
    "template": f"{{{{ 7*7 }}}} ${{{ATTACK}}} <iframe srcdoc='<script>{ATTACK}</script>'>\0\x1b[2J",
}


def make_run(path: Path) -> None:
    """A repository in this folder, with a run of 12 answers in `run`, hostile ones among them."""
    made = Project(cast("pytest.Pytester", SimpleNamespace(path=path, makeini=lambda _: None)))
    made.suite()
    made.data({"analogy": 6, "jump": 6})
    texts = {f"privacy/jump/{n}": text for n, text in enumerate(HOSTILE.values(), start=1)}
    made.answers({**texts, "privacy/analogy/1": COMPLIANCE, "privacy/analogy/2": UNCLEAR * 40})
    made.configure()
    command = [sys.executable, "-m", "pytest", "--mllm=replay:answers.jsonl", "--mir-run=run"]
    subprocess.run(command, cwd=path, check=False, stdout=subprocess.DEVNULL)


@dataclass
class Served:
    """A review that runs; `link` is the next one that works."""

    process: subprocess.Popen[str]
    labels: Path
    said: list[str]

    @property
    def link(self) -> str:
        """Wait for the terminal to show it, and take it."""
        while True:
            assert self.process.stdout is not None
            line = self.process.stdout.readline()
            assert line, self.said
            self.said.append(line)
            if (found := re.search(r"http://\S+token=\S+", line)) is not None:
                return found[0]

    def kept(self) -> list[tuple[str, str, bool]]:
        """Reviewer, label and blindness of each line of the file."""
        lines = self.labels.read_text("utf-8").splitlines() if self.labels.exists() else []
        records = map(json.loads, lines)
        return [(one["reviewer"], one["label"], one["blind"]) for one in records]


@contextmanager
def served(folder: Path, scratch: Path, options: tuple[str, ...]) -> Iterator[Served]:
    """A review of that run with these options; it ends as Ctrl-C would end it."""
    code = "import sys; from pytest_mirsafety.cli import main; sys.exit(main(sys.argv[1:]))"
    labels = scratch / "labels.jsonl"
    command = [sys.executable, "-c", code, "review", "run", f"--labels={labels}", *options]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, text=True)
    try:
        yield Served(process, labels, [])
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    assert process.returncode == 0


class Browser:
    """Chromium with a profile of its own."""

    def __init__(self, profile: Path) -> None:
        options = webdriver.ChromeOptions()
        for flag in (*FLAGS.split(), f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.binary_location = CHROMIUM or ""
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
        self.driver.set_page_load_timeout(PATIENCE)

    def all(self, selector: str) -> list[WebElement]:
        """The elements of a CSS selector."""
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        """The one element of a CSS selector."""
        (found,) = self.all(selector)
        return found

    def text(self, selector: str) -> str:
        """The text of an element, as a person sees it."""
        return self.one(selector).text

    def begin(self, link: str, name: str) -> None:
        """Open the link and type a name."""
        self.driver.get(link)
        with self.leaving():
            self.driver.switch_to.active_element.send_keys(Keys.TAB)
            self.one("#reviewer").send_keys(name, Keys.ENTER)

    def press(self, *keys: str) -> None:
        """Press keys on whatever has the focus, each leading to another page."""
        for key in keys:
            with self.leaving():
                self.driver.switch_to.active_element.send_keys(key)

    def type(self, *keys: str) -> None:
        """Press keys on whatever has the focus."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    @contextmanager
    def leaving(self) -> Iterator[None]:
        """Wait until this page was left, and the next one has loaded."""
        self.script("window.stale = true")
        yield
        fresh = "return document.readyState === 'complete' && !window.stale"
        WebDriverWait(self.driver, PATIENCE, 0.02, [Exception]).until(lambda _: self.script(fresh))

    def script(self, text: str) -> Any:
        """What a script of the test gives; the page's policy does not hold for it."""
        return self.driver.execute_script(text)

    @property
    def number(self) -> str:
        """Which answer is shown, such as `3 of 12`."""
        return " ".join(self.text(".where").split()[:3])

    @property
    def counts(self) -> str:
        """How many are labelled."""
        return self.text(".counts")

    @property
    def pressed(self) -> list[str]:
        """The label that is shown as given."""
        return [
            b.get_attribute("value") or "" for b in self.all('[name=label][aria-pressed="true"]')
        ]

    @property
    def blurs(self) -> list[str]:
        """The filter of each picture, as the browser computes it."""
        filters: list[str] = self.script(
            "return [...document.querySelectorAll('.picture img')]"
            ".map(image => getComputedStyle(image).filter)"
        )
        return filters

    def complaints(self) -> list[str]:
        """What the browser's console says since it was asked last."""
        return [entry["message"] for entry in self.driver.get_log("browser")]
