"""Nothing of a text is lost in hiding it, and the model comes to write what is hidden."""

import json
from pathlib import Path

import numpy as np
import pytest
from lmtasks_span_denoising import SENTINELS, SPAN_DENOISING, SpanDenoisingOptions, corrupt
from lmtasks_span_denoising.pipeline import SpanFillingPipeline
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

import lmtasks
from lmtasks.testing import check_recipe

TEXT = "the quick brown fox jumps over the lazy dog. " * 200
MARKS = list(range(1000, 1100))


def test_it_keeps_the_contract_of_a_recipe() -> None:
    check_recipe(SPAN_DENOISING)


@pytest.mark.parametrize("length", [1, 2, 3, 7, 64, 500])
@pytest.mark.parametrize("options", [{}, {"noise_density": 0.5}, {"mean_span_length": 10.0}, {"noise_density": 0.01}])
def test_input_and_target_together_are_the_text(length: int, options: dict) -> None:
    ids = np.arange(length)
    settings = SpanDenoisingOptions(**options)
    seen = set()
    for epoch in range(20):
        inputs, target = corrupt({"input_ids": ids, "seed": (1, epoch, 0)}, settings, MARKS)
        spans = {}
        for token in target:
            if token >= 1000:
                spans[token] = []
            else:
                spans[list(spans)[-1]].append(token)
        whole = [part for token in inputs for part in (spans[token] if token >= 1000 else [token])]
        assert whole == ids.tolist()
        *used, last = spans
        assert [token for token in inputs if token >= 1000] == used == MARKS[: len(used)]
        assert (last, spans[last]) == (MARKS[len(used)], [])
        hidden = sum(map(len, spans.values()))
        assert hidden == min(max(round(length * settings.noise_density), 1), max(length - 1, 1))
        seen.add(tuple(inputs))
    assert len(seen) > 1 or length < 7, "every epoch hides something else"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> lmtasks.Run:
    return lmtasks.run(
        "span-denoising",
        model_type="t5",
        config_overrides="num_layers=1,num_decoder_layers=1,d_model=64,d_kv=16,num_heads=4,d_ff=128,dropout_rate=0",
        train_tokenizer=450,
        train_dataset=[TEXT] * 4,
        test_size=0.25,
        block_size=32,
        learning_rate=5e-3,
        num_train_epochs=30,
        warmup_steps=0.1,
        per_device_train_batch_size=8,
        output_dir=str(tmp_path_factory.mktemp("t5") / "out"),
    )


def test_it_learns_to_write_what_is_hidden(run: lmtasks.Run) -> None:
    # A model of one layer; knowing only how frequent tokens are makes it right in one of five.
    assert run.metrics["accuracy"] > 0.5
    assert run.metrics["perplexity"] < 6


def test_it_fills_every_gap(run: lmtasks.Run) -> None:
    answer = run.predict("the quick <mask> fox jumps over the <mask> dog.")
    first, second = answer["spans"].values()
    assert list(answer["spans"]) == ["<extra_id_0>", "<extra_id_1>"]
    assert first and second
    assert answer["text"] == f"the quick {first} fox jumps over the {second} dog."
    assert run.recipe.answers(answer) == [answer["text"]]


def answered(run: lmtasks.Run, text: str, written: str) -> dict:
    """What the pipeline makes of a text and of what a model has written."""
    tokenizer = AutoTokenizer.from_pretrained(run.output_dir)
    pipeline = SpanFillingPipeline(model=AutoModelForSeq2SeqLM.from_pretrained(run.output_dir), tokenizer=tokenizer)
    ids = tokenizer(f"<pad>{written}", return_tensors="pt", add_special_tokens=False)["input_ids"]
    return pipeline.postprocess({"text": text, "ids": ids})


def test_every_sentinel_gets_what_is_written_behind_it_whichever_they_are_and_wherever(run: lmtasks.Run) -> None:
    text = "the <extra_id_7> fox <extra_id_2> over <extra_id_12> the <extra_id_7> dog, <extra_id_300>"
    written = "<extra_id_2> jumps<extra_id_7> quick brown<extra_id_1> nobody asked</s>"
    assert answered(run, text, written) == {
        "text": "the quick brown fox jumps over  the quick brown dog, <extra_id_300>",
        "spans": {"<extra_id_7>": "quick brown", "<extra_id_2>": "jumps", "<extra_id_12>": ""},
    }


def test_masks_and_sentinels_may_be_mixed(run: lmtasks.Run) -> None:
    text = run.recipe.prompt(None, "a <mask> b <extra_id_0> c <mask> d <extra_id_2> e <mask>")
    assert text == "a <extra_id_1> b <extra_id_0> c <extra_id_3> d <extra_id_2> e <extra_id_4>"


def test_several_texts_come_back_in_their_order(run: lmtasks.Run) -> None:
    texts = ["the quick <mask> fox jumps over the lazy dog.", "the <mask> dog."]
    alone = [run.predict(text) for text in texts]
    assert run.predict(texts, batch_size=1) == alone


def test_the_same_figures_come_from_the_saved_model(run: lmtasks.Run) -> None:
    again = lmtasks.evaluate(run.output_dir, eval_dataset=[TEXT])
    assert again["accuracy"] == pytest.approx(run.metrics["accuracy"], abs=0.1)


def test_the_tokenizer_has_the_sentinels_once(run: lmtasks.Run) -> None:
    tokenizer = json.loads(Path(run.output_dir, "tokenizer.json").read_text())
    added = [token["content"] for token in tokenizer["added_tokens"]]
    assert [token for token in added if token.startswith("<extra_id_")] == list(SENTINELS)
