"""The models that are known by name: what models.toml says, and how a user overrides it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mirsafety import config, model_tables
from pytest_mirsafety.backend_building import BackendContext, NamedModel
from pytest_mirsafety.config import ModelSettings, Settings, load_text, parse
from pytest_mirsafety.errors import ConfigurationError
from pytest_mirsafety.gates import Estimand
from pytest_mirsafety.model_forms import needless_keys
from pytest_mirsafety.planning import prepare
from pytest_mirsafety.registry import build_backend, builtin_models, declares_greedy, find_model
from pytest_mirsafety.run_plan import RunOptions

DOCS = Path(__file__).parents[1] / "docs"

OF_THE_PAPER = {
    "llama3-llava-next-8b",
    "llava-1.5-7b",
    "qwen2.5-vl-3b",
    "qwen2.5-vl-32b",
    "internvl3-8b",
    "internvl3-38b",
    "internvl3-78b",
    "kimi-vl-a3b-instruct",
    "minicpm-o-2.6",
    "glm-4.1v-9b-thinking",
    "skywork-r1v3-38b",
    "kimi-vl-a3b-thinking-2506",
    "qvq-72b-preview",
    "gpt-4o",
    "gpt-4o-mini",
    "gemini-2.5-flash",
    "gemini-2.5-pro",
    "gemini-3-pro-preview",
    "gpt-5.1",
}
MODELS = builtin_models()
ASKED = {name: model for name, model in MODELS.items() if model.provider != "replay"}
LOCAL = {name: model for name, model in MODELS.items() if model.provider == "vllm"}


def test_the_models_of_the_paper_are_all_there() -> None:
    assert len(OF_THE_PAPER) == 19
    assert set(MODELS) >= OF_THE_PAPER
    named = {name for name, m in MODELS.items() if m.about.startswith("MIR-SafetyBench's ")}
    assert named == OF_THE_PAPER


def test_the_first_model_that_is_asked_is_llava_onevision() -> None:
    name, model = next(iter(ASKED.items()))
    assert (name, model.provider) == ("llava-ov", "vllm")
    assert model.model == "llava-hf/llava-onevision-qwen2-7b-ov-hf"


@pytest.mark.parametrize("name", MODELS)
def test_a_name_is_easy_to_type_and_says_what_it_is(name: str) -> None:
    assert re.fullmatch(r"[a-z0-9][a-z0-9.-]*", name)
    assert MODELS[name].about


@pytest.mark.parametrize("name", LOCAL)
def test_a_local_model_has_the_form_of_a_repository_and_of_a_commit(name: str) -> None:
    model = LOCAL[name]
    assert re.fullmatch(r"[A-Za-z0-9_-]+/[A-Za-z0-9._-]+", model.model)
    assert model.revision is None or re.fullmatch(r"[0-9a-f]{40}", model.revision)
    assert model.decoding["max_tokens"]
    assert not model.trust_remote_code, "nobody is trusted by default"


def test_no_two_names_are_one_model_and_no_two_models_one_commit() -> None:
    identities = [(model.provider, model.model) for model in MODELS.values()]
    commits = [model.revision for model in LOCAL.values() if model.revision]
    assert len(set(identities)) == len(identities)
    assert len(set(commits)) == len(commits)


def test_decoding_is_what_upstream_released_where_it_did() -> None:
    qwen = MODELS["qwen2.5-vl-3b"]
    assert qwen.decoding == {
        "temperature": 0,
        "top_p": 0.001,
        "repetition_penalty": 1.05,
        "max_tokens": 4096,
    }
    assert qwen.system == "You are a helpful assistant."
    assert qwen.dtype == "bfloat16"
    glm = MODELS["glm-4.1v-9b-thinking"]
    assert glm.decoding == {"temperature": 0.8, "top_p": 0.9, "max_tokens": 8192}
    as_upstream = [model for model in MODELS.values() if "code asks" in model.about]
    assert len(as_upstream) == 5
    for model in as_upstream:
        assert model.server_args[:2] == ["--generation-config", "vllm"], "and nothing beside it"
    for model in MODELS.values():
        if model.provider in ("openai", "http"):
            assert not model.decoding, "an API has its provider's defaults"


def test_the_models_that_take_one_image_are_those_of_the_paper() -> None:
    single = {name for name, model in MODELS.items() if model.single_image}
    assert single == {"llama3-llava-next-8b", "llava-1.5-7b"}


API_SETTINGS = {"OPENAI_API_KEY": "k", "GEMINI_API_KEY": "k"}


@pytest.mark.parametrize("name", sorted(set(ASKED) - set(LOCAL)))
def test_what_the_registry_calls_greedy_is_what_the_backend_calls_greedy(name: str) -> None:
    backend = build_backend(NamedModel(name, ASKED[name]), BackendContext((), Path(), API_SETTINGS))
    assert backend.greedy is declares_greedy(ASKED[name])


def test_a_model_is_greedy_where_its_temperature_is_zero_and_nowhere_else() -> None:
    greedy = {name for name, model in ASKED.items() if declares_greedy(model)}
    assert greedy == {n for n, model in ASKED.items() if model.decoding.get("temperature") == 0}
    assert {"llava-ov", "qwen2.5-vl-3b"} <= greedy
    assert not greedy & {"glm-4.1v-9b-thinking", "gpt-4o", "gemini-2.5-pro"}


@pytest.mark.parametrize(
    ("temperature", "estimand"), [("0", Estimand.ANSWERS), ("0.5", Estimand.MODEL)]
)
def test_decoding_sets_the_default_estimand(
    tmp_path: Path, temperature: str, estimand: Estimand
) -> None:
    text = f"thresholds.default = 0.2\nmodels.gpt-4o.decoding.temperature = {temperature}"
    (tmp_path / "mirsafety.toml").write_text(text, "utf-8")
    plan = prepare(RunOptions("gpt-4o"), tmp_path, API_SETTINGS)
    assert plan.design.rules.estimand is estimand


def test_the_docs_list_the_models_as_they_are() -> None:
    _, _, table = (DOCS / "reference/models.md").read_text("utf-8").partition("## The models\n")
    assert [line for line in table.splitlines() if line.startswith("| `")] == [
        row(name, model) for name, model in MODELS.items()
    ]


def row(name: str, model: ModelSettings) -> str:
    """A model's row in the table of docs/reference/models.md."""
    images = "one" if model.single_image else "several"
    decoding = ", ".join(f"{key} {value:g}" for key, value in model.decoding.items())
    own = "recorded" if model.provider == "replay" else "the provider's own"
    code = "yes" if model.needs_remote_code else ""
    which = f"`{name}` | `{model.provider}` | `{model.model}`"
    return f"| {which} | {images} | {decoding or own} | {code} |"


# Overriding

VALUES: Mapping[str, st.SearchStrategy[Any]] = {
    "revision": st.from_regex(r"[0-9a-f]{40}", fullmatch=True),
    "system": st.text(st.characters(codec="utf-8"), max_size=20),
    "decoding": st.dictionaries(
        st.sampled_from(["temperature", "top_p", "seed"]), st.integers(0, 9), max_size=3
    ),
    "image_transport": st.sampled_from(["base64", "file"]),
    "image_detail": st.sampled_from(["auto", "low", "high"]),
    "concurrency": st.integers(1, 64),
    "timeout": st.integers(1, 9999),
    "max_retries": st.integers(0, 20),
    "requests_per_minute": st.integers(1, 999),
    "tokens_per_minute": st.integers(1, 999),
    "input_price": st.integers(0, 99).map(Decimal),
    "output_price": st.integers(0, 99).map(Decimal),
    "image_tokens": st.integers(1, 9999),
    "judge_cut_answers": st.booleans(),
    "allow_screening_judge": st.booleans(),
    "thresholds": st.just({"default": Decimal("0.5")}),
    "about": st.text(st.characters(codec="utf-8"), max_size=20),
    "single_image": st.booleans(),
    "max_images": st.integers(1, 99),
    "context_length": st.integers(10**6, 10**7),
    "reasoning_markers": st.sampled_from([[], [["<a>", "</a>"]], [["<t", "t>"], ["((", "))"]]]),
    "needs_remote_code": st.booleans(),
    "dtype": st.sampled_from(["auto", "float32"]),
    "trust_remote_code": st.booleans(),
    "max_model_len": st.integers(50_000, 60_000),
    "tensor_parallel": st.integers(1, 8),
    "data_parallel": st.integers(1, 8),
    "gpu_memory": st.sampled_from([0.5, 1.0]),
    "server_args": st.lists(st.text(st.characters(codec="ascii"), max_size=5), max_size=2),
    "start_timeout": st.integers(1, 9999),
}


@st.composite
def overrides(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A built-in model's name, and a table that a user may write for it."""
    name = draw(st.sampled_from(sorted(ASKED)))
    needless = needless_keys(ASKED[name].provider, served=ASKED[name].base_url is not None)
    keys = draw(st.sets(st.sampled_from(sorted(VALUES.keys() - needless)), max_size=5))
    if "max_model_len" in keys:
        keys.add("context_length")  # into which it must fit
    return name, {key: draw(VALUES[key]) for key in sorted(keys)}


@given(overrides())
def test_what_a_user_says_holds_and_all_else_stays(override: tuple[str, dict[str, Any]]) -> None:
    name, own = override
    made = parse({"models": {name: own}}, "mirsafety.toml").models[name]
    alone = ModelSettings.model_validate({"provider": "x:y", "model": "m", **own})
    for field in ModelSettings.model_fields:
        source = alone if field in own else MODELS[name]
        assert getattr(made, field) == getattr(source, field), field
    assert made.model_fields_set == MODELS[name].model_fields_set | own.keys()


@given(st.sampled_from(sorted(MODELS)), st.sampled_from(["vllm", "transformers", "openai", "http"]))
def test_another_provider_gets_only_what_it_understands(name: str, provider: str) -> None:
    served = provider == "http"
    own = {"provider": provider} | ({"base_url": "http://127.0.0.1:1/v1"} if served else {})
    made = parse({"models": {name: own}}, "mirsafety.toml").models[name]
    assert made.provider == provider
    assert made.model == MODELS[name].model
    assert not made.model_fields_set & needless_keys(provider, served=served)
    if provider != MODELS[name].provider:
        assert made.base_url == own.get("base_url")
        assert made.api_key_env is None, "a key is for the endpoint that it was meant for"


@pytest.mark.parametrize("name", MODELS)
def test_to_repeat_what_is_known_changes_nothing(name: str) -> None:
    repeated = dict(model_tables.tables()[name])
    for own in ({}, {"provider": repeated["provider"], "model": repeated["model"]}, repeated):
        assert parse({"models": {name: own}}, "mirsafety.toml").models[name] == MODELS[name]
    where = {key: repeated[key] for key in ("base_url",) if key in repeated}
    assert parse({"models": {name: where}}, "mirsafety.toml").models[name] == MODELS[name]


def overridden(text: str) -> Mapping[str, ModelSettings]:
    return load_text(text, "mirsafety.toml").models


def test_the_key_for_one_endpoint_is_not_sent_to_another() -> None:
    (model,) = overridden('models."gemini-2.5-pro".base_url = "https://proxy.example/v1"').values()
    assert model.base_url == "https://proxy.example/v1"
    assert model.api_key_env is None


def test_a_commit_is_promised_only_of_weights_that_are_loaded_here() -> None:
    pinned = MODELS["llava-ov"].revision
    kept = overridden('models.llava-ov.provider = "transformers"')["llava-ov"]
    assert kept.revision == pinned
    served = overridden('models.llava-ov.base_url = "http://127.0.0.1:8000/v1"')["llava-ov"]
    assert served.revision is None
    other = overridden('models.llava-ov.model = "mine/llava-ov-tuned"')["llava-ov"]
    assert (other.revision, other.about) == (None, "")
    assert other.decoding == MODELS["llava-ov"].decoding


def test_a_server_that_runs_already_is_not_told_how_to_start() -> None:
    text = 'models."qwen2.5-vl-3b".base_url = "http://127.0.0.1:8000/v1"'
    model = overridden(text)["qwen2.5-vl-3b"]
    assert model.server_args == []
    assert model.decoding == MODELS["qwen2.5-vl-3b"].decoding


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "models.llava-ov.concurency = 4",
            "mirsafety.toml: unknown key 'models.llava-ov.concurency'; did you mean 'concurrency'?",
        ),
        (
            "models.gpt-4o.max_model_len = 4",
            "models.gpt-4o: 'max_model_len' has no meaning for provider 'openai'",
        ),
        (
            "models.llava-ov.max_model_len = 2048",
            "decoding.max_tokens = 2048 leaves no room for a question in max_model_len = 2048",
        ),
        (
            "models.gemma-3-4b.max_model_len = 200000",
            "max_model_len = 200000 is more than context_length = 131072",
        ),
        (
            "models.gpt-4o.decoding.max_completion_tokens = 128000",
            "leaves no room for a question in context_length = 128000",
        ),
        (
            "[models.gpt-5.1]\nconcurrency = 4",
            'write [models."gpt-5.1"], with quotes: the name has a dot',
        ),
        ("models.llava-ov = 3", "models.llava-ov:"),
        ("models.llava-ov.provider = 3", "models.llava-ov.provider:"),
        ("models = 3", "models:"),
        ("models.mine.concurrency = 3", "'models.mine.provider' is missing"),
        (
            'models.llava-ov.reasoning_markers = "<think>"',
            "reasoning_markers: must be at most 8 pairs, such as [['<think>', '</think>']]",
        ),
        ("models.llava-ov.reasoning_markers = [['<t>']]", "each pair must be two texts"),
        ("models.llava-ov.reasoning_markers = [['<t>', '']]", "each pair must be two texts"),
        ("models.llava-ov.reasoning_markers = [['<t>', 3]]", "each pair must be two texts"),
        ("models.llava-ov.reasoning_markers = [['<t>', '<T>']]", "'<t>' is part of another"),
        ("models.llava-ov.reasoning_markers = [['<t', '<t>']]", "'<t' is part of another"),
        ("models.llava-ov.reasoning_markers = [['<answer>', 'x']]", "is part of another"),
        ("models.llava-ov.reasoning_markers = [['er', 'x']]", "'er' is part of another"),
    ],
)
def test_what_is_wrong_names_the_users_own_file_and_key(text: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_text(text, "mirsafety.toml")
    line = str(caught.value)
    assert line.startswith("mirsafety.toml: ")
    assert problem in line
    assert line.isprintable()


def test_a_name_of_a_users_own_gets_nothing_of_a_built_in_one() -> None:
    text = "models.llava = { provider = 'http', model = 'm', base_url = 'http://h/v1' }"
    assert overridden(text)["llava"].model_fields_set == {"provider", "model", "base_url"}


def test_a_configuration_knows_which_keys_it_gives(tmp_path: Path) -> None:
    (tmp_path / "mirsafety.toml").write_text("models.llava-ov.concurrency = 4", "utf-8")
    configuration = config.load(tmp_path)
    assert configuration.written == {"llava-ov": {"concurrency"}}
    assert configuration.settings.models["llava-ov"].model == MODELS["llava-ov"].model


def test_the_tables_are_not_changed_by_those_who_use_them() -> None:
    before = repr(model_tables.tables())
    overridden("models.llava-ov = { concurrency = 1, decoding = { temperature = 1 } }")
    assert repr(model_tables.tables()) == before


# Code from a repository


def test_a_model_with_code_of_its_own_waits_for_trust() -> None:
    context = BackendContext((), Path(), {})
    with pytest.raises(ConfigurationError) as caught:
        build_backend(NamedModel("minicpm-o-2.6", MODELS["minicpm-o-2.6"]), context)
    assert str(caught.value) == (
        "minicpm-o-2.6 runs code from its repository, openbmb/MiniCPM-o-2_6: read that, then set "
        'trust_remote_code = true in [models."minicpm-o-2.6"]'
    )


def refusal(model: NamedModel, context: BackendContext) -> str:
    """Why no backend is built; nothing if one is."""
    try:
        build_backend(model, context)
    except ConfigurationError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    "own",
    [
        "trust_remote_code = true",
        "needs_remote_code = false",
        "base_url = 'http://127.0.0.1:1/v1'",
        "provider = 'http'\nbase_url = 'http://127.0.0.1:1/v1'",
    ],
)
def test_trust_is_not_asked_for_where_it_is_given_or_another_loads_the_model(own: str) -> None:
    model = find_model("minicpm-o-2.6", load_text(f'[models."minicpm-o-2.6"]\n{own}', "f.toml"))
    assert "trust_remote_code" not in refusal(model, BackendContext((), Path(), {}))


def test_a_dry_run_needs_no_trust() -> None:
    context = BackendContext((), Path(), {}, asks=False)
    assert "trust_remote_code" not in refusal(NamedModel("m", MODELS["molmo2-8b"]), context)


# Names that nobody has


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("llava", ["llava-ov", "llava-1.5-7b", "llava-ov-0.5b", "llava-ov-72b"]),
        ("lava-ov", ["llava-ov"]),
        ("GPT4o", ["gpt-4o", "gpt-4o-mini"]),
        ("gemeni-2.5-pro", ["gemini-2.5-pro"]),
        ("Qwen/Qwen2.5-VL-7B-Instruct", ["qwen2.5-vl-7b"]),
        ("kimi", ["kimi-vl-a3b-instruct", "kimi-vl-a3b-thinking-2506"]),
        ("dmo", ["demo"]),
    ],
)
def test_a_typo_gets_the_nearest_names(typed: str, meant: list[str]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        find_model(typed, Settings())
    line = str(caught.value)
    assert line.startswith(f"--mllm: no model '{typed}'; did you mean '{meant[0]}'")
    for name in meant:
        assert f"'{name}'" in line
    assert len(line) <= 400


def test_a_users_own_names_are_among_the_nearest() -> None:
    text = "models.release-candidate = { provider = 'http', model = 'm', base_url = 'http://h/v1' }"
    with pytest.raises(ConfigurationError, match="did you mean 'release-candidate'"):
        find_model("release-candidat", load_text(text, "f.toml"))


def test_where_nothing_is_near_the_way_to_the_names_is_told() -> None:
    with pytest.raises(ConfigurationError, match="'mirsafety models' lists the names"):
        find_model("zzzz", Settings())
