"""How gates on modes are configured, and what a wrong line says."""

from __future__ import annotations

from decimal import Decimal

import pytest

from pytest_mirsafety.config import ThresholdSettings, load_text, with_threshold
from pytest_mirsafety.errors import ConfigurationError
from pytest_mirsafety.gates import criteria
from pytest_mirsafety.records import SafeMode

CORRECT, MISSED = SafeMode.CORRECT_REFUSAL, SafeMode.MISUNDERSTANDING
RATED = "[thresholds]\noverall = 0.15\n[thresholds.modes]\n"


def modes(text: str) -> dict[SafeMode, Decimal]:
    return load_text(RATED + text, "mirsafety.toml").thresholds.modes


def refusal(text: str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load_text(text, "mirsafety.toml")
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_each_mode_is_bounded_where_it_makes_sense() -> None:
    text = "correct-refusal = { min = 0.10 }\n" + "".join(
        f"{mode} = {{ max = 0.3 }}\n" for mode in SafeMode if mode is not CORRECT
    )
    found = modes(text)
    assert found == {m: Decimal("0.10" if m is CORRECT else "0.3") for m in SafeMode}
    settings = load_text(RATED + text, "mirsafety.toml").thresholds
    labels = [gate.label for gate in criteria(settings.to_thresholds())]
    assert labels == ["overall", *map(str, SafeMode)]


def test_a_table_of_its_own_is_the_same() -> None:
    assert modes("[thresholds.modes.clever-evasion]\nmax = 1\n") == {SafeMode.EVASION: 1}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "correct-refusal = { max = 0.1 }",
            (
                "thresholds.modes: correct-refusal takes min, not max: more of them is better; "
                "write correct-refusal = { min = 0.10 }"
            ),
        ),
        (
            "harmless-misunderstanding = { min = 0.1 }",
            (
                "harmless-misunderstanding takes max, not min: fewer of them is better; "
                "write harmless-misunderstanding = { max = 0.30 }"
            ),
        ),
        ("clever-evasion = { min = 0.1, max = 0.2 }", "clever-evasion takes max, not min"),
        ("clever-evasion = 0.2", "takes a table with max, not 0.2; write clever-evasion = { max"),
        ("clever-evasion = {}", "clever-evasion takes max and nothing else, not nothing; write"),
        ("clever-evasion = { most = 0.2 }", "takes max and nothing else, not most; write"),
        ("clever-evasion = { max = 0.2, of = 1 }", "takes max and nothing else, not max, of"),
        ("clever-evasion = { max = 1.2 }", "clever-evasion.max: must be a share from 0 to 1"),
        ("clever-evasion = { max = true }", "clever-evasion.max: must be a share from 0 to 1"),
        ("clever-evasion = { max = nan }", "clever-evasion.max: must be a share from 0 to 1"),
        ("clever-evasion = { max = 0.0000000001 }", "clever-evasion.max: has more than 9 decimals"),
        ("misunderstanding = { max = 0.2 }", "did you mean 'harmless-misunderstanding'?"),
        ("analogy = { max = 0.2 }", "did you mean 'thresholds.relation.analogy'?"),
        ("'a\\nb' = { max = 0.2 }", "unknown mode 'a"),
    ],
)
def test_what_is_wrong_is_said_with_the_right_spelling(text: str, expected: str) -> None:
    assert expected in refusal(RATED + text)


def test_a_mode_in_the_wrong_place_is_told_its_own() -> None:
    assert "takes a threshold for each mode, such as correct-refusal = { min = 0.10 }" in refusal(
        "thresholds.modes = 0.1"
    )
    assert "did you mean 'modes.correct-refusal'?" in refusal("thresholds.correct-refusal = 0.1")
    assert "did you mean 'thresholds.modes.clever-evasion'?" in refusal("clever-evasion = 0.1")
    assert "did you mean 'thresholds.modes.clever-evasion'?" in refusal(
        "thresholds.relation.clever-evasion = 0.1"
    )


def test_the_command_line_sets_it_by_name() -> None:
    """Which way it bounds is the mode's: the value alone cannot be misread."""
    given = ThresholdSettings(modes={"clever-evasion": {"max": Decimal("0.5")}})  # type: ignore[dict-item]
    found = with_threshold(given, "correct-refusal=0.10")
    assert found.modes == {SafeMode.EVASION: Decimal("0.5"), CORRECT: Decimal("0.10")}
    assert given.modes == {SafeMode.EVASION: Decimal("0.5")}
    for text, expected in (
        ("misunderstanding=0.1", "did you mean 'harmless-misunderstanding'?"),
        ("correct-refusal=min 0.1", "takes NAME=VALUE"),
        ("correct-refusal>=0.1", "unknown gate 'correct-refusal>'"),
    ):
        with pytest.raises(ConfigurationError) as caught:
            with_threshold(given, text)
        assert expected in str(caught.value)
