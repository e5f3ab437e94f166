"""Texts of a command from a file or standard input."""

from __future__ import annotations

import gzip
import io
import json
import os
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


def test_rows_are_read_as_training_reads_them(tmp_path: Path) -> None:
    rows = [{"title": "One", "text": "a\nb"}, {"title": "Two", "text": ""}, {"title": "Three", "text": "c"}]
    lines = "".join(f"{json.dumps(row)}\n" for row in rows)
    (tmp_path / "rows.jsonl").write_text(lines)
    (tmp_path / "rows.json.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "rows.csv").write_text('title,text\nOne,"a\nb"\nTwo,\nThree,c\n')
    for name in ("rows.jsonl", "rows.json.gz", "rows.csv"):
        file = str(tmp_path / name)
        assert texts_of("score", [], file) == {1: "a\nb", 3: "c"}
        assert texts_of("score", [], file, {"text_column": "title"}) == {1: "One", 2: "Two", 3: "Three"}


def test_lines_are_unpacked_and_may_be_called_anything(tmp_path: Path) -> None:
    (tmp_path / "texts.txt.gz").write_bytes(gzip.compress(b"a\n\nb"))
    (tmp_path / "prompts.in").write_bytes(b"a\n\nb")
    (tmp_path / "wide.txt").write_bytes("a\n\nb".encode("utf-16"))
    for name in ("texts.txt.gz", "prompts.in", "wide.txt"):
        assert texts_of("predict", [], str(tmp_path / name)) == {1: "a", 3: "b"}


def test_flags_say_how_the_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_bytes("caf\u00e9".encode("cp1252"))
    (tmp_path / "rows.dat").write_text("a;b\nx;y\n")
    assert texts_of("score", [], str(tmp_path / "old.txt"), {"encoding": "cp1252"}) == {1: "caf\u00e9"}
    how = {"format": "csv", "csv_separator": ";", "csv_header": "true", "text_template": "{a}, {b}"}
    assert texts_of("score", [], str(tmp_path / "rows.dat"), how) == {1: "x, y"}


@pytest.mark.parametrize(
    ("content", "column", "message"),
    [
        ('{"a": "x", "b": "y"}\n', None, "a.*b"),
        ('{"a": "x", "b": "y"}\n', "c", "'c'"),
        ('{"text": " "}\n', None, "no text in '.*rows.jsonl'"),
        ('{"text": "x"\n', None, "rows.jsonl"),
    ],
)
def test_rows_without_a_text_are_refused(content: str, column: str | None, message: str, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text(content)
    with pytest.raises(InputError, match=message):
        texts_of("score", [], str(tmp_path / "rows.jsonl"), {"text_column": column} if column else {})


def test_a_file_that_cannot_be_is_refused(tmp_path: Path) -> None:
    for name, message in (("x" * 300, "no such file: x"), (str(tmp_path), "no data files in the folder")):
        with pytest.raises(InputError, match=message):
            texts_of("score", [], name)


@pytest.mark.parametrize(("typed", "file"), [(["a"], None), ([], "-")])
def test_a_column_is_one_of_a_file(typed: list[str], file: str | None) -> None:
    with pytest.raises(InputError, match="--text_column is about a --file"):
        texts_of("score", typed, file, {"text_column": "title"})


def test_a_pipe_is_read_as_standard_input_is(tmp_path: Path) -> None:
    read, write = os.pipe()
    os.write(write, b"a\n\nb")
    os.close(write)
    assert texts_of("score", [], f"/dev/fd/{read}") == {1: "a", 3: "b"}
    os.close(read)


def test_standard_input_of_other_bytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b"ab\xff"), isatty=lambda: False))
    with pytest.raises(InputError, match="standard input is no UTF-8 text: byte 2"):
        texts_of("score", [], None)


def test_standard_input_that_is_closed_has_no_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="predict needs a text"):
        texts_of("predict", [], None)
    with pytest.raises(InputError, match="no text in standard input"):
        texts_of("predict", [], "-")
