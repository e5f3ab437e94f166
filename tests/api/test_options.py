"""Options: what text, YAML and Python values become, and what is refused."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmtasks.api import Option, convert, describe, option, options_of
from lmtasks.errors import InputError


def an_option(kind: Any, **more: Any) -> Option:
    return Option(name="thing", type=kind, default=None, **more)


def misfit(kind: Any, value: Any, **limits: float) -> InputError:
    with pytest.raises(InputError) as caught:
        convert(an_option(kind, limits=limits, help="thing in question"), value)
    return caught.value


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        (int, "3", 3),
        (int, "-3", -3),
        (int, 3.0, 3),
        (float, "1e-4", 0.0001),
        (float, ".5", 0.5),
        (float, "1.", 1.0),
        (float, "+2", 2.0),
        (float, "-.5E-1", -0.05),
        (float, 3, 3.0),
        (bool, "true", True),
        (bool, "True", True),
        (bool, "false", False),
        (bool, "False", False),
        (bool, "0", False),
        (bool, 1, True),
        (str, "3", "3"),
        (str, "none", "none"),
        (str | None, "none", None),
        (int | None, "None", None),
        (int | None, "7", 7),
        (float | None, None, None),
        (bool | str | None, "true", True),
        (bool | str | None, "false", False),
        (bool | str | None, "checkpoint-3", "checkpoint-3"),
        (list[str] | None, "a.txt", ["a.txt"]),
        (list[str] | None, ["a", "b"], ["a", "b"]),
        (list[str] | None, ("a", "b"), ["a", "b"]),
        (list[int], ["1", 2], [1, 2]),
        (list[int], 5, [5]),
        (list[str] | str, "none", "none"),
        (dict[str, Any] | str | None, '{"use_reentrant": false}', {"use_reentrant": False}),
        (dict | str | None, '{"num_cycles": 2}', {"num_cycles": 2}),
        (dict[str, Any] | str | None, "plain text", "plain text"),
        (Literal["line", "paragraph"], "paragraph", "paragraph"),
        (Any, "nan", "nan"),
    ],
)
def test_value_becomes_what_the_type_asks(kind: Any, value: Any, expected: Any) -> None:
    converted = convert(an_option(kind), value)
    assert converted == expected
    assert type(converted) is type(expected)


@pytest.mark.parametrize(
    ("kind", "value", "wanted"),
    [
        (int, "3.5", "a whole number"),
        (int, "three", "a whole number"),
        (int, "", "a whole number"),
        (int, True, "a whole number"),
        (int, [1], "a whole number"),
        (int, None, "a whole number"),
        (float, "1e-4x", "a number"),
        (float, True, "a number"),
        (float, "1_0", "a number"),
        (float, ".", "a number"),
        (bool, "yes", "true or false"),
        (bool, "on", "true or false"),
        (bool, 2, "true or false"),
        (bool, None, "true or false"),
        (str, 3, "text"),
        (str, True, "text"),
        (list[int], ["1", "x"], "a list"),
        (dict[str, bool] | None, '{"broken":', "a JSON object"),
        (dict[str, bool] | None, "[1]", "a JSON object"),
        (int | str, [1], "a whole number or text"),
    ],
)
def test_value_of_another_type_is_refused_in_words(kind: Any, value: Any, wanted: str) -> None:
    shown = f"'{value}'" if isinstance(value, str) else repr(value)
    assert misfit(kind, value).message == f"--thing cannot be {shown}: it must be {wanted}"


@pytest.mark.parametrize("value", ["nan", "NaN", "inf", "-inf", "Infinity", "1e999", math.nan, math.inf, -math.inf])
def test_float_that_is_no_number_is_refused(value: Any) -> None:
    assert misfit(float, value).message.endswith("it must be a number")
    misfit(float | None, value)


@pytest.mark.parametrize(
    ("limits", "good", "bad"),
    [
        ({"gt": 0}, [1e-300, 5], [0, -0.0, -1]),
        ({"ge": 0}, [0, 5], [-1e-300, -1]),
        ({"lt": 1}, [0.999, -5], [1, 1.0, 2]),
        ({"le": 1}, [1, -5], [1.0000001, 2]),
        ({"gt": 0, "lt": 1}, [0.5], [0, 1]),
    ],
)
def test_range_is_exact_at_its_ends(limits: dict[str, float], good: list[float], bad: list[float]) -> None:
    for value in good:
        assert convert(an_option(float, limits=limits), value) == value
        assert convert(an_option(float | None, limits=limits), str(value)) == value
    for value in bad:
        misfit(float, value, **limits)
        misfit(float | None, str(value), **limits)


def test_range_holds_for_whole_numbers_and_none_escapes_it() -> None:
    limited = an_option(int | None, limits={"ge": 2})
    assert convert(limited, "2") == 2
    assert convert(limited, None) is None
    assert misfit(int | None, "1", ge=2).message == "--thing cannot be '1': it must be a whole number at least 2"


def test_range_is_told_in_words() -> None:
    assert describe(an_option(float, limits={"gt": 0, "lt": 1})) == "a number above 0 and below 1"
    assert describe(an_option(int, limits={"ge": 1, "le": 9})) == "a whole number at least 1 and at most 9"


def test_unknown_choice_names_the_nearest() -> None:
    error = misfit(Literal["line", "paragraph", "document"], "paragraf")
    assert error.message == (
        "--thing cannot be 'paragraf': it must be one of line, paragraph, document, did you mean 'paragraph'?"
    )


def test_hint_tells_what_the_option_is() -> None:
    assert misfit(int, "x").hint == "--thing: thing in question"


def test_only_words_count_as_choices() -> None:
    assert an_option(str | Literal[False] | None).choices == ()
    assert an_option(Literal["a", "b"] | None).choices == ("a", "b")


@pytest.mark.parametrize(
    ("kind", "switch", "several"),
    [(bool, True, False), (bool | None, True, False), (bool | str, False, False), (list[str] | None, False, True)],
)
def test_shape_of_the_flag_follows_from_the_type(kind: Any, switch: bool, several: bool) -> None:
    assert (an_option(kind).is_switch, an_option(kind).is_list) == (switch, several)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_number_survives_being_typed(number: float) -> None:
    assert convert(an_option(float), repr(number)) == number


@given(st.integers())
def test_every_whole_number_survives_being_typed(number: int) -> None:
    # msgspec, like JSON, knows integers of 64 bits; what is longer stays exact or is refused, never rounded.
    try:
        assert convert(an_option(int), str(number)) == number
    except InputError:
        assert abs(number) >= 2**63


def test_options_of_a_dataclass_keep_order_defaults_limits_and_aliases() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Rates:
        zeta: float = option(0.25, help="the first", gt=0, lt=1, aliases=["z"])
        alpha: int | None = option(None, help="the second", python_only=True, training_only=True)

    first, second = options_of(Rates).values()
    assert (first.name, first.type, first.default, first.help) == ("zeta", float, 0.25, "the first")
    assert (dict(first.limits), first.aliases, first.python_only) == ({"gt": 0, "lt": 1}, ("z",), False)
    assert (second.name, second.type, second.default, second.python_only) == ("alpha", int | None, None, True)
    assert (first.training_only, second.training_only) == (False, True)


def test_inherited_options_come_first() -> None:
    @dataclass(frozen=True, kw_only=True)
    class Base:
        size: int = option(1, help="size")

    @dataclass(frozen=True, kw_only=True)
    class Derived(Base):
        rate: float = option(0.5, help="rate")

    assert list(options_of(Derived)) == ["size", "rate"]


def test_declaration_that_is_no_dataclass_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="options must be a dataclass"):
        options_of(dict)


def test_field_without_help_is_a_type_error_that_names_it() -> None:
    @dataclass
    class Careless:
        rate: float = field(default=0.5)

    with pytest.raises(TypeError, match=r"Careless\.rate must be made with option"):
        options_of(Careless)
