"""lmtasks compare: a table that fits, and says what cannot be compared."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import lmtasks as api


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    file = tmp_path / "texts.txt"
    lines = (f"The value of number {number} is a string.\n" for number in range(24))
    file.write_text("\n".join(lines), encoding="utf-8")
    return file


def test_the_table_has_the_figures_and_fits(lmtasks: Any, sharp: dict[str, Path], texts: Path) -> None:
    models = [sharp["gpt2"], sharp["llama"], sharp["bert"]]
    flags = ("--max_length", 32, "--resamples", 50, "--seed", 3)
    done = lmtasks("compare", *models, "--validation_file", f"mine={texts}", *flags)
    assert done.code == 0, done.err
    found = api.compare(models, validation_file=[f"mine={texts}"], max_length=32, resamples=50, seed=3)
    lines = done.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "mine: 24 documents, 192 words, 830 bytes" in lines
    rows = [line.split() for line in lines]
    for one in found.measured:
        (row,) = [row for row in rows if row and row[0] == f"…{one.model[-19:]}" and not row[1].startswith(("+", "-"))]
        bits = one.bits_per_byte
        assert row[1:6] == [
            f"{bits.value:.3f}", f"{bits.low:.3f}", f"{bits.high:.3f}",
            f"{one.word_perplexity:.3g}", f"{one.accuracy.value:.1%}",
        ]  # fmt: skip
    (difference,) = found.differences
    bits = difference.bits_per_byte
    expected = [f"…{difference.model[-19:]}", f"{bits.value:+.3f}", f"{bits.low:+.3f}", f"{bits.high:+.3f}"]
    assert [*expected, f"{difference.p:.2g}"] in rows
    assert "Causal and masked models cannot be compared" in done.out


def test_models_of_one_kind_need_no_warning(lmtasks: Any, sharp: dict[str, Path], texts: Path) -> None:
    done = lmtasks("compare", sharp["bert"], sharp["roberta"], "--validation_file", texts, "--max_documents", 2)
    assert "cannot be compared" not in done.out
    assert "masked: each token told from all others, which is no probability of the text" in done.out
    assert "2 documents: too few for an interval or a test to say much" in done.err


def test_json_has_it_all(lmtasks: Any, sharp: dict[str, Path], texts: Path) -> None:
    words = ("--validation_file", texts, "--sample_by", "document", "--resamples", 20, "--json")
    done = lmtasks("compare", sharp["gpt2"], sharp["llama"], *words)
    told = json.loads(done.out)
    found = api.compare([sharp["gpt2"], sharp["llama"]], validation_file=str(texts), sample_by="document", resamples=20)
    assert told["differences"] == [asdict(one) for one in found.differences]
    assert told["differences"][0]["p"] == 1
    assert told["measured"][0]["bits_per_byte"] == asdict(found.measured[0].bits_per_byte)
    assert told["measured"][0]["bits_per_byte"]["low"] is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "compare needs two models or more"),
        (["MODEL", "OTHER"], "compare needs documents"),
        (["MODEL", "OTHER", "--validation_file", "none.txt"], "none.txt"),
        (["MODEL", "OTHER", "--learning_rate", "3"], "unrecognized arguments"),
        (["MODEL", "OTHER", "--validation_file", "TEXTS", "--resamples", "0"], "--resamples is 0"),
    ],
)
def test_mistakes_are_told_in_two_lines(
    words: list[str], message: str, lmtasks: Any, sharp: dict[str, Path], texts: Path
) -> None:
    places = {"MODEL": sharp["gpt2"], "OTHER": sharp["llama"], "TEXTS": texts}
    done = lmtasks("compare", *(places.get(word, word) for word in words))
    assert done.code == 2
    assert message in done.err
    assert [line.split(":")[0] for line in done.err.splitlines()] == ["error", "hint"]
