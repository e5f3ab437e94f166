"""The architecture through lmtasks' own door: train, evaluate, predict, come back from disk."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import lmtasks

TEXT = "the quick brown fox jumps over the lazy dog. " * 200
SHAPE = "hidden_size=64,num_hidden_layers=2,intermediate_size=96,nffn_hidden_size=96,initializer_range=0.1"
CAUSAL = "is_decoder=true,bidirectional=false"


def train(recipe: str, folder: Path, overrides: str) -> lmtasks.Run:
    return lmtasks.run(
        recipe,
        model_type="mega",
        config_overrides=f"{SHAPE},{overrides}",
        train_tokenizer=300,
        train_dataset=[TEXT] * 4,
        test_size=0.25,
        block_size=64,
        learning_rate=5e-3,
        num_train_epochs=10,
        per_device_train_batch_size=4,
        output_dir=str(folder / "out"),
    )


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> lmtasks.Run:
    return train("masked-lm", tmp_path_factory.mktemp("masked"), "use_chunking=true,chunk_size=24")


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> lmtasks.Run:
    return train("causal-lm", tmp_path_factory.mktemp("causal"), CAUSAL)


def test_the_plugin_is_in_the_catalog():
    catalog = lmtasks.load_catalog()
    assert not [plugin for plugin in catalog.plugins if plugin.broken]
    assert catalog.architectures["mega"].models.keys() == {"AutoModel", "AutoModelForMaskedLM", "AutoModelForCausalLM"}


def test_the_plugin_loads_without_torch():
    code = "import lmtasks_mega, sys; print(sorted({'torch', 'transformers', 'numpy'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


@pytest.mark.parametrize("recipe", ["masked", "causal"])
def test_it_learns(recipe, request):
    run = request.getfixturevalue(recipe)
    assert run.metrics["eval_loss"] < 0.5 * run.metrics["unigram_loss"]


@pytest.mark.parametrize("recipe", ["masked", "causal"])
def test_the_saved_model_gives_the_same_figures(recipe, request):
    run = request.getfixturevalue(recipe)
    assert lmtasks.evaluate(run.output_dir, eval_dataset=[TEXT])["accuracy"] > 0.8
    record = json.loads(Path(run.output_dir, "run.json").read_text())
    assert (record["recipe"], record["model_type"]) == (f"{recipe}-lm", "mega")


def test_it_fills_in(masked):
    answer = masked.predict("the quick brown fox<mask> over the lazy dog.", top_k=1)
    assert "jumps" in json.dumps(answer)


def test_it_continues_the_text(causal):
    answer = causal.predict("the quick brown", max_new_tokens=8, do_sample=False)
    assert "fox" in answer[0]["generated_text"]


def test_padding_does_not_change_an_answer(causal):
    texts = ["the quick", "the quick brown fox jumps over"]
    batched = causal.predict(texts, max_new_tokens=8, do_sample=False, batch_size=2)
    assert batched == [causal.predict(text, max_new_tokens=8, do_sample=False) for text in texts]


# What is not said is as a causal model needs it.
@pytest.mark.parametrize("overrides", ["bidirectional=false,is_decoder=false", "is_decoder=true,bidirectional=true"])
def test_half_a_causal_model_is_refused(overrides, tmp_path):
    with pytest.raises(lmtasks.InputError, match="it sees the tokens that it should predict"):
        train("causal-lm", tmp_path, overrides)
    assert not (tmp_path / "out").exists()


def test_a_causal_model_is_not_taken_for_a_masked_one(tmp_path):
    with pytest.raises(lmtasks.InputError, match="it does not see the text after a position"):
        train("masked-lm", tmp_path, CAUSAL)


def test_blocks_are_no_longer_than_the_positions(tmp_path):
    with pytest.raises(lmtasks.InputError, match="block_size"):
        train("masked-lm", tmp_path, "relative_positional_bias=simple,max_positions=32")


def test_documents_cannot_be_isolated(tmp_path):
    with pytest.raises(lmtasks.InputError, match=r"cannot isolate documents with this mega model.*its moving average"):
        lmtasks.run(
            "masked-lm",
            model_type="mega",
            config_overrides=SHAPE,
            train_tokenizer=300,
            train_dataset=[TEXT] * 4,
            test_size=0.25,
            block_size=64,
            isolate_documents=True,
            max_steps=1,
            output_dir=str(tmp_path / "out"),
        )
