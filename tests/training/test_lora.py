"""LoRA as one operation: peft's numbers and torch's gradients, with the same draws."""

from __future__ import annotations

from typing import Any

import peft
import pytest
import torch
import transformers
from torch import Tensor, nn

from lmtasks.training import lora
from lmtasks.training.dropout import cheap_dropout
from lmtasks.training.lora import cheap_lora
from lmtasks.training.speed import cheap

CPU = torch.device("cpu")

# peft asks a model for an attribute that transformers has renamed.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:fan_in_fan_out is set to False"),
]

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 100}


def adapted(kind: str = "roberta", **settings: Any) -> Any:
    """A model with an adapter that does something, in training."""
    torch.manual_seed(0)
    roles = {f"{role}_token_id": 1 for role in ("bos", "eos", "pad")}
    config = transformers.AutoConfig.for_model(kind, **SIZES, **roles)
    auto = transformers.AutoModelForMaskedLM if kind == "roberta" else transformers.AutoModelForCausalLM
    model = auto.from_config(config)
    asked = {"r": 4, "lora_alpha": 8, "lora_dropout": 0.2, "target_modules": "all-linear", **settings}
    model.add_adapter(peft.LoraConfig(**asked))
    for parameter in model.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.02)
    return model.train()


def learned(model: Any, bf16: bool = False, ids: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Loss and gradients of one batch, with the draws of a seed."""
    torch.manual_seed(5)
    model.zero_grad()
    ids = torch.randint(2, 100, (3, 20)) if ids is None else ids
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        loss = model(input_ids=ids, labels=ids).loss
    loss.backward()
    return loss.detach(), torch.cat([one.grad.flatten() for one in model.parameters() if one.grad is not None])


def distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).detach().norm() / one.detach().norm())


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One for each layer that was one operation."""
    calls: list[int] = []
    plain = lora._adapted
    monkeypatch.setattr(lora, "_adapted", lambda *given: (calls.append(1), plain(*given))[1])
    return calls


@pytest.mark.parametrize("settings", [{}, {"lora_dropout": 0.0}, {"use_rslora": True}], ids=str)
@pytest.mark.parametrize("kind", ["roberta", "gpt2", "llama"])
def test_loss_and_gradients_are_those_of_peft_and_torch(
    kind: str, settings: dict[str, Any], counted: list[int]
) -> None:
    model = adapted(kind, **settings)
    with cheap_dropout(CPU):
        expected = learned(model)
        assert not counted
        with cheap_lora(CPU):
            found = learned(model)
    assert len(counted) == {"roberta": 13, "gpt2": 8, "llama": 14}[kind]
    assert found[0].item() == pytest.approx(expected[0].item(), rel=1e-6)
    assert distance(expected[1], found[1]) < 1e-6


@pytest.mark.parametrize("kind", ["roberta", "gpt2"])
def test_in_bfloat16_it_is_as_near_to_float32_as_peft(kind: str) -> None:
    model = adapted(kind)
    with cheap_dropout(CPU):
        exact, theirs = learned(model), learned(model, bf16=True)
        with cheap_lora(CPU):
            ours = learned(model, bf16=True)
    assert ours[1].dtype == torch.float32
    assert distance(exact[1], ours[1]) < 1.2 * distance(exact[1], theirs[1])


def test_an_input_that_learns_has_its_gradient() -> None:
    """Also one with more dimensions than two, and one that is no block of memory."""
    layer = adapted().roberta.encoder.layer[0].intermediate.dense
    found = []
    for context in (cheap_dropout, cheap):
        x = torch.randn(4, 32, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
        torch.manual_seed(2)
        with context(CPU):
            layer(x.transpose(1, 2)).pow(2).sum().backward()
        found.append(x.grad)
    assert distance(*found) < 1e-6


@pytest.mark.parametrize("kind", ["roberta", "gpt2"])
def test_a_layer_keeps_its_input_and_nothing_of_the_size_of_its_weights(kind: str) -> None:
    """Neither weights in bfloat16 nor masks: of a layer alone, its rows and what the adapter makes of them."""
    model = adapted(kind)
    layer = next(part for part in model.modules() if isinstance(part, peft.tuners.lora.Linear))
    x = torch.randn(6, layer.in_features, requires_grad=True)
    kept: list[Tensor] = []
    with (
        cheap(CPU),
        torch.autocast("cpu", torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(lambda one: (kept.append(one), one)[1], lambda one: one),
    ):
        layer(x)
    own = {one.data_ptr() for one in layer.parameters()}
    sizes = sorted(one.nbytes for one in kept if one.data_ptr() not in own)
    assert sizes == [6 * layer.r["default"] * 2, 6 * layer.in_features * 2]


def test_a_weight_that_was_changed_is_cast_again() -> None:
    model = adapted(lora_dropout=0.0)
    layer = model.roberta.encoder.layer[0].intermediate.dense
    x = torch.randn(2, 32)
    with cheap(CPU), torch.autocast("cpu", torch.bfloat16):
        before = layer(x)
        with torch.no_grad():
            layer.base_layer.weight.mul_(2)
        after = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        expected = layer(x)
    assert not torch.equal(before, after)
    assert distance(expected.float(), after.float()) < 1e-2


def test_an_input_that_was_changed_is_cast_again() -> None:
    layer = adapted(lora_dropout=0.0).roberta.encoder.layer[0].intermediate.dense
    x = torch.randn(2, 32)
    with cheap(CPU):
        layer(x)
        assert torch.equal(layer(x.mul_(2)), layer(x.clone()))


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_layers_are_made_again_on_the_way_back_with_the_same_draws() -> None:
    model = adapted("llama", lora_dropout=0.3)
    with cheap(CPU):
        expected = learned(model)
        model.gradient_checkpointing_enable({"use_reentrant": False})
        found = learned(model)
    assert torch.equal(expected[1], found[1])


def _without_gradients(model: Any) -> None:
    with torch.no_grad():
        model(input_ids=torch.arange(2, 8)[None])


def _disabled(model: Any) -> None:
    model.disable_adapters()
    model(input_ids=torch.arange(2, 8)[None])


def _watched(model: Any) -> None:
    seen: list[int] = []
    for layer in model.roberta.encoder.layer:
        for part in layer.modules():
            if type(part).__name__ == "Linear" and hasattr(part, "base_layer"):
                part.base_layer.register_forward_hook(lambda *_: seen.append(1))
    model(input_ids=torch.arange(2, 8)[None])
    assert len(seen) == 12


def _thawed(model: Any) -> None:
    model.requires_grad_(True)
    learned(model)


def _double(model: Any) -> None:
    learned(model.double())


@pytest.mark.parametrize(
    ("why", "settings", "most"),
    [
        (_without_gradients, {}, 0),
        (_disabled, {}, 0),
        (_watched, {}, 1),
        (_thawed, {}, 0),
        (_double, {}, 0),
        (learned, {"use_dora": True}, 0),
        (learned, {"lora_bias": True}, 0),
        (learned, {"lora_dropout": 1e-7}, 0),
    ],
)
def test_what_is_not_the_usual_is_left_to_peft(why: Any, settings: Any, most: int, counted: list[int]) -> None:
    model = adapted(**settings)
    with cheap(CPU):
        why(model)
    assert len(counted) <= most


def test_peft_is_as_before_afterwards_and_on_other_devices() -> None:
    from peft.tuners.lora.layer import Linear

    plain = Linear.forward
    with pytest.raises(MemoryError), cheap_lora(CPU):
        assert Linear.forward is not plain
        raise MemoryError
    with cheap_lora(torch.device("cuda")):
        assert Linear.forward is plain
    assert Linear.forward is plain
