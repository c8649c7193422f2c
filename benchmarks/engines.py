"""A real engine through pytest against the same engine alone, on the same requests.

    python benchmarks/engines.py vllm                  throughput of both, as a ratio
    python benchmarks/engines.py vllm --instances=400  of more requests than the sample has
    python benchmarks/engines.py transformers --rounds=1

Needs vLLM or transformers in this environment. The checkpoint is made on the spot: random weights,
wide enough that the engine spends its time on them (`--width`), or your own (`--checkpoint`). The
requests are those of the bundled sample, or of a generated dataset (`--instances`, `--side`). Both
sides read and decode the images while they are measured, and are warm before: pytest's side counts
from its first request, which follows the start of the engine, to its last answer. Exit code 0: the budget was met; 1: it was not; 2: a run was broken.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from datasets import FILE_NAME, DatasetShape, write
from measuring import in_turn, machine

HERE: Final = Path(__file__).parent
BUDGET: Final = 0.9
CONFIGURATION: Final = """
data = "{data}"
judge = "rules"
allow_screening_judge = true
thresholds.default = 1
thresholds.overall = 1

[models.target]
provider = "{engine}"
model = "{checkpoint}"
judge_cut_answers = true
dtype = "float32"
decoding = {{ temperature = 0, max_tokens = {tokens} }}
{own}
"""
OWN: Final = {
    "vllm": """concurrency = 256
max_model_len = 2048
server_args = ["--enforce-eager", "--generation-config=vllm"]""",
    "transformers": "batch_size = {batch}",
}


@dataclass(frozen=True, slots=True)
class Side:
    """How long one side took, and what it made in that time."""

    seconds: float
    tokens: int
    requests: int
    trial: float = 0.0
    """Seconds of the one request that pytest asks before the rest, alone."""

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.seconds


def main() -> int:
    """Measure both sides in turn, and print the ratio of their throughput."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("engine", choices=sorted(OWN))
    parser.add_argument("--checkpoint", type=Path, help="instead of one made on the spot")
    parser.add_argument("--width", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--instances", type=int, help="generated, in place of the sample's 54")
    parser.add_argument("--side", type=int, default=336, help="of generated pictures, in pixels")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        if options.checkpoint is None:
            options.checkpoint = work / "checkpoint"
            script = HERE.parent / "fixtures" / "tiny_llava.py"
            _run([str(script), str(options.checkpoint), f"--width={options.width}"], work)
        options.data = "sample"
        if options.instances is not None:
            shape = DatasetShape(instances=options.instances, side=options.side)
            options.data = f"jsonl:{write(work / 'data', shape) / FILE_NAME}"
        sides: dict[str, list[Side]] = {"ours": [], "theirs": []}

        def ours(number: int) -> float:
            sides["ours"].append(_through_pytest(options, work / f"run-{number}"))
            return sides["ours"][-1].rate

        def theirs(_: int) -> float:
            sides["theirs"].append(_alone(options, work))
            return sides["theirs"][-1].rate

        ratios = in_turn(options.rounds, ours, theirs)
    for side, found in sides.items():
        for one in found:
            alone = f", {one.trial:.2f} s of them for the first, alone" if one.trial else ""
            print(
                f"{side}: {one.requests} requests, {one.tokens} tokens, {one.seconds:.2f} s{alone}"
            )
    print(f"{machine()}\n{options.engine}: {ratios} of the bare engine's throughput")
    return 0 if ratios.median >= BUDGET else 1


def _alone(options: argparse.Namespace, work: Path) -> Side:
    arguments = [options.engine, str(options.checkpoint), f"--data={options.data}"]
    arguments += [f"--tokens={options.tokens}", f"--batch={options.batch}"]
    told = _run([str(HERE / "bare_engine.py"), *arguments], work)
    # An engine may write lines of its own behind it.
    return Side(**json.loads(next(x for x in told.splitlines() if x.startswith('{"seconds"'))))


def _through_pytest(options: argparse.Namespace, folder: Path) -> Side:
    """What the store says of a run: when each answer was asked for, and when it came."""
    (folder / "suites").mkdir(parents=True)
    shutil.copy(HERE.parent / "suites" / "test_mir_safetybench.py", folder / "suites")
    (folder / "pytest.ini").write_text("[pytest]\n", "utf-8")
    own = OWN[options.engine].format(batch=options.batch)
    text = CONFIGURATION.format(
        data=options.data,
        engine=options.engine,
        checkpoint=options.checkpoint,
        tokens=options.tokens,
        own=own,
    )
    (folder / "mirsafety.toml").write_text(text, "utf-8")
    _run(["-m", "pytest", "--mllm=target", "suites", "-q"], folder, allowed=(0, 10))
    with sqlite3.connect(folder / ".mirsafety" / "answers.sqlite3") as store:
        rows = [json.loads(row[0]) for row in store.execute("SELECT completion FROM answers")]
    store.close()
    rows.sort(key=lambda row: row["created"] - row["latency"])
    first = rows[0]["created"] - rows[0]["latency"]
    last = max(row["created"] for row in rows)
    tokens = sum(row["output_tokens"] or 0 for row in rows)
    return Side(last - first, tokens, len(rows), rows[0]["latency"])


def _run(arguments: list[str], folder: Path, allowed: tuple[int, ...] = (0,)) -> str:
    job = subprocess.run(  # noqa: S603 - our own scripts
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    if job.returncode not in allowed:
        print(job.stdout[-4000:], job.stderr[-4000:], sep="\n", file=sys.stderr)
        sys.exit(2)
    return job.stdout


if __name__ == "__main__":
    sys.exit(main())
