"""The page on correctness: its table is the script's, and the script measures and judges."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "correctness.py"
PAGE = ROOT / "docs" / "correctness.md"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("correctness", SCRIPT)
    assert spec and spec.loader
    sys.modules["correctness"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cells(table: str) -> list[list[str]]:
    return [line.strip("| ").split(" | ") for line in table.splitlines() if line.startswith("|")]


def table_of(script: ModuleType, text: str) -> list[list[str]]:
    begin, end = text.index(script.BEGIN), text.index(script.END)
    return cells(text[begin:end])


def test_the_page_has_exactly_the_rows_that_the_script_makes(script: ModuleType) -> None:
    header, _, *rows = table_of(script, PAGE.read_text(encoding="utf-8"))
    assert tuple(header) == script.HEADER
    told = [(row[0], row[1]) for row in rows]
    assert told == [(name, measure.__doc__) for name, measure in script.ROWS.items()]
    assert all(len(row) == len(header) and all(row) for row in rows)
    assert not any("**fails:**" in row[3] for row in rows)


def test_every_row_is_explained_in_the_order_of_the_table(script: ModuleType) -> None:
    assert re.findall(r"^### (.+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE) == list(script.ROWS)


def test_the_page_says_when_and_with_what_it_was_measured(script: ModuleType) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert re.search(r"^Measured on \d{4}-\d\d-\d\d with lmtasks .*, transformers .*, torch ", text, re.MULTILINE)


def test_the_commands_on_the_page_are_those_of_scripts_that_exist(script: ModuleType) -> None:
    commands = re.findall(r"`python ([^\s`]+)([^`]*)`", PAGE.read_text(encoding="utf-8"))
    assert str(SCRIPT.relative_to(ROOT)) in [path for path, _ in commands]
    for path, arguments in commands:
        assert (ROOT / path).is_file(), path
        if ROOT / path == SCRIPT:
            assert set(re.findall(r'"([^"]+)"', arguments)) <= script.ROWS.keys()
    assert f"python {SCRIPT.relative_to(ROOT)}" in script.__doc__


@pytest.mark.parametrize("name", ["End of text", "Label smoothing", "Broken batch"])
def test_a_row_is_measured_and_passes(name: str, script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--only", name]) == 0
    header, _, row = cells(capsys.readouterr().out)
    assert tuple(header) == script.HEADER
    assert row[0] == name
    assert row[2] != row[3], "both stacks say the same"


def row_that(script: ModuleType, passed: bool) -> dict[str, object]:
    def measure(place: Path) -> object:
        """Nothing at all."""
        assert place.is_dir()
        return script.Row("1", "2", "3", passed)

    return {"Some row": measure}


@pytest.fixture
def page(script: ModuleType, tmp_path: Path) -> Path:
    path = tmp_path / "page.md"
    path.write_text(f"before\n{script.BEGIN}\nold\n{script.END}\nafter\n", encoding="utf-8")
    return path


def test_a_row_that_fails_makes_the_exit_code_1_and_no_page(
    script: ModuleType, page: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = page.read_text(encoding="utf-8")
    assert script.main(["--write"], rows=row_that(script, passed=False), page=page) == 1
    printed = capsys.readouterr()
    assert cells(printed.out)[2] == ["Some row", "Nothing at all.", "1", "**fails:** 2", "3"]
    assert printed.err == "lmtasks fails: Some row\n"
    assert page.read_text(encoding="utf-8") == before


def test_the_table_is_written_between_the_markers(script: ModuleType, page: Path) -> None:
    for _ in range(2):  # the second time over the first
        assert script.main(["--write"], rows=row_that(script, passed=True), page=page) == 0
        text = page.read_text(encoding="utf-8")
        assert table_of(script, text)[2:] == [["Some row", "Nothing at all.", "1", "2", "3"]]
        assert text.startswith("before\n")
        assert text.endswith("\nafter\n")
        assert "old" not in text


def test_a_part_of_the_table_is_not_written(script: ModuleType, page: Path) -> None:
    with pytest.raises(SystemExit, match="2"):
        script.main(["--write", "--only", "Some row"], rows=row_that(script, passed=True), page=page)


def test_measuring_leaves_the_environment_alone(script: ModuleType) -> None:
    before = dict(os.environ)
    with script.quiet_place() as place:
        os.environ["SOMETHING"] = "else"
        assert os.environ["XDG_CACHE_HOME"] == str(place)
    assert dict(os.environ) == before
    assert not place.exists()
