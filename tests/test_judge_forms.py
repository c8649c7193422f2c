"""A judge's table is validated whole, and becomes the judge that it describes."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
from judge_models import TEMPLATE

from pytest_mirsafety import config
from pytest_mirsafety.config import Settings
from pytest_mirsafety.errors import ConfigurationError, MissingExtraError
from pytest_mirsafety.judge_building import JudgeContext
from pytest_mirsafety.judge_forms import KINDS
from pytest_mirsafety.judges.rules import RulesJudge
from pytest_mirsafety.protocols import Judge
from pytest_mirsafety.registry import build_judge, find_judge

KEY = "own.form:0123456789"
COMMIT = "0123456789" * 4
DIGEST = hashlib.sha256(TEMPLATE.encode()).hexdigest()
PLACE = "provider = 'http'\nmodel = 'm'\nbase_url = 'http://127.0.0.1:9/v1'\n"
LOCAL = "provider = 'transformers'\nmodel = 'org/m'\n"
SERVED = "provider = 'vllm'\n"
OURS = f"template = 't.txt'\ntemplate_digest = 'sha256:{DIGEST}'\n"


@pytest.fixture(autouse=True)
def _vllm_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pytest_mirsafety.servers.vllm.check_installed", lambda: None)


def settings_of(name: str, table: str) -> Settings:
    return config.load_text(f"[judges.{name}]\n{table}", "mirsafety.toml")


def judge_of(name: str, table: str, base: Path = Path(), **environ: str) -> Judge:
    settings = settings_of(name, table)
    return build_judge(find_judge(name, settings), settings, JudgeContext(base, environ))


def line_of(name: str, table: str, base: Path = Path(), **environ: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        judge_of(name, table, base, **environ)
    line = str(caught.value)
    assert line.isprintable()
    assert KEY not in line
    return line


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "t.txt").write_text(TEMPLATE, "utf-8")
    return tmp_path


def test_a_tables_name_is_its_kind_where_it_is_one(base: Path) -> None:
    assert judge_of("harmbench", PLACE + OURS, base).identity.startswith("harmbench-other-template")
    assert judge_of("llamaguard", PLACE).identity.startswith("llamaguard (http:m,")
    assert judge_of("rubric", PLACE).identity.startswith("rubric-")
    assert isinstance(judge_of("rules", ""), RulesJudge)
    assert judge_of("mine", f"kind = 'llamaguard'\n{PLACE}").identity.startswith("llamaguard")


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("x", "provider = 'rules'"),
        ("harmbench", "provider = 'rules'"),
        ("x", "kind = 'rules'"),
        ("x", "kind = 'rules'\nprovider = 'rules'\nmax_retries = 1"),
    ],
)
def test_rules_in_every_form(name: str, table: str) -> None:
    assert isinstance(judge_of(name, table), RulesJudge)


def test_a_users_own_judge_may_have_any_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import ModuleType

    module = ModuleType("somebodys")
    seen: list[Any] = []

    def factory(settings: object) -> RulesJudge:
        seen.append(settings)
        return RulesJudge()

    module.factory = factory  # type: ignore[attr-defined]  # a module has any attribute
    monkeypatch.setitem(sys.modules, "somebodys", module)
    for name in ("mine", "rubric"):
        judge_of(name, "provider = 'somebodys:factory'\nmodel = 'theirs'\nclip_tokens = 3")
    assert [(s.provider, s.model, s.kind) for s in seen] == [
        ("somebodys:factory", "theirs", None)
    ] * 2


@pytest.mark.parametrize(
    ("name", "table", "named"),
    [
        ("x", "", 'judges.x: needs kind, which is one of "rules", "harmbench"'),
        ("x", PLACE, "needs kind"),
        ("x", "kind = 'harmbnech'", "judges.x.kind"),
        ("harmbench", "", "needs provider, which is one of http, vllm, transformers"),
        ("harmbench", "provider = 'openai'\nmodel = 'm'", "one of http, vllm, transformers"),
        ("rubric", LOCAL, "one of http, openai, vllm"),
        ("rubric", "provider = 'openai'", 'kind "rubric" needs model'),
        ("llamaguard", SERVED + "model = 'm'", "needs a pinned revision"),
        ("llamaguard", SERVED + "model = './m'", "there is no folder"),
        ("llamaguard", SERVED + "model = 'm'\napi_key_env = 'K'", "'api_key_env' has no meaning"),
        (
            "llamaguard",
            SERVED + "model = 'm'\nbase_url = 'http://h/v1'\ngpu_memory = 0.5",
            "'gpu_memory' is for a server that is started here",
        ),
        ("llamaguard", PLACE + "gpu_memory = 0.5", "'gpu_memory' has no meaning"),
        ("llamaguard", SERVED + "model = 'm'\ngpu_memory = 0", "gpu_memory"),
        ("llamaguard", LOCAL + "server_args = ['-x']", "'server_args' has no meaning"),
        ("harmbench", "provider = 'http'\nmodel = 'm'", "needs base_url"),
        ("rules", PLACE, "asks no model"),
        ("rules", "kind = 'rules'\nmodel = 'm'", "'model' has no meaning for kind \"rules\""),
        ("llamaguard", PLACE + OURS, "'template' has no meaning for kind \"llamaguard\""),
        ("llamaguard", PLACE + "device = 'cpu'", "'device' has no meaning"),
        ("llamaguard", LOCAL + "base_url = 'http://h/v1'", "'base_url' has no meaning"),
        ("llamaguard", LOCAL + "concurrency = 4", "'concurrency' has no meaning"),
        ("harmbench", PLACE + "template_digest = 'abc'", "template_digest"),
        ("harmbench", PLACE + "clip_tokens = -1", "clip_tokens"),
        ("harmbench", PLACE + "images = true", "'images' has no meaning for kind \"harmbench\""),
        ("llamaguard", PLACE + "images = true", "'images' has no meaning"),
        ("llamaguard", LOCAL + "images = true", "'images' has no meaning"),
        ("x", "kind = 'rules'\nimages = true", "'images' has no meaning for kind \"rules\""),
        ("x", "kind = 'panel'\nmembers = ['a', 'b']\nimages = true", "'images' has no meaning"),
        ("x", "provider = 'a.b:c'\nimages = true", "a judge of your own: one that looks at images"),
        ("rubric", LOCAL + "images = true", "one of http, openai, vllm"),
        ("rubric", PLACE + "images = 'yes'", "images"),
        ("harmbench", PLACE + f"api_key_env = '{KEY}'", "name of an environment variable"),
        ("harmbench", PLACE + "temprature = 1", "unknown key 'judges.harmbench.temprature'"),
        ("harmbench", PLACE + "templat = 't'", "did you mean 'template'?"),
        ("harmbench", PLACE + "timeout = 0", "timeout"),
        ("harmbench", LOCAL + "device = 'tpu'", "device"),
    ],
)
def test_what_does_not_fit_is_named(name: str, table: str, named: str) -> None:
    assert named in line_of(name, table)


def test_a_judge_on_a_server_of_the_run_is_known_by_its_checkpoint(base: Path) -> None:
    (base / "guard").mkdir()
    (base / "guard" / "config.json").write_text("{}", "utf-8")
    judge = judge_of("llamaguard", SERVED + "model = 'guard'\ndtype = 'bfloat16'", base)
    assert judge.identity.startswith("llamaguard (vllm:guard@files-")
    assert "bfloat16" in judge.identity
    hub = judge_of("llamaguard", SERVED + f"model = 'org/m'\nrevision = '{COMMIT}'")
    assert hub.identity.startswith(f"llamaguard (vllm:org/m@{COMMIT}, ")


def test_every_kind_is_offered() -> None:
    assert set(KINDS) == {"rules", "harmbench", "llamaguard", "rubric", "answered", "panel"}
    for kind in set(KINDS) - {"rules"}:
        with pytest.raises(ConfigurationError, match=rf"describe it in \[judges.{kind}\]"):
            find_judge(kind, Settings())
    assert isinstance(build_judge(find_judge("rules", Settings()), Settings()), RulesJudge)


def test_harmbench_needs_a_template_that_is_named(base: Path) -> None:
    assert "needs its template: set revision to the commit" in line_of("harmbench", PLACE)
    assert "needs its template" in line_of("harmbench", PLACE + "revision = 'main'")
    assert "SHA-256 4016eb2e" in line_of("harmbench", PLACE + "template = 't.txt'", base)
    assert "cannot be read" in line_of("harmbench", PLACE + "template = 'no.txt'", base)


def test_the_card_is_that_of_the_model_at_its_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    table = PLACE.replace("'m'", "'org/m'") + f"revision = '{COMMIT}'"
    assert f"template 'hub:org/m@{COMMIT}' cannot be fetched" in line_of("harmbench", table)


def test_the_key_is_read_from_its_variable_and_shown_nowhere(base: Path) -> None:
    named = PLACE + "api_key_env = 'JUDGE_KEY'\n"
    assert "needs a key: set JUDGE_KEY" in line_of("rubric", named)
    assert "odd characters" in line_of("rubric", named, JUDGE_KEY=f"{KEY} x")
    judge = judge_of("rubric", named, base, JUDGE_KEY=KEY)
    assert KEY not in repr(judge) + judge.identity
    assert KEY not in repr(JudgeContext(base, {"JUDGE_KEY": KEY}))
    assert "needs a key: set OPENAI_API_KEY" in line_of("rubric", "provider='openai'\nmodel='m'")


def test_a_dry_run_needs_no_key() -> None:
    settings = settings_of("rubric", PLACE + "api_key_env = 'JUDGE_KEY'")
    judge = find_judge("rubric", settings)
    assert build_judge(judge, settings, JudgeContext(asks=False)).screening is False


def test_running_a_model_here_needs_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    table = LOCAL + f"revision = '{COMMIT}'"
    with pytest.raises(MissingExtraError, match="the extra 'transformers'"):
        judge_of("llamaguard", table)


def test_a_model_of_the_hub_needs_a_pinned_revision() -> None:
    for revision in ("", "revision = 'main'"):
        assert "needs a pinned revision" in line_of("llamaguard", LOCAL + revision)


@pytest.mark.parametrize("change", ["clip_tokens = 9", "revision = 'r'", "model = 'n'"])
def test_settings_that_change_a_verdict_change_the_identity(change: str, base: Path) -> None:
    for name, own in (("harmbench", OURS), ("llamaguard", ""), ("rubric", "")):
        table = PLACE + own
        key = change.partition(" ")[0]
        changed = "\n".join(x for x in table.split("\n") if not x.startswith(key)) + f"\n{change}"
        assert judge_of(name, table, base).identity != judge_of(name, changed, base).identity
