"""What counts as a line of an author, and which packages take no more of them than they should."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "author_lines.py"

MODULE = '''"""A docstring
of two lines."""

# A comment.
import os  # counts

TEXT = """two lines
that count"""

LEAST = 1
"""What a name is, said behind it."""


@property
def said(
    one,
):
    """Says nothing."""

    return {"a":  # a comment behind counts with its line
            os}
'''


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("author_lines", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_blank_lines_comments_and_docstrings_do_not_count(script: ModuleType) -> None:
    assert script.author_lines(MODULE) == 1 + 2 + 1 + 4 + 2
    assert script.author_lines("") == script.author_lines('"""Only this."""\n') == 0


def test_all_modules_of_a_package_count_and_a_file_alone(script: ModuleType, tmp_path: Path) -> None:
    package = tmp_path / "lmtasks-x" / "lmtasks_x"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(MODULE)
    (package / "more.py").write_text("a = 1\nb = 2\n")
    (tmp_path / "lmtasks-x" / "elsewhere.py").write_text("c = 3\n")
    assert script.counted("lmtasks_x", tmp_path) == 12
    assert script.counted("lmtasks_x/more.py", tmp_path) == 2


def test_the_table_says_what_takes_more_than_it_should(script: ModuleType, monkeypatch, capsys) -> None:
    declaration = script.WANTED["gated-recurrence, beside its model"][0]
    monkeypatch.setattr(script, "WANTED", {"enough": (declaration, 100), "too many": (declaration, 3)})
    assert script.main() == 1
    enough, many = capsys.readouterr().out.splitlines()
    assert enough.endswith("at most 100") and many.endswith("at most 3   MISSED")
    monkeypatch.setattr(script, "WANTED", {"enough": (declaration, 100)})
    assert script.main() == 0


def test_the_packages_are_as_short_as_they_should_be(script: ModuleType) -> None:
    counts = {what: (script.counted(where), most) for what, (where, most) in script.WANTED.items()}
    assert [what for what, (count, most) in counts.items() if count > most] == []
