"""What a vLLM server's log says becomes one line: how far it is, and why it failed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mirsafety.servers.diagnosis import diagnose, ending, last_lines, stage

WORKER = "(EngineCore pid=6904) ERROR 11-25 17:51:15 [core.py:1510] "


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Fetching 12 files:  25%|██▌       | 3/12 [00:09<00:27]", "downloading weights 25%"),
        ("model-00001-of-00004.safetensors:  61%|██████", "downloading weights 61%"),
        ("(Worker pid=7) INFO [x.py:68] Starting to load model org/m...", "loading weights"),
        ("Loading safetensors checkpoint shards:  50% Completed | 1/2", "loading weights 50%"),
        ("(W pid=7) INFO [default_loader.py:501] Loading weights took 0.1 s", "measuring memory"),
        ("(W pid=7) INFO [b.py:1] torch.compile takes 21.4 s in total", "compiling"),
        ("Capturing CUDA graphs (decode, FULL):  12%|█▏", "capturing graphs 12%"),
        ("(A pid=5) INFO [entry.py:140] Starting vLLM server on http://x", "almost ready"),
        ("(A pid=5) INFO [model.py:733] Resolved architecture: Llava", "reading the model"),
        ("(A pid=5) INFO [x.py:1] anything else", None),
        ("[--kv-cache-dtype {auto,bfloat16}]", None),
    ],
)
def test_a_line_tells_how_far_the_start_is(line: str, words: str | None) -> None:
    assert stage(line) == words


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.", "not fit into"),
        ("ValueError: No available memory for the cache blocks. Try", "raise gpu_memory"),
        (
            (
                "ValueError: To serve at least one request with the model's max seq len (32768), "
                "(7.0 GiB KV cache is needed, which is larger than the available KV cache memory"
            ),
            "lower max_model_len",
        ),
        (
            (
                "ValueError: Free memory on device cuda:0 (3.1/79.2 GiB) on startup is less than "
                "desired GPU memory utilization (0.9, 71.3 GiB)."
            ),
            "lower gpu_memory",
        ),
        ("RuntimeError: Cannot find any model weights with `x`", "no safetensors weights"),
        ("HFValidationError: Repo id must be in the form", "there is no such model"),
        ("OSError: x is not a local folder and is not a valid model identifier", "no such model"),
        ("huggingface_hub.errors.OfflineModeIsEnabled: Cannot reach: offline mode", "download it"),
        ("LocalEntryNotFoundError: Cannot find an appropriate cached snapshot", "download it"),
        ("OSError: You are trying to access a gated repo.", "HF_TOKEN"),
        (
            (
                "Value error, User-specified max_model_len (100000) is greater than the derived "
                "max_model_len (max_position_embeddings=4096.0)"
            ),
            "longer than the model's context",
        ),
        ("ValueError: the image needs 2928 tokens, which exceeds max_model_len", "raise it"),
        ("api_server.py: error: unrecognized arguments: --no-such-flag", "server_args"),
        ("OSError: [Errno 98] Address already in use", "its port is taken"),
        ("Value error, The repository x contains custom code which", "trust_remote_code = true"),
        ("Value error, Model architectures ['X'] are not supported for now.", "newer vLLM"),
        ("RuntimeError: Failed to infer device type", "CUDA_VISIBLE_DEVICES"),
        ("RuntimeError: No CUDA GPUs are available", "CUDA_VISIBLE_DEVICES"),
        ("AssertionError: 28 is not divisible by tensor parallel size (8)", "tensor_parallel"),
        ("ModuleNotFoundError: No module named 'numba'", "install vLLM again"),
    ],
)
def test_the_likely_cause_is_named_with_its_evidence(line: str, said: str) -> None:
    found = diagnose(["starting", f"{WORKER}{line}", "RuntimeError: See root cause above."])
    assert said in found.cause
    assert found.evidence.startswith(line[:60])


def test_what_is_noted_is_no_cause() -> None:
    lines = [
        "(A pid=5) INFO [x.py:1] non-default args: {'limit_mm_per_prompt': {'image': 4}}",
        "(A pid=5) WARNING [x.py:1] This can cause `OSError: [Errno 24] Too many open files`.",
        "[--trust-remote-code | --no-trust-remote-code]",
        'File "/x/vllm/config.py", line 3, in __init__',
        "trust_remote_code=self.trust_remote_code,",
        "RuntimeError: the flux is out of phase",
        "RuntimeError: Engine core initialization failed. See root cause above.",
    ]
    found = diagnose(lines)
    assert (found.cause, found.evidence) == ("", "RuntimeError: the flux is out of phase")


def test_how_it_ended_is_said_in_words() -> None:
    assert ending(-9) == "killed by signal 9: did the machine run out of memory?"
    assert (ending(-11), ending(3)) == ("signal 11", "exit code 3")


@given(st.lists(st.text()))
def test_any_log_is_read(lines: list[str]) -> None:
    found = diagnose(lines)
    for shown in (found.cause, found.evidence, *last_lines(lines).splitlines()):
        assert len(shown) <= 210
    for line in lines:
        stage(line)
