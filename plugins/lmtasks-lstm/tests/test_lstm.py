"""The architecture through lmtasks' own door: train, evaluate, predict, come back from disk."""

import json
from pathlib import Path

import pytest
from lmtasks_lstm import LSTM
from lmtasks_lstm.model import LSTMConfig, LSTMForCausalLM

import lmtasks
from lmtasks.testing import check_architecture

TEXT = "the quick brown fox jumps over the lazy dog. " * 200
SHAPE = "hidden_size=64,num_hidden_layers=1,dropout=0.0"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> lmtasks.Run:
    folder = tmp_path_factory.mktemp("lstm")
    return lmtasks.run(
        "causal-lm",
        model_type="lstm",
        config_overrides=SHAPE,
        train_tokenizer=300,
        train_dataset=[TEXT] * 4,
        test_size=0.25,
        block_size=64,
        learning_rate=2e-2,
        num_train_epochs=10,
        per_device_train_batch_size=4,
        output_dir=str(folder / "out"),
    )


def test_it_does_all_that_a_recipe_needs() -> None:
    check_architecture(LSTM)


def test_the_plugin_is_in_the_catalog() -> None:
    catalog = lmtasks.load_catalog()
    assert not [plugin for plugin in catalog.plugins if plugin.broken]
    assert catalog.architectures["lstm"].models


def test_it_learns(run: lmtasks.Run) -> None:
    assert run.metrics["eval_loss"] < 0.5 * run.metrics["unigram_loss"]


def test_the_saved_model_gives_the_same_figures(run: lmtasks.Run) -> None:
    assert lmtasks.evaluate(run.output_dir, eval_dataset=[TEXT])["accuracy"] > 0.8


def test_it_continues_the_text(run: lmtasks.Run) -> None:
    answer = run.predict("the quick brown", max_new_tokens=8, do_sample=False)
    assert "fox" in answer[0]["generated_text"]


def test_padding_does_not_change_an_answer(run: lmtasks.Run) -> None:
    texts = ["the quick", "the quick brown fox jumps over"]
    batched = run.predict(texts, max_new_tokens=8, do_sample=False, batch_size=2)
    assert batched == [run.predict(text, max_new_tokens=8, do_sample=False) for text in texts]


def test_the_folder_says_who_made_it(run: lmtasks.Run) -> None:
    record = json.loads(Path(run.output_dir, "run.json").read_text())
    assert (record["recipe"], record["model_type"]) == ("causal-lm", "lstm")


def test_one_layer_has_nothing_to_drop_between_layers() -> None:
    # torch would warn, and warnings are errors here.
    model = LSTMForCausalLM(LSTMConfig(vocab_size=9, hidden_size=8, num_hidden_layers=1, dropout=0.5))
    assert model.lstm.dropout == 0.0
    assert model.dropout.p == 0.5
