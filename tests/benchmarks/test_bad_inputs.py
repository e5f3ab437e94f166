"""The catalogue of bad inputs and the fuzzing: a sample of each, and that a wrong answer is seen."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from reliability import bad_inputs, fuzz
from reliability.bad_input_cases import catalogue
from reliability.bad_inputs import Bad, Shelf, tried

from lmtasks.errors import InputError


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    return fuzz.shelved(tmp_path_factory.mktemp("bad") / "shelf")


def test_a_sample_is_answered_as_promised(shelf: Shelf) -> None:
    assert bad_inputs.measure(shelf.folder.parent, 24) == (24, [])


def test_the_catalogue_is_long_and_names_each_once() -> None:
    names = [bad.name for bad in catalogue()]
    assert len(set(names)) == len(names) >= 200
    typed = [bad.act for bad in catalogue() if isinstance(bad.act, str) and not bad.prepare]
    assert len(set(typed)) == len(typed)


def breaks(shelf: Shelf) -> None:
    raise KeyError("a mistake of ours")


def writes(shelf: Shelf) -> None:
    Path("left.txt").write_text("left")
    raise InputError("this is wrong", "do that")


def removes(shelf: Shelf) -> None:
    Path("good.txt").unlink()
    raise InputError("this is wrong", "do that")


def hintless(shelf: Shelf) -> None:
    raise InputError("this is wrong")


@pytest.mark.parametrize(
    ("act", "told"),
    [
        ("list", "exit code 0; 0 lines of 'error:'; 0 lines of 'hint:'"),
        (breaks, "not InputError but KeyError: 'a mistake of ours'"),
        (writes, "written or removed: left.txt"),
        (removes, "written or removed: good.txt"),
        (hintless, "an error without a message or a hint"),
        (lambda shelf: None, "no error"),
    ],
)
def test_a_wrong_answer_is_seen(act: Any, told: str, shelf: Shelf, tmp_path: Path) -> None:
    assert "; ".join(tried(Bad("it", act), shelf, tmp_path / "it")).startswith(told)


def test_a_traceback_and_a_missing_hint_are_seen(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmtasks.cli import list as listing

    def command(words: list[str]) -> int:
        if words:
            raise InputError("no")
        raise KeyError("a mistake of ours")

    monkeypatch.setattr(listing, "command", command)
    assert tried(Bad("it", "list"), shelf, tmp_path / "a")[0].startswith("a traceback: KeyError")
    assert "0 lines of 'hint:'" in tried(Bad("it", "list it"), shelf, tmp_path / "b")


def test_a_changed_shelf_is_seen(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    def act(given: Shelf) -> None:
        Path(given.path("good.txt")).write_text("another")
        raise InputError("this is wrong", "do that")

    monkeypatch.setattr("reliability.bad_input_cases.catalogue", lambda: [Bad("it", act)])
    before = Path(shelf.path("good.txt")).read_bytes()
    assert bad_inputs.measure(shelf.folder.parent) == (1, ["the shelf: what the bad inputs share was changed"])
    Path(shelf.path("good.txt")).write_bytes(before)


@pytest.mark.parametrize("name", fuzz.TARGETS)
def test_whatever_is_there_breaks_nothing(name: str, shelf: Shelf, tmp_path: Path) -> None:
    tried, wrong = fuzz.fuzzed(name, shelf, tmp_path / "tries", 3)
    assert wrong == []
    assert tried == 3


def test_fuzzing_sees_what_breaks(shelf: Shelf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lmtasks.cli import data

    def command(words: list[str]) -> int:
        if Path("b.txt").stat().st_size > 3:
            raise KeyError("a mistake of ours")
        Path("left.txt").write_text("left")
        return 0

    monkeypatch.setattr(data, "command", command)
    tried, wrong = fuzz.fuzzed("text", shelf, tmp_path / "tries", 20)
    assert tried == 20
    assert [line.partition(":")[2].split(",")[0].split(":")[0].strip() for line in sorted(wrong)] == [
        "a traceback",
        "something was written",
    ]
