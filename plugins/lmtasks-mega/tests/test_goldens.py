"""Tiny models with what transformers 4.57.6 made of them: an implementation that differs anywhere fails here."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM

import lmtasks

GOLDENS = Path(__file__).parent / "goldens"
CLASSES = {"default": AutoModelForMaskedLM, "simple-bias": AutoModelForMaskedLM, "causal": AutoModelForCausalLM}


@pytest.fixture(params=CLASSES)
def golden(request: pytest.FixtureRequest) -> tuple[Path, type]:
    lmtasks.register_architectures()
    return GOLDENS / request.param, CLASSES[request.param]


def test_every_weight_has_its_place(golden):
    folder, auto = golden
    model, report = auto.from_pretrained(folder, output_loading_info=True)
    assert not any(report.values())
    assert model.state_dict().keys() == load_file(folder / "model.safetensors").keys()


def test_logits_loss_and_gradients_are_those_of_the_original(golden):
    folder, auto = golden
    model = auto.from_pretrained(folder)
    expected = load_file(folder / "expected.safetensors")
    outputs = model(**{name: expected[name] for name in ("input_ids", "attention_mask", "labels")})
    torch.testing.assert_close(outputs.logits, expected["logits"], rtol=0, atol=1e-5)
    torch.testing.assert_close(outputs.loss, expected["loss"], rtol=0, atol=1e-5)
    outputs.loss.backward()
    norms = {name: float(parameter.grad.norm()) for name, parameter in model.named_parameters()}
    # Some are as small as 1e-6, so they are compared in proportion.
    assert norms == pytest.approx(json.loads((folder / "gradient_norms.json").read_text()), rel=1e-4)


def test_saved_weights_keep_the_published_names(golden, tmp_path):
    folder, auto = golden
    auto.from_pretrained(folder).save_pretrained(tmp_path)
    saved, published = load_file(tmp_path / "model.safetensors"), load_file(folder / "model.safetensors")
    tied = published.keys() - saved.keys()
    assert tied in ({"mlm_head.weight"}, {"lm_head.weight"})
    for name in saved:
        assert torch.equal(saved[name], published[name])
