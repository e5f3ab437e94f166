"""Models beside each other: figures by hand from scores, intervals and tests against numpy written plainly."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lmtasks as api
from lmtasks.errors import InputError
from lmtasks.runs.resampling import Bootstrap, sign_flip_test

DOCUMENTS = [
    f"{word} is a {kind} of the {place}." for word, kind, place in itertools.product(
        ("A list", "The iterator", "It"), ("part", "value that comes late", "name"), ("module", "loop", "class body")
    )
]  # fmt: skip


@pytest.fixture(scope="module")
def compared(sharp: dict[str, Path]) -> api.Comparison:
    models = [sharp[kind] for kind in ("gpt2", "bert", "llama", "roberta")]
    sets = {"all": DOCUMENTS, "few": DOCUMENTS[:4]}
    return api.compare(models, eval_dataset=sets, resamples=300, seed=7, max_length=32)


def nats(folder: Path, documents: list[str]) -> np.ndarray[Any, Any]:
    return np.asarray([-score.value for score in api.score(folder, documents, max_length=32)])


def sizes(documents: list[str]) -> np.ndarray[Any, Any]:
    return np.asarray([len(document.encode()) for document in documents])


def resampled(above: Any, below: Any, resamples: int, seed: int) -> tuple[float, float]:
    """The percentile bootstrap of a ratio of sums, plainly."""
    draw, count = np.random.default_rng(seed), len(above)
    ratios = []
    for _ in range(resamples):
        chosen = draw.integers(0, count, count)
        ratios.append(above[chosen].sum() / below[chosen].sum())
    return float(np.quantile(ratios, 0.025)), float(np.quantile(ratios, 0.975))


def test_every_model_is_measured_on_every_set_in_order(compared: api.Comparison, sharp: dict[str, Path]) -> None:
    kinds = ("gpt2", "bert", "llama", "roberta")
    expected = [(dataset, str(sharp[kind])) for dataset in ("all", "few") for kind in kinds]
    assert [(one.dataset, one.model) for one in compared.measured] == expected
    assert [one.documents for one in compared.measured] == [27] * 4 + [4] * 4


@pytest.mark.parametrize("place", range(4))
def test_figures_are_those_of_the_scores(place: int, compared: api.Comparison) -> None:
    one = compared.measured[place]
    folder = Path(one.model)
    scores = api.score(folder, DOCUMENTS, max_length=32)
    lost, length = nats(folder, DOCUMENTS), sizes(DOCUMENTS)
    assert one.kind == scores[0].kind
    assert (one.tokens, one.bytes) == (sum(score.tokens for score in scores), length.sum())
    assert one.words == sum(len(document.split()) for document in DOCUMENTS)
    assert one.bits_per_byte.value == pytest.approx(lost.sum() / math.log(2) / length.sum(), rel=1e-9)
    assert one.word_perplexity == pytest.approx(math.exp(lost.sum() / one.words), rel=1e-6)
    assert one.byte_perplexity == pytest.approx(2**one.bits_per_byte.value, rel=1e-9)
    assert one.accuracy.value == sum(score.correct for score in scores) / one.tokens
    assert one.parameters > 10_000
    assert one.tokens_per_second > 0
    low, high = resampled(lost / math.log(2), length, 300, 7)
    assert one.bits_per_byte.low == pytest.approx(low, rel=1e-9)
    assert one.bits_per_byte.high == pytest.approx(high, rel=1e-9)
    assert low < one.bits_per_byte.value < high


def test_differences_are_to_the_first_of_the_same_kind(compared: api.Comparison, sharp: dict[str, Path]) -> None:
    pairs = [(one.dataset, Path(one.model).name, Path(one.than).name) for one in compared.differences]
    both = [("llama", "gpt2"), ("roberta", "bert")]
    assert sorted(pairs) == sorted((dataset, *pair) for dataset in ("all", "few") for pair in both)
    for one in compared.differences:
        documents = DOCUMENTS if one.dataset == "all" else DOCUMENTS[:4]
        bits = (nats(Path(one.model), documents) - nats(Path(one.than), documents)) / math.log(2)
        length = sizes(documents)
        low, high = resampled(bits, length, 300, 7)
        assert one.bits_per_byte.value == pytest.approx(bits.sum() / length.sum(), rel=1e-9)
        assert (one.bits_per_byte.low, one.bits_per_byte.high) == pytest.approx((low, high), rel=1e-9)
        assert one.p == pytest.approx(sign_flip_test(bits, 7))


def test_the_same_seed_gives_the_same_comparison(compared: api.Comparison, sharp: dict[str, Path]) -> None:
    models = [sharp["gpt2"], sharp["llama"]]
    asked: dict[str, Any] = {"eval_dataset": DOCUMENTS, "max_length": 32, "resamples": 300}
    first, again, other = (api.compare(models, seed=seed, **asked) for seed in (7, 7, 8))
    assert first.differences == again.differences
    assert first.measured[0].bits_per_byte == again.measured[0].bits_per_byte == compared.measured[0].bits_per_byte
    assert first.measured[0].bits_per_byte.low != other.measured[0].bits_per_byte.low
    assert first.differences[0].p != 0


# --- what chance explains ---


def test_few_documents_are_flipped_in_every_way() -> None:
    differences = np.asarray([0.5, 1.5, -0.25, 2.0])
    sums = [abs(sum(sign * one for sign, one in zip(signs, differences, strict=True)))
            for signs in itertools.product((1, -1), repeat=4)]  # fmt: skip
    expected = sum(one >= abs(differences.sum()) for one in sums) / 16
    assert sign_flip_test(differences, 0) == expected == 4 / 16


def test_many_are_flipped_by_chance() -> None:
    differences = np.random.default_rng(1).normal(0.1, 1, 40)
    draw = np.random.default_rng(3)
    more = 0
    for _ in range(10_000):
        signs = [1 if one == 0 else -1 for one in draw.integers(0, 2, 40)]
        more += abs(float(np.dot(signs, differences))) >= abs(differences.sum())
    assert sign_flip_test(differences, 3) == pytest.approx((1 + more) / 10_001)


def test_the_test_is_wrong_as_rarely_as_it_says() -> None:
    """Of models that are alike, one in twenty is found different at 0.05, with long tails, too."""
    draw = np.random.default_rng(0)
    found = [sign_flip_test(draw.standard_t(2, 10), 0) for _ in range(400)]
    assert 0.02 < np.mean(np.asarray(found) <= 0.05) < 0.08


def test_equal_models_are_not_told_apart_and_one_document_tells_nothing() -> None:
    assert sign_flip_test(np.zeros(5), 0) == 1
    assert sign_flip_test(np.zeros(50), 0) == 1
    assert sign_flip_test(np.asarray([3.0]), 0) == 1
    one = Bootstrap(1, 100, 0).ratio(np.asarray([3.0]), np.asarray([2.0]))
    assert (one.value, one.low, one.high) == (1.5, None, None)


# --- what is compared ---


def test_documents_come_from_wherever_data_come(sharp: dict[str, Path], tmp_path: Path) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"title": "x", "body": "A first text."}\n{"title": "y", "body": "A second."}\n', encoding="utf-8")
    models = [sharp["gpt2"], sharp["llama"]]
    found = api.compare(models, validation_file=[str(file)], text_column="body", resamples=10)
    expected = api.score(sharp["gpt2"], ["A first text.", "A second."])
    assert found.measured[0].bits_per_byte.value * 22 * math.log(2) == pytest.approx(
        -sum(one.value for one in expected)
    )
    first = api.compare(models, validation_file=[str(file)], text_column="body", resamples=10, max_documents=1)
    assert first.measured[0].bytes == 13


@pytest.mark.parametrize(
    ("models", "asked", "message"),
    [
        (["gpt2"], {}, "compare needs two models or more"),
        (["gpt2", "llama", "gpt2"], {}, "is named twice"),
        (["gpt2", "llama"], {"eval_dataset": None}, "compare needs documents"),
        (["gpt2", "llama"], {"train_file": ["a.txt"]}, "compare takes no --train_file"),
        (
            ["gpt2", "llama"],
            {"validation_fil": "a"},
            "compare takes no --validation_fil, did you mean 'validation_file'",
        ),
        (["gpt2", "llama"], {"resamples": 0}, "--resamples is 0"),
        (["gpt2", "llama"], {"seed": -1}, "--seed is -1"),
        (["gpt2", "llama"], {"max_documents": True}, "--max_documents is True"),
        (["gpt2", "llama"], {"pll_metric": "within_word_l2r"}, "is about masked models, and none is"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    models: list[str], asked: dict[str, Any], message: str, sharp: dict[str, Path]
) -> None:
    with pytest.raises(InputError, match=message):
        api.compare([sharp[kind] for kind in models], **{"eval_dataset": ["A text."], **asked})


def test_the_metric_is_for_the_masked_ones_alone(sharp: dict[str, Path]) -> None:
    models = [sharp["gpt2"], sharp["roberta"]]
    plain = api.compare(models, eval_dataset=DOCUMENTS[:3], resamples=10)
    words = api.compare(models, eval_dataset=DOCUMENTS[:3], resamples=10, pll_metric="within_word_l2r")
    causal, masked = (
        [found.measured[place].bits_per_byte.value for found in (plain, words)] for place in (0, 1)
    )  # fmt: skip
    assert causal[0] == causal[1]
    assert masked[0] != masked[1]
