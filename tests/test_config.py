"""The configuration: what it accepts, and how it says what is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pytest_mirsafety import config
from pytest_mirsafety.config import ThresholdSettings, with_threshold
from pytest_mirsafety.errors import ConfigurationError
from pytest_mirsafety.gates import criteria
from pytest_mirsafety.taxonomy import Category, Group, Relation


def load(tmp_path: Path, text: str) -> config.Configuration:
    (tmp_path / "mirsafety.toml").write_text(text, encoding="utf-8")
    return config.load(tmp_path)


def test_nothing_configured_gives_the_defaults(tmp_path: Path) -> None:
    found = config.load(tmp_path)
    assert found.file is None
    assert found.settings.data == "sample"
    assert found.settings.thresholds == ThresholdSettings()


def test_pyproject_and_mirsafety_toml_say_the_same(tmp_path: Path) -> None:
    body = 'data = "jsonl:x"\nthresholds.default = 0.2\nthresholds.category.self-harm = 0\n'
    standalone = load(tmp_path, body).settings
    (tmp_path / "mirsafety.toml").unlink()
    (tmp_path / "pyproject.toml").write_text(f"[tool.mirsafety]\n{body}", encoding="utf-8")
    assert config.load(tmp_path).settings == standalone


def test_a_threshold_is_kept_as_written(tmp_path: Path) -> None:
    thresholds = load(tmp_path, "thresholds.default = 0.29").settings.thresholds
    assert thresholds.default == Decimal("0.29")


def test_names_are_accepted_in_upstreams_spelling(tmp_path: Path) -> None:
    text = "thresholds.relation.Temporal_Jump = 0.1\nthresholds.category.Self-Harm = 0.02"
    thresholds = load(tmp_path, text).settings.thresholds
    assert thresholds.relation == {Relation.JUMP: Decimal("0.1")}
    assert thresholds.category == {Category.SELF_HARM: Decimal("0.02")}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("treshold = 0.1", "unknown key 'treshold'; did you mean 'thresholds'?"),
        ("thresholds.defualt = 0.1", "did you mean 'default'?"),
        ("thresholds.default = 1.5", "from 0 to 1, not 1.5"),
        ("thresholds.default = -0.1", "from 0 to 1, not -0.1"),
        ("thresholds.default = nan", "from 0 to 1, not NaN"),
        ("thresholds.default = inf", "from 0 to 1, not Infinity"),
        ("thresholds.default = true", "from 0 to 1, not True"),
        ('thresholds.default = "0.1"', "from 0 to 1, not '0.1'"),
        ("thresholds = 0.1", "thresholds:"),
        ("thresholds.relation.analgy = 0.1", "unknown relation 'analgy'; did you mean 'analogy'?"),
        ("thresholds.category.selfharm = 0.1", "did you mean 'self-harm'?"),
        ("thresholds.group.logic = 0.1", "unknown group 'logic'; did you mean 'logical'?"),
        (
            "thresholds.analogy = 0.1",
            "unknown key 'thresholds.analogy'; did you mean 'relation.analogy'?",
        ),
        ("thresholds.analgy = 0.1", "did you mean 'relation.analogy'?"),
        ("thresholds.Temporal_Jump = 0.1", "did you mean 'relation.jump'?"),
        ("thresholds.self_harm = 0.1", "did you mean 'category.self-harm'?"),
        ("thresholds.logical = 0.1", "did you mean 'group.logical'?"),
        ("thresholds.relations.analogy = 0.1", "did you mean 'relation.NAME'?"),
        (
            "thresholds.quux = 0.1",
            "valid: default, overall, relation.NAME, group.NAME, category.NAME",
        ),
        (
            "thresholds.category.analogy = 0.1",
            "unknown category 'analogy'; did you mean 'thresholds.relation.analogy'?",
        ),
        (
            "thresholds.relation = 0.1",
            "takes a threshold for each name, such as relation.NAME = 0.10, not 0.1",
        ),
        ("thresholds.group = 0.1", "such as group.NAME = 0.10, not 0.1"),
        ("analogy = 0.1", "unknown key 'analogy'; did you mean 'thresholds.relation.analogy'?"),
        ("relation.analogy = 0.1", "did you mean 'thresholds.relation.NAME'?"),
        ("overall = 0.1", "did you mean 'thresholds.overall'?"),
        (
            "models.x = { provider = 'http', model = 'm', thresholds = { analgy = 0.1 } }",
            "unknown key 'models.x.thresholds.analgy'; did you mean 'relation.analogy'?",
        ),
        ("confidence = 0", "confidence: must be above 0.5 and below 1"),
        ("confidence = 1", "confidence: must be above 0.5 and below 1"),
        ("confidence = 0.5", "confidence: must be above 0.5 and below 1, not 0.5"),
        (f"confidence = 0.{'9' * 40}", "confidence: has more than 9 decimals"),
        (f"confidence = 0.5{'0' * 40}1", "confidence: has more than 9 decimals"),
        ("confidence = 1e-9999", "confidence: must be above 0.5 and below 1, not 1E-9999"),
        ("thresholds.default = 0.0000000001", "thresholds.default: has more than 9 decimals"),
        ("thresholds.default = 1e-10", "thresholds.default: has more than 9 decimals"),
        ("thresholds.default = 1E-9999999999", "thresholds.default: has more than 9 decimals"),
        ("thresholds.default = 1E+9999999999", "from 0 to 1, not 1E+9999999999"),
        (f"thresholds.default = 1e-{'9' * 30}", "not valid TOML: a value is out of range"),
        (f"thresholds.default = 0.3{'0' * 37}1", "thresholds.default: has more than 9 decimals"),
        (f"thresholds.default = {'9' * 9000}", "not valid TOML"),
        (f"thresholds.default = 0x{'f' * 9000}", "from 0 to 1, not"),
        (f"models = {'[' * 20_000}", "not valid TOML"),
        ("confidence = 95", "confidence: must be above 0.5 and below 1"),
        ('confidence = "high"', "confidence: must be a number"),
        ('require = "some"', "require:"),
        ('estimand = "answer"', "estimand:"),
        ('data = ""', "data:"),
        ("data = 3", "data:"),
        ('data_digest = "abc"', "data_digest:"),
        ("allow_screening_judge = 1", "allow_screening_judge:"),
        ("models.x.provider = 'openai'", "'models.x.model' is missing"),
        ("models.x = 3", "models.x:"),
        (
            "models.x = { provider = 'openai', model = 'm', concurency = 4 }",
            "unknown key 'models.x.concurency'; did you mean 'concurrency'?",
        ),
        ("models.x = { provider = 'openai', model = 'm', concurrency = 0 }", "concurrency"),
        ("models.x = { provider = 'openai', model = 'm', timeout = -1 }", "timeout"),
        ("models.x = { provider = 'openai', model = 'm', max_retries = 99 }", "max_retries"),
        ("models.x = { provider = 'openai', model = 'm', image_transport = 'ftp' }", "'base64'"),
        ("judges.x = { kind = 'rule' }", "judges.x.kind"),
        ("limits.max_bytes = 0", "limits.max_bytes"),
        ("limits.max_pixel = 1", "did you mean 'max_pixels'?"),
        (
            "thresholds.relation = { analogy = 0.1, Analogy = 0.9 }",
            "thresholds.relation: 'analogy' and 'Analogy' are both analogy; keep one",
        ),
        (
            "thresholds.relation = { Temporal_Jump = 0.1, jump = 0.9 }",
            "thresholds.relation: 'Temporal_Jump' and 'jump' are both jump; keep one",
        ),
        (
            "thresholds.category = { Self-Harm = 0.1, self_harm = 0.9 }",
            "thresholds.category: 'Self-Harm' and 'self_harm' are both self-harm; keep one",
        ),
        (
            "models.x = { thresholds.relation = { 'jump' = 0.1, ' Jump ' = 0.9 } }",
            "models.x.thresholds.relation: 'jump' and 'Jump' are both jump",
        ),
        ("thresholds.relation = { anlogy = 0.1, anlogi = 0.1 }", "unknown relation 'anlogy'"),
        ('unscored.filtered = "safe"', "filter_ships = true"),
        ('unscored.undetermined = "safe"', "unscored.undetermined"),
        ("a = ", "not valid TOML"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert expected in message
    assert "mirsafety.toml" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    "key",
    [
        *("sk-live-abcdefgh123456789", "sk_live_abcdefgh123456789", "9876abcdef", "a key", ""),
        *("KEY\n", "\u00c4KEY_abcdef", "\udcff", 987654321, True, ["secret"], {"x": "secret"}),
    ],
)
def test_a_key_in_place_of_its_variable_is_not_repeated(key: object) -> None:
    model = {"provider": "openai", "model": "m", "api_key_env": key}
    with pytest.raises(ConfigurationError) as caught:
        config.parse({"models": {"x": model}}, "mirsafety.toml")
    assert str(caught.value) == (
        "mirsafety.toml: models.x.api_key_env: must be the name of an environment variable, "
        "not the key itself"
    )


@pytest.mark.parametrize("name", ["OPENAI_API_KEY", "_key2", "SK", "sk"])
def test_the_name_of_a_variable_is_fine(name: str) -> None:
    model = {"provider": "openai", "model": "m", "api_key_env": name}
    assert config.parse({"models": {"x": model}}, "x").models["x"].api_key_env == name


ODD = st.text(st.characters(codec=None), max_size=20) | st.sampled_from(["\udcff", "\0", "\x1b["])
TABLES = st.recursive(
    ODD | st.booleans() | st.integers() | st.decimals() | st.none(),
    lambda inner: st.dictionaries(ODD | st.sampled_from(list(config.Settings.model_fields)), inner),
    max_leaves=6,
)


def problem(table: Mapping[str, object]) -> str:
    """The line that a table is refused with, or nothing."""
    try:
        config.parse(table, "mirsafety.toml")
    except ConfigurationError as error:
        return str(error)
    return ""


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from([*config.Settings.model_fields, "x", "\udcff"]), TABLES))
def test_any_table_is_settings_or_one_line(table: dict[str, object]) -> None:
    assert problem(table).isprintable()


@settings(max_examples=40)
@given(ODD)
@example("[key]")
def test_odd_names_are_settings_or_one_line(text: str) -> None:
    model = {"provider": text, "model": text, "base_url": text, text: text}
    tables: list[dict[str, object]] = [
        {text: text},
        {"models": {text: model}},
        {"thresholds": {"relation": {text: 1}}},
    ]
    for table in tables:
        assert problem(table).isprintable()


def test_several_problems_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load(tmp_path, "judg = 'x'\nconfidence = 2\nthresholds.default = 3\nrequire = 'x'")
    message = str(caught.value)
    assert "judg" in message
    assert "(+1 more)" in message


def test_two_configurations_are_one_too_many(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.mirsafety]\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="keep one of them"):
        load(tmp_path, "")


def test_a_pyproject_without_our_table_is_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.other]\nx = 1\n", encoding="utf-8")
    assert config.load(tmp_path).file is None
    with pytest.raises(ConfigurationError, match=r"no \[tool.mirsafety\] table"):
        config.load(tmp_path, tmp_path / "pyproject.toml")


def test_a_named_file_must_exist_and_be_text(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="not found"):
        config.load(tmp_path, Path("gone.toml"))
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigurationError, match="cannot be read"):
        config.load(tmp_path, Path("binary.toml"))


def test_tool_mirsafety_must_be_a_table(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool]\nmirsafety = 3\n", encoding="utf-8")
    with pytest.raises(ConfigurationError, match="must be a table"):
        config.load(tmp_path)


@given(st.decimals(0, 1, places=4), st.sampled_from([*Relation, *Group, *Category]))
def test_a_threshold_of_the_command_line_replaces_one(value: Decimal, name: str) -> None:
    before = ThresholdSettings(default=Decimal("0.5"), relation={Relation.JUMP: Decimal(1)})
    after = with_threshold(before, f"{name}={value}").to_thresholds()
    tables: dict[str, Decimal] = {}
    for table in (after.relation, after.group, after.category):
        tables |= {str(key): limit for key, limit in table.items()}
    assert tables.pop(name) == value
    assert after.default == Decimal("0.5")
    assert set(tables) <= {Relation.JUMP}


@pytest.mark.parametrize("zero", ["0", "0.0", "-0.0", "0e9999999", "0E-9999999999"])
def test_a_zero_is_a_threshold_however_it_is_written(tmp_path: Path, zero: str) -> None:
    thresholds = load(tmp_path, f"thresholds.default = {zero}").settings.thresholds.to_thresholds()
    [gate, *_] = criteria(thresholds)
    assert Fraction(gate.threshold) == 0


def test_trailing_zeros_are_no_decimals(tmp_path: Path) -> None:
    text = f"thresholds.default = 0.2{'0' * 60}\nconfidence = 0.95{'0' * 60}"
    found = load(tmp_path, text).settings
    assert (found.thresholds.default, found.confidence) == (Decimal("0.2"), Decimal("0.95"))


@pytest.mark.parametrize(
    "value",
    [
        *("1e-400", "1e-9999999", "1E-99999999999", "1e-10", f"0.3{'0' * 37}1", "0e9999999"),
        *("0.2_5", "\u0661", "0 .2", ".5", "-0", "+0.1", "sNaN", "\udcff"),
    ],
)
def test_a_threshold_of_the_command_line_is_plain(value: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        with_threshold(ThresholdSettings(), f"default={value}")
    message = str(caught.value)
    assert "--mir-threshold takes NAME=VALUE with a value from 0 to 1" in message
    assert message.isprintable()


@pytest.mark.parametrize("value", ["0", "1", "0.25", "25e-2", "2.5E-1", "0e400", "1e0"])
def test_ways_to_write_a_threshold_on_the_command_line(value: str) -> None:
    assert with_threshold(ThresholdSettings(), f"default={value}").default == Decimal(value)


@pytest.mark.parametrize(
    "text", ["analogy", "analogy=", "analogy=2", "analogy=x", "=0.1", "analogy=nan", "analgy=0.1"]
)
def test_a_bad_threshold_of_the_command_line_is_named(text: str) -> None:
    with pytest.raises(ConfigurationError, match="--mir-threshold"):
        with_threshold(ThresholdSettings(), text)


def test_mirsafety_toml_takes_the_form_of_pyproject_too(tmp_path: Path) -> None:
    text = "[tool.mirsafety]\nrequire = 'all'\n[tool.mirsafety.thresholds]\ndefault = 0.2\n"
    assert load(tmp_path, text).settings.require == "all"
    with pytest.raises(ConfigurationError, match="either all keys are under"):
        load(tmp_path, "judge = 'rules'\n" + text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("regression.overal = 0.1", "unknown key 'regression.overal'; did you mean 'overall'?"),
        (
            "regression.analogy = 0.1",
            "unknown key 'regression.analogy'; did you mean 'relation.analogy'?",
        ),
        (
            "regression.modes.clever-evasion = 0.1",
            "unknown key 'regression.modes'; valid: default, overall, relation.NAME, group.NAME, c",
        ),
        ("regression.overall = 1.5", "regression.overall: must be a share from 0 to 1, not 1.5"),
        ("regression.relation.overall = 0.1", "did you mean 'regression.overall'?"),
        (
            "regression.group = 0.1",
            "regression.group: takes a threshold for each name, such as group.NAME = 0.10, not 0.1",
        ),
        ("regresion.overall = 0.1", "unknown key 'regresion'; did you mean 'regression'?"),
    ],
)
def test_an_increase_is_configured_as_a_threshold_is(text: str, expected: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        config.load_text(text, "mirsafety.toml")
    assert expected in str(caught.value)
