"""Flags: what a command line of text becomes before anybody knows the types."""

from __future__ import annotations

from typing import Any, Literal

import pytest

from lmtasks.api import Option
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.cli.argv import loose, scalar, taken_switch, taken_values, underscored
from lmtasks.cli.parser import Parser, add_options, typed_flags
from lmtasks.errors import InputError

OPTIONS = [
    Option("rate", float, 0.15, "share of 100 % hidden", {}, ("ratio",)),
    Option("fast", bool, False, "hurry"),
    Option("files", list[str] | None, None, "files"),
    Option("unit", Literal["line", "word"], "line", "unit"),
    Option("secret", Any, None, "an object", python_only=True),
    Option("count", int, 3, "how many"),
]


def parser() -> Parser:
    made = Parser(prog="tool")
    add_options(made, "options", OPTIONS)
    return made


def parse(*words: str) -> dict[str, Any]:
    return vars(parser().parse_args(list(words)))


def test_only_what_was_typed_is_in_the_result() -> None:
    assert parse() == {}
    assert parse("--rate", "0.5") == {"rate": "0.5"}


def test_values_stay_text() -> None:
    assert parse("--count", "007", "--rate=1e-4") == {"count": "007", "rate": "1e-4"}


def test_alias_sets_the_option() -> None:
    assert parse("--ratio", "0.5") == {"rate": "0.5"}


def test_switch_needs_no_value_but_takes_one() -> None:
    assert parse("--fast") == {"fast": "true"}
    assert parse("--fast", "false") == {"fast": "false"}
    assert parse("--fast", "--count", "1") == {"fast": "true", "count": "1"}


def test_list_takes_several_values() -> None:
    assert parse("--files", "a", "b", "--fast") == {"files": ["a", "b"], "fast": "true"}


def test_abbreviation_is_not_guessed() -> None:
    with pytest.raises(InputError, match="--rat"):
        parse("--rat", "0.5")


def test_missing_value_is_bad_input_with_a_hint_to_the_help() -> None:
    with pytest.raises(InputError, match="expected one argument") as caught:
        parse("--rate")
    assert caught.value.hint == "tool --help"


def test_python_only_option_has_no_flag() -> None:
    with pytest.raises(InputError, match="--secret"):
        parse("--secret", "x")


def test_help_shows_defaults_choices_placeholders_and_percent_signs() -> None:
    text = parser().format_help()
    assert "--rate, --ratio X" in text
    assert "share of 100 % hidden (default: 0.15)" in text
    assert "--unit {line,word}" in text
    assert "--count N" in text
    assert "hurry (default" not in text
    assert "secret" not in text


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("--learning-rate", "--learning_rate"),
        ("--learning_rate", "--learning_rate"),
        ("--model-name-or-path=my-model", "--model_name_or_path=my-model"),
        ("my-model", "my-model"),
        ("-5", "-5"),
        ("--a-b=c=--d-e", "--a_b=c=--d-e"),
    ],
)
def test_hyphens_become_underscores_in_names_only(typed: str, expected: str) -> None:
    assert underscored([typed]) == [expected]


def test_undeclared_flags_are_told_from_words() -> None:
    words = ["one", "--top_k", "3", "--stop=a=b", "two words", "--flag", "--last"]
    assert loose(words) == ({"top_k": "3", "stop": "a=b", "flag": "true", "last": "true"}, ["one", "two words"])


def test_negative_number_is_a_value() -> None:
    assert loose(["--bias", "-5"]) == ({"bias": "-5"}, [])


def test_switch_leaves_the_word_after_it_unless_it_is_a_truth_value() -> None:
    assert loose(["--do_sample", "text"], ["do_sample"]) == ({"do_sample": "true"}, ["text"])
    assert loose(["--do_sample", "False", "text"], ["do_sample"]) == ({"do_sample": "False"}, ["text"])


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("3", 3),
        ("-3", -3),
        ("0.5", 0.5),
        ("1e-4", 0.0001),
        ("true", True),
        ("False", False),
        ("null", None),
        ("[a, 2]", ["a", 2]),
        ("the end", "the end"),
        ("Note: well", "Note: well"),
        ("[MASK", "[MASK"),
        ("2020-01-01", "2020-01-01"),
        ("- item", "- item"),
    ],
)
def test_typed_word_is_a_number_a_truth_a_list_or_text(typed: str, expected: Any) -> None:
    value = scalar(typed)
    assert value == expected
    assert type(value) is type(expected)


def test_list_flag_that_comes_twice_keeps_both() -> None:
    assert parse("--files", "a", "b", "--rate", "1", "--files", "c")["files"] == ["a", "b", "c"]


def test_nothing_is_a_flag_after_two_dashes() -> None:
    assert loose(["--a", "1", "x", "--", "--b", "y"]) == ({"a": "1"}, ["x", "--b", "y"])


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["list"], (False, ["list"])),
        (["--on", "list"], (True, ["list"])),
        (["run", "x", "--on"], (True, ["run", "x"])),
        (["--on", "true", "list"], (True, ["list"])),
        (["--on=false", "list"], (False, ["list"])),
        (["a", "--on", "False"], (False, ["a"])),
        (["a", "--", "--on"], (False, ["a", "--", "--on"])),
        (["a", "--on", "--", "true"], (True, ["a", "--", "true"])),
    ],
)
def test_switch_is_taken_from_anywhere_before_two_dashes(typed: list[str], expected: Any) -> None:
    assert taken_switch(typed, "on") == expected


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["list"], ([], ["list"])),
        (["--of", "a", "list", "--of=b"], (["a", "b"], ["list"])),
        (["x", "--", "--of", "a"], ([], ["x", "--", "--of", "a"])),
    ],
)
def test_values_are_taken_from_anywhere_before_two_dashes(typed: list[str], expected: Any) -> None:
    assert taken_values(typed, "of") == expected


@pytest.mark.parametrize("typed", [["--of"], ["--of="], ["--of", "--json"], ["--of", "--", "a"]])
def test_value_that_is_not_there_is_missed(typed: list[str]) -> None:
    with pytest.raises(InputError, match="--of needs a value"):
        taken_values(typed, "of")


def test_the_last_of_two_values_counts_and_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--seed", "1", "--learning_rate", "1", "--seed", "2", "--logging_steps", "3", "--logging_steps", "4"]
    typed = typed_flags(Parser(), MASKED_LM, words, trains=True)
    assert (typed["seed"], typed["learning_rate"], typed["logging_steps"]) == ("2", "1", "4")
    assert capsys.readouterr().err.splitlines() == [
        "--seed 1 gives way to --seed 2, which comes after it",
        "--logging_steps 3 gives way to --logging_steps 4, which comes after it",
    ]
    typed_flags(Parser(), MASKED_LM, ["--seed", "2", "--seed", "2", "--model", "a"], trains=True)
    assert capsys.readouterr().err == "", "nobody need be told of what is the same"
    typed = typed_flags(Parser(), MASKED_LM, ["--train_file", "a", "b", "--train_file", "c"], trains=True)
    assert typed["train_file"] == ["a", "b", "c"]


def test_an_option_of_a_plugin_that_is_called_like_another_is_refused() -> None:
    made = parser()
    with pytest.raises(InputError, match="--ratio is the name of two options") as refusal:
        add_options(made, "mine", [Option("other", int, 1, "mine", {}, ("ratio",))])
    assert refusal.value.hint.startswith("rename the one that the plugin brings")
