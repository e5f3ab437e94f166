"""Told in another order, nothing is lost; the model learns to fill a gap."""

import collections
import json
from pathlib import Path

import numpy as np
import pytest
from lmtasks_fill_in_the_middle import FILL_IN_THE_MIDDLE, FillInTheMiddleOptions, retold
from transformers import AutoTokenizer

import lmtasks
from lmtasks.testing import check_recipe

BEFORE, AFTER, BETWEEN, END = 1001, 1002, 1003, 999
TEXT = "the quick brown fox jumps over the lazy dog. " * 200


def test_it_keeps_the_contract_of_a_recipe() -> None:
    check_recipe(FILL_IN_THE_MIDDLE)


@pytest.mark.parametrize("spm_rate", [0.0, 1.0])
def test_nothing_is_lost_and_nothing_added_but_three_marks(spm_rate: float) -> None:
    ids = np.array([*range(20), END, *range(30, 70), END, *range(80, 95)])
    options = FillInTheMiddleOptions(fim_rate=1.0, spm_rate=spm_rate)
    places = set()
    for number in range(200):
        told = retold({"input_ids": ids, "seed": (0, 0, number)}, options, [BEFORE, AFTER, BETWEEN], END)[
            "input_ids"
        ].tolist()
        assert collections.Counter(told) == collections.Counter([*ids.tolist(), BEFORE, AFTER, BETWEEN])
        marks = [token for token in told if token > 1000]
        assert marks == [BEFORE, AFTER, BETWEEN]
        start = told.index(BEFORE)
        ends = [place for place, token in enumerate(told) if token == END]
        piece = told[start : min((place + 1 for place in ends if place > told.index(BETWEEN)), default=len(told))]
        # The three parts are stretches of one document, in one of the two published orders.
        first, second = piece.index(AFTER), piece.index(BETWEEN)
        left, right, rest = piece[1:first], piece[first + 1 : second], piece[second + 1 :]
        prefix, suffix = (left, right) if not spm_rate else ([], right)
        body = [token for token in (*prefix, *suffix, *rest) if token != END]
        assert sorted(body) == list(range(min(body), max(body) + 1)) if body else True
        if spm_rate:
            assert left == []
            assert rest == sorted(rest) or END in rest
        places.add(start)
    assert len(places) > 1, "every document has its turn"


def test_the_rate_is_that_of_blocks() -> None:
    options = FillInTheMiddleOptions(fim_rate=0.3)
    ids = np.arange(50)
    told = sum(
        len(retold({"input_ids": ids, "seed": (0, 0, number)}, options, [BEFORE, AFTER, BETWEEN], END)["input_ids"])
        == 53
        for number in range(2000)
    )
    assert told / 2000 == pytest.approx(0.3, abs=0.03)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> lmtasks.Run:
    return lmtasks.run(
        "fill-in-the-middle",
        model_type="gpt2",
        config_overrides="n_layer=2,n_embd=64,n_head=4,n_positions=64,resid_pdrop=0,embd_pdrop=0,attn_pdrop=0",
        train_tokenizer=320,
        train_dataset=[TEXT] * 4,
        test_size=0.25,
        block_size=40,
        learning_rate=1e-2,
        num_train_epochs=20,
        per_device_train_batch_size=8,
        output_dir=str(tmp_path_factory.mktemp("fim") / "out"),
    )


def test_it_continues_and_its_figures_are_those_of_texts_in_their_own_order(run: lmtasks.Run) -> None:
    assert run.metrics["eval_loss"] < 0.5 * run.metrics["unigram_loss"]
    answer = run.predict("the quick brown", max_new_tokens=6, do_sample=False)
    assert "fox" in answer[0]["generated_text"]


def test_an_evaluation_refuses_what_only_training_uses(run: lmtasks.Run) -> None:
    for name in ("fim_rate", "spm_rate"):
        with pytest.raises(lmtasks.InputError, match=f"--{name} means nothing to an evaluation"):
            lmtasks.evaluate(run.output_dir, **{name: 0.1})


def test_the_embeddings_have_grown_by_the_three_tokens(run: lmtasks.Run) -> None:
    config = json.loads(Path(run.output_dir, "config.json").read_text())
    tokenizer = AutoTokenizer.from_pretrained(run.output_dir)
    assert config["vocab_size"] == run.plan.vocabulary == len(tokenizer)
    marks = tokenizer("<|fim_prefix|><|fim_suffix|><|fim_middle|>")["input_ids"]
    assert marks == list(range(len(tokenizer) - 3, len(tokenizer)))
    assert lmtasks.evaluate(run.output_dir, eval_dataset=[TEXT])["accuracy"] > 0.8


def test_a_prompt_with_a_gap_is_told_as_in_training(run: lmtasks.Run) -> None:
    text = run.recipe.prompt(None, "a <fill> c")
    assert text == "<|fim_prefix|>a <|fim_suffix|> c<|fim_middle|>"
    answer = run.predict("the quick <fill> jumps over the lazy dog.", max_new_tokens=6, do_sample=False)
    assert "brown" in run.recipe.answers(answer)[0]
