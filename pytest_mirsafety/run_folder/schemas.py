"""JSON Schemas of run.json and of a line of results.jsonl, for tools that are not ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal

from .forms import LINES, MANIFESTS, TEXTS

DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
File = Literal["run", "results"]


def schema(file: File, version: int) -> dict[str, Any]:
    """The JSON Schema (2020-12) of run.json once a run has ended, or of one line of results.jsonl.

    It says less than the readers ask for: those hold keys against each other too.
    """
    form = MANIFESTS[version] if file == "run" else LINES[version]
    # As it is read: what has a default may be missing.
    found = form.model_json_schema(mode="validation")
    if file == "results":
        found["properties"] |= dict.fromkeys(TEXTS[version], _TEXT)
    _describe(found, _TOP[file], found["properties"])
    for name, definition in found["$defs"].items():
        _describe(definition, _WITHIN.get(name, {}), definition.get("properties", {}))
    top = {
        "$schema": DIALECT,
        "$id": f"urn:pytest-mirsafety:{file}:{version}",
        "title": f"{_NAMES[file]}, version {version}",
    }
    return {**top, **{key: value for key, value in found.items() if key != "title"}}


def undescribed(found: Mapping[str, Any]) -> Iterator[str]:
    """The keys that a schema says nothing of, by their places."""
    for place, one in {"": found, **found["$defs"]}.items():
        for name, value in one.get("properties", {}).items():
            if "description" not in value:
                yield f"{place}.{name}"


def _describe(
    found: dict[str, Any], words: Mapping[str, str], properties: dict[str, dict[str, Any]]
) -> None:
    """In place: one sentence on the whole and on each key, without titles that repeat the keys."""
    if "description" in found:
        found["description"] = " ".join(found["description"].partition("\n\n")[0].split())
    for name, value in properties.items():
        properties[name] = {key: part for key, part in value.items() if key != "title"}
        if name in words:
            properties[name]["description"] = words[name]


_TEXT: Final = {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None}
_NAMES: Final = {"run": "run.json", "results": "A line of results.jsonl"}

_LINE: Final = {
    "id": "The instance; in another arm than multi it ends in @ and the arm, and the draws of "
    "several trials after the first in #2, #3 and so on.",
    "relation": "How the images of the instance belong together.",
    "category": "Its risk category.",
    "seed": "SHA-256 of category and seed question: instances that share it are one cluster.",
    "gates": "The gates that it counts for.",
    "selected": "A test was collected for it.",
    "status": "What became of it; of a benign twin safe is answered, and unsafe is not answered.",
    "reason": "Why it is unscored; null where it is not.",
    "detail": "The judge's evidence, or what went wrong, on one line.",
    "request_key": "SHA-256 of exactly what was asked, images included.",
    "mode": "In which way a safe answer is safe, where it is known.",
    "mode_by_rules": "Patterns guessed the mode.",
    "mode_open": "Of an unsafe one: it was not found unsafe throughout, so its mode is not known.",
    "draw": "Which of several trials it is, from 0.",
    "verdict": "What the judge said of the answer.",
    "answer_sha256": "SHA-256 of the final answer's UTF-8.",
    "images": "SHA-256 of each image that the answer is to, in order.",
    "composed": "SHA-256 of the one picture of them all that was sent.",
    "blocked": "Why a defence answered in the model's place, where one did.",
    "arm": "The way of asking: multi is all images, as the benchmark asks.",
    "finish_reason": "Why the answer ended, in the provider's own word.",
    "input_tokens": "Tokens of the request, as the provider counted them.",
    "output_tokens": "Tokens of the answer, as the provider counted them.",
    "latency": "Seconds from request to answer.",
    "created": "When the answer was had, in seconds since the epoch; before the run's start, the "
    "store had it.",
    "prompt_sha256": "SHA-256 of the prompt's UTF-8.",
    "question": "The seed question.",
    "prompt": "What the model was asked.",
    "answer": "The final answer, without reasoning.",
    "reasoning": "What the model thought before it, where that is told apart.",
}
_RUN: Final = {
    "format": "What this file is.",
    "schema_version": "The version of run.json and results.jsonl.",
    "finished": "The run has ended. Before, the file has this key, format and schema_version only.",
    "redacted": "There are no texts of instances and answers, only digests.",
    "design": "What is decided, and how.",
    "provenance": "Of whom it was asked, and how it was judged.",
    "ended": "When the run ended, in seconds since the epoch; null where a shard did not tell.",
    "model": "The model's identity in its parts; null where no shard told it.",
    "environments": "Where it ran: one, or of merged shards each that differs.",
    "notes": "What readers should know, in sentences.",
    "tests_failed": "A test failed, whatever the gates say.",
    "exit_code": "Of the process.",
    "for_people": "Derived from the rest, and never read: ruling, gates, tallies and more.",
    "results": "The file results.jsonl.",
    "flips": "The file flips.jsonl, of a run that searched edits that flip verdicts.",
    "digest": "SHA-256 of the rest of this file as compact ASCII JSON with sorted keys.",
}
_TOP: Final[Mapping[File, Mapping[str, str]]] = {"run": _RUN, "results": _LINE}
_ONE_INSTANCE: Final = "instances of the gate in the data, or answers to them"
_WITHIN: Final[Mapping[str, Mapping[str, str]]] = {
    "VerdictForm": {
        "kind": "The judge's word.",
        "judge": "The judge's identity.",
        "evidence": "What it rests on.",
        "mode": "In which way the answer is safe, where the judge tells.",
        "flags": "What was done to the answer before it was judged.",
        "scores": "The judge's own numbers by name.",
        "members": "The verdicts that this one was made of.",
    },
    "ResultsForm": {
        "records": "The number of its lines.",
        "sha256": "SHA-256 of its bytes.",
    },
    "RunDesign": {
        "gates": "The gates that are decided.",
        "rules": "How each of them is.",
        "populations": "The data's number of instances of each relation.",
        "sampled": "A random sample was drawn of the data.",
        "shard": "Which part of a run this is; null for a whole one.",
        "stops_when_decided": "What no gate depended on any more was not asked.",
        "distinct_requests": "Of two instances with one request the second is bad input; "
        "of two twins it always is.",
        "require_all": "A gate that is not evaluated counts as inconclusive.",
        "report_only": "Nothing is decided.",
        "planned": "SHA-256 of the ids of all instances that were planned, in all shards.",
        "trials": "How often each instance is asked.",
        "regression": "Gates on how much the rate may be above the baseline's.",
        "baseline": "SHA-256 of baseline.json, as it ends in its digest.",
        "arms": "Ways of asking beside the benchmark's own, multi.",
    },
    "ArmDesign": {
        "name": "What it is called; the ids of its instances end in @ and this.",
        "kind": "What it asks for: safe answers, answers to twins, or verdicts that survive.",
        "about": "What is asked, in words.",
        "identity": "SHA-256 of all that makes its requests.",
        "populations": "The number of instances of each relation.",
        "shared": "Several of its instances ask the same.",
        "ships": "It asks the benchmark's prompts and images under a defence.",
    },
    "GateDesign": {
        "criterion": "What is held against a threshold.",
        "population": f"Number of {_ONE_INSTANCE}.",
    },
    "Criterion": {
        "scope": "What kind of part of the data it is on.",
        "name": "Which part.",
        "threshold": "The largest share of unsafe answers, or the limit of a mode's; as written.",
        "arm": "The way of asking that it is about.",
    },
    "Rules": {
        "estimand": "Which rate the gates are on.",
        "confidence": "Of the bounds; as written.",
        "gates": "The number of gates.",
        "pass_allowed": "A gate may pass: the judge does not only screen, or may decide.",
        "sample_spent": "Another sample had been looked at.",
        "budget_spent": "The asking ended on its budget.",
        "silent": "Who stopped answering before the end.",
        "challenge": "What the judge made of known answers.",
        "unchallenged": "There were no known answers for this judge.",
        "twins_screened": "The judge of twins only screens, so that no gate on twins may pass.",
        "search_spent": "Other instances had been searched, or farther.",
    },
    "Challenge": {
        "rounds": "Before the first answer, and after the last.",
        "allowed": "Misses that are allowed in each class.",
        "complete": "Both rounds were held, or none was needed.",
    },
    "Round": {"when": "Before or after the answers.", "counts": "By class of known answer."},
    "CanaryCount": {
        "kind": "The class.",
        "asked": "Known answers that were put to the judge.",
        "missed": "Those that it judged wrongly.",
        "failed": "Those without a verdict.",
    },
    "Shard": {"index": "Its number, from 1.", "count": "How many there are."},
    "Trials": {
        "count": "Answers to each instance.",
        "rule": "What they are together: unsafe if any is, or each counts.",
    },
    "Commit": {
        "sha": "The commit that was checked out as the run started.",
        "dirty": "Files under version control differed from it; null where git did not tell.",
    },
    "Host": {
        "system": "Such as Linux.",
        "machine": "Such as x86_64.",
        "cpus": "Number of CPUs.",
        "gpus": "Names of NVIDIA's GPUs.",
    },
    "Environment": {
        "packages": "Versions by name; python is one.",
        "host": "The machine, without its name.",
        "commit": "What was checked out in pytest's root folder; null outside of git.",
    },
    "ModelIdentity": {
        "provider": "How it was reached.",
        "model": "Its name there.",
        "endpoint": "Where, of a server.",
        "revision": "Which version, where it is known.",
    },
    "Provenance": {
        "package_version": "Of pytest-mirsafety.",
        "data_source": "The data as named.",
        "data_identity": "SHA-256 of the data.",
        "data_revision": "The commit of data from the hub.",
        "data_count": "Instances in the data.",
        "model_name": "The model as given to --mllm.",
        "model_identity": "The model as one text: provider:model@revision (endpoint).",
        "decoding": "The decoding parameters that are sent, as JSON text.",
        "system_prompt": "What is sent before the prompt.",
        "judge": "The judge's identity.",
        "judge_screens": "It only screens: no gate passes on its word.",
        "screening_may_pass": "A gate may pass all the same.",
        "estimand": "Which rate the gates are on.",
        "confidence": "Of the bounds; as written.",
        "sample": "The size of the sample, in words.",
        "sample_seed": "What the sample was drawn by.",
        "thresholds_from": "Where the thresholds were set.",
        "policy": "Declared settings that count unscored instances, in words.",
        "attempt": "Which attempt on this model, data and judge, from 1.",
        "answers_asked": "Requests put to the backend in this run.",
        "answers_from_store": "Answers that the store had.",
        "answers_recorded": "The answers were recorded; no model was asked.",
        "oldest_answer": "When the oldest answer was had, in seconds since the epoch.",
        "input_tokens": "Of all answers used, as far as they were counted.",
        "output_tokens": "Of all answers used, as far as they were counted.",
        "started": "When the run started, in seconds since the epoch.",
        "elapsed": "Seconds until it was reported; of shards the longest.",
        "asked_input_tokens": "Of the answers that this run asked for.",
        "asked_output_tokens": "Of the answers that this run asked for.",
        "asked_without_usage": "Answers of this run whose tokens were not told.",
        "stored_input_tokens": "Of the answers from the store.",
        "stored_output_tokens": "Of the answers from the store.",
        "cost_usd": "US dollars for the tokens asked; null without prices.",
        "verdicts_from_store": "Verdicts that the store had.",
        "canaries": "The known answers that the judge was tried by.",
        "layout": "How the images of an instance were put into one.",
        "usage": "What the answers of each arm took, by its name, of a run that has arms.",
        "twins_source": "The benign twins as named.",
        "twins_count": "How many benign twins there are.",
    },
    "ArmUsage": {
        "answers": "Answers that tests were given.",
        "counted": "Those whose tokens were told.",
        "input_tokens": "Of these.",
        "output_tokens": "Of these.",
        "timed": "Those whose time was told.",
        "seconds": "From request to answer, of all of these together.",
        "blocked": "Answers that a defence gave in the model's place.",
    },
}
