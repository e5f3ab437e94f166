"""Texts of a command from a file or standard input, one a line."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from lmtasks.cli.texts import texts_of
from lmtasks.errors import InputError


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        ("a\nb\n", {1: "a", 2: "b"}),
        ("a\r\nb\rc", {1: "a", 2: "b", 3: "c"}),
        ("a\n\n \t\nb", {1: "a", 4: "b"}),
        ("\ufeffa\nb", {1: "a", 2: "b"}),
        ("a\u2028b\u0085c\x0bd\x0ce\x1cf\ng", {1: "a\u2028b\u0085c\x0bd\x0ce\x1cf", 2: "g"}),
    ],
)
def test_a_line_ends_where_lines_of_text_end(
    content: str, texts: dict[int, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "texts.txt").write_bytes(content.encode())
    assert texts_of("predict", [], str(tmp_path / "texts.txt")) == texts
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(content.encode()), isatty=lambda: False))
    assert texts_of("predict", [], None) == texts


def test_standard_input_that_is_closed_has_no_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="predict needs a text"):
        texts_of("predict", [], None)
    with pytest.raises(InputError, match="no text in standard input"):
        texts_of("predict", [], "-")
