"""A new model that begins with the frequencies of its targets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForMaskedLM, AutoTokenizer

import lmtasks
from lmtasks.errors import InputError
from lmtasks.runs.unigram_bias import UNSEEN

SHAPE = "num_hidden_layers=1,hidden_size=32,num_attention_heads=2"
STILL = {"max_steps": 1, "learning_rate": 0.0, "save_strategy": "no", "block_size": 32, "train_tokenizer": 400}


@pytest.mark.parametrize("kind", ["roberta", "bert", "modernbert"])
def test_the_bias_is_the_log_frequency_of_the_targets(kind: str, documents: list[str], tmp_path: Path) -> None:
    """Counted once more here, from the tokenised documents: the masks are one draw of them."""
    how = {**STILL, "model_type": kind, "config_overrides": f"{SHAPE},intermediate_size=64", "mlm_probability": 0.9}
    texts: dict[str, Any] = {"train_dataset": documents, "eval_dataset": documents[:30]}
    runs = {
        asked: lmtasks.run("masked-lm", **texts, **how, unigram_bias=asked, output_dir=str(tmp_path / str(asked)))
        for asked in (False, True)
    }
    model = AutoModelForMaskedLM.from_pretrained(runs[True].output_dir)
    tokenizer = AutoTokenizer.from_pretrained(runs[True].output_dir)
    ids = np.concatenate([tokenizer(text, add_special_tokens=False)["input_ids"] for text in documents])
    counts = np.bincount(ids, minlength=len(tokenizer)) + UNSEEN
    found, often = model.get_output_embeddings().bias.detach().double().numpy(), counts > 50
    assert often.sum() > 20
    assert np.exp(found).sum() == pytest.approx(1, abs=1e-4)
    np.testing.assert_allclose(found[: len(counts)][often], np.log(counts / counts.sum())[often], atol=0.15)
    assert found[tokenizer.mask_token_id] == found.min()  # never a target
    metrics = {asked: one.metrics for asked, one in runs.items()}
    assert metrics[False]["eval_loss"] > metrics[True]["eval_loss"] + 0.5
    assert metrics[True]["eval_loss"] == pytest.approx(metrics[True]["unigram_loss"], abs=0.3)
    assert json.loads((runs[True].output_dir / "run.json").read_text())["settings"]["unigram_bias"] is True


@pytest.mark.parametrize(
    ("kind", "more", "expected"),
    [
        ("roberta", {}, True),
        ("roberta", {"unigram_bias": False}, False),
        ("roberta", {"optim": "sgd"}, False),
        ("roberta", {"learning_rate": 1e-3}, False),  # at a guide's rate, a guide's model
        ("llama", {}, False),  # has none, and nobody asked
        (None, {}, False),  # the recipe's own small model
    ],
)
def test_it_is_chosen_with_the_rate(
    kind: str | None, more: dict[str, Any], expected: bool, text_file: Path, tmp_path: Path
) -> None:
    how = {"model_type": kind} if kind else {}
    how |= {"config_overrides": f"{SHAPE},intermediate_size=64", "train_tokenizer": 400, "block_size": 16, **more}
    how |= {"train_file": str(text_file), "output_dir": str(tmp_path / "out"), "dry_run": True}
    plan: Any = lmtasks.run("causal-lm" if kind == "llama" else "masked-lm", **how)
    told = "from scratch: the bias of the output layer begins with the frequencies of its targets"
    assert (told in plan.notes) is expected


def test_what_is_chosen_is_what_asking_gives(documents: list[str], tmp_path: Path) -> None:
    how = {name: value for name, value in STILL.items() if name != "learning_rate"} | {"warmup_steps": 1}
    how |= {"model_type": "roberta", "config_overrides": f"{SHAPE},intermediate_size=64"}
    texts: dict[str, Any] = {"train_dataset": documents, "eval_dataset": documents[:30]}
    biases = [
        AutoModelForMaskedLM.from_pretrained(
            lmtasks.run("masked-lm", **texts, **how, **asked, output_dir=str(tmp_path / str(len(asked)))).output_dir
        ).get_output_embeddings().bias
        for asked in ({}, {"unigram_bias": True})
    ]  # fmt: skip
    assert torch.equal(*biases)
    assert biases[0].std() > 0.5


def test_without_a_bias_it_is_refused_and_a_preset_says_so(text_file: Path, tmp_path: Path) -> None:
    how = {**STILL, "model_type": "llama", "config_overrides": f"{SHAPE},intermediate_size=64"}
    how |= {"train_file": str(text_file), "output_dir": str(tmp_path / "out"), "dry_run": True}
    with pytest.raises(InputError, match="--unigram_bias: the output layer of llama has no bias") as caught:
        lmtasks.run("causal-lm", **how, unigram_bias=True)
    assert caught.value.hint == "leave --unigram_bias out"
    plan: Any = lmtasks.run("causal-lm", **how, preset="fast")
    assert "no unigram_bias: the output layer of llama has no bias" in plan.notes
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_is_refused(model_folders: dict[str, Path], text_file: Path) -> None:
    with pytest.raises(InputError, match="--unigram_bias is for new models") as caught:
        lmtasks.run("masked-lm", model=str(model_folders["roberta"]), train_file=str(text_file), unigram_bias=True)
    assert caught.value.hint == "leave --unigram_bias out"


def test_targets_come_from_everywhere_in_long_data(
    documents: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a text whose halves have nothing in common, both halves are known though few examples are looked at."""
    from lmtasks.runs import unigram_bias

    monkeypatch.setattr(unigram_bias, "EXAMPLES", 8)
    monkeypatch.setattr(unigram_bias, "TOGETHER", 3)
    texts = ["aa bb " * 20] * 60 + ["cc dd " * 20] * 60
    run: Any = lmtasks.run(
        "masked-lm",
        train_dataset=texts,
        eval_dataset=texts[::20],
        model_type="roberta",
        config_overrides=f"{SHAPE},intermediate_size=64",
        unigram_bias=True,
        output_dir=str(tmp_path / "run"),
        **STILL | {"train_tokenizer": 300, "mlm_probability": 0.5},
    )
    tokenizer = AutoTokenizer.from_pretrained(run.output_dir)
    bias = AutoModelForMaskedLM.from_pretrained(run.output_dir).get_output_embeddings().bias
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"][-1] for text in ("aa bb", "cc dd"))
    assert torch.softmax(bias, 0)[[first, second]].min() > 0.03
