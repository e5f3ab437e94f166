"""FASTA: a sequence is a document; and protein models with a tokenizer in Python train on them."""

from __future__ import annotations

import gzip
import json
import math
import os
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_load import ANONYMOUS, PACKERS, evaluated, load, refused, texts, write
from transformers import EsmTokenizer

from lmtasks.config.settings import DataSettings
from lmtasks.data.corpus import load_corpus
from lmtasks.data.corpus.formats import fasta
from lmtasks.data.corpus.formats.fasta import sequences

LETTERS = "LAGVSERTIDPNKQFYMHWC"
ESM = ["<cls>", "<pad>", "<eos>", "<unk>", *LETTERS, "X", "B", "U", "Z", "O", ".", "-", "<null_1>", "<mask>"]
"""The vocabulary of ESM-2 (Lin et al. 2023), in its order."""


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def esm(in_folder: Path) -> str:
    """A tokenizer folder as a person would write it."""
    write("esm/vocab.txt", "\n".join(ESM))
    write("esm/tokenizer_config.json", json.dumps({"tokenizer_class": "EsmTokenizer"}))
    return "esm"


# --- reading ---


@pytest.mark.parametrize("packer", PACKERS)
@pytest.mark.parametrize("kind", ["fasta", "fa", "faa", "FASTA"])
def test_a_sequence_is_a_document_and_its_header_is_not_text(kind: str, packer: str) -> None:
    content = b">sp|P1|ONE A protein\xe9 >of mine\nMKV\nLLA\n\n>two\nGAVLI\n"
    corpus = load(validation_file=[write(f"data.{kind}{packer}", PACKERS[packer](content))])
    assert corpus.evaluation is not None
    assert corpus.evaluation.documents
    assert texts(corpus.evaluation) == ["MKVLLA", "GAVLI"]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (">a\nMKV*\n>b\nMK*V\nA*\n", ["MKV", "MK*VA"]),
        (">a\nmkVll\n", ["MKVLL"]),
        (">a\nMKV-LL..A\n", ["MKV-LL..A"]),
        (">a\nMKVLLAGHIK LMNPQRSTVW\n\tMK V \n", ["MKVLLAGHIKLMNPQRSTVWMKV"]),
        ("; a comment\n>a\nMKV\n;another, with 1 digit\nLL\n", ["MKVLL"]),
        (">a\r\nMKV\r\nLL\r\n>b\r\nA", ["MKVLL", "A"]),
        (">a\rMKV\rLL\r>b\rA\r", ["MKVLL", "A"]),
        ("\ufeff>a\nMKV\n", ["MKV"]),
        ("\n\n>\nMKV\n", ["MKV"]),
    ],
)
def test_what_becomes_of_lines_stops_and_small_letters(content: str, expected: list[str]) -> None:
    assert evaluated(write("a.fasta", content.encode())) == expected


@given(
    rows=st.lists(st.text(st.sampled_from("ACDefg-"), max_size=30), min_size=1, max_size=8),
    width=st.integers(1, 40),
    end=st.sampled_from(["\n", "\r\n", "\r", "\n\n"]),
    at_once=st.integers(1, 50),
)
@settings(max_examples=150, deadline=None)
def test_wrapped_anyhow_the_sequences_are_the_same(rows: list[str], width: int, end: str, at_once: int) -> None:
    parts = [[f">{n}", *(row[at : at + width] for at in range(0, len(row), width))] for n, row in enumerate(rows)]
    path = Path(write("any.fa", end.join(line for part in parts for line in part).encode()))
    assert list(sequences(path)) == [row.upper() for row in rows]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fasta, "_AT_ONCE", at_once)
        batches = list(fasta._batches(sequences(path)))
    assert [row for batch in batches for row in batch] == [row.upper() for row in rows]
    assert all(sum(map(len, batch[:-1])) < at_once for batch in batches)


def test_empty_sequences_are_dropped_and_counted(lmtasks: Any, esm: str) -> None:
    write("a.fasta", ">a\n>b\nMKV\n>c\n*\n>d\nGAV\n>e\n")
    split = load(validation_file=["a.fasta"]).evaluation
    assert texts(split) == ["MKV", "GAV"]
    assert split is not None and split.blank == 3
    plan = lmtasks(*asked("a.fasta", esm), "--test_size", 0.5, "--dry_run")
    assert plan.code == 0, plan.err
    assert "documents without text left out: 3" in plan.out


def test_sequences_and_other_documents_are_joined() -> None:
    write("a.faa", ">a\nMKV\n")
    write("b.jsonl", '{"body": "GAV"}\n')
    assert evaluated("a.faa", "b.jsonl", text_column="body") == ["MKV", "GAV"]
    refused("no column 'body' in a.faa: it has text", validation_file=["a.faa"], text_column="body")


def test_a_folder_may_hold_them_and_the_same_sequence_twice_is_counted() -> None:
    write("folder/a.fa", ">a\nMKV\n>b\nGAV\n")
    write("folder/b.fa.gz", gzip.compress(b">c\nLLL\n"))
    write("held-out.fa", ">other\nmk\nv\n>more\nWWW\n")
    corpus = load(train_file=["folder"], validation_file=["held-out.fa"])
    assert texts(corpus.train) == ["MKV", "GAV", "LLL"]
    from lmtasks.data.corpus import count_duplicates

    assert corpus.train is not None and corpus.evaluation is not None
    assert count_duplicates(corpus.train, corpus.evaluation) == 1
    same = load(eval_dataset=["MKV", "GAV", "LLL"]).evaluation
    assert same is not None and same.fingerprint == corpus.train.fingerprint


def test_a_changed_file_is_read_again() -> None:
    assert evaluated(write("a.fa", ">a\nMKV\n")) == ["MKV"]
    assert evaluated(write("a.fa", ">a\nMKVL\n")) == ["MKVL"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"MKV\n>a\nMKV\n", "a.fasta, line 1 is not FASTA: no header, a line that begins with '>', comes before it"),
        (b">a\nMKV\n>b\nMK1V\n", "a.fasta, line 4 is not FASTA: '1' is no residue"),
        (b">a\nMKV>b\nMKV\n", "a.fasta, line 2 is not FASTA: '>' is no residue"),
        (b">a\nMK\xe9\n", "a.fasta, line 2 is not FASTA: 'é' is no residue"),
        (b">a\n" + b"MKV\n" * 9000 + b"M?\n", "a.fasta, line 9002 is not FASTA: '?' is no residue"),
        (b"; only\n\n; comments\n", "a.fasta, line 3 is not FASTA: there is no header"),
        (">a\nMKV\n".encode("utf-16"), "a.fasta, line 1 is not FASTA"),
        (b"\x89PNG\r\n\x00\x00", "a.fasta, line 1 is not FASTA"),
        (b"", "a.fasta is empty"),
        (b">a\n>b\n", "a.fasta holds nothing but white space in 2 rows"),
    ],
)
def test_malformed_files_are_named_with_the_line(content: bytes, message: str) -> None:
    write("good.fasta", ">a\nMKV\n")
    refused(message, validation_file=[write("a.fasta", content)])
    if b"MKV" in content:
        refused(message, validation_file=["good.fasta", "a.fasta"])
        packed = write("a.fasta.gz", gzip.compress(content))
        refused(message.replace("a.fasta", "a.fasta.gz"), validation_file=[packed])


def test_a_malformed_file_ends_a_command(lmtasks: Any, esm: str) -> None:
    write("a.fasta", ">a\nMKV\nM1\n")
    outcome = lmtasks(*asked("a.fasta", esm), "--output_dir", "out")
    error, hint = outcome.err.splitlines()
    assert (outcome.code, error) == (2, "error: a.fasta, line 3 is not FASTA: '1' is no residue")
    assert hint.startswith("hint: ")
    assert not Path("out").exists()


def test_a_sequence_that_no_string_can_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fasta, "_LONGEST", 10)
    assert evaluated(write("a.fa", ">a\nMKVLL\nMKVLL\n>b\nMKVLLMKVLL\n")) == ["MKVLLMKVLL"] * 2
    refused(
        "b.fa, line 4 is not FASTA: its sequence has more", validation_file=[write("b.fa", ">a\nMKVLL\n\nMKVLLA\n")]
    )


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="nothing tells the anonymous memory here")
def test_memory_does_not_grow_with_the_file() -> None:
    record = ">name\n" + "MKVLLAGHIKLMNPQRSTVWMKVLLAGHIKLMNPQRSTVWMKVLLAGHIKLMNPQRSTVW\n" * 10

    def grown(records: int) -> int:
        path = write(f"{records}.fasta", record * records)
        code = ANONYMOUS.replace("FILE", repr(os.path.abspath(path)))
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True, check=True
        )
        rows, kilobytes = map(int, done.stdout.split())
        assert rows == records
        return kilobytes

    assert grown(80_000) < grown(20_000) + 25_000, "KiB; the file has 37 MB more"


# --- protein models ---


def asked(file: str, tokenizer: str) -> list[Any]:
    shape = "num_hidden_layers=1,hidden_size=32,num_attention_heads=2,intermediate_size=64"
    return [
        "run", "masked-lm", "--train_file", file, "--model_type", "esm", "--tokenizer_name", tokenizer,
        "--config_overrides", f"{shape},position_embedding_type=rotary,token_dropout=true", "--block_size", 64,
    ]  # fmt: skip


def write_proteins(name: str, count: int, seed: int) -> list[str]:
    """Sequences of a few motifs, so that neighbours tell what is hidden."""
    draw = random.Random(seed)
    motifs = ["MKVLAAGIV", "GHWCCYQRS", "DEDEPNTFI"]
    made = ["".join(draw.choice(motifs) for _ in range(draw.randint(3, 12))) for _ in range(count)]
    lines = [
        f">{n} made up\n" + "\n".join(one[at : at + 60] for at in range(0, len(one), 60)) for n, one in enumerate(made)
    ]
    write(name, "\n".join(lines) + "\n")
    return made


def test_esm_learns_proteins_from_scratch(lmtasks: Any, esm: str) -> None:
    write_proteins("train.fasta", 200, seed=1)
    held_out = write_proteins("held-out.fasta", 20, seed=2)
    training = ["--learning_rate", 1e-2, "--max_steps", 300, "--json", "--output_dir", "out"]
    outcome = lmtasks(*asked("train.fasta", esm), "--line_by_line", *training, "--validation_file", "held-out.fasta")
    assert outcome.code == 0, outcome.err
    figures = json.loads(outcome.out)["metrics"]
    assert figures["eval_loss"] < 0.7 * figures["unigram_loss"]
    # One residue is one token and one byte, so a byte costs what a token costs.
    assert figures["bits_per_byte"] == pytest.approx(figures["eval_loss"] / math.log(2))
    assert figures["unigram_loss"] == pytest.approx(entropy(held_out), rel=0.1), "of the residues"
    again = json.loads(lmtasks("evaluate", "out", "--json").out)
    assert again["eval_loss"] == pytest.approx(figures["eval_loss"], rel=1e-5)
    (guesses,) = json.loads(lmtasks("predict", "out", "MKVLAAGIVMKVL<mask>AGIVMKVLAAGIV", "--top_k", 1, "--json").out)
    assert guesses[0]["token_str"] == "A"
    config = json.loads(Path("out/config.json").read_text())
    assert (config["pad_token_id"], config["mask_token_id"], config["vocab_size"]) == (1, 32, 33)


def entropy(rows: list[str]) -> float:
    """Nats per letter of a model that knows how frequent each is."""
    counts = Counter("".join(rows))
    total = counts.total()
    return -sum(count / total * math.log(count / total) for count in counts.values())


def test_what_the_vocabulary_lacks_is_told(lmtasks: Any, esm: str) -> None:
    write("a.fasta", "".join(f">{n}\nMKVLAAGIVMKVLJAGIVMKVLAAGIV\n" for n in range(20)))
    plan = lmtasks(*asked("a.fasta", esm), "--dry_run")
    assert plan.code == 0, plan.err
    assert "of the training tokens are unknown to the tokenizer" in plan.out


def test_a_tokenizer_folder_without_its_class_says_what_is_missing(lmtasks: Any, esm: str) -> None:
    os.remove("esm/tokenizer_config.json")
    write("a.fasta", ">a\nMKV\n>b\nGAV\n")
    outcome = lmtasks(*asked("a.fasta", "./esm"), "--dry_run")
    assert outcome.code == 2
    assert "tokenizer_class" in outcome.err.splitlines()[-1]


def test_sequences_and_a_tokenizer_trained_on_them(lmtasks: Any) -> None:
    write_proteins("train.fasta", 60, seed=1)
    words = asked("train.fasta", "none")
    place = words.index("--tokenizer_name")
    words[place : place + 2] = ["--train_tokenizer", 300]
    outcome = lmtasks(*words, "--max_steps", 2, "--output_dir", "out", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out)["metrics"]["bits_per_byte"] > 0


def test_the_tokens_are_those_of_the_tokenizer(esm: str) -> None:
    from transformers import AutoTokenizer

    from lmtasks import Blocks
    from lmtasks.data.text.tokenize import read

    made = write_proteins("train.fasta", 50, seed=3)
    tokenizer = AutoTokenizer.from_pretrained(esm)
    assert isinstance(tokenizer, EsmTokenizer)
    corpus = load_corpus(DataSettings(validation_file=["train.fasta"]))
    assert corpus.evaluation is not None
    pieces = list(read(corpus.evaluation, tokenizer, Blocks(size=9)))
    ids = [token for piece in pieces for token in piece.ids.tolist()]
    assert ids == [ESM.index(letter) for one in made for letter in one]
