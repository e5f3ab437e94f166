"""Scores of texts, against the same computed in plain transformers code, a text and a token at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

import lmtasks as api
from lmtasks.errors import InputError
from lmtasks.runs.scoring import Score, Scorer

TEXTS = [
    "The default value of the argument is None, unless it was given.",
    "import",
    "It must be a string.",
    "A context manager is an object that defines the runtime context to be established.",
    "naïve café – 日本語",
]

LONG = "The with statement is used to wrap the execution of a block with methods defined by a context manager. " * 3


def causal_oracle(folder: Path, text: str, most: int) -> list[float]:
    """log p of each token: plain windows of the rolling kind, one after the other."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    prefix = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    told: list[float] = []
    while len(told) < len(ids):
        end = min(len(ids), len(told) + most)
        read = [prefix, *ids][max(0, end - most) : end]
        with torch.no_grad():
            spread = model(torch.tensor([read])).logits[0].double().log_softmax(-1)
        wanted = ids[len(told) : end]
        told += [float(spread[len(read) - len(wanted) + k, token]) for k, token in enumerate(wanted)]
    return told


def masked_oracle(folder: Path, text: str, metric: str = "original") -> list[float]:
    """log p of each token, hidden alone or with the rest of its word."""
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(text, return_special_tokens_mask=True)
    ids, words = encoded["input_ids"], encoded.word_ids()
    told = []
    for place, special in enumerate(encoded["special_tokens_mask"]):
        if special:
            continue
        hidden = [
            other
            for other in range(len(ids))
            if other == place or (metric != "original" and other > place and words[other] == words[place])
        ]
        read = [tokenizer.mask_token_id if other in hidden else token for other, token in enumerate(ids)]
        with torch.no_grad():
            spread = model(torch.tensor([read])).logits[0, place].double().log_softmax(-1)
        told.append(float(spread[ids[place]]))
    return told


def likelihoods(score: Score) -> list[float]:
    assert score.told is not None
    return [one.log_likelihood for one in score.told]


# --- figures ---


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_causal_model_tells_each_token_from_those_before_it(kind: str, sharp: dict[str, Path]) -> None:
    scores = api.score(sharp[kind], TEXTS, per_token=True)
    for text, score in zip(TEXTS, scores, strict=True):
        expected = causal_oracle(sharp[kind], text, 64)
        assert likelihoods(score) == pytest.approx(expected, abs=1e-5)
        assert score.value == pytest.approx(sum(expected), abs=1e-4)
        assert score.kind == "log_likelihood"


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("most", [7, 64])
def test_a_text_that_is_too_long_is_told_in_windows(kind: str, most: int, sharp: dict[str, Path]) -> None:
    score = api.score(sharp[kind], LONG, max_length=most, per_token=True)
    assert score.windows == -(-score.tokens // most) > 1
    assert likelihoods(score) == pytest.approx(causal_oracle(sharp[kind], LONG, most), abs=1e-5)
    assert abs(score.value - api.score(sharp[kind], LONG, max_length=most - 1).value) > 1e-3


@pytest.mark.parametrize("kind", ["roberta", "bert", "distilbert", "modernbert"])
@pytest.mark.parametrize("metric", ["original", "within_word_l2r"])
def test_a_masked_model_tells_each_token_from_all_others(kind: str, metric: Any, sharp: dict[str, Path]) -> None:
    scores = api.score(sharp[kind], TEXTS, pll_metric=metric, per_token=True)
    for text, score in zip(TEXTS, scores, strict=True):
        expected = masked_oracle(sharp[kind], text, metric)
        assert likelihoods(score) == pytest.approx(expected, abs=1e-5)
        assert score.value == pytest.approx(sum(expected), abs=1e-4)
        assert score.kind == "pseudo_log_likelihood"


def test_the_metrics_of_masked_models_differ(sharp: dict[str, Path]) -> None:
    alone, with_rest = (
        api.score(sharp["roberta"], TEXTS[0], pll_metric=one) for one in ("original", "within_word_l2r")
    )
    assert abs(alone.value - with_rest.value) > 1e-3


def test_pieces_of_a_text_that_a_masked_model_cannot_take_are_each_seen_alone(sharp: dict[str, Path]) -> None:
    folder = sharp["bert"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(LONG, add_special_tokens=False)["input_ids"]
    model = transformers.AutoModelForMaskedLM.from_pretrained(folder).eval()
    expected = []
    for begin in range(0, len(ids), 18):
        piece = ids[begin : begin + 18]
        for place, token in enumerate(piece):
            hidden = [*piece[:place], tokenizer.mask_token_id, *piece[place + 1 :]]
            read = torch.tensor([[tokenizer.cls_token_id, *hidden, tokenizer.sep_token_id]])
            with torch.no_grad():
                expected.append(float(model(read).logits[0, place + 1].log_softmax(-1)[token]))
    score = api.score(folder, LONG, max_length=20, per_token=True)
    assert score.windows == -(-len(ids) // 18)
    assert likelihoods(score) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "roberta"])
def test_neither_company_nor_order_nor_batches_matter(kind: str, sharp: dict[str, Path]) -> None:
    folder = sharp[kind]
    one_by_one = [api.score(folder, text).value for text in TEXTS]
    together = api.score(folder, TEXTS, batch_size=3)
    backwards = api.score(folder, TEXTS[::-1], batch_size=100)
    assert [score.value for score in together] == pytest.approx(one_by_one, abs=1e-4)
    assert [score.value for score in backwards] == pytest.approx(one_by_one[::-1], abs=1e-4)
    assert [score.number for score in backwards] == [1, 2, 3, 4, 5]
    assert api.score(folder, TEXTS, batch_size=3) == together


def test_short_rows_of_a_masked_model_fill_a_batch(sharp: dict[str, Path]) -> None:
    scorer = Scorer(sharp["roberta"])
    scorer.score(["measured"])  # once for what is measured on the first batch
    shapes: list[tuple[int, ...]] = []
    table = scorer.model.get_input_embeddings()
    table.register_forward_pre_hook(lambda module, inputs: shapes.append(tuple(inputs[0].shape)))
    (short, long) = scorer.score(["import", "It must be a string. " * 4], batch_size=1)
    assert short.tokens < 128 // (short.tokens + 2), "all rows of the short text are less than 128 tokens"
    assert (short.tokens, short.tokens + 2) in shapes
    rows = 128 // (long.tokens + 2)
    assert max(count for count, length in shapes if length == long.tokens + 2) == rows > 1
    assert sum(count for count, _ in shapes) == short.tokens + long.tokens


def test_the_head_is_run_for_batches_of_several_lengths_at_once(sharp: dict[str, Path]) -> None:
    scorer = Scorer(sharp["roberta"])
    scorer.score(["measured"])  # once for what is measured on the first batch
    lengths: set[int] = set()
    runs: list[int] = []
    table, dense = scorer.model.get_input_embeddings(), scorer.model.lm_head.dense
    table.register_forward_pre_hook(lambda module, inputs: lengths.add(inputs[0].shape[1]))
    dense.register_forward_pre_hook(lambda module, inputs: runs.append(inputs[0].flatten(0, -2).shape[0]))
    scores = scorer.score(["import", TEXTS[2], TEXTS[0]])
    assert len(lengths) == 3
    assert runs == [sum(score.tokens for score in scores)]


def test_a_model_whose_head_cannot_run_alone_scores_the_same(
    sharp: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = api.score(sharp["gpt2"], TEXTS, per_token=True)
    monkeypatch.setattr("lmtasks.inference.likelihood.separate_head", lambda *_: "it cannot")
    whole = api.score(sharp["gpt2"], TEXTS, per_token=True)
    for one, other in zip(alone, whole, strict=True):
        assert likelihoods(one) == pytest.approx(likelihoods(other), abs=1e-5)
        assert one.correct == other.correct


def test_logits_come_in_pieces(sharp: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = api.score(sharp["llama"], TEXTS)
    monkeypatch.setattr("lmtasks.models.cross_entropy.AT_ONCE", {"cpu": 3 * 400})
    pieces = api.score(sharp["llama"], TEXTS)
    assert [score.value for score in pieces] == pytest.approx([score.value for score in whole], abs=1e-5)


def test_sizes_and_right_guesses_are_counted(sharp: dict[str, Path]) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(sharp["gpt2"]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(sharp["gpt2"])
    text = "naïve café – 日本語"
    ids = tokenizer(text)["input_ids"]
    guesses = model(torch.tensor([[tokenizer.eos_token_id, *ids]])).logits[0, :-1].argmax(-1).tolist()
    score = api.score(sharp["gpt2"], text, per_token=True)
    assert (score.tokens, score.characters, score.bytes, score.words) == (len(ids), 16, 26, 4)
    assert score.correct == sum(guess == token for guess, token in zip(guesses, ids, strict=True))
    assert score.told is not None
    assert [one.id for one in score.told] == ids
    assert [one.token for one in score.told] == tokenizer.convert_ids_to_tokens(ids)


def test_what_begins_texts_stands_before_them_once(sharp: dict[str, Path], tmp_path: Path) -> None:
    """A tokenizer that puts its own token there, as Llama's, does not put a second one."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(sharp["llama"])
    end = tokenizer.eos_token
    template = {"single": f"{end} $A", "special_tokens": [(end, tokenizer.eos_token_id)]}
    tokenizer.backend_tokenizer.post_processor = __import__("tokenizers").processors.TemplateProcessing(**template)
    tokenizer.save_pretrained(tmp_path / "own")
    model = transformers.AutoModelForCausalLM.from_pretrained(sharp["llama"])
    model.save_pretrained(tmp_path / "own")
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "own")("a")["input_ids"][0] == tokenizer.eos_token_id
    assert api.score(tmp_path / "own", TEXTS) == api.score(sharp["llama"], TEXTS)


# --- refusals ---


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", ""], "text 2 is empty"),
        (["a", " \n"], "text 2 is empty"),
        (["a", 3], "text 2 is no text but int"),
        (["\ud800"], "text 1 is no Unicode text"),
    ],
)
def test_what_is_no_text_is_refused(texts: Any, message: str, model_folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=message):
        api.score(model_folders["gpt2"], texts)


@pytest.mark.parametrize(
    ("kind", "asked", "message"),
    [
        ("gpt2", {"max_length": 67}, "--max_length 67 is more than the model can take: 66 tokens"),
        ("gpt2", {"max_length": 1}, "--max_length 1 has no room for a token"),
        ("bert", {"max_length": 2}, "--max_length 2 has no room for a token"),
        ("gpt2", {"pll_metric": "within_word_l2r"}, "--pll_metric within_word_l2r is about masked models"),
        ("gpt2", {"batch_size": 0}, "batch_size is 0"),
        ("gpt2", {"revision": "v1"}, "has no revisions"),
    ],
)
def test_what_means_nothing_is_refused(
    kind: str, asked: dict[str, Any], message: str, model_folders: dict[str, Path]
) -> None:
    with pytest.raises(InputError, match=message):
        api.score(model_folders[kind], "a text", **asked)


def test_a_causal_model_that_looks_ahead_is_refused(all_model_folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="sees the tokens that it should predict"):
        api.score(all_model_folders["bert"], TEXTS, recipe="causal-lm")
    with pytest.raises(InputError, match="predict tokens in any order"):
        api.score(all_model_folders["xlnet"], TEXTS, recipe="causal-lm")


def test_a_text_without_tokens_is_refused(model_folders: dict[str, Path], tmp_path: Path) -> None:
    import tokenizers

    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folders["bert"])
    tokenizer.backend_tokenizer.normalizer = tokenizers.normalizers.Replace("x", "")
    tokenizer.save_pretrained(tmp_path)
    transformers.AutoModelForMaskedLM.from_pretrained(model_folders["bert"]).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="text 2 has no tokens"):
        api.score(tmp_path, ["a", "xxx"])


def test_without_a_token_to_begin_with_no_text_can_be_told(model_folders: dict[str, Path], tmp_path: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folders["gpt2"])
    bare = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer.backend_tokenizer)
    bare.save_pretrained(tmp_path)
    transformers.AutoModelForCausalLM.from_pretrained(model_folders["gpt2"]).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="no token that begins or ends a text"):
        Scorer(tmp_path)


def test_a_recipe_without_a_likelihood_is_refused(model_folders: dict[str, Path]) -> None:
    from dataclasses import replace

    from lmtasks.builtin.masked_lm import MASKED_LM
    from lmtasks.runs.scoring import kind_of

    with pytest.raises(InputError, match="a other model has no likelihood of a text"):
        kind_of(replace(MASKED_LM, name="other", attention=None))
