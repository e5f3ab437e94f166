"""Suggestions: what somebody may have meant."""

from pathlib import Path
from typing import Any

import pytest

from lmtasks.errors import nearest_path


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for path in ("data/notes.txt", "data/other.csv", "runs/masked-lm/run.json", "notes.yaml", "mine/recipe.py"):
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")
    return tmp_path


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("data/note.txt", "data/notes.txt"),
        ("dta/notes.txt", "data/notes.txt"),
        ("dat/othr.csv", "data/other.csv"),
        ("run/masked_lm", "runs/masked-lm"),
        ("notes.yml", "notes.yaml"),
        (Path("run"), "runs"),
    ],
)
def test_every_part_of_a_path_may_be_mistyped(typed: Any, meant: str) -> None:
    assert nearest_path(typed) == f", did you mean '{meant}'?"


def test_whole_paths_stay_whole(place: Path) -> None:
    assert nearest_path(place / "dat" / "notes.txt") == f", did you mean '{place}/data/notes.txt'?"


@pytest.mark.parametrize("typed", ["data/notes.txt", "nothing/like/it", "notes.yaml/inside", "", "x" * 5000, "data/x"])
def test_nothing_is_suggested_where_nothing_is_near(typed: str) -> None:
    assert nearest_path(typed) == ""


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (("report", "run/masked-lm"), "runs/masked-lm"),
        (("push", "run/masked-lm", "me/it"), "runs/masked-lm"),
        (("runs", "rns"), "runs"),
        (("predict", "runs/masked-ml", "text"), "runs/masked-lm"),
        (("evaluate", "runs/masked-ml"), "runs/masked-lm"),
        (("predict", "runs/masked-lm", "--file", "data/note.txt"), "data/notes.txt"),
        (("run", "masked-lm", "--train_file", "dta/notes.txt"), "data/notes.txt"),
        (("run", "masked-lm", "--config", "note.yaml"), "notes.yaml"),
        (("run", "masked-lm", "--model", "./runs/maskedlm"), "runs/masked-lm"),
        (("run", "masked-lm", "--dataset", "dat"), "data"),
        (("run", "./mine/recpe.py"), "mine/recipe.py"),
    ],
)
def test_commands_suggest_what_is_there(words: tuple[str, ...], meant: str, lmtasks: Any) -> None:
    outcome = lmtasks(*words)
    assert outcome.code == 2
    assert f"did you mean '{meant}'?" in outcome.err
