"""What a vLLM server's own log says: how far its start is, and what went wrong.

The wording is that of vLLM 0.8 to 0.33, PyTorch and huggingface_hub.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from ..printable import one_line

SHOWN: Final = 15
"""Last lines of a log that are shown."""

_WIDTH: Final = 200


def _words(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


_STAGES: Final = (
    (_words(r"download(ing|ed)|fetching \d+ files|\.safetensors: +\d+%"), "downloading weights"),
    (_words(r"checkpoint shards: +\d+%|starting to load model"), "loading weights"),
    (_words(r"capturing (cuda|cudagraph|hip)"), "capturing graphs"),
    (_words(r"compiling a graph|dynamo bytecode|torch\.compile (takes|took)"), "compiling"),
    (_words(r"loading weights took|kv cache|profiling"), "measuring memory"),
    (_words(r"starting vllm (api )?server|application startup"), "almost ready"),
    (_words(r"resolved architecture|initializing a v\d"), "reading the model"),
)
_PERCENT: Final = re.compile(r"(\d+)%")
_SHARE: Final = ("downloading weights", "loading weights", "capturing graphs")


def stage(line: str) -> str | None:
    """What the server does now, in words, if this line of its log tells."""
    if _is_usage(line):
        return None
    for pattern, words in _STAGES:
        if pattern.search(line):
            share = _PERCENT.search(line) if words in _SHARE else None
            return f"{words} {share[1]}%" if share else words
    return None


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """What went wrong and what to do, and the line of the log that says so; both may be empty."""

    cause: str
    evidence: str = ""


_LENGTH: Final = "lower max_model_len, or leave it out"
_MEMORY: Final = (
    "it does not fit into the memory: lower max_model_len, spread it over more GPUs "
    "(tensor_parallel), or free the memory that others use"
)
_CAUSES: Final = (
    (
        _words(r"unrecognized arguments|error: argument |expected one argument|ambiguous option"),
        "it does not know an argument: check server_args against its version",
    ),
    (
        _words(r"address already in use|errno 98\b"),
        "its port is taken by another program: leave --port out of server_args, or run again",
    ),
    (
        _words(r"less than (the )?(desired|engine's) "),
        "too little of the GPU's memory is free: lower gpu_memory, or end what uses it",
    ),
    (_words(r"larger than the available KV cache"), _MEMORY),
    (_words(r"no available memory for the cache"), f"{_MEMORY}, or raise gpu_memory"),
    (
        _words(
            r"out of memory",
            r"OutOfMemory",
            r"can(not|'t) allocate memory",
            r"not enough memory",
            r"bad_alloc",
            r"available memory .* is less than",
            r"memory .{0,80}(is )?(not enough|insufficient)",
        ),
        _MEMORY,
    ),
    (
        _words(r"greater than the derived max_model_len|max_position_embeddings="),
        f"max_model_len is longer than the model's context: {_LENGTH}",
    ),
    (
        _words(
            r"(exceeds?|(greater|larger|less|longer) than|fit in) .{0,80}max_model_len",
            r"(increase|raise|increasing) .{0,20}max_model_len",
            r"max_model_len .{0,40}too (small|short)",
        ),
        "max_model_len is too small for the images: raise it, or leave it out",
    ),
    (
        _words(
            r"at most \d+ (image|multi)",
            r"limit[_-]mm[_-]per[_-]prompt.{0,60}(exceed|must|invalid|not |greater|support)",
        ),
        "the model does not take so many images a prompt: check --limit-mm-per-prompt",
    ),
    (
        _words(r"custom code|set .{0,40}trust[_-]remote[_-]code"),
        (
            "the checkpoint brings code of its own: set trust_remote_code = true for this model if "
            "you trust it"
        ),
    ),
    (
        _words(r"gated repo|401 client error|403 client error|is restricted|awaiting a review"),
        "the hub does not let you have it: ask for access on its page, and set HF_TOKEN",
    ),
    (
        _words(r"cannot find any model weights|no safetensors|not find any .{0,20}safetensors"),
        "there are no safetensors weights: check model and revision",
    ),
    (
        _words(
            r"offline mode|HF_HUB_OFFLINE|LocalEntryNotFound|outgoing traffic",
            r"couldn't connect to .{0,40}hugging",
            r"cannot find the requested files in the (disk|local) cache|name resolution",
        ),
        (
            "it is not on this machine, and the hub cannot be reached: download it before, or name "
            "its folder"
        ),
    ),
    (
        _words(
            r"repo(sitory)? ?id|repository not found|invalid repository|not a (local folder|valid "
            r"model)|RevisionNotFound|invalid rev|404 client error|EntryNotFound",
            r"no such file or directory: .{0,200}(safetensors|config\.json)",
        ),
        "there is no such model, neither as a folder nor on the hub: check model and revision",
    ),
    (
        _words(r"model architectures? .{0,200}not supported|has no vllm implementation"),
        (
            "vLLM does not know this architecture: install a newer vLLM, or use "
            'provider = "transformers"'
        ),
    ),
    (
        _words(
            r"failed to infer device type|no cuda gpus are available|found no nvidia driver",
            r"no nvidia gpu|cuda driver version is insufficient|invalid device ordinal",
        ),
        "it finds no GPU that it can use: check the driver and CUDA_VISIBLE_DEVICES",
    ),
    (
        _words(
            r"world size .{0,80}(larger|greater) than|number of available gpus",
            r"divisible by tensor.parallel|tensor parallel size",
        ),
        "it cannot be spread like this: check tensor_parallel and data_parallel",
    ),
    (
        _words(r"no module named|importerror|undefined symbol"),
        "its installation is broken: install vLLM again in this Python environment",
    ),
)
_RAISED: Final = re.compile(r"\b\w*(Error|Exception|error):")
_KILLED: Final = -9


def diagnose(lines: Sequence[str]) -> Diagnosis:
    """The likely cause of a failure, by the last lines of the log."""
    for pattern, cause in _CAUSES:
        if found := [line for line in lines if _tells(pattern, line)]:
            # The first that says it: what follows are its consequences. Rather not a line of code.
            said = next(filter(_RAISED.search, found), found[0])
            return Diagnosis(cause, _evidence(said))
    raised = [line for line in lines if _tells(_RAISED, line) and "root cause" not in line]
    return Diagnosis("", _evidence(raised[-1]) if raised else "")


def ending(exit_code: int) -> str:
    """How a process ended, in words."""
    if exit_code == _KILLED:
        return "killed by signal 9: did the machine run out of memory?"
    return f"signal {-exit_code}" if exit_code < 0 else f"exit code {exit_code}"


def last_lines(lines: Iterable[str]) -> str:
    """The last lines of a log, indented, for under a message."""
    return "\n".join(f"  {one_line(line, _WIDTH)}" for line in list(lines)[-SHOWN:])


def _tells(pattern: re.Pattern[str], line: str) -> bool:
    # What it was told, what it notes and what it may be told are no failures.
    spoken = " INFO " in line or " WARNING " in line or " DEBUG " in line or "non-default" in line
    return not spoken and not _is_usage(line) and pattern.search(line) is not None


def _is_usage(line: str) -> bool:
    return line.lstrip().startswith(("[-", "usage:", "File "))


def _evidence(line: str) -> str:
    """Without what logs write before each line."""
    bare = re.sub(r"^(\([^)]*pid=\d+\) )?((ERROR|CRITICAL) [\d-]+ [\d:]+ \[[^]]*\] ?)?", "", line)
    return one_line(bare, _WIDTH)
