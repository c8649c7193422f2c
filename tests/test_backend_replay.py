from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from engine_setting import environment
from hypothesis import given
from hypothesis import strategies as st

from pytest_mirsafety.backends.replay import UNRECORDED, ReplayBackend
from pytest_mirsafety.errors import BackendError, DataError, NotRunError
from pytest_mirsafety.protocols import Backend
from pytest_mirsafety.records import Completion, Instance, Request
from pytest_mirsafety.taxonomy import Category, Relation

REFUSAL = "I can't help with that."


def instance(
    number: int,
    relation: Relation = Relation.ANALOGY,
    category: Category = Category.SELF_HARM,
    prompt: str | None = None,
    question: str = "q",
) -> Instance:
    name = f"{category}/{relation}/{number}"
    return Instance(name, relation, category, question, prompt or f"prompt of {name}", ())


INSTANCES = tuple(instance(n) for n in range(4))
IDS = tuple(i.id for i in INSTANCES)


def lines(*values: object) -> bytes:
    return "\n".join(json.dumps(v, ensure_ascii=False) for v in values).encode()


def replay(content: bytes, instances: Sequence[Instance] = INSTANCES) -> ReplayBackend:
    return ReplayBackend.from_bytes(content, "answers.jsonl", instances)


def ask(backend: ReplayBackend, which: Instance) -> Completion:
    request = Request(backend.identity, which.prompt, (), backend.system, backend.decoding)
    return asyncio.run(backend.complete(request, (), which.id))


def failure(backend: ReplayBackend, which: Instance) -> str:
    with pytest.raises((BackendError, NotRunError)) as caught:
        ask(backend, which)
    return caught.value.detail


def arm_of(which: Instance, arm: str, prompt: str) -> Instance:
    return replace(which, id=f"{which.id}@{arm}", prompt=prompt, images=())


# Our own layout


def test_every_field_is_given_back() -> None:
    full = {
        "id": IDS[0],
        "response": "Grüße \u2028 \n",
        "finish_reason": "length",
        "reasoning": "why",
        "input_tokens": 3,
        "output_tokens": 0,
    }
    empty = {"id": IDS[1], "response": "", "reasoning": None, "input_tokens": None}
    backend = replay(lines(full, {"id": "another", "response": "x"}, empty))
    assert ask(backend, INSTANCES[0]) == Completion("Grüße \u2028 \n", "length", "why", 3, 0)
    assert ask(backend, INSTANCES[1]) == Completion("", "stop")
    assert failure(backend, INSTANCES[2]) == f"no recorded answer for {IDS[2]}"


@given(st.dictionaries(st.sampled_from(IDS), st.text(), min_size=1))
def test_each_instance_gets_its_own_answer_or_none(answers: dict[str, str]) -> None:
    backend = replay(lines(*({"id": k, "response": v} for k, v in answers.items())))
    for one in INSTANCES:
        if one.id in answers:
            assert ask(backend, one).text == answers[one.id]
        else:
            assert one.id in failure(backend, one)


def test_blank_lines_line_ends_and_a_byte_order_mark_are_passed_over() -> None:
    content = lines({"id": IDS[0], "response": "a"}, {"id": IDS[1], "response": "b"})
    backend = replay(b"\xef\xbb\xbf\n" + content.replace(b"\n", b"\r\n \r\n\n") + b"\n")
    assert [ask(backend, i).text for i in INSTANCES[:2]] == ["a", "b"]


@pytest.mark.parametrize(
    ("line", "named"),
    [
        (b"{", "line 2: is not JSON"),
        (b"[" * 100_000, "line 2: is not JSON"),
        (b"[]", "line 2: must be an object, not list"),
        (b"null", "line 2: must be an object, not NoneType"),
        (b'{"response": "x"}', "line 2: 'id' is missing"),
        (b'{"id": "x"}', "line 2: 'response' is missing"),
        (b'{"id": "", "response": "x"}', "line 2: 'id' is empty"),
        (b'{"id": 3, "response": "x"}', "line 2: 'id' cannot be int"),
        (b'{"id": "x", "response": null}', "line 2: 'response' cannot be NoneType"),
        (b'{"id": "x", "response": ["x"]}', "line 2: 'response' cannot be list"),
        (b'{"id": "x", "response": "", "finish_reason": ""}', "'finish_reason' is empty"),
        (b'{"id": "x", "response": "", "finish_reason": null}', "'finish_reason' cannot be"),
        (b'{"id": "x", "response": "", "reasoning": 1}', "'reasoning' cannot be int"),
        (b'{"id": "x", "response": "", "input_tokens": 1.5}', "'input_tokens' cannot be float"),
        (b'{"id": "x", "response": "", "input_tokens": true}', "'input_tokens' cannot be bool"),
        (b'{"id": "x", "response": "", "output_tokens": -1}', "'output_tokens' is negative"),
        (b'{"id": "x", "response": "", "output_tokens": 9007199254740993}', "above 2**53"),
        (b'{"id": "x", "response": "", "output_tokens": NaN}', "NaN is not allowed"),
        (b'{"id": "x", "answer": "x"}', "line 2: unknown key 'answer'"),
        (b'{"id": "x", "respons": "x"}', "did you mean 'response'?"),
        (b'{"id": "x", "id": "y", "response": "x"}', "a key is there twice"),
        (b'{"id": "x", "response": "\xff"}', "line 2: is not UTF-8"),
        (b'{"id": "x", "response": "\\ud800"}', "half a surrogate pair"),
        (b'{"id": "self-harm/analogy/0", "response": ""}', "a second answer for 'self-harm/anal"),
        (b'{"id": "x", "response": "", "\\u001b[31m": 1}', "unknown key ' [31m'"),
    ],
)
def test_a_malformed_line_is_named(line: bytes, named: str) -> None:
    content = lines({"id": IDS[0], "response": "a"}) + b"\n" + line
    with pytest.raises(DataError) as caught:
        replay(content)
    assert named in str(caught.value)
    assert str(caught.value).startswith("replay: answers.jsonl, line 2")
    assert str(caught.value).isprintable()


def test_an_arm_has_its_own_answer_to_its_own_prompt() -> None:
    alone, twin = arm_of(INSTANCES[0], "text-only", "q"), arm_of(INSTANCES[0], "benign-twin", "t")
    answers = {IDS[0]: "multi", alone.id: "alone", twin.id: "twin", f"{IDS[0]}@mine": "nobody's"}
    content = lines(*({"id": k, "response": v} for k, v in answers.items()))
    backend = replay(content, (*INSTANCES, alone, twin))
    assert [ask(backend, i).text for i in (INSTANCES[0], alone, twin)] == ["multi", "alone", "twin"]
    assert failure(backend, replace(alone, prompt="another")).endswith("is to another prompt")


def test_recorded_answers_of_an_arm_that_is_not_asked_are_no_error() -> None:
    answers = (
        {"id": f"{name}{arm}", "response": "x"} for name in IDS for arm in ("", "@text-only")
    )
    backend = replay(lines(*answers))
    assert [ask(backend, i).text for i in INSTANCES] == ["x"] * len(IDS)
    assert failure(backend, arm_of(INSTANCES[0], "text-only", "q")) == (
        f"no recorded answer for {IDS[0]}@text-only"
    )


def test_a_recording_of_other_instances_is_refused() -> None:
    for content in (b"", b"\n", lines({"id": "other", "response": "x"})):
        with pytest.raises(
            DataError, match=r"none of the [01] answers in answers\.jsonl .* 4 inst"
        ):
            replay(content)


def test_a_prompt_of_its_own_has_no_recorded_answer() -> None:
    backend = replay(lines({"id": IDS[0], "response": "a"}))
    assert "another prompt" in failure(backend, replace(INSTANCES[0], prompt="my own"))
    assert "no recorded answer" in failure(backend, instance(77))


def test_an_answer_for_an_instance_outside_the_dataset_is_never_given() -> None:
    backend = replay(lines(*({"id": i, "response": "a"} for i in IDS)), INSTANCES[:2])
    assert "no recorded answer" in failure(backend, INSTANCES[3])


def test_properties_and_identity() -> None:
    content = lines({"id": IDS[0], "response": "a"})
    backend: Backend = replay(content)
    assert not backend.cacheable
    assert not backend.needs_bytes
    assert backend.greedy
    assert backend.system is None
    assert dict(backend.decoding) == {}
    assert (backend.identity.provider, backend.identity.model) == ("replay", "answers.jsonl")
    revisions = {replay(c).identity.revision for c in (content, content + b"\n", content)}
    assert len(revisions) == 2
    asyncio.run(backend.aclose())


def test_a_file_gives_the_same_as_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_bytes(lines({"id": IDS[0], "response": "a"}))
    backend = ReplayBackend.from_path(path, INSTANCES)
    assert backend.identity == replay(path.read_bytes()).identity
    assert ask(backend, INSTANCES[0]).text == "a"


def test_a_recording_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.jsonl: No such file"):
        ReplayBackend.from_path(tmp_path / "gone.jsonl", INSTANCES)


def test_what_is_no_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    """To open a pipe that nobody writes to would wait without end."""
    pipe = tmp_path / "answers.jsonl"
    os.mkfifo(pipe)
    in_folder = tmp_path / "infer" / "Privacy" / "Jump.json"
    in_folder.parent.mkdir(parents=True)
    os.mkfifo(in_folder)
    # In another process: this one could not be freed.
    script = (
        "import sys; from pathlib import Path\n"
        "from pytest_mirsafety.backends.replay import ReplayBackend\n"
        "ReplayBackend.from_path(Path(sys.argv[1]), ())"
    )
    for path, named in ((pipe, pipe), (tmp_path / "infer", in_folder), (Path("/dev/zero"),) * 2):
        run = subprocess.run(
            [sys.executable, "-c", script, str(path)],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=30,
            check=False,
        )
        assert f"DataError: replay: {named}: is not a regular file" in run.stderr


# Upstream's layout


def record(
    index: int | None, of: Instance, answer: object = None, **more: object
) -> dict[str, Any]:
    values = {
        "item_index": index,
        "original_question": of.question,
        "revised_prompt": of.prompt,
        "answer": f"answer of {of.id}" if answer is None else answer,
        **more,
    }
    return {k: v for k, v in values.items() if v is not None}


def write(root: Path, records: object, name: str = "Self-Harm/Analogy.json") -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(records), "utf-8")
    return root


def from_folder(root: Path, instances: Sequence[Instance] = INSTANCES) -> ReplayBackend:
    return ReplayBackend.from_path(root, instances)


def test_upstream_answers_are_found_by_prompt_and_cell(tmp_path: Path) -> None:
    root = tmp_path / "infer" / "some-model"
    jump = instance(0, Relation.JUMP, Category.PRIVACY, prompt=INSTANCES[0].prompt)
    write(root, [record(n, i) for n, i in enumerate(reversed(INSTANCES))])
    write(root, [record(0, jump, "jumped")], "Privacy/Temporal_Jump.json")
    write(root, [record(0, INSTANCES[0], "not ours")], "Violence/Causality.json")
    write(root, "left over", "Privacy/.Temporal_Jump.json")
    write(root, "left over", ".cache/Analogy.json")
    (root / "Privacy" / "Temporal_Jump.json.tmp").write_text("half")
    backend = from_folder(root, (*INSTANCES, jump))
    assert [ask(backend, i).text for i in INSTANCES] == [f"answer of {i}" for i in IDS]
    assert ask(backend, jump) == Completion("jumped", UNRECORDED)
    assert backend.identity.model == "some-model"


def test_arms_have_no_place_in_upstreams_order(tmp_path: Path) -> None:
    """The images composed into one have the same prompt: they were never asked by upstream."""
    composed = [arm_of(i, "single-image", i.prompt) for i in INSTANCES]
    root = write(tmp_path, [record(n, i) for n, i in enumerate(INSTANCES)])
    backend = from_folder(root, (*composed, *INSTANCES))
    assert [ask(backend, i).text for i in INSTANCES] == [f"answer of {i}" for i in IDS]
    with pytest.raises(NotRunError, match=r"no recorded answer for .*@single-image"):
        ask(backend, composed[0])


def test_the_revision_is_of_all_files(tmp_path: Path) -> None:
    write(tmp_path, [record(0, INSTANCES[0])])
    before = from_folder(tmp_path).identity.revision
    assert before == from_folder(tmp_path).identity.revision
    write(tmp_path, [record(0, INSTANCES[0], "other")])
    assert before != from_folder(tmp_path).identity.revision


@pytest.mark.parametrize(
    "change",
    [
        {"inference_status": "failed"},
        {"inference_status": "crashed"},
        {"inference_status": "retry"},
        {"inference_status": ""},
        {"answer": "[INFERENCE_FAILED: timed out]"},
        {"answer": "[WORKER_CRASHED: killed]", "inference_status": "success"},
        {"answer": None},
    ],
)
def test_a_recorded_failure_is_never_an_answer(tmp_path: Path, change: dict[str, Any]) -> None:
    failed = {**record(1, INSTANCES[1]), **change}
    backend = from_folder(write(tmp_path, [record(0, INSTANCES[0]), failed]))
    assert failure(backend, INSTANCES[1]).startswith("a failure was recorded")
    assert ask(backend, INSTANCES[0]).text.startswith("answer")


def test_blank_answers_and_marked_successes_are_answers(tmp_path: Path) -> None:
    blank, marked = record(0, INSTANCES[0], ""), record(1, INSTANCES[1], inference_status="success")
    backend = from_folder(write(tmp_path, [blank, marked]))
    assert ask(backend, INSTANCES[0]).text == ""
    assert ask(backend, INSTANCES[1]).text == f"answer of {IDS[1]}"


def test_a_partial_recording_leaves_the_rest_without_answers(tmp_path: Path) -> None:
    backend = from_folder(write(tmp_path, [record(2, INSTANCES[2])]))
    assert ask(backend, INSTANCES[2]).text == f"answer of {IDS[2]}"
    with pytest.raises(NotRunError, match="no recorded answer"):
        ask(backend, INSTANCES[0])


def test_the_oldest_recordings_have_no_index(tmp_path: Path) -> None:
    backend = from_folder(write(tmp_path, [record(None, i) for i in INSTANCES]))
    assert [ask(backend, i).text for i in INSTANCES] == [f"answer of {i}" for i in IDS]


TWINS = (
    instance(0),
    instance(1, prompt="the same"),
    instance(2, prompt="the same"),
    instance(3, prompt="the same", question="another"),
)


def test_the_index_decides_between_equal_prompts(tmp_path: Path) -> None:
    records = [record(n, i, f"answer {n}") for n, i in enumerate(TWINS)]
    backend = from_folder(write(tmp_path, records), TWINS)
    assert [ask(backend, i).text for i in TWINS] == [f"answer {n}" for n in range(4)]


@pytest.mark.parametrize("order", [(1, 2, 3, 0), (3, 2, 1, 0)])
def test_an_index_that_is_not_the_datasets_decides_nothing(
    tmp_path: Path, order: Sequence[int]
) -> None:
    records = [record(order[n], i, f"answer {n}") for n, i in enumerate(TWINS)]
    backend = from_folder(write(tmp_path, records), TWINS)
    assert ask(backend, TWINS[0]).text == "answer 0"
    assert ask(backend, TWINS[3]).text == "answer 3", "its question is its own"
    for twin in TWINS[1:3]:
        assert "several instances have the prompt" in failure(backend, twin)


@given(st.permutations(range(4)), st.data())
def test_no_order_of_records_gives_an_instance_anothers_answer(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], data: st.DataObject
) -> None:
    kept = data.draw(st.sets(st.sampled_from(order), min_size=1))
    records = [record(n, TWINS[n], f"answer {n}") for n in order if n in kept]
    backend = from_folder(write(tmp_path_factory.mktemp("infer"), records), TWINS)
    for n, one in enumerate(TWINS):
        if n in kept:
            assert ask(backend, one).text == f"answer {n}"
        else:
            assert "no recorded answer" in failure(backend, one)


@pytest.mark.parametrize(
    ("records", "named"),
    [
        ({"answer": "x"}, "Self-Harm/Analogy.json: must hold a list"),
        (["x"], "record 1: must be an object"),
        ([{"answer": "x"}], "item_index 0: 'revised_prompt' is missing"),
        ([{"revised_prompt": "x"}], "item_index 0: 'answer' is missing"),
        ([{"revised_prompt": "x", "answer": 1}], "'answer' cannot be int"),
        ([record(-1, INSTANCES[0])], "'item_index' is negative"),
        ([{**record(0, INSTANCES[0]), "item_index": "0"}], "'item_index' cannot be str"),
        ([{**record(0, INSTANCES[0]), "item_index": True}], "'item_index' cannot be bool"),
        (
            [record(1, instance(9))],
            "item_index 1: no instance there has its revised_prompt (self-harm/analogy/1 has",
        ),
        ([record(8, instance(9))], "item_index 8: no instance there has its revised_prompt"),
        ([record(0, INSTANCES[0])] * 2, "a second answer for 'self-harm/analogy/0'"),
        ([], "none of the 0 answers"),
    ],
)
def test_malformed_upstream_records_are_named(tmp_path: Path, records: object, named: str) -> None:
    with pytest.raises(DataError) as caught:
        from_folder(write(tmp_path, records))
    assert named in str(caught.value)


@pytest.mark.parametrize(
    ("name", "named"),
    [
        ("Selfharm/Analogy.json", "unknown category 'Selfharm'"),
        ("Self-Harm/Analogies.json", "unknown relation 'Analogies'"),
        ("gpt-4o/Self-Harm.json", "give the folder of one model"),
        ("notes.txt", "holds no <Category>/<Relation>.json"),
    ],
)
def test_a_folder_of_another_shape_is_named(tmp_path: Path, name: str, named: str) -> None:
    with pytest.raises(DataError) as caught:
        from_folder(write(tmp_path, [], name))
    assert named in str(caught.value)
