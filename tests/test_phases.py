"""Whether model and judge share the machine: by the memory that is free, or as configured."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from projects import Project

from pytest_mirsafety import memory, phases
from pytest_mirsafety.config import JudgeSettings, ModelSettings
from pytest_mirsafety.errors import ConfigurationError
from pytest_mirsafety.judges.rules import RulesJudge
from pytest_mirsafety.memory import Memory
from pytest_mirsafety.phases import Phases, Resident, choose
from pytest_mirsafety.trust import Leaf

GIB = 2**30
SMI = """0, GPU-aaaa1111, NVIDIA H100 80GB HBM3, 81559, 80994
1, GPU-bbbb2222, NVIDIA H100 80GB HBM3, 81559, 1000
2, GPU-bbbb3333, Some GPU, [N/A], [N/A]
"""


class Freeable:
    async def free(self) -> None: ...


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose driver tells what the file `told` says; with no GPU until it is there."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\ncat {tmp_path / 'told'}\n", encoding="utf-8")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


@pytest.mark.parametrize(
    ("visible", "expected"),
    [
        (None, ["GPU 0", "GPU 1"]),
        ("1,0", ["GPU 1", "GPU 0"]),
        ("", []),
        ("-1", []),
        ("GPU-aaaa", ["GPU 0"]),
        ("GPU-bbbb2", ["GPU 1"]),
        ("0,7,1", ["GPU 0"]),
        ("0, 1", ["GPU 0", "GPU 1"]),
    ],
)
def test_gpus_are_those_that_a_program_would_see(
    machine: Path, visible: str | None, expected: list[str]
) -> None:
    (machine / "told").write_text(SMI, encoding="utf-8")
    more = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    environ = {"PATH": os.environ["PATH"], **more}
    found = memory.gpus(environ)
    assert [one.device.partition(" (")[0] for one in found] == expected
    if expected[:1] == ["GPU 0"]:
        assert (found[0].total, found[0].free) == (81559 * 2**20, 80994 * 2**20)


def test_a_machine_without_a_driver_has_no_gpus(machine: Path) -> None:
    assert (
        memory.gpus({"PATH": os.environ["PATH"]}) == ()
    )  # the program fails: it has nothing to tell


def test_main_memory_is_known_where_the_system_tells() -> None:
    found = memory.ram()
    if Path("/proc/meminfo").exists():
        assert found is not None
        assert 0 < found.free <= found.total


def checkpoint(folder: Path, name: str, size: int) -> str:
    """A folder with weights of this size, which take no room on the disk."""
    (folder / name).mkdir()
    (folder / name / "config.json").write_text("{}", encoding="utf-8")
    for part in ("model-1.safetensors", "model-2.safetensors"):
        with (folder / name / part).open("wb") as file:
            file.truncate(size // 2)
    return name


def shared(
    folder: Path,
    model: dict[str, Any],
    judge: dict[str, Any],
    *,
    gpus: Sequence[Memory] = (),
    ram: int = 64,
) -> Phases:
    resident = Resident("model", ModelSettings.model_validate(model), folder)
    other = Resident("judge 'harm'", JudgeSettings.model_validate(judge), folder)
    main = Memory("main memory", 64 * GIB, ram * GIB)
    return phases._by_memory([resident, other], gpus, main)


HERE = {"provider": "transformers", "model": "target"}
JUDGE = {"kind": "harmbench", "provider": "transformers", "model": "classifier"}
H100 = Memory("GPU 0 (H100)", 80 * GIB, 79 * GIB)


@pytest.mark.parametrize(
    ("sizes", "gpus", "two", "says"),
    [
        ((16, 26), [H100], False, "one phase: model 20.0 GiB + judge 'harm' 32.5 GiB fit into"),
        ((40, 26), [H100], True, "two phases: model 50.0 GiB + judge 'harm' 32.5 GiB do not fit"),
        ((16, 26), [], False, "of main memory"),
        ((40, 26), [], True, "of main memory"),
    ],
)
def test_they_are_together_where_both_fit(
    tmp_path: Path, sizes: tuple[int, int], gpus: list[Memory], two: bool, says: str
) -> None:
    checkpoint(tmp_path, "target", sizes[0] * GIB)
    checkpoint(tmp_path, "classifier", sizes[1] * GIB)
    found = shared(tmp_path, HERE, JUDGE, gpus=gpus)
    assert found.two is two
    assert says in found.why


def test_a_server_takes_its_share_of_a_gpu(tmp_path: Path) -> None:
    checkpoint(tmp_path, "target", 1 * GIB)
    checkpoint(tmp_path, "classifier", 20 * GIB)
    server = {"provider": "vllm", "model": "target"}
    whole = shared(tmp_path, server, JUDGE, gpus=[H100])
    assert whole.two
    assert "model 72.0 GiB + judge 'harm' 25.0 GiB do not fit into 79.0 GiB free" in whole.why
    assert not shared(tmp_path, {**server, "gpu_memory": 0.5}, JUDGE, gpus=[H100]).two


def test_float32_takes_twice_as_much(tmp_path: Path) -> None:
    checkpoint(tmp_path, "target", 20 * GIB)
    checkpoint(tmp_path, "classifier", 20 * GIB)
    assert not shared(tmp_path, HERE, JUDGE).two
    assert shared(tmp_path, {**HERE, "dtype": "float32"}, JUDGE).two


def test_different_devices_have_memory_each(tmp_path: Path) -> None:
    found = shared(tmp_path, HERE, {**JUDGE, "device": "cpu"}, gpus=[H100])
    assert found == Phases(why="one phase: model and judge run on different devices")


def test_what_is_not_known_is_not_taken_to_fit(tmp_path: Path) -> None:
    checkpoint(tmp_path, "target", 1 * GIB)
    found = shared(tmp_path, HERE, {**JUDGE, "model": "some/where", "revision": "f" * 40})
    assert found == Phases(
        two=True, why="two phases: the size of the judge 'harm' is not known yet"
    )
    resident = Resident("model", ModelSettings.model_validate(HERE), tmp_path)
    assert phases._by_memory([resident, resident], [], None).two


def leaf(**settings: Any) -> Leaf:
    return Leaf("harm", JudgeSettings.model_validate(settings), RulesJudge())


def chosen(wish: phases.Wish, model: dict[str, Any], one: Leaf, backend: object) -> Phases:
    resident = Resident("model", ModelSettings.model_validate(model), Path())
    return choose(wish, resident, [one], backend, Path(), {})  # type: ignore[arg-type]


def test_nothing_is_said_of_what_runs_elsewhere() -> None:
    rules, here = leaf(provider="rules"), leaf(**JUDGE)
    api = {"provider": "openai", "model": "gpt"}
    by_url = {"provider": "vllm", "model": "m", "base_url": "http://127.0.0.1:8000/v1"}
    assert chosen("auto", HERE, rules, Freeable()) == Phases()
    assert chosen("auto", api, here, object()) == Phases()
    assert chosen("auto", by_url, here, object()) == Phases()
    assert chosen("together", HERE, here, Freeable()) == Phases()
    assert chosen("auto", HERE, here, Freeable()).two  # of unknown size


def test_two_phases_need_a_model_that_can_be_freed() -> None:
    assert chosen("two", HERE, leaf(**JUDGE), Freeable()).two
    with pytest.raises(ConfigurationError, match='phases = "two" is for a model that runs here'):
        chosen("two", {"provider": "openai", "model": "gpt"}, leaf(**JUDGE), object())


# As a user sees it

OWN = """
import asyncio
from pathlib import Path
from pytest_mirsafety import Completion, ModelIdentity, Verdict, VerdictKind

LOG = Path(__file__).parent / "log"

def note(word):
    with LOG.open("a") as file:
        file.write(word + " ")

class Model:
    identity = ModelIdentity("own", "echo")
    system, decoding, greedy, cacheable, concurrency, needs_bytes = None, {}, True, True, 4, False
    async def complete(self, request, images, instance_id):
        note("ask")
        return Completion("I cannot help with that.", "stop")
    async def free(self):
        note("free-model")
    async def aclose(self):
        pass

class Judge:
    identity, screening, concurrency = "own-judge", False, 4
    async def judge(self, question, answer):
        note("judge")
        return Verdict(VerdictKind.SAFE, self.identity)
    async def free(self):
        note("free-judge")
    async def aclose(self):
        pass

def model(settings):
    return Model()

def judge(settings):
    return Judge()
"""


@pytest.mark.parametrize("more", [[], ["-n2"]])
def test_all_is_asked_then_all_is_judged(project: Project, more: list[str]) -> None:
    project.data({"analogy": 6, "jump": 6})
    project.suite()
    project.write("own.py", OWN)
    project.configure('phases = "two"\njudge = "own:judge"\nthresholds.default = 0.2')
    project.pytester.syspathinsert()
    result = project.run("--junitxml=junit.xml", *more, model="own:model")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["mirsafety: two phases, as configured: all is asked, then all*"])
    words = (project.path / "log").read_text("utf-8").split()
    first = words.index("free-model")
    assert words[:first] == ["ask"] * 12
    assert words.count("free-model") == 1
    # A question and an answer are judged once.
    assert set(words[first + 1 :]) == {"judge"}
    junit = (project.path / "junit.xml").read_text("utf-8")
    assert junit.count('name="test_answer_is_safe[') == 12


def test_an_api_cannot_be_freed(project: Project) -> None:
    project.configure('phases = "two"\nthresholds.default = 0.2')
    result = project.run()
    assert result.ret == 4
    result.stderr.fnmatch_lines(['ERROR: *phases = "two" is for a model that runs here*'])


def test_an_unknown_phase_is_named(project: Project) -> None:
    project.configure('phases = "three"\nthresholds.default = 0.2')
    result = project.run()
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: *phases*'auto', 'together' or 'two'*"])
