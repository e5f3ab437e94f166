"""Reading text: every format, every source, every way it can be wrong. Real files, exact expectations."""

from __future__ import annotations

import gzip
import importlib.util
import json
import lzma
import os
import subprocess
import sys
import tracemalloc
import uuid
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
import zstandard
from data_files import arrow, parquet, write
from datasets.exceptions import DatasetNotFoundError
from hypothesis import given, settings
from hypothesis import strategies as st

from lmtasks.config.settings import DataSettings
from lmtasks.data.corpus import Corpus, Split, load_corpus
from lmtasks.data.corpus import hub_dataset as named
from lmtasks.data.corpus.formats import text as text_format
from lmtasks.data.corpus.hub_dataset import unavailable
from lmtasks.data.corpus.split import BATCH_BYTES
from lmtasks.data.sample import SAMPLES, sample_documents
from lmtasks.errors import InputError


def load(**options: Any) -> Corpus:
    return load_corpus(DataSettings(**options))


def texts(split: Split | None) -> list[str]:
    assert split is not None
    return [text for batch in split.texts() for text in batch]


def evaluated(*files: str, **options: Any) -> list[str]:
    """All texts of files, none held out."""
    corpus = load(validation_file=list(files), **options)
    assert corpus.train is None
    return texts(corpus.evaluation)


def refused(message: str, hint: str = "", **options: Any) -> InputError:
    with pytest.raises(InputError) as caught:
        load(**options)
    assert message in caught.value.message
    assert hint in caught.value.hint
    assert caught.value.hint
    assert "\n" not in caught.value.message + caught.value.hint, "one line each"
    return caught.value


def in_new_process(code: str, **environment: str) -> str:
    """What a program prints. It runs where lmtasks can be imported from."""
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[3],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    ).stdout


def lines(*rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


TABLE = pa.table({"id": [1, 2], "text": ["é one", "two\nlines"]})
DAMAGED = b"PAR1" + b"x" * 40 + parquet(TABLE.select(["text"]))[44:]
FORMATS: dict[str, bytes] = {
    "jsonl": lines({"id": 1, "text": "é one"}, {"id": 2, "text": "two\nlines"}).encode(),
    "json": json.dumps([{"text": "é one"}, {"text": "two\nlines"}], indent=1).encode(),
    "csv": 'id,text\n1,é one\n2,"two\nlines"\n'.encode(),
    "parquet": parquet(TABLE),
    "arrow": arrow(TABLE),
}
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstandard.ZstdCompressor().compress,
}


# ---- formats


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_and_compression(kind: str, packer: str) -> None:
    name = write(f"data.{kind}{packer}", PACKERS[packer](FORMATS[kind]))
    corpus = load(validation_file=[name])
    assert corpus.evaluation is not None
    assert corpus.evaluation.documents
    assert texts(corpus.evaluation) == ["é one", "two\nlines"]


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("kind", ["txt", "raw", "md", "TXT"])
def test_lines_of_text_keep_their_breaks(kind: str, packer: str) -> None:
    name = write(f"data.{kind}{packer}", PACKERS[packer]("\ufeffone\r\n\rtwo\n\x00\u2028\x0b\x0c é".encode()))
    corpus = load(validation_file=[name])
    assert corpus.evaluation is not None
    assert not corpus.evaluation.documents
    assert texts(corpus.evaluation) == ["one\n", "\n", "two\n", "\x00\u2028\x0b\x0c é"]


@pytest.mark.parametrize(
    ("sample_by", "expected"), [("paragraph", ["one\ntwo", "three"]), ("document", ["one\ntwo\n\nthree\n"])]
)
def test_paragraphs_and_whole_files_are_documents(sample_by: str, expected: list[str]) -> None:
    write("a.txt", "one\r\ntwo\r\n\r\nthree\r\n")
    corpus = load(validation_file=["a.txt"], sample_by=sample_by)
    assert corpus.evaluation is not None
    assert corpus.evaluation.documents
    assert texts(corpus.evaluation) == expected


def test_gzip_under_a_plain_name_is_read() -> None:
    assert evaluated(write("a.txt", gzip.compress(b"one\n"))) == ["one\n"]


def test_arrow_in_the_file_format() -> None:
    assert evaluated(write("a.arrow", arrow(TABLE, pa.ipc.new_file))) == ["é one", "two\nlines"]


def test_zstandard_of_several_frames() -> None:
    pack = zstandard.ZstdCompressor().compress
    assert evaluated(write("a.txt.zst", pack(b"one\n") + pack(b"two\n"))) == ["one\n", "two\n"]


def test_cells_of_csv_stay_as_they_are_written() -> None:
    write("a.csv", "id,text\n1,one\n2,NA\n3,None\n4,007\n5,\n6,1e5\n")
    corpus = load(validation_file=["a.csv"])
    assert texts(corpus.evaluation) == ["one", "NA", "None", "007", "1e5"]
    assert corpus.evaluation is not None and corpus.evaluation.blank == 1


def test_numbers_late_in_a_long_csv_stay_as_they_are_written() -> None:
    rows = ["word"] * 10_000 + ["007"] * 10_000
    assert evaluated(write("a.csv", "text\n" + "\n".join(rows) + "\n")) == rows


def test_json_array_of_strings() -> None:
    assert evaluated(write("a.json", '["one", "two"]')) == ["one", "two"]


def test_mixed_formats_are_joined() -> None:
    write("a.jsonl", lines({"body": "one", "n": 1}))
    write("b.csv", "body,x\ntwo,y\n")
    write("c.md", "three\n")
    write("d.parquet", parquet(pa.table({"body": pa.array(["four"], pa.large_string())})))
    files = ["a.jsonl", "b.csv", "c.md", "d.parquet"]
    assert evaluated(*files, text_column="body", sample_by="document") == ["one", "two", "three\n", "four"]


def test_formats_that_cannot_be_mixed() -> None:
    write("a.parquet", parquet(pa.table({"text": ["one"], "deep": [{"text": "x"}]})))
    write("b.txt", "two\n")
    refused("read by line cannot be mixed", "--sample_by paragraph", validation_file=["a.parquet", "b.txt"])
    options = {"validation_file": ["a.parquet", "b.txt"], "sample_by": "document"}
    write("b.txt", "two\n")
    assert evaluated("a.parquet", "b.txt", sample_by="document", text_column="deep.text") == ["x", "two\n"]
    refused("no column 'body' in a.parquet", text_column="body", **options)


def test_files_of_different_columns() -> None:
    plain, more = pa.table({"text": ["a"]}), pa.table({"text": ["b"], "n": [1]})
    for name, table in (("a", plain), ("b", more)):
        write(f"{name}.parquet", parquet(table))
        write(f"{name}.arrow", arrow(table))
    assert evaluated("*.parquet") == evaluated("*.arrow") == ["a", "b"]


def test_only_the_text_column_of_json_files_must_agree() -> None:
    write("a.jsonl", lines({"text": "5", "n": 1}, {"text": "x", "n": "mixed"}, {"text": '"q"', "n": []}))
    write("b.jsonl", lines({"other": {"a": 1}, "text": "2020-01-01"}, {"text": "6"}))
    assert evaluated("a.jsonl", "b.jsonl") == ["5", "x", '"q"', "2020-01-01", "6"]
    write("c.json", '{"n": 2.5,\n"text": "one object"}')
    write("d.jsonl", lines({"text": "line"}))
    assert evaluated("c.json", "d.jsonl") == ["one object", "line"]


def test_objects_of_several_shapes() -> None:
    turns = [{"say": "a"}, {"say": "b", "n": 1}]
    rows = [{"d": {"text": ["x", "y"]}, "turns": turns}, {"d": {"text": ["z"], "n": 1}, "turns": turns[:1]}]
    write("a.jsonl", lines(*rows))
    assert evaluated("a.jsonl", text_column="d.text") == ["x y", "z"]
    assert evaluated("a.jsonl", text_column="turns.say") == ["a b", "a"]
    refused("cannot tell which column of a.jsonl", validation_file=["a.jsonl"])
    write("b.jsonl", lines(*rows, {"d": {"text": "one", "n": {}}}))
    assert evaluated("b.jsonl", text_column="d.text") == ["x y", "z", "one"]
    write("b.jsonl", lines(*rows, {"d": {"text": {"a": 1}, "n": {}}}))
    refused("row 3 of b.jsonl has a value that is not text", validation_file=["b.jsonl"], text_column="d.text")


@pytest.mark.parametrize("cell", [[{"from": "human", "value": "hi"}], {"body": "hi"}, ["hi", "ho"]])
def test_the_only_string_is_no_guess_where_a_list_or_record_may_hold_the_text(cell: Any) -> None:
    write("a.jsonl", lines({"id": "one", "conversations": cell}, {"id": "two", "conversations": cell}))
    told = "'id' holds text, 'conversations' may as well, of id, conversations"
    refused(f"cannot tell which column of a.jsonl is the text: {told}", validation_file=["a.jsonl"])
    assert evaluated("a.jsonl", text_column="id") == ["one", "two"]
    write("b.jsonl", lines({"body": "one", "n": [1, 2], "meta": {"score": 0.5}}))
    assert evaluated("b.jsonl") == ["one"], "numbers are no text, however deep"


@pytest.mark.parametrize("packer", PACKERS)
def test_a_line_of_a_tsv_file_is_a_row_whatever_quotes_are_in_it(packer: str) -> None:
    cells = ['"Hello, he said', "Plain é", 'She said "bye"', "'", 'end"', '"x" y', "NA", "007"]
    content = "id\ttext\n" + "".join(f"{number}\t{cell}\n" for number, cell in enumerate(cells))
    assert evaluated(write(f"a.tsv{packer}", PACKERS[packer](content.encode()))) == cells
    write("b.tsv", "id\ttext\n1\ta\tb\n")
    refused("b.tsv", hint="take tabs and line breaks out of the cells", validation_file=["b.tsv"])


def test_numbers_late_in_json_are_not_taken_for_text() -> None:
    rows = [{"text": "x" * 1000}] * 12_000
    good, number, text = {"text": "a"}, {"text": 5}, {"text": "5"}
    for name, late in (("n.jsonl", [number]), ("m.jsonl", [text, number, good])):
        write(name, lines(*rows, *late))
        refused(f"row {12_000 + late.index(number) + 1} of {name} has a value that is not", validation_file=[name])
    write("a.jsonl", lines(good))
    for content in (lines(good, number), lines(good, {"text": {"a": 1}}), f"[\n{lines(good)},\n{lines(number)}]"):
        write("b.jsonl", content)
        refused("row 2 of b.jsonl has a value that is not text", validation_file=["a.jsonl", "b.jsonl"])
    write("b.jsonl", lines(number))
    refused("column 'text' of b.jsonl holds int64", validation_file=["a.jsonl", "b.jsonl"])
    write("c.jsonl", lines({"a": {"text": ["x"]}}, {"a": {"text": [], "n": 1}}, {"a": {"text": ["x", 5]}}))
    refused("row 3 of c.jsonl", validation_file=["c.jsonl"], text_column="a.text")
    write("d.jsonl", lines(*rows, {"other": 1}))
    refused("row 12001 of d.jsonl has no text (null)", validation_file=["d.jsonl"])


def test_numbers_in_a_later_table_are_not_taken_for_text() -> None:
    write("a.parquet", parquet(pa.table({"text": ["a"]})))
    write("b.parquet", parquet(pa.table({"text": [5]})))
    refused("column 'text' of b.parquet holds int64", validation_file=["*.parquet"])


def test_reading_files_does_not_touch_the_network() -> None:
    file = Path(write("a.jsonl", lines({"text": "a"}))).absolute()
    code = (
        "import sys; from lmtasks.data.corpus import load_corpus\n"
        "from lmtasks.config.settings import DataSettings; calls = []\n"
        "sys.addaudithook(lambda event, _: event.startswith('socket.') and calls.append(event))\n"
        f"load_corpus(DataSettings(validation_file=[{str(file)!r}])); print(calls)"
    )
    assert in_new_process(code, HF_HUB_OFFLINE="0", HF_DATASETS_CACHE=str(file.parent)) == "[]\n"


def test_changed_file_is_read_again() -> None:
    for content in ("one\n", "three\n"):
        for name, packer in (("a.txt", PACKERS[""]), ("a.txt.gz", PACKERS[".gz"])):
            write(name, packer(content.encode()))
            os.utime(name, (1, 1))
            assert evaluated(name) == [content], "even if its time did not change"


def test_unchanged_file_is_read_from_the_cache() -> None:
    for packer in ("", ".gz"):
        write(f"a.txt{packer}", PACKERS[packer](b"one\n"))
        files = [load(validation_file=[f"a.txt{packer}"]).evaluation.rows.cache_files for _ in range(2)]  # type: ignore[union-attr]
        assert files[0] == files[1] != []


# ---- which files


@pytest.mark.parametrize(
    "name", ["a[1].txt", "b*.txt", "c?.txt", "d{1}.txt", "e #%20 é.txt", ".hidden.txt", "__x__/f.txt"]
)
def test_names_are_taken_literally_when_they_exist(name: str) -> None:
    write("a1.txt", "wrong\n")
    assert evaluated(write(name, "right\n")) == ["right\n"]


def test_several_files_in_their_order_and_each_once() -> None:
    for name in "abc":
        write(f"{name}.txt", f"{name}\n")
    assert evaluated("c.txt", "*.txt", "./c.txt") == ["c\n", "a\n", "b\n"]
    assert load(validation_file=["*.txt"]).source == "3 files"


def test_folder_is_read_at_any_depth_without_hidden_and_other_files() -> None:
    for name in ("d/b.txt", "d/a/z.txt.gz", "d/.git/c.txt", "d/page.odt", "d/.h.txt"):
        write(name, gzip.compress(b"packed\n") if name.endswith("gz") else f"{name}\n")
    assert evaluated("d") == ["packed\n", "d/b.txt\n"]
    assert evaluated("d/**/*.txt") == ["d/b.txt\n"]
    write("d/c.txt", "")
    assert evaluated("d") == evaluated("d/**/*.txt*") == ["packed\n", "d/b.txt\n"], "an empty one is passed over"


# ---- columns


def test_nested_columns_join_lists_with_a_space() -> None:
    write("a.jsonl", lines({"answers": {"text": ["a", "b"], "n": [1, 2]}}, {"answers": {"text": ["c"], "n": []}}))
    assert evaluated("a.jsonl", text_column="answers.text") == ["a b", "c"]


def test_lists_of_structs_and_of_lists() -> None:
    rows = datasets.Dataset.from_dict(
        {
            "turns": [[{"say": "a", "n": 1}, {"say": "b", "n": 2}], [{"say": "c", "n": 3}]],
            "deep": [[["a", "b"], ["c"]], [["d"]]],
        }
    )
    assert texts(load(eval_dataset=rows, text_column="turns.say").evaluation) == ["a b", "c"]
    assert texts(load(eval_dataset=rows.select([1]), text_column="turns.say").evaluation) == ["c"]
    assert texts(load(eval_dataset=rows, text_column="deep").evaluation) == ["a b c", "d"]


def test_column_whose_name_has_a_dot() -> None:
    rows = datasets.Dataset.from_dict({"a": [{"b.c": "x"}], "a.b": ["y"]})
    assert texts(load(eval_dataset=rows, text_column="a.b").evaluation) == ["y"]
    assert texts(load(eval_dataset=rows, text_column="a.b.c").evaluation) == ["x"]


@pytest.mark.parametrize(
    "kind", [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]
)
def test_every_kind_of_string(kind: pa.DataType) -> None:
    rows = datasets.Dataset(pa.table({"text": pa.array(["é", "b"], pa.string()).cast(kind)}))
    split = load(eval_dataset=rows).evaluation
    assert texts(split) == ["é", "b"]
    plain = load(eval_dataset=["é", "b"]).evaluation
    assert split is not None and plain is not None and list(split.texts()) == list(plain.texts())


def test_only_string_column_is_the_text() -> None:
    rows = datasets.Dataset.from_dict({"id": [1], "body": ["a"], "ranks": [[3]]})
    assert texts(load(eval_dataset=rows).evaluation) == ["a"]
    both = datasets.Dataset.from_dict({"title": ["t"], "text": ["a"]})
    assert texts(load(eval_dataset=both).evaluation) == ["a"]


def test_columns_that_do_not_fit() -> None:
    rows = datasets.Dataset.from_dict({"title": ["t"], "answers": [{"text": ["a"], "n": [1]}], "n": [1]})
    refused("it has title, answers.text, answers.n, n, did you mean 'title'?", eval_dataset=rows, text_column="titel")
    refused("column 'answers' of in-memory data holds struct", eval_dataset=rows, text_column="answers")
    refused("column 'n' of in-memory data holds int64, not text, from row 1", eval_dataset=rows, text_column="n")
    two = datasets.Dataset.from_dict({"a": ["x"], "b": ["y"]})
    refused("2 columns hold text of a, b", "--text_column", eval_dataset=two)
    refused("no column holds plain text of n", eval_dataset=rows.select_columns(["n"]))
    refused("no column 'body' in a.txt: it has text", validation_file=[write("a.txt", "x\n")], text_column="body")
    refused("column 'text' of a.csv holds int64", validation_file=[write("a.csv", "text\n1\n2\n")])


def test_cells_that_are_not_text() -> None:
    good = {"text": "a"}
    write("null.jsonl", lines(good, good, {"text": None}))
    refused("row 3 of null.jsonl has no text (null) in column 'text'", validation_file=["null.jsonl"])
    write("key.jsonl", lines(good, {"other": 1}))
    refused("row 2 of key.jsonl has no text (null)", validation_file=["key.jsonl"])
    write("mixed.jsonl", lines(good, good, good, {"text": 5}))
    refused("row 4 of mixed.jsonl has a value that is not text", validation_file=["mixed.jsonl"])
    write("list.jsonl", lines({"text": ["a"]}, {"text": ["a", None]}))
    refused("row 2 of list.jsonl has no text (null)", validation_file=["list.jsonl"])
    refused("row 2 of eval_dataset is not text but int", eval_dataset=["a", 5])
    refused("row 1 of eval_dataset is not valid Unicode", eval_dataset=["\ud800"])
    late = datasets.Dataset.from_dict({"text": ["a"] * 2500 + [None]})
    refused("row 2501 of in-memory data", eval_dataset=late)


# ---- splits


def test_documents_are_held_out_by_share_and_seed() -> None:
    documents = [f"document {n}" for n in range(200)]
    first = load(train_dataset=documents, test_size=0.2)
    train, evaluation = texts(first.train), texts(first.evaluation)
    assert (len(train), len(evaluation)) == (160, 40)
    assert sorted(train + evaluation) == sorted(documents)
    assert [d for d in documents if d in set(train)] == train
    assert [d for d in documents if d in set(evaluation)] == evaluation
    assert evaluation not in (documents[:40], documents[160:])
    again = load(train_dataset=documents, validation_split_percentage=20.0)
    assert texts(again.evaluation) == evaluation
    assert texts(load(train_dataset=documents, test_size=0.2, split_seed=7).evaluation) != evaluation


def test_default_share_is_five_percent_and_at_least_one() -> None:
    assert len(texts(load(train_dataset=[str(n) for n in range(100)]).evaluation)) == 5
    assert len(texts(load(train_dataset=["a", "b"]).evaluation)) == 1
    assert len(texts(load(train_dataset=["a", "b"], test_size=0.99).train)) == 1


def test_lines_are_held_out_in_stretches() -> None:
    rows = [f"line {n}\n" for n in range(1000)]
    write("a.txt", "".join(rows))
    corpus = load(train_file=["a.txt"], test_size=0.1)
    train, evaluation = texts(corpus.train), texts(corpus.evaluation)
    assert (len(train), len(evaluation)) == (900, 100)
    starts = [int(line.split()[1]) for line in evaluation[::10]]
    assert all(start % 10 == 0 for start in starts), "stretches of 10 lines"
    assert evaluation == [row for start in starts for row in rows[start : start + 10]]
    assert train == [row for row in rows if row not in set(evaluation)]


@pytest.mark.parametrize(("share", "rows"), [(0.001, 20), (0.0037, 74), (0.05, 1000), (0.5, 10_000)])
def test_the_share_of_lines_is_the_one_that_was_asked_for(share: float, rows: int) -> None:
    write("a.txt", "".join(f"line {n}\n" for n in range(20_000)))
    assert len(texts(load(train_file=["a.txt"], test_size=share).evaluation)) == pytest.approx(rows, rel=0.06), (
        "stretches are whole"
    )


def test_held_out_lines_are_never_all_blank() -> None:
    write("a.txt", "one\n" + "\n" * 50 + "two\n")
    for seed in range(20):
        corpus = load(train_file=["a.txt"], split_seed=seed)
        assert "".join(texts(corpus.train)).strip() and "".join(texts(corpus.evaluation)).strip()


@given(
    blank=st.lists(st.booleans(), min_size=2, max_size=60).filter(lambda flags: flags.count(False) >= 2),
    size=st.floats(0.001, 0.999),
    seed=st.integers(0, 2**32),
    name=st.sampled_from(["train_dataset", "train_file"]),
)
@settings(max_examples=60, deadline=None)
def test_both_parts_together_are_the_rows(blank: list[bool], size: float, seed: int, name: str) -> None:
    rows = [" \n" if is_blank else f"{n}\n" for n, is_blank in enumerate(blank)]
    source: Any = rows
    if name == "train_file":
        source = [write(f"{uuid.uuid4()}.txt", "".join(rows))]
    corpus = load(**{name: source}, test_size=size, split_seed=seed)
    train, evaluation = texts(corpus.train), texts(corpus.evaluation)
    kept = rows if name == "train_file" else [row for row in rows if row.strip()]
    assert "".join(train).strip() and "".join(evaluation).strip()
    assert len(train) + len(evaluation) == len(kept)
    merged = {"train": iter(train), "evaluation": iter(evaluation)}
    order = _membership(kept, train, evaluation)
    assert [next(merged[part]) for part in order] == kept


def _membership(kept: list[str], train: list[str], evaluation: list[str]) -> list[str]:
    """Which part each row went to; blank lines, all alike, go where their neighbours leave room."""
    reachable: list[dict[int, str]] = [{0: ""}]
    for number, row in enumerate(kept):
        step: dict[int, str] = {}
        for taken in reachable[-1]:
            if taken < len(train) and train[taken] == row:
                step[taken + 1] = "train"
            rest = number - taken
            if rest < len(evaluation) and evaluation[rest] == row:
                step.setdefault(taken, "evaluation")
        reachable.append(step)
    taken, order = len(train), []
    for step in reversed(reachable[1:]):
        order.append(step[taken])
        taken -= step[taken] == "train"
    return order[::-1]


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("train[:2]", "ab"),
        ("train[1:3]", "bc"),
        ("train[50%:]", "cd"),
        ("train[:1]+train[3:]", "ad"),
        ("train[:900]", "abcd"),
    ],
)
def test_split_expressions_work_on_files_and_memory(expression: str, expected: str) -> None:
    write("a.jsonl", lines(*({"text": letter} for letter in "abcd")))
    for options in ({"train_file": ["a.jsonl"]}, {"train_dataset": list("abcd")}):
        corpus = load(**options, train_split=expression, eval_dataset=["x"])
        assert texts(corpus.train) == list(expected)
    assert load(train_file=["a.jsonl"], train_split=expression).source == f"a.jsonl, {expression}"


def test_dataset_dict_in_memory() -> None:
    rows = datasets.DatasetDict(
        {
            name: datasets.Dataset.from_dict({"text": [f"{name} {n}" for n in range(4)]})
            for name in ("train", "validation")
        }
    )
    chosen = load(train_dataset=rows, validation_split="validation[:2]")
    assert texts(chosen.train) == ["train 0", "train 1", "train 2", "train 3"]
    assert texts(chosen.evaluation) == ["validation 0", "validation 1"]
    held = load(train_dataset=rows)
    assert sorted(texts(held.train) + texts(held.evaluation)) == texts(chosen.train), "a name alone chooses nothing"
    assert texts(load(eval_dataset=rows, validation_split="train[:1]").evaluation) == ["train 0"]
    refused("eval_dataset has several splits: train, validation", "--validation_split", eval_dataset=rows)
    refused("both train", train_dataset=rows, validation_split="train")


def test_evaluation_data_alone_needs_no_training_data() -> None:
    write("a.txt", "x\n")
    for options in ({"validation_file": ["a.txt"]}, {"eval_dataset": ["x\n"]}):
        corpus = load(**options)
        assert corpus.train is None
        assert texts(corpus.evaluation) == ["x\n"]
    write("d/test.jsonl", lines({"text": "only"}))
    settings_ = DataSettings(dataset_name="d", validation_split="test")
    corpus = load_corpus(settings_, evaluation_only=True)
    assert corpus.train is None
    assert (texts(corpus.evaluation), corpus.source) == (["only"], "d, test")
    refused("unknown split 'train' in d: it has test", dataset_name="d", validation_split="test")


def test_embedded_corpus_only_when_no_data_is_named() -> None:
    corpus = load_corpus(DataSettings(), sample="python")
    assert corpus.source == SAMPLES["python"]
    assert sorted(texts(corpus.train) + texts(corpus.evaluation)) == sorted(sample_documents("python"))
    assert load_corpus(DataSettings(train_dataset=["a", "b"]), sample="python").source == "in-memory data"
    assert load_corpus(DataSettings(eval_dataset=["a", "b"]), sample="python").train is None
    refused("no data given", "--train_file")


# ---- the split itself


def test_batches_are_bounded_in_rows_and_bytes() -> None:
    split = load(eval_dataset=[str(n) for n in range(25)]).evaluation
    assert split is not None and len(split) == 25
    assert [len(batch) for batch in split.texts(10)] == [10, 10, 5]
    size = BATCH_BYTES // 3 + 1
    books = load(eval_dataset=["x" * length for length in (size, size, 3 * size, 5, 9 * size, 5, 5)]).evaluation
    assert books is not None and [len(batch) for batch in books.texts()] == [2, 1, 1, 1, 2]
    assert [len(array) for array in books.arrays(start=4)] == [1, 2]


def test_what_is_held_out_is_read_with_bounded_batches() -> None:
    rows = [f"document {n}" for n in range(50)]
    corpus = load(train_dataset=rows, test_size=0.5)
    for one in (corpus.train, corpus.evaluation):
        assert one is not None and len(one) == 25
        assert max(len(batch) for batch in one.texts(10)) <= 10
        assert [text for batch in one.texts(10) for text in batch] == texts(one)
        for start in range(26):
            assert [text for array in one.arrays(start, 7) for text in array.to_pylist()] == texts(one)[start:]
    assert sorted(texts(corpus.train) + texts(corpus.evaluation)) == sorted(rows)


def test_batches_of_rows_that_somebody_selected_are_as_full_as_any() -> None:
    rows = datasets.Dataset.from_dict({"text": [f"document {n}" for n in range(50)]}).select(range(49, -1, -2))
    evaluation = load(eval_dataset=rows).evaluation
    assert evaluation is not None
    assert [len(batch) for batch in evaluation.texts(10)] == [10, 10, 5]
    nested = datasets.Dataset.from_dict({"a": [{"b": [f"document {n}", "x"]} for n in range(50)]}).select([7, 3, 3, 40])
    evaluation = load(eval_dataset=nested, text_column="a.b").evaluation
    assert evaluation is not None
    assert list(evaluation.texts(3)) == [[f"document {n} x" for n in (7, 3, 3)], ["document 40 x"]]


def test_selected_rows_that_are_large_are_not_joined() -> None:
    books = datasets.Dataset.from_dict({"text": [letter * (9 << 20) for letter in "abcd"]}).select([3, 1, 2])
    evaluation = load(eval_dataset=books).evaluation
    assert evaluation is not None
    assert [[text[0] for text in batch] for batch in evaluation.texts()] == [["d"], ["b"], ["c"]]


# ---- text files

FILE = st.text(st.sampled_from("ab é火\r\n\n\n\u2028\x0b"), min_size=1, max_size=80)


@given(content=FILE, mark=st.booleans(), at_once=st.integers(1, 20))
@settings(max_examples=200, deadline=None)
def test_lines_are_those_of_pythons_universal_newlines(content: str, mark: bool, at_once: int) -> None:
    path = write(f"{uuid.uuid4()}.txt", (b"\xef\xbb\xbf" if mark else b"") + content.encode())
    with open(path, encoding="utf-8-sig") as file:
        expected = list(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_format, "_AT_ONCE", at_once)
        assert [row for rows in text_format._rows(Path(path), lines=True) for row in rows.to_pylist()] == expected
        whole = [row for rows in text_format._rows(Path(path), lines=False) for row in rows.to_pylist()]
    assert whole == ["".join(expected)]


ANONYMOUS = """
import sys, threading, time
from lmtasks.data.corpus.load import load_corpus
from lmtasks.config.settings import DataSettings

def anonymous():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("RssAnon"))

def watch():
    while True:
        most[0] = max(most[0], anonymous())
        time.sleep(0.001)

before, most = anonymous(), [0]
threading.Thread(target=watch, daemon=True).start()
split = load_corpus(DataSettings(validation_file=[FILE])).evaluation
split.fingerprint
print(len(split), most[0] - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="nothing tells the anonymous memory here")
def test_a_file_of_one_line_is_read_without_holding_it() -> None:
    write("long.txt", "some words " * 5_000_000)
    rows, grown = in_new_process(ANONYMOUS.replace("FILE", repr(os.path.abspath("long.txt")))).split()
    assert rows == "1"
    assert int(grown) < 40_000, "KiB; the line has 55 MB"


# ---- memory


def test_texts_are_read_in_constant_memory() -> None:
    write("a.jsonl", lines(*({"text": "x" * 10_000} for _ in range(6_000))))
    split = load(validation_file=["a.jsonl"]).evaluation
    assert split is not None
    tracemalloc.start()
    total = sum(len(text) for batch in split.texts(100) for text in batch)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 60_000_000
    assert peak < 8_000_000


def test_blank_documents_are_dropped_and_blank_lines_kept() -> None:
    corpus = load(train_dataset=["a", "", " \n\t", "b", "\u2028", "\x00"])
    assert sorted(texts(corpus.train) + texts(corpus.evaluation)) == ["\x00", "a", "b"]
    only = load(eval_dataset=["a", "", "b"]).evaluation
    assert only is not None and only.blank == 1
    refused("holds nothing but white space in 2 rows", eval_dataset=["", " "])
    refused("a.txt holds nothing but white space", validation_file=[write("a.txt", "\n \n")])


# ---- what tells splits apart


def split(rows: list[str], documents: bool = True) -> Split:
    features = datasets.Features({"text": datasets.Value("string")})
    return Split(datasets.Dataset.from_dict({"text": rows}, features=features), ("text",), documents)


def test_fingerprint_outlives_the_process() -> None:
    # A cache on disk is keyed by it: this value may change only on purpose.
    assert split(["one", "two\n", "é"]).fingerprint == "a123b5dd25266081150990b4b8f599d8"
    assert split(["one", "two\n", "é"], documents=False).fingerprint == "277ab7dc1018871f243d41545f3cd0c9"


def test_same_text_has_the_same_fingerprint_wherever_it_comes_from() -> None:
    sources: list[dict[str, Any]] = [
        {"validation_file": [write(f"data.{kind}{packer}", PACKERS[packer](content))]}
        for kind, content in FORMATS.items()
        for packer in ("", ".gz")
    ]
    rows = ["é one", "two\nlines"]
    large = datasets.Dataset(pa.table({"body": pa.array(rows, pa.large_string()).dictionary_encode()}))
    reversed_ = datasets.Dataset.from_dict({"text": rows[::-1]}).select([1, 0])
    nested = datasets.Dataset.from_dict({"a": [{"b": ["é", "one"]}, {"b": ["two\nlines"]}]})
    sources += [{"eval_dataset": rows}, {"eval_dataset": ["", *rows, " "]}, {"eval_dataset": large}]
    sources += [{"eval_dataset": reversed_}, {"eval_dataset": nested, "text_column": "a.b"}]
    splits = [load(**source).evaluation for source in sources]
    assert {one.fingerprint for one in splits if one is not None} == {split(rows).fingerprint}
    assert None not in splits


def test_lines_of_two_files_are_two_texts_and_no_other_line_breaks_count() -> None:
    write("a.txt", "one\n\ntwo\n")
    write("b.txt", "one\r\n\r\n")
    write("c.txt", "two\n")
    write("d.txt", "one\r\n\r\ntwo\r\n")
    files = (["a.txt"], ["d.txt"], ["b.txt", "c.txt"])
    one, same, two = (load(validation_file=names).evaluation for names in files)
    assert one.fingerprint == same.fingerprint == split(["one\n", "\n", "two\n"], documents=False).fingerprint
    assert one.text_starts.tolist() == [0] and two.text_starts.tolist() == [0, 2]
    assert one.fingerprint != two.fingerprint


def test_a_text_begins_with_the_first_of_its_lines_that_belongs_to_the_split() -> None:
    for number in range(4):
        write(f"{number}.txt", "".join(f"line {line} of {number}\n" for line in range(10)))
    corpus = load(train_file=[f"{number}.txt" for number in range(4)], test_size=0.4)
    for part in (corpus.train, corpus.evaluation):
        rows = [text for batch in part.texts() for text in batch]
        files = [row.split()[-1] for row in rows]
        begins = [place for place, file in enumerate(files) if place == 0 or file != files[place - 1]]
        assert part.text_starts.tolist() == begins
        texts = ["".join(text for text in rows if text.split()[-1] == file) for file in dict.fromkeys(files)]
        assert [text for batch in part.running_texts() for text in batch] == texts


@pytest.mark.parametrize(
    "other",
    [
        ["one", "two", "threE"],
        ["one", "two", "three\n"],
        ["one", "two ", "three"],
        ["one", "three", "two"],
        ["onet", "wo", "three"],
        ["onetwo", "three"],
        ["one", "two", "", "three"],
        ["one", "two"],
        ["one", "two", "three", "three"],
        [],
    ],
)
def test_any_change_of_the_rows_changes_the_fingerprint(other: list[str]) -> None:
    assert split(other).fingerprint != split(["one", "two", "three"]).fingerprint


@given(
    first=st.lists(st.text("ab\n", max_size=2), max_size=4),
    second=st.lists(st.text("ab\n", max_size=2), max_size=4),
    kinds=st.tuples(st.booleans(), st.booleans()),
)
@settings(max_examples=150, deadline=None)
def test_fingerprints_are_equal_exactly_for_equal_splits(
    first: list[str], second: list[str], kinds: tuple[bool, bool]
) -> None:
    for other in (first, second):
        same = first == other and kinds[0] == kinds[1]
        assert (split(first, kinds[0]).fingerprint == split(other, kinds[1]).fingerprint) is same


def test_change_of_one_letter_in_many_rows_changes_the_fingerprint() -> None:
    rows = [f"row {n}" for n in range(3000)]
    prints = {split([*rows[:n], rows[n] + ".", *rows[n + 1 :]]).fingerprint for n in (0, 999, 1000, 2999)}
    assert len(prints | {split(rows).fingerprint}) == 5


def test_fingerprints_are_made_in_bounded_memory() -> None:
    one = split([f"{n} " + "x" * 10_000 for n in range(6_000)])
    tracemalloc.start()
    one.fingerprint  # noqa: B018
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2_000_000, "the texts are 60 MB"


def test_a_part_takes_a_bit_per_row() -> None:
    corpus = load(train_dataset=[f"document {n}" for n in range(10_000)], test_size=0.5)
    for one in (corpus.train, corpus.evaluation):
        assert one is not None and one.chosen is not None and one.chosen.bits.nbytes == 1250
        assert one.rows._indices is None


# ---- datasets with a name


def test_saved_datasets() -> None:
    rows = datasets.Dataset.from_dict({"text": ["a", "b", "c"]})
    rows.save_to_disk("one")
    datasets.DatasetDict({"train": rows, "test": rows.select([2])}).save_to_disk("many")
    assert texts(load(dataset_name="one", train_split="train[:2]", eval_dataset=["x"]).train) == ["a", "b"]
    corpus = load(dataset_name="many", validation_split="test")
    assert (texts(corpus.train), texts(corpus.evaluation)) == (["a", "b", "c"], ["c"])
    refused(
        "unknown split 'tset' in many: it has train, test, did you mean 'test'?",
        dataset_name="many",
        validation_split="tset",
    )
    refused("no configurations", dataset_name="many", dataset_config_name="en")
    refused("for the Hub", dataset_name="many", dataset_revision="main")
    refused("was made by save_to_disk", "--dataset_name one", train_file=["one"])
    Path("one/data-00000-of-00001.arrow").write_bytes(b"nothing")
    refused("the dataset folder one is damaged", dataset_name="one", eval_dataset=["x"])


def test_folder_of_data_files_as_a_dataset() -> None:
    write("text/train.txt", "a\n\nb\n")
    write("text/test.txt", "c\n")
    corpus = load(dataset_name="text", validation_split="test")
    assert corpus.train is not None and not corpus.train.documents
    assert (texts(corpus.train), texts(corpus.evaluation)) == (["a\n", "\n", "b\n"], ["c\n"])
    refused("'en' not found", "--dataset_config_name", dataset_name="text", dataset_config_name="en")
    write("notes/a.md", "x\n")
    assert texts(load(dataset_name="notes", eval_dataset=["y"]).train) == ["x\n"]
    Path("empty").mkdir()
    refused("no data files in the folder", "--train_file", dataset_name="empty")
    write("bad/train.jsonl", '{"text": \n')
    refused("bad/train.jsonl, line 2 is not JSON", dataset_name="bad")
    write("lead/train.jsonl", lines({"text": "a"}, {"text": "b"}))
    assert load(dataset_name="lead").source == "lead"


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c", "~/nowhere-at-all"])
def test_missing_dataset_folder(name: str) -> None:
    refused(f"no such dataset folder: {name}", "OWNER/NAME", dataset_name=name)


def test_file_or_format_as_dataset() -> None:
    refused("--dataset_name a.txt is a file", "--train_file a.txt", dataset_name=write("a.txt", "x\n"))
    refused("'json' is a file format, not a dataset", "--train_file", dataset_name="json")


def test_hub_out_of_reach() -> None:
    code = (
        "from lmtasks.data.corpus.load import load_corpus; from lmtasks.config.settings import DataSettings\n"
        "from lmtasks.errors import InputError\n"
        "try: load_corpus(DataSettings(dataset_name='nobody/nothing'))\n"
        "except InputError as error: print(error)"
    )
    output = in_new_process(code, HF_HUB_OFFLINE="1")
    assert "cannot load the dataset 'nobody/nothing'" in output
    assert "HF_HUB_OFFLINE is set" in output


def test_what_the_hub_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    missing = unavailable("a/b", DatasetNotFoundError("Dataset 'a/b' doesn't exist on the Hub\nmore"))
    assert missing.message == "cannot load the dataset 'a/b': Dataset 'a/b' doesn't exist on the Hub"
    assert "hf auth login" in missing.hint
    assert "check the network" in unavailable("a/b", ConnectionError("Couldn't reach 'a/b'")).hint


@pytest.mark.skipif(importlib.util.find_spec("torchcodec") is not None, reason="what it needs is here")
def test_a_dataset_that_needs_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("sounds").mkdir()
    with wave.open("sounds/a.wav", "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(bytes(3200))
    # Of the Hub; a folder is refused before anything of it is read.
    monkeypatch.setattr(named, "_builder", lambda *_: datasets.load_dataset_builder(os.path.abspath("sounds")))
    refused("the dataset 'somebody/sounds' cannot be read: ", "install that package", dataset_name="somebody/sounds")


# ---- bad files


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", "a.txt is empty"),
        ("a.txt", b"\xef\xbb\xbf", "a.txt is empty"),
        ("a.txt.gz", gzip.compress(b""), "a.txt.gz is empty"),
        ("a.txt.gz", b"", "a.txt.gz is empty"),
        ("a.csv", b"id,text\n", "a.csv has a header and no rows"),
        ("a.csv", b"\n", "a.csv"),
        ("a.jsonl", b"\n", "a.jsonl has no rows"),
        ("a.parquet", parquet(TABLE.slice(0, 0)), "a.parquet has no rows"),
        ("a.arrow", arrow(TABLE.slice(0, 0)), "a.arrow has no rows"),
        ("a.pdf", b"x", "unknown kind of data file: a.pdf"),
        ("a.txt", b"ab\n\xe9\n", "a.txt is not valid UTF-8: byte 3"),
        ("a.txt", b"a" * (1 << 20) + "é".encode()[:1], f"a.txt is not valid UTF-8: byte {1 << 20}"),
        ("a.txt", b"\xef\xbb\xbfab\xff", "a.txt is not valid UTF-8: byte 5"),
        ("a.txt", b"a" * ((1 << 20) - 1) + b"\xc3\xff", f"byte {(1 << 20) - 1}"),
        ("a.txt", "é".encode("utf-16")[:-1], "a.txt is not utf-16: byte 2"),
        ("a.txt", b"\x89PNG\r\n\x00\x00", "a.txt is a binary file: byte 0"),
        ("a.txt", b"PK\x03\x04rest", "a.txt is a zip archive"),
        ("a.csv", b"text\n\xe9\n", "a.csv is not valid UTF-8: byte 5"),
        ("a.jsonl", b'{"text": "\xe9"}', "a.jsonl is not valid UTF-8: byte 10"),
        ("a.jsonl", b'{"text": "a"}\n\n{"text": \n', "a.jsonl, line 3 is not JSON"),
        ("a.jsonl", b'{"text": "a"}\n{"text": "b', "a.jsonl, line 2 is not JSON"),
        ("a.jsonl", b'{"text": "a"}\n"b"\n', "a.jsonl, line 2 is not JSON: a str, not an object"),
        ("a.json", b'[\n{"text": "a"},\n{"text": }\n]', "a.json, line 3 is not JSON"),
        ("a.json.gz", gzip.compress(b'[\n{"text": "a"},\n{"text": }\n]'), "a.json.gz, line 3 is not JSON"),
        ("a.txt.gz", b"plain", "a.txt.gz is not compressed"),
        ("a.txt.gz", gzip.compress(os.urandom(9999))[:-99], "a.txt.gz is damaged or cut short"),
        ("a.txt.xz", lzma.compress(b"text" * 999)[:-20], "a.txt.xz is damaged or cut short"),
        ("a.txt.zst", zstandard.compress(os.urandom(9999))[:-99], "a.txt.zst is damaged or cut short"),
        ("a.parquet", b"PAR1 nothing", "a.parquet is not a parquet file, or damaged"),
        ("a.parquet", DAMAGED, "a.parquet is not a parquet file"),
        ("a.arrow", b"nothing at all", "a.arrow is not an Arrow file, or damaged"),
        ("a.csv", b'id,text\n1,"open\n', "a.csv cannot be read"),
        ("a.csv", b"id,text\n1,a\n2,b,c\n", "a.csv cannot be read"),
        ("a.csv", b"id,text\n1,a,b\n2,b,c\n", "a.csv cannot be read: the row in line 2 has 3 cells, the first one 2"),
        ("a.csv", b"text,id\na,1\n,2\n" + b"b,3\n" * 10_000 + b"c,4,5\n", "a.csv cannot be read"),
    ],
    # Not the content, of which some is drawn or has the time in it: tests are called the same in every process.
    ids=lambda value: "" if isinstance(value, bytes) else None,
)
def test_bad_files(name: str, content: bytes, message: str) -> None:
    write("good." + name.removesuffix(".gz").rsplit(".", 1)[-1], FORMATS.get(name.rsplit(".", 1)[-1], b"good\n"))
    refused(message, validation_file=[write(name, content)])


def test_the_bad_file_among_good_ones_is_named() -> None:
    for name in ("a.jsonl", "b.jsonl", "c.jsonl"):
        write(name, lines({"text": name}))
    write("b.jsonl", "{")
    refused("b.jsonl, line 1", validation_file=["*.jsonl"])
    write("a.csv", "text,id\nx,1\n")
    write("b.csv", "body,id\ny,2\n")
    refused("it is 'text' in a.csv, it is 'body' in b.csv", validation_file=["*.csv"])


def test_files_that_are_not_there() -> None:
    write("news.txt", "x\n")
    refused("--train_file: no such file: new.txt, did you mean 'news.txt'?", train_file=["new.txt"])
    refused("--validation_file: no such file: no/where.txt", validation_file=["no/where.txt"])
    refused("--train_file: no file matches *.csv", "**", train_file=["*.csv"])
    Path("empty").mkdir()
    refused("no data files in the folder empty", train_file=["empty"])
    os.mkfifo("pipe.txt")
    refused("pipe.txt is not a regular file", train_file=["pipe.txt"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"test_size": 0.1, "validation_split_percentage": 10.0},
            "--test_size and --validation_split_percentage exclude",
        ),
        ({"dataset_name": "d", "train_dataset": ["a"]}, "--dataset_name and --train_dataset exclude"),
        ({"train_dataset": ["a"], "validation_split": "test"}, "--validation_split test needs data with named splits"),
        ({"train_file": ["a.txt"], "validation_split": "test"}, "--validation_split test needs data with named splits"),
        ({"validation_split": "test"}, "needs data with named splits"),
        (
            {"dataset_name": "d", "validation_split": "test", "validation_file": ["a.txt"]},
            "both name the evaluation data",
        ),
        ({"dataset_config_name": "en", "train_dataset": ["a"]}, "--dataset_config_name needs --dataset_name"),
        ({"train_dataset": "text"}, "train_dataset cannot be a str"),
        ({"train_dataset": iter("ab")}, "train_dataset cannot be a str_ascii_iterator"),
        (
            {"train_dataset": ["a", "b"], "train_split": "trian"},
            "unknown split 'trian' in in-memory data: it has train, did you",
        ),
        ({"train_dataset": ["a", "b"], "train_split": "train[:x]"}, "--train_split cannot be 'train[:x]'"),
        ({"train_dataset": ["a", "b"], "train_split": "train[:200%]"}, "--train_split cannot be 'train[:200%]'"),
        ({"train_dataset": ["a", "b"], "train_split": "train[2:]"}, "--train_split train[2:] selects no rows"),
        ({"train_dataset": ["a", " "]}, "only 1 document with text"),
        ({"train_dataset": []}, "selects no rows"),
    ],
)
def test_contradictions(options: dict[str, Any], message: str) -> None:
    refused(message, **options)


def test_one_line_cannot_be_divided() -> None:
    refused("only 1 line with text", "--validation_file", train_file=[write("a.txt", "one\n\n")])


def test_same_file_for_training_and_evaluation() -> None:
    write("d/a.txt", "x\n")
    os.symlink("d/a.txt", "link.txt")
    refused("link.txt is given for both", train_file=["d"], validation_file=["link.txt"])


def test_other_failures_are_not_taken_for_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    write("a.jsonl", lines({"text": "a"}))
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", Path(write("cache", "not a folder")))
    with pytest.raises(OSError, match="cache"):
        load(validation_file=["a.jsonl"])


DEEP = 100_000
ODD_JSON = {
    "null first": ("a.jsonl", 'null\n{"text": "a"}\n', "a.jsonl, line 1 is not JSON: a null, not an object"),
    "null later": ("a.jsonl", '{"text": "a"}\n\nnull\n', "a.jsonl, line 3 is not JSON: a null, not an object"),
    "null in a list": ("a.json", '[\n null,\n {"text": "a"}]', "row 1 of a.json is a null, not an object"),
    "deep lists": (
        "a.jsonl",
        '{"text": "a"}\n{"text": "b", "x": ' + "[" * DEEP + "]" * DEEP + "}\n",
        "line 2 is not JSON: lists and objects lie too deep within each other",
    ),
    "deep objects": ("a.jsonl", '{"x":' * DEEP + "1" + "}" * DEEP + "\n", "line 1 is not JSON: lists and objects"),
    "a deep file": ("a.json", "[" * DEEP + "]" * DEEP, "a.json is not JSON: lists and objects lie too deep"),
    "half a pair": (
        "a.jsonl",
        '{"text": "a"}\n{"text": "b \\ud83d c"}\n',
        r"row 2 of a.jsonl has half a surrogate pair, \ud83d,",
    ),
    "a key twice": (
        "a.jsonl",
        '{"text": "a", "m": 1, "m": 2}\n',
        "line 1 is not JSON: the key 'm' twice in one object",
    ),
    "half a pair in a file": (
        "a.json",
        '[\n{"text": "\\udc00"}\n]',
        r"row 1 of a.json has half a surrogate pair, \udc00,",
    ),
    "a very long number": (
        "a.jsonl",
        '{"text": "a", "n": ' + "1" * 5000 + "}",
        "line 1 is not JSON: Exceeds the limit",
    ),
}


@pytest.mark.parametrize("case", ODD_JSON)
def test_json_that_readers_disagree_on_or_die_of_is_refused_by_its_line(case: str) -> None:
    name, content, message = ODD_JSON[case]
    write(name, content)
    refused(message, validation_file=[name])


def test_brackets_and_pairs_within_text_are_text() -> None:
    brackets = "[{" * 1000 + '\\"' + "]}" * 3
    write("a.jsonl", f'{{"text": "{brackets}"}}\n{{"text": "\\ud83d\\ude00 null", "x": {"[" * 400 + "]" * 400}}}\n')
    assert evaluated("a.jsonl") == [brackets.replace("\\", ""), "😀 null"]


def test_what_is_odd_beside_the_text_of_json_does_not_matter() -> None:
    write("a.jsonl", '{"text": "a", "x": 1e400}\n{"text": "b", "x": NaN}\n{"text": "c", "x": "\\ud83d"}\n')
    assert evaluated("a.jsonl") == ["a", "b", "c"]


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
def test_files_with_their_text_in_other_columns_are_refused(kind: str) -> None:
    make = {"parquet": parquet, "arrow": arrow}[kind]
    write(f"a.{kind}", make(pa.table({"text": ["a"]})))
    write(f"b.{kind}", make(pa.table({"body": ["b"]})))
    told = f"it is 'text' in a.{kind}, it is 'body' in b.{kind}"
    refused(told, hint="--text_column", validation_file=[f"a.{kind}", f"b.{kind}"])


def test_a_map_beside_the_text_of_a_parquet_file_is_left_alone() -> None:
    headers = pa.array([[("a", "1")], [("b", "2")]], pa.map_(pa.string(), pa.string()))
    write("a.parquet", parquet(pa.table({"text": ["one", "two"], "headers": headers})))
    assert evaluated("a.parquet") == ["one", "two"]


# --- streams ---


def stream_of(*rows: Any, **how: Any) -> datasets.IterableDataset:
    return datasets.IterableDataset.from_generator(lambda: iter(rows), **how)


def test_a_stream_is_the_rows_that_it_has() -> None:
    texts = [f"text {number}\n" for number in range(40)]
    rows = [{"body": text, "number": number} for number, text in enumerate(texts)]
    streamed = load_corpus(DataSettings(train_dataset=stream_of(*rows), text_column="body"))
    listed = load_corpus(DataSettings(train_dataset=datasets.Dataset.from_list(rows), text_column="body"))
    assert streamed.train is not None and listed.train is not None
    assert streamed.train.fingerprint == listed.train.fingerprint
    assert streamed.evaluation.fingerprint == listed.evaluation.fingerprint
    splits = datasets.IterableDatasetDict(train=stream_of(*rows[:9]), test=stream_of(*rows[9:]))
    divided = load_corpus(DataSettings(train_dataset=splits, text_column="body", validation_split="test"))
    assert divided.train is not None
    assert (len(divided.train), len(divided.evaluation)) == (9, 31)


def test_streams_that_hold_nothing_or_something_else() -> None:
    with pytest.raises(InputError, match="train_dataset has no rows"):
        load_corpus(DataSettings(train_dataset=stream_of()))
    numbers = datasets.Features({"text": datasets.Value("int64")})
    with pytest.raises(InputError, match="the rows of train_dataset cannot be read as a table: ValueError: "):
        load_corpus(DataSettings(train_dataset=stream_of({"text": 1}, {"text": "two"}, features=numbers)))
