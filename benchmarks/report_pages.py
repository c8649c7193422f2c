"""How long a report takes, how large it is, and when its page can be used, in Chromium.

    python benchmarks/report_pages.py 2676 20000

makes a run folder of so many instances, whose answers are of 250 words, and small copies of 2,500
images; then runs `mirsafety report` in a process of its own, and opens the page three times. The
budget is 2 seconds for 2,676 instances. Needs selenium, chromium and chromedriver for the page.
"""

from __future__ import annotations

import argparse
import io
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_mirsafety import run_folder
from pytest_mirsafety.digests import digest, text_digest
from pytest_mirsafety.evaluation import evaluate
from pytest_mirsafety.exchanges import Exchange
from pytest_mirsafety.gates import Criterion, Estimand, Rules, Scope
from pytest_mirsafety.records import Instance, Outcome, SafeMode, SentImages, Verdict, VerdictKind
from pytest_mirsafety.results import (
    GateDesign,
    InstanceOutcome,
    Provenance,
    RunDesign,
    ids_digest,
)
from pytest_mirsafety.run_folder import thumbnails
from pytest_mirsafety.taxonomy import PUBLISHED_TOTAL, Category, Reason, Relation, Status

if TYPE_CHECKING:
    from selenium.webdriver.remote.webdriver import WebDriver

IMAGES = 2_500
WORDS = ("the", "model", "shows", "a", "picture", "refuses", "because", "question", "safe")
OPENINGS = 3
KINDS = {Status.SAFE: VerdictKind.SAFE, Status.UNSAFE: VerdictKind.UNSAFE}
READY = (
    "return document.readyState === 'complete'"
    " && document.querySelector('#browser')?.dataset.ready !== undefined"
)
SEARCHED = "return document.querySelector('#browser').dataset.ready !== window.before"
SEARCH = """
window.before = document.querySelector('#browser').dataset.ready;
const field = document.querySelector('#text');
field.value = 'no text has this';
field.dispatchEvent(new Event('input'));
"""


def make(folder: Path, count: int) -> None:
    """A run of so many instances, of which 12% are unsafe and 2% unscored."""
    chance = random.Random(1)  # noqa: S311 - texts that look alike
    categories = list(Category)
    relations = [one for one in Relation for _ in range(one.published_count)]
    instances = [
        Instance(
            f"{categories[n % 6]}/{relation}/{n}", relation, categories[n % 6], f"{n // 5}", "", ()
        )
        for n, relation in enumerate(relations[n % PUBLISHED_TOTAL] for n in range(count))
    ]
    criteria = [
        *(Criterion(Scope.RELATION, str(name), Decimal("0.2")) for name in Relation),
        Criterion(Scope.OVERALL, "overall", Decimal("0.15")),
    ]
    design = RunDesign(
        gates=tuple(GateDesign(c, sum(map(c.covers, instances))) for c in criteria),
        rules=Rules(Estimand.MODEL, gates=len(criteria)),
        populations={r: sum(one.relation is r for one in instances) for r in Relation},
        planned=ids_digest(one.id for one in instances),
    )
    images = [digest(number) for number in range(IMAGES)]
    exchanges: dict[str, Exchange] = {}
    entries = []
    for one in instances:
        answer, outcome = _text(chance, 250), _outcome(chance)
        kind = KINDS.get(outcome.status)
        exchanges[one.id] = Exchange(
            question=_text(chance, 15),
            prompt=_text(chance, 80),
            answer=answer,
            finish_reason="stop",
            input_tokens=2000,
            output_tokens=300,
            latency=1.5,
            images=SentImages(tuple(chance.sample(images, 3))),
        )
        entries.append(
            InstanceOutcome(
                instance_id=one.id,
                relation=one.relation,
                category=one.category,
                seed=one.seed,
                outcome=outcome,
                gates=tuple(c.label for c in criteria if c.covers(one)),
                request_key=digest(one.id),
                verdict=None
                if kind is None
                else Verdict(kind, "a judge", outcome.detail, outcome.mode),
                answer_sha256=text_digest(answer),
            )
        )
    result = evaluate(design, entries, _provenance(count))
    run_folder.claim(folder)
    code = result.exit_code(tests_failed=False)
    run_folder.write(folder, result, tests_failed=False, exit_code=code, exchanges=exchanges.get)
    small = dict.fromkeys(images, _picture())
    thumbnails.write(folder / "thumbnails.zip", thumbnails.Thumbnails(small))


def _text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choices(WORDS, k=words))


def _outcome(chance: random.Random) -> Outcome:
    number = chance.random()
    if number < 0.12:  # noqa: PLR2004 - the shares that `make` promises
        return Outcome(Status.UNSAFE, detail="complies")
    if number < 0.14:  # noqa: PLR2004
        return Outcome(Status.UNSCORED, Reason.TRUNCATED, "cut off")
    return Outcome(Status.SAFE, detail="refuses", mode=chance.choice(list(SafeMode)))


def _provenance(count: int) -> Provenance:
    return Provenance(
        package_version="1",
        data_source="generated",
        data_identity=digest(count),
        data_revision=None,
        data_count=count,
        model_name="a model",
        model_identity="http:a-model",
        decoding="{}",
        system_prompt=None,
        judge="a judge",
        judge_screens=False,
        screening_may_pass=True,
        estimand=Estimand.MODEL,
        confidence=Decimal("0.95"),
        sample=None,
        sample_seed=None,
        thresholds_from="here",
        policy=(),
        attempt=1,
        answers_asked=count,
        answers_from_store=0,
        answers_recorded=False,
        oldest_answer=None,
        input_tokens=2000 * count,
        output_tokens=300 * count,
        started=0.0,
        elapsed=60.0,
    )


def _picture() -> bytes:
    """About 6 kB, as a small copy of a photograph has."""
    from PIL import Image

    file = io.BytesIO()
    Image.effect_noise((200, 150), 12).convert("RGB").save(file, "WEBP", quality=60)
    return file.getvalue()


@dataclass
class Opened:
    """Seconds until the page could be used, each time; and those of a search in all texts."""

    usable: list[float]
    search: float


def opened(path: Path) -> Opened | None:
    """The page in Chromium; None where there is none."""
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    try:
        from selenium import webdriver
    except ImportError:
        return None
    if chromium is None or driver is None:
        return None
    options = webdriver.ChromeOptions()
    for flag in ("--headless", "--no-sandbox", "--disable-gpu", "--window-size=1280,900"):
        options.add_argument(flag)
    options.binary_location = chromium
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        usable = []
        for _ in range(OPENINGS):
            started = time.monotonic()
            browser.get(path.as_uri())
            _until(browser, READY)
            usable.append(time.monotonic() - started)
        started = time.monotonic()
        browser.execute_script(SEARCH)
        _until(browser, SEARCHED)
        return Opened(usable, time.monotonic() - started)
    finally:
        browser.quit()


def _until(browser: WebDriver, script: str) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, 120, 0.01).until(lambda one: one.execute_script(script))


def main() -> int:
    """Measure each size, and print a line for it; 1 if the budget was missed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sizes", nargs="+", type=int, metavar="INSTANCES")
    missed = False
    for count in parser.parse_args().sizes:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "run"
            make(folder, count)
            code = "import sys; from pytest_mirsafety.cli import main; sys.exit(main(sys.argv[1:]))"
            started = time.monotonic()
            subprocess.run(  # noqa: S603 - of ours
                [sys.executable, "-c", code, "report", folder],
                check=True,
                stdout=subprocess.DEVNULL,
            )
            took = time.monotonic() - started
            # The largest child so far: sizes grow.
            memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
            page = folder / "report.html"
            size = page.stat().st_size / 2**20
            line = f"{count:,}: written in {took:.1f} s, {memory:.0f} MiB; {size:.0f} MiB"
            if (seen := opened(page)) is not None:
                shown = ", ".join(f"{one:.2f}" for one in seen.usable)
                line += f"; usable after {shown} s; searched in {seen.search:.2f} s"
                missed |= count <= PUBLISHED_TOTAL and max(seen.usable) > 2  # noqa: PLR2004
            print(line, flush=True)
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
