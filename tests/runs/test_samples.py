"""Predictions while a model trains: they are the recipe's, they are kept, and training does not notice them."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

import lmtasks as api
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.errors import InputError
from lmtasks.inference.sampler import Sampler

SMALL: dict[str, Any] = {"block_size": 32, "max_steps": 6, "max_eval_samples": 4, "logging_steps": 2}


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def samples_in(folder: Path) -> dict[int, list[dict[str, Any]]]:
    entries = map(json.loads, (folder / "log.jsonl").read_text(encoding="utf-8").splitlines())
    return {entry["step"]: entry["samples"] for entry in entries if "samples" in entry}


@pytest.mark.parametrize(("recipe", "kind"), [("causal-lm", "gpt2"), ("masked-lm", "roberta")])
def test_training_does_not_notice(
    recipe: str, kind: str, model_folders: dict[str, Path], text_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Both models have dropout, so the least thing that was drawn would show."""
    asked = {"model": str(model_folders[kind]), "train_file": [str(text_file)], **SMALL}
    plain = api.run(recipe, output_dir="plain", **asked)
    sampled = api.run(recipe, output_dir="sampled", samples_every=2, **asked)
    before, other = (load_file(run.output_dir / "model.safetensors") for run in (plain, sampled))
    assert before.keys() == other.keys()
    assert all(torch.equal(before[name], other[name]) for name in before)
    assert plain.metrics["train_loss"] == sampled.metrics["train_loss"]
    assert plain.metrics["eval_loss"] == sampled.metrics["eval_loss"]
    assert list(samples_in(sampled.output_dir)) == [0, 2, 4, 6]
    assert samples_in(plain.output_dir) == {}
    assert "samples at step 4\n" in capfd.readouterr().err


def test_nothing_that_is_drawn_elsewhere_is_used_up(
    model_folders: dict[str, Path], causal_tokenizer: transformers.PreTrainedTokenizerBase
) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(model_folders["gpt2"]).train()
    drawing = replace(CAUSAL_LM, starter=None, prompt=lambda tokenizer, text: text)
    model.generation_config.do_sample = True
    sampler = Sampler(drawing, model, causal_tokenizer, ["A first", "A second"])

    def drawn() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)
    expected = drawn()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)
    assert sampler.samples() == sampler.before == sampler.samples(), "what is drawn is the same each time"
    assert drawn() == expected
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_the_last_samples_are_predictions_of_the_finished_model(text_file: Path) -> None:
    """Training computes in bfloat16, the finished model does not."""
    for recipe in ("causal-lm", "masked-lm"):
        run = api.run(recipe, output_dir=recipe, train_file=[str(text_file)], samples_every=4, bf16=True, **SMALL)
        assert isinstance(run, api.Run)
        found = samples_in(run.output_dir)
        assert list(found) == [0, 4, 6], "the last step, too"
        assert len({one["prompt"] for one in found[6]}) == len(found[6]) == 3
        assert [one["prompt"] for one in found[0]] == [one["prompt"] for one in found[6]]
        assert run.recipe.starter is not None
        for one in found[6]:
            assert one["answers"] == run.recipe.answers(run.predict(one["prompt"], **run.recipe.starter.predict))
            assert ("<mask>" in one["prompt"]) == (recipe == "masked-lm")


def test_a_resumed_run_has_the_samples_of_an_uninterrupted_one(model_folders: dict[str, Path], text_file: Path) -> None:
    asked = {"model": str(model_folders["gpt2"]), "train_file": [str(text_file)], "samples_every": 2, **SMALL}
    whole = api.run("causal-lm", output_dir="whole", **asked)
    api.run("causal-lm", output_dir="parts", **{**asked, "max_steps": 4}, save_steps=2)
    parts = api.run("causal-lm", output_dir="parts", **asked, save_steps=2, resume_from_checkpoint=True)
    assert list(samples_in(parts.output_dir)) == [0, 2, 4, 6]
    assert samples_in(parts.output_dir)[0] == samples_in(whole.output_dir)[0]


def test_the_report_shows_how_they_changed(text_file: Path) -> None:
    run = api.run("causal-lm", output_dir="out", train_file=[str(text_file)], samples_every=3, **SMALL)
    page = (run.output_dir / "report.html").read_text(encoding="utf-8")
    assert '<h2 id="samples">Samples</h2>' in page
    assert page.count('<th scope="row" dir="auto">step 3</th>') == 3
    plain = api.run("causal-lm", output_dir="plain", train_file=[str(text_file)], **SMALL)
    assert 'id="samples"' not in (plain.output_dir / "report.html").read_text(encoding="utf-8")


# --- refusals, before anything is written ---


def refused(message: str, recipe: str, **asked: Any) -> None:
    with pytest.raises(InputError, match=message) as caught:
        api.run(recipe, output_dir="out", samples_every=2, **{**SMALL, **asked})
    assert caught.value.hint == "leave --samples_every out"
    assert not Path("out").exists()


def test_a_text_without_words_has_no_prompts(text_file: Path) -> None:
    refused("has no words for a prompt", "causal-lm", train_file=[str(text_file)], eval_dataset=["\u200b\u200b"] * 9)


def test_a_model_that_cannot_answer_is_refused(
    text_file: Path, model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its positions end before the new tokens do."""
    monkeypatch.setattr("lmtasks.inference.sampler.completed", lambda *_: {"max_new_tokens": 300})
    asked = {"model": str(model_folders["gpt2"]), "train_file": [str(text_file)]}
    refused("--samples_every: text-generation: ", "causal-lm", **asked)


def test_a_new_model_without_attention_is_refused_too(text_file: Path) -> None:
    refused("get_seq_length", "causal-lm", train_file=[str(text_file)], config_overrides="num_hidden_layers=1")


def test_one_that_no_longer_can_goes_on_training(
    text_file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = iter([True])
    whole = Sampler.samples

    def once(self: Sampler) -> Any:
        if next(asked, False):
            return whole(self)
        raise InputError("nothing to say")

    monkeypatch.setattr(Sampler, "samples", once)
    run = api.run("causal-lm", output_dir="out", train_file=[str(text_file)], samples_every=2, **SMALL)
    assert list(samples_in(run.output_dir)) == [0]
    assert "no samples at step 2: nothing to say" in capfd.readouterr().err


def test_zero_is_no_number_of_steps(text_file: Path) -> None:
    with pytest.raises(InputError, match="samples_every"):
        api.run("causal-lm", output_dir="out", train_file=[str(text_file)], **{**SMALL, "samples_every": 0})
