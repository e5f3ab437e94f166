"""Files as the world has them: the right text, or a refusal that says what to type. Nothing in between."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from data_files import arrow, parquet, write
from hypothesis import given, settings
from hypothesis import strategies as st

from lmtasks import InputError
from lmtasks.config.settings import DataSettings
from lmtasks.data.corpus import Corpus, find, load_corpus
from lmtasks.data.corpus.dataset_folder import load_splits
from lmtasks.errors import PluginError
from lmtasks.registry.enabled_plugins import selected


def columns(**values: Any) -> pa.Table:
    return pa.table(values)


def load(**options: Any) -> Corpus:
    return load_corpus(DataSettings(**options))


def texts(*files: str, **options: Any) -> list[str]:
    """All texts of files, none held out."""
    split = load(validation_file=list(files), **options).evaluation
    return [text for batch in split.running_texts() for text in batch]


def refused(*files: str, **options: Any) -> str:
    with pytest.raises(InputError) as caught:
        texts(*files, **options)
    assert caught.value.hint
    assert len(caught.value.message) < 500
    return str(caught.value)


# ---- what was tried from outside: each file, and the right text or what must be said


MAPS = pa.array([[("k", "v")]], pa.map_(pa.string(), pa.string()))
VIEWS = pa.array([["a", "b"], ["c"]], pa.list_view(pa.string()))
TURNS = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello"}]
CASES: dict[str, tuple[str, str | bytes, list[str] | str]] = {
    "one text": ("a.txt", "Once upon a time.\nThere was a cat.\n", ["Once upon a time.\nThere was a cat.\n"]),
    "turns": ("a.json", json.dumps([{"id": "x", "conversations": TURNS}]), "row 1 has id: 'x', conversations: "),
    "turns, what to type": ("a.jsonl", json.dumps({"id": "x", "messages": TURNS}), "(--chat, or --text_column NAME)"),
    "quotes in tsv": ("a.tsv", 'id\ttext\n1\t"Hello, he\n2\tPlain\n3\tShe "b"\n', ['"Hello, he', "Plain", 'She "b"']),
    "two columns of tsv": ("a.tsv", 'id\ta\tb\n1\t"x" y\tplain\n2\t"un\tother\n', "2 columns hold text of id, a, b"),
    "semicolons": ("a.csv", "id;text;label\n0;The cat;pos\n1;The dog;neg\n", ["The cat", "The dog"]),
    "no header": ("a.csv", "Sentence number 0.\nSentence number 1.\n", "--csv_header false"),
    "half a pair": ("a.jsonl", '{"text": "a"}\n{"text": "\\ud83d"}\n', "row 2 of a.jsonl has half a surrogate pair"),
    "a key twice": ("a.jsonl", '{"text": "a", "text": "b"}\n', "line 1 is not JSON: the key 'text' twice"),
    "a huge number": ("a.jsonl", '{"text": "a", "n": 1e400}\n', ["a"]),
    "null first": ("a.jsonl", 'null\n{"text": "a"}\n', "line 1 is not JSON: a null, not an object"),
    "a map": (
        "a.parquet",
        parquet(columns(text=["a"], m=pa.array([[("k", "v")]], pa.map_(pa.string(), pa.string())))),
        ["a"],
    ),
    "list views": ("a.arrow", arrow(columns(text=VIEWS)), ["a b", "c"]),
    "list views beside the text": (
        "a.arrow",
        arrow(columns(body=["x", "y"], n=VIEWS)),
        "'body' holds text, 'n' may as well",
    ),
    "UTF-16 without a mark": ("a.txt", "Plain line.\nAnother.\n".encode("utf-16-le"), ["Plain line.\nAnother.\n"]),
    "UTF-16 the other way": ("a.txt", "Plain line.\n".encode("utf-16-be"), ["Plain line.\n"]),
    "UTF-16 with a mark": ("a.txt", "Строка 火\n".encode("utf-16"), ["Строка 火\n"]),
    "UTF-16 of a script beyond Latin": ("a.txt", "Строка текста.\n".encode("utf-16-le"), ["Строка текста.\n"]),
    "UTF-16 of Chinese": ("a.txt", ("中文文本，很多字。\n" * 9).encode("utf-16-be"), ["中文文本，很多字。\n" * 9]),
    "UTF-16 as Excel writes tables": ("a.csv", "\ttext\n0\ta b\n".encode("utf-16"), ["a b"]),
    "a few zeros": ("a.txt", b"one\x00two\nthree\n", ["one\x00two\nthree\n"]),
    "columns, not rows": (
        "a.json",
        '{"text": ["a", "b"], "n": [1, 2]}',
        "a.json has columns, each a list of 2, and no rows",
    ),
    "two columns of one name": (
        "a.arrow",
        arrow(pa.Table.from_arrays([pa.array(["a"])] * 2, names=["text"] * 2)),
        "a.arrow has two columns named 'text'",
    ),
    "two objects in a line": ("a.jsonl", '{"text": "a"}{"text": "b"}\n', "a.jsonl, line 1 is not JSON: Extra data"),
    "commas between lines": (
        "a.jsonl",
        '{"text": "a"},\n{"text": "b"}\n',
        "line 1 is not JSON: Extra data in column 14",
    ),
    "a number of 400 digits": ("a.jsonl", '{"text": "a", "n": ' + "9" * 400 + "}", ["a"]),
    "bytes for text": ("a.parquet", parquet(columns(text=pa.array([b"a"]))), "column 'text' of a.parquet holds binary"),
    "UTF-32": ("a.csv", "text\nPlain\n".encode("utf-32-le"), ["Plain"]),
    "UTF-32 with a mark": ("a.jsonl", '{"text": "火"}\n'.encode("utf-32"), ["火"]),
    "zeros": ("a.txt", b"\0" * 4096, "a.txt is a binary file"),
    "zeros after text": ("a.txt", b"text\n" + b"\0" * 4096, "a.txt is a binary file"),
    "a file cut by a crash": ("a.jsonl", b'{"text": "a"}\n' + b"\0" * 4096, "a.jsonl is a binary file"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_kind_gives_the_right_text_or_says_what_to_type(case: str) -> None:
    name, content, right = CASES[case]
    write(name, content)
    if isinstance(right, str):
        assert right in refused(name)
    else:
        assert texts(name) == right


def test_a_key_twice_on_the_way_to_the_text_is_refused_and_one_beside_it_is_not() -> None:
    write("a.jsonl", '{"text": "a", "m": {"k": 1, "k": 2}, "text ": "\\"text\\""}\n')
    assert texts("a.jsonl", text_column="text") == ["a"]
    for name, content in (("a.jsonl", '{"a": {"text": "x", "text": "y"}}\n'), ("a.json", '[{"text": 1, "text": "y"}]')):
        column = "a.text" if name == "a.jsonl" else "text"
        assert "the key 'text' twice in one object" in refused(write(name, content), text_column=column)
    assert "the key 'from' twice" in refused(write("b.jsonl", '{"messages": [{"from": 1, "from": 2}]}\n'), chat=True)


# ---- csv and tsv


CSV: dict[str, tuple[str, dict[str, Any], list[str] | str]] = {
    "commas": ("id,text\n1,one\n2,two\n", {}, ["one", "two"]),
    "text with semicolons": ("id,text\n1,a;b\n2,c;d\n", {}, ["a;b", "c;d"]),
    "semicolons with commas in the text": ("id;text\n1;a, b\n2;c\n", {}, ["a, b", "c"]),
    "numbers with commas": ("text;value\na;1,5\nb;2,5\n", {}, ["a", "b"]),
    "tabs": ("id\ttext\n1\tone\n", {}, ["one"]),
    "bars": ("id|text\n1|one\n", {}, ["one"]),
    "declared": ("sep=;\nid;text\n1;one\n", {}, ["one"]),
    "declared, with text that looks otherwise": ("sep=|\nid|text\n1|a,b\n", {}, ["a,b"]),
    "one column with commas": ("text\na, b and c\nd\n", {}, "the row in line 2 has 2 cells, the first one 1"),
    "one column with commas, said": ("text\na, b and c\nd\n", {"csv_separator": "tab"}, ["a, b and c", "d"]),
    "a separator of one's own": ("id~text\n1~one\n", {"csv_separator": "~"}, ["one"]),
    "quoted": ('id,text\n1,"a, ""b""\nc"\n', {}, ['a, "b"\nc']),
    "quotes that are text": ('id,text\n1,"a" b\n2,c"\n', {"csv_quoting": "none"}, ['"a" b', 'c"']),
    "a quote inside": ('id,text\n1,5" pipe\n', {}, ['5" pipe']),
    "text behind a closing quote": ('id,text\n1,"a" b\n', {}, "--csv_quoting none"),
    "no header, said": ("One.\nTwo.\n", {"csv_header": False}, ["One.", "Two."]),
    "a sentence as a header, said": ("One.\nTwo.\n", {"csv_header": True, "text_column": "One."}, ["Two."]),
    "no header, columns": ("1,One.\n2,Two.\n", {"csv_header": False, "text_column": "column_2"}, ["One.", "Two."]),
    "no header, one column can be text": ("1,One.\n2,Two.\n", {"csv_header": False}, ["One.", "Two."]),
    "short words may be a header": ("Paris,France\nRome,Italy\n", {}, "whether a.csv has a header"),
    "numbers below names": ("what,count\na,1\nb,2\n", {}, ["a", "b"]),
    "a named column": ("what,where\na,1x\nb,2x\n", {"text_column": "what"}, ["a", "b"]),
    "an index without a name": (",text\n0,a\n1,b\n", {}, ["a", "b"]),
    "a separator at the end": ("id,text,\n1,a,\n2,b,\n", {}, ["a", "b"]),
    "missing values": ("text\nNA\nNone\nnull\n007\n1e5\nnan\n", {}, ["NA", "None", "null", "007", "1e5", "nan"]),
    "windows line breaks": ("id,text\r\n1,one\r\n2,two\r\n", {}, ["one", "two"]),
    "a mark": ("\ufefftext,id\none,1\n", {}, ["one"]),
    "too few cells": ("id,text\n1\n", {}, "the row in line 2 has 1 cells, the first one 2"),
    "empty lines": ("id,text\n1,one\n\n2,two\n", {}, ["one", "two"]),
}


@pytest.mark.parametrize("case", CSV)
def test_csv(case: str) -> None:
    content, options, right = CSV[case]
    write("a.csv", content)
    if isinstance(right, str):
        assert right in refused("a.csv", **options)
    else:
        assert texts("a.csv", **options) == right


CELL = st.text(st.sampled_from('ab ,;\t|"\n.é0'), max_size=6)


@given(rows=st.lists(st.tuples(CELL, CELL), min_size=1, max_size=12), separator=st.sampled_from(",;|"))
@settings(max_examples=60, deadline=None)
def test_rows_in_are_rows_out(rows: list[tuple[str, str]], separator: str) -> None:
    import csv

    stream = io.StringIO()
    rows = [*rows, ("id", "words")]  # a column of nothing but numbers is no text
    csv.writer(stream, delimiter=separator, quoting=csv.QUOTE_ALL).writerows([("id", "text"), *rows])
    file = write(f"{abs(hash((tuple(rows), separator)))}.csv", stream.getvalue())
    split = load(validation_file=[write("mark.csv", "id,text\n0,mark\n"), file], csv_separator=None, text_column="text")
    found = [text for batch in split.evaluation.texts() for text in batch]
    # The reader of quoted cells keeps their line breaks as they are.
    assert found == ["mark", *(text for _, text in rows if text.strip())]
    assert split.evaluation.blank == sum(not text.strip() for _, text in rows)


# ---- encodings


@pytest.mark.parametrize("encoding", ["cp1252", "shift_jis", "koi8-r", "utf-16-le", "gb18030"])
def test_a_file_is_read_in_the_encoding_that_somebody_names(encoding: str) -> None:
    text = {"cp1252": "fête – “x”\n", "koi8-r": "строка\n"}.get(encoding, "日本語\n") * 50
    if encoding == "gb18030":
        text = "中文\n" * 50
    assert texts(write("a.txt", text.encode(encoding)), encoding=encoding) == [text]
    rows = json.dumps({"text": text}, ensure_ascii=False)
    assert texts(write("a.jsonl", rows.encode(encoding)), encoding=encoding) == [text]


def test_what_is_not_utf_8_is_refused_with_a_guess_that_reads_it() -> None:
    text = "Съешь же ещё этих мягких французских булок, да выпей чаю. " * 20
    said = refused(write("a.txt", text.encode("cp1251")))
    assert "byte 0 starts no character" in said
    guess = said.split("it looks like ")[1].rstrip(")")
    assert texts("a.txt", encoding=guess) == [text]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32-le"])
@pytest.mark.parametrize(
    "text", ["می\u200cخواهم کتاب\u200cها را\nببینم\n", "👩\u200d👩\u200d👧\u200d👦 family\n🏳️\u200d🌈 flag\n"]
)
def test_letters_that_are_joined_by_unseen_ones_are_text_without_a_mark_as_well(text: str, encoding: str) -> None:
    assert texts(write("a.txt", text.encode(encoding))) == [text]


@pytest.mark.parametrize(
    ("text", "encoding"), [("吾輩は猫である\n", "iso2022_jp"), ("안녕하세요 세계\n", "iso2022_kr")]
)
def test_ascii_that_stands_for_other_letters_is_no_text_until_somebody_says_for_which(text: str, encoding: str) -> None:
    said = refused(write("a.txt", b"ascii first\n" + text.encode(encoding)))
    assert "an encoding with escapes: the first is at byte " in said
    assert texts("a.txt", encoding=said.split("--encoding ")[1].rstrip(")")) == [f"ascii first\n{text}"]
    assert texts(write("b.txt", "\x1b[31mred\x1b[0m for $B\n")) == ["\x1b[31mred\x1b[0m for $B\n"]


# ---- formats and names


def test_text_under_many_names() -> None:
    for name in ("a.py", "b.log", "c.srt", "d.tex", "e.html", "LICENSE", "f.rs"):
        assert texts(write(name, "a line\n")) == ["a line\n"]
    for name, content in (("a.ndjson", '{"text": "a"}\n'), ("a.tab", "id\ttext\n1\ta\n")):
        assert texts(write(name, content)) == ["a"]
    assert texts(write("a.feather", arrow(columns(text=["a"])))) == ["a"]
    assert texts(write("a.txt.bz2", bz2.compress(b"a line\n"))) == ["a line\n"]
    assert "--format NAME" in refused(write("a.odt", "x"))


def test_a_compressed_file_may_begin_with_what_is_to_be_skipped() -> None:
    skipped, packed = b"\x50\x2a\x4d\x18\x04\0\0\0abcd", pa.compress(b"a line\n", "zstd", asbytes=True)
    for name in ("a.txt.zst", "a.txt"):
        assert texts(write(name, skipped + packed)) == ["a line\n"]


def test_a_column_of_text_that_comes_late_is_not_passed_over() -> None:
    rows = '{"id": "a"}\n' * 1500 + '{"id": "b", "text": "late"}\n'
    assert "row 1501 of late.jsonl has a column 'text'" in refused(write("late.jsonl", rows))
    assert texts("late.jsonl", text_column="id")[-1] == "b"


def test_a_damaged_table_is_told_as_such() -> None:
    assert "a.arrow is not an Arrow file, or damaged" in refused(write("a.arrow", "no table" * 9))


@pytest.mark.parametrize("separator", ["::", '"', "\n", "\\n"])
def test_a_separator_is_one_character(separator: str) -> None:
    write("a.csv", "id::text\n1::one\n")
    assert "--csv_separator cannot be " in refused("a.csv", csv_separator=separator)


def test_a_column_and_a_template_exclude_each_other() -> None:
    write("a.jsonl", '{"title": "a", "body": "b"}\n')
    assert "exclude each other" in refused("a.jsonl", text_column="title", text_template="{body}")


def test_a_format_may_be_named() -> None:
    write("d/a.part", "one\n")
    write("d/b.chunk", "two\n")
    assert texts("d/a.part", format="text") == ["one\n"]
    assert texts("d", format="text") == ["one\n", "two\n"]
    assert texts(write("rows.dat", '{"text": "a"}'), format="json") == ["a"]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\ntwo\n")))
    assert texts("-") == ["one\ntwo\n"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"text": "a"}\n')))
    assert texts("-", format="json") == ["a"]
    monkeypatch.setattr(sys, "stdin", None)
    assert "nothing comes from there" in refused("-")


def test_names_are_taken_literally() -> None:
    for name in ("$HOME.txt", "~x.txt", "a$USER.txt", "%41.txt"):
        assert texts(write(name, f"{name}\n")) == [f"{name}\n"]


def test_a_file_rewritten_with_its_old_size_and_time_is_read_again() -> None:
    for ending, pack in (("", bytes), (".bz2", bz2.compress)):
        for content in (b"old text\n", b"new text\n"):
            name = write(f"a.txt{ending}", pack(content))
            os.utime(name, (1, 1))
            assert texts(name) == [content.decode()]


def test_what_was_read_under_one_name_is_looked_at_again_under_another() -> None:
    assert texts(write("a.txt", "plain\n")) == ["plain\n"]
    assert "is not compressed" in refused(write("a.txt.gz", "plain\n"))


def test_paragraphs_end_at_lines_of_white_space() -> None:
    write("a.txt", "one\nmore\n \t\n\n  two\n\u3000\nthree\n\n\n")
    assert texts("a.txt", sample_by="paragraph") == ["one\nmore", "  two", "three"]


OWN = """
from collections.abc import Iterator
from pathlib import Path

from lmtasks import Format, hookimpl


def paragraphs(path, reading):
    text = path.read_text()
    if not text.startswith("OWN"):
        raise ValueError("it does not begin with OWN")
    yield from text.split("|")[1:]


def records(path, reading):
    yield from ({"id": n, "body": line} for n, line in enumerate(path.read_text().splitlines()))


@hookimpl
def lmtasks_formats():
    return [
        Format(name="own", suffixes=(".own", ".both"), read=paragraphs),
        Format(name="records", suffixes=(".rec", ".both", ".csv"), read=records, characters=True),
    ]
"""


@pytest.fixture
def own_formats() -> Iterator[None]:
    """Formats that somebody declares in a file and names for a command."""
    write("own_formats.py", OWN)
    with selected([str(Path("own_formats.py").absolute())]):
        yield


def test_formats_of_plugins(own_formats: None) -> None:
    write("a.own", "OWN|one|two")
    assert texts("a.own") == ["one", "two"]
    write("d/b.rec", "three\nfour\n".encode("utf-16"))
    assert texts("d") == ["three", "four"]
    write("d/c.jsonl", '{"body": "five"}\n')
    write("d/a.own.gz", gzip.compress(b"OWN|six"))
    assert texts("d", text_column="body") == ["six", "three", "four", "five"]
    assert texts(write("a.csv", "id,text\n1,built in\n")) == ["built in"]
    assert texts("a.csv", format="records") == ["id,text", "1,built in"]


def test_a_format_that_was_changed_reads_its_files_again() -> None:
    write("a.own", "OWN|one|two")
    for code, right in ((OWN, ["one", "two"]), (OWN.replace('split("|")[1:]', 'split("|")[2:]  # less'), ["two"])):
        write("own_formats.py", code)
        find._formats.cache_clear()
        with selected([str(Path("own_formats.py").absolute())]):
            assert texts("a.own") == right


def test_faults_of_files_of_a_plugins_format(own_formats: None) -> None:
    assert "a.own cannot be read as own: it does not begin with OWN" in refused(write("a.own", "NOT"))
    assert "a.own has no rows" in refused(write("a.own", "OWN"))
    assert "a.both may be own or records" in refused(write("a.both", "OWN|x"))
    assert texts("a.both", format="own") == ["x"]


@pytest.mark.parametrize(
    ("code", "told"),
    [
        ('split("|")[1:].sort()', "TypeError: 'NoneType' object is not iterable"),
        ('split("|")[1:] + [text.nothing]', "AttributeError: 'str' object has no attribute 'nothing'"),
        ("encode()", "TypeError: a row is a int, no text, mapping or Arrow table"),
        ('split("|")[1:] + [None]', "TypeError: a row is None, no text, mapping or Arrow table"),
    ],
)
def test_faults_of_a_plugins_reader_are_its_own(code: str, told: str) -> None:
    write("own_formats.py", OWN.replace('split("|")[1:]', code))
    write("a.own", "OWN|one")
    find._formats.cache_clear()
    with selected([str(Path("own_formats.py").absolute())]), pytest.raises(PluginError) as caught:
        texts("a.own")
    assert caught.value.message.startswith("format 'own' of ")
    assert f"failed in its read: {told}" in caught.value.message


# ---- folders


def test_a_folder_follows_links_and_says_what_it_leaves_out(capfd: pytest.CaptureFixture[str]) -> None:
    write("elsewhere/b.txt", "linked\n")
    write("d/a.txt", "here\n")
    write("d/picture.png", b"\x89PNG")
    os.symlink("../elsewhere", "d/link")
    os.symlink("..", "elsewhere/loop")
    os.symlink("nowhere", "d/dangling.txt")
    assert texts("d") == ["here\n", "linked\n"]
    assert "d: 2 files left out, of no known kind: dangling.txt, picture.png" in capfd.readouterr().err
    assert "a link that leads nowhere" in refused("d/dangling.txt")


def test_one_file_that_is_left_out_is_one_file(capfd: pytest.CaptureFixture[str]) -> None:
    write("d/a.txt", "here\n")
    write("d/picture.png", b"\x89PNG")
    texts("d")
    assert "d: 1 file left out, of no known kind: picture.png" in capfd.readouterr().err


def test_the_script_that_once_loaded_a_dataset_is_none_of_its_texts(capfd: pytest.CaptureFixture[str]) -> None:
    write("wiki/wiki.py", "import datasets\n")
    write("wiki/a.txt", "a text\n")
    write("wiki/other.py", "print()\n")
    splits, _ = load_splits(Path("wiki"), None, DataSettings())
    told = "".join(str(row) for row in splits["train"])
    assert ("a text" in told, "print()" in told, "import datasets" in told) == (True, True, False)
    assert "wiki: 1 file left out, of no known kind: wiki.py" in capfd.readouterr().err


@pytest.mark.parametrize("name", ["a.zip", "a.tar.gz", "a.tgz", "a.txt.lz4", "a.txt.Z"])
def test_what_no_format_reads_is_to_be_unpacked(name: str) -> None:
    assert "(unpack it first)" in refused(write(name, "text\n"))


def test_a_template_names_the_column_that_has_no_text() -> None:
    write("a.jsonl", '{"title": "a", "body": "b"}\n{"title": "c", "body": null}\n')
    assert "row 2 of a.jsonl has no text (null) in column 'body'" in refused("a.jsonl", text_template="{title}: {body}")


def test_utf_8_that_is_read_as_something_else_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    write("a.txt", "une f\u00eate\n")
    write("b.txt", "une f\u00eate\n".encode("cp1252"))
    write("c.txt", "no accents\n")
    assert texts("a.txt", "b.txt", "c.txt", encoding="cp1252")[1:] == ["une f\u00eate\n", "no accents\n"]
    told = [line for line in capfd.readouterr().err.splitlines() if "cp1252" in line]
    assert told == ["a.txt is read as cp1252, as was asked for; its bytes are UTF-8 as well"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read anything")
def test_a_folder_that_cannot_be_read_is_refused() -> None:
    write("d/in/a.txt", "x\n")
    os.chmod("d/in", 0)
    assert "cannot read the folder d/in" in refused("d")


def test_the_splits_of_a_dataset_are_not_pooled() -> None:
    for split in ("train", "validation", "test"):
        write(f"d/{split}.jsonl", json.dumps({"text": split}))
    said = refused("d")
    assert "splits of a dataset, train, validation, test" in said
    assert "--dataset d --validation_split validation" in said
    assert texts("d/*.jsonl") == ["test", "train", "validation"], "who writes a glob has looked"


FOLDERS: dict[str, dict[str, str | bytes]] = {
    "leading zeros": {"a.csv": "id,text\n1,007\n2,one\n3,NA\n"},
    "only numbers beside": {"a.tsv": 'id\ttext\n1\t"x\n2\ty"\n'},
    "mixed formats": {
        "a.jsonl": '{"text": "one"}\n',
        "b.csv": "text,id\ntwo,2\n",
        "c.parquet": parquet(columns(text=["three"])),
    },
    "lines": {"a.txt": "one\n\ntwo", "b.txt": "three\n"},
    "source code": {"a.py": "x = 1\n", "deep/b.py": "y = 2\n"},
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_is_the_same_as_a_dataset_and_as_files(case: str) -> None:
    for name, content in FOLDERS[case].items():
        write(f"d/{name}", content)
    as_files = load(validation_file=["d"]).evaluation
    as_dataset = load_corpus(DataSettings(dataset_name="d", validation_split="train"), evaluation_only=True).evaluation
    assert as_dataset.fingerprint == as_files.fingerprint
    assert as_dataset.documents == as_files.documents


def test_a_card_says_how_the_files_of_a_folder_are_read() -> None:
    write("d/a.txt", "one\nmore\n\ntwo\n")
    write("d/rest/b.txt", "three\n\nfour\n")
    configs = "- config_name: default\n  sample_by: paragraph\n  data_files:\n  - {split: train, path: a.txt}\n"
    write("d/README.md", f"---\nconfigs:\n{configs}  - {{split: test, path: rest/*.txt}}\n---\nWords.\n")
    corpus = load(dataset_name="d", validation_split="test")
    train = corpus.train
    assert train is not None and train.documents
    assert [text for batch in train.texts() for text in batch] == ["one\nmore", "two"]
    assert [text for batch in corpus.evaluation.texts() for text in batch] == ["three", "four"]
    write("d/README.md", "---\nconfigs:\n- config_name: default\n  encoding_errors: ignore\n  data_files: a.txt\n---\n")
    with pytest.raises(InputError, match="says encoding_errors='ignore', which nothing here reads"):
        load(dataset_name="d", eval_dataset=["x"])


def test_splits_of_a_folder_must_agree() -> None:
    write("d/train.jsonl", '{"text": "a"}')
    write("d/test.jsonl", '{"body": "b"}')
    with pytest.raises(InputError, match="different columns: it is 'text' in train, it is 'body' in test"):
        load(dataset_name="d", validation_split="test")
    write("e/train.txt", "a\n")
    write("e/test.jsonl", '{"text": "b"}')
    with pytest.raises(InputError, match="text read by line and documents"):
        load(dataset_name="e", validation_split="test")


# ---- templates


TEMPLATE = "{title}\n\n{answers.text} {{sic}}"
SOURCES: dict[str, Callable[[], dict[str, Any]]] = {
    "jsonl": lambda: {"validation_file": [write("a.jsonl", "".join(json.dumps(row) + "\n" for row in ROWS))]},
    "parquet": lambda: {"validation_file": [write("a.parquet", parquet(pa.Table.from_pylist(ROWS)))]},
    "memory": lambda: {"eval_dataset": datasets.Dataset.from_list(ROWS)},
}
ROWS: list[dict[str, Any]] = [
    {"title": "One", "answers": {"text": ["a", "b"], "score": [1, 2]}},
    {"title": "Two é", "answers": {"text": ["c"], "score": [3]}},
]


@pytest.mark.parametrize("source", SOURCES)
def test_a_template_makes_one_text_of_several_columns(source: str) -> None:
    split = load(**SOURCES[source](), text_template=TEMPLATE).evaluation
    assert split.column == ("text",)
    assert [text for batch in split.texts() for text in batch] == ["One\n\na b {sic}", "Two é\n\nc {sic}"]


def test_another_template_gives_another_text() -> None:
    rows = datasets.Dataset.from_list(ROWS)
    for template in ("{title}", "{title}!"):
        split = load(eval_dataset=rows, text_template=template).evaluation
        assert next(split.texts())[0] == template.replace("{title}", "One")


def test_a_template_without_a_value_is_refused_by_its_row() -> None:
    write("a.jsonl", '{"title": "a", "body": "b"}\n{"title": "c"}\n')
    assert "row 2 of a.jsonl has no text (null)" in refused("a.jsonl", text_template="{title}: {body}")
    assert "no column 'bdy' in a.jsonl: it has title, body, did you mean" in refused("a.jsonl", text_template="{bdy}")
