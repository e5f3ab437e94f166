"""Progress: a plain line now and then where nobody watches a terminal, a bar where somebody does."""

from __future__ import annotations

import io
import sys
import time

import pytest

from lmtasks import progress
from lmtasks.progress import Progress, duration, fitted, say, stage


class Clock:
    """Time that passes only when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "monotonic", made.monotonic)
    return made


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (75, "1 min 15 s"),
        (3599.4, "59 min 59 s"),
        (3600, "1 h 0 min"),
        (90_000, "25 h 0 min"),
    ],
)
def test_duration_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_what_is_said_goes_to_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    say("hello")
    assert capfd.readouterr() == ("", "hello\n")


def test_lines_come_at_most_every_few_seconds(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    shown = Progress("training", 40, "steps")
    for step in range(1, 41):
        clock.now += 1
        shown.update(step, "loss 1.0")
    lines = capfd.readouterr().err.splitlines()
    assert lines[0] == "training: 5/40 steps, loss 1.0, 35 s left"
    assert [line.split("/")[0] for line in lines] == [f"training: {step}" for step in range(5, 41, 5)]


def test_long_stages_speak_twenty_times_in_all(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    shown = Progress("training", 20_000, "steps")
    for step in range(1, 20_001):
        clock.now += 1
        shown.update(step)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 20
    assert lines[0] == "training: 1,000/20,000 steps, 5 h 16 min left"


def test_short_stages_are_silent(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    with stage("evaluating", 100, "blocks") as shown:
        clock.now += 4
        shown.update(100)
    assert capfd.readouterr() == ("", "")


def test_nothing_done_yet_is_no_division_by_zero(clock: Clock, capfd: pytest.CaptureFixture[str]) -> None:
    shown = Progress("training", 10, "steps")
    clock.now += 1000
    shown.update(0)
    assert capfd.readouterr().err.startswith("training: 0/10 steps")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_terminal_shows_a_bar_that_is_taken_away(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(progress, "PAUSE", 0.0)
    with pytest.raises(RuntimeError, match="stop"), stage("training", 10, "steps") as shown:
        shown.update(4, "loss 1.0")
        assert shown.bar is not None
        assert shown.bar.n == 4
        raise RuntimeError("stop")
    assert shown.bar.disable or terminal.getvalue().rstrip(" ").endswith("\r")
    assert "training" in terminal.getvalue()
    assert "\n" not in terminal.getvalue()


def fitted_at(columns: int, line: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    return list(fitted([line], Terminal()))


def test_text_stays_below_itself_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fitted_at(30, "note       one two three four five six", monkeypatch) == [
        "note       one two three four",
        "           five six",
    ]


def test_last_column_of_a_table_stays_below_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fitted_at(40, "bert  runs  a b c d e f g h i j k l m n o p", monkeypatch) == [
        "bert  runs  a b c d e f g h i j k l m n",
        "            o p",
    ]


def test_text_without_a_name_goes_on_indented(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fitted_at(24, "one two three four five six", monkeypatch) == ["one two three four", "  five six"]


def test_path_is_never_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fitted_at(20, "here  /a/very-long/path/to/some/where", monkeypatch) == [
        "here  /a/very-long/path/to/some/where"
    ]


def test_line_that_fits_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fitted_at(40, "a  b    c", monkeypatch) == ["a  b    c"]
    assert fitted_at(40, "", monkeypatch) == [""]


def test_other_programs_get_a_line_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert list(fitted(["word " * 100], io.StringIO())) == ["word " * 100]
