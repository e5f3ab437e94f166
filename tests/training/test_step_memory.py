"""The memory of a training step: what is foreseen is what torch is then seen to hold."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM, PreTrainedModel

from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.models.forward import measuring
from lmtasks.training.dropout import dropout
from lmtasks.training.step_memory import APART, BESIDE, Trace, _traced, heap_height, height, of_batch, step_memory


def a_batch(length: int = 16) -> dict[str, torch.Tensor]:
    ids = torch.arange(10, 10 + length)[None]
    return {"input_ids": ids, "labels": ids.clone()}


def tensors(foreseen: int, weights: int) -> int:
    """The part of an estimate that torch is expected to hold beside the weights, and the heap's holes."""
    return round((foreseen - weights - BESIDE) / (1 + APART))


@pytest.fixture
def model(model_folders: dict[str, Path]) -> PreTrainedModel:
    return AutoModelForMaskedLM.from_pretrained(model_folders["bert"])


class Head(torch.nn.Module):
    """A model of one weight, [1000, 2], whose logits are nearly all that it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.randn(1000, 2))

    def forward(self, input_ids: torch.Tensor) -> Any:
        return type("Output", (), {"logits": self.weight[input_ids] @ self.weight.T})


def trace(*made: tuple[str, int], events: tuple[int, ...] = ()) -> Trace:
    return Trace([*made], [*events], len(events))


def test_what_every_further_example_adds_is_added() -> None:
    # Tensors of 10, 30 and 25 bytes; a second example adds 5, 20 and nothing. Four of them: 10 + 15, 30 + 60, 25.
    one, two = trace(("mul", 10), ("add", 30), ("sum", 25)), trace(("mul", 15), ("add", 50), ("sum", 25))
    assert [size for _, size in of_batch(one, two, 4).made] == [25, 90, 25]
    assert of_batch(one, two, 1).made == one.made and of_batch(one, two, 2).made == two.made


def test_what_only_two_examples_make_grows_as_if_by_halves() -> None:
    one, two = trace(("mul", 10), ("add", 30)), trace(("mul", 15), ("clone", 8), ("add", 40), events=(0, 1, 1, 2, 0, 2))
    step = of_batch(one, two, 4)
    assert step.made == [("mul", 25), ("clone", 16), ("add", 60)] and step.events == two.events


def test_the_height_is_what_is_held_at_once() -> None:
    step = trace(("mul", 10), ("add", 30), ("sum", 25), events=(0, 1, 0, 2, 1, 2))
    assert height(step) == 55


def test_the_heap_has_moments_and_holes_too() -> None:
    """The moments take the place of what has gone; in the next step that ends above where it ended before."""
    step = replace(trace(("mul", 6400), ("grad", 640), events=(0, 1, 0, 1)), learned=3)
    assert heap_height(step, []) == (6400 + 64) + (640 + 64)
    assert heap_height(step, [640, 640]) == (6400 + 64) + 3 * (640 + 64)
    lone = trace(("mul", 640), events=(0, 0))
    assert heap_height(lone, []) == 640 + 64 and heap_height(replace(lone, learned=1), [640]) == 2 * (640 + 64)


def test_what_autograd_notes_keeps_apart_what_is_freed() -> None:
    """A gradient fits where two activations were, unless something is noted between them."""
    made = ("mul", 640), ("mul", 640), ("grad", 1280)
    step = replace(trace(*made, events=(0, 1, 0, 1, 2, 2)), learned=5)
    assert heap_height(step, []) == 2 * (640 + 64)
    assert heap_height(replace(step, noted={0, 1}), []) == 2 * (640 + 64) + (1280 + 64)
    assert heap_height(replace(step, noted={0, 1}, learned=4), []) == 2 * (640 + 64), "the graph has gone before"


def test_autograd_notes_what_learns(model: PreTrainedModel) -> None:
    with measuring(model, training=True, gradients=True):
        whole = _traced(model, MASKED_LM, a_batch(), False, 1.0)
        model.requires_grad_(False)
        model.cls.predictions.bias.requires_grad_(True)
        few = _traced(model, MASKED_LM, a_batch(), False, 1.0)
    assert len(whole.noted) > 5 * len(few.noted) > 0
    assert all("backward" not in whole.made[number][0] for number in whole.noted)


def test_draws_from_elsewhere_are_there_and_go_again(model: PreTrainedModel) -> None:
    """numpy makes the draws of dropout, two bytes for each number, and autograd knows what came of them."""
    width = model.config.hidden_size
    with measuring(model, training=True, gradients=True):
        step = _traced(model, MASKED_LM, a_batch(length=24), False, 1.0)
    draws = [number for number, made in enumerate(step.made) if made == ("aten.ge_.Scalar", 24 * width * 2)]
    hidden = 1 + 2 * model.config.num_hidden_layers  # of the embeddings, and of both halves of each layer
    assert len(draws) == hidden and all(step.events.count(number) == 2 for number in draws)
    passed = [number for number, (name, _) in enumerate(step.made) if name == "aten.empty_like.default"]
    assert len(set(passed) & step.noted) >= hidden


def test_what_is_held_is_the_logits_and_what_is_made_of_them() -> None:
    torch.manual_seed(0)
    head = Head()
    for size in (2, 8):
        foreseen = tensors(step_memory(head, CAUSAL_LM, a_batch(10), size), 8000) - 2 * 8000
        logits = size * 9 * 1000 * 4  # of every token but the first
        assert 2 * logits <= foreseen <= 8 * logits  # they, their gradient, what passes between both, and holes


def test_memory_grows_with_batch_and_length(model: PreTrainedModel) -> None:
    one, two, eight = (step_memory(model, MASKED_LM, a_batch(), size) for size in (1, 2, 8))
    assert one < two < eight
    assert step_memory(model, MASKED_LM, a_batch(32), 1) > one


def test_moments_are_of_what_is_trained_only(model: PreTrainedModel) -> None:
    whole = step_memory(model, MASKED_LM, a_batch(), 1)
    model.requires_grad_(False)
    model.cls.predictions.transform.requires_grad_(True)
    few = sum(one.nbytes for one in model.parameters() if one.requires_grad)
    every = sum(one.nbytes for one in model.parameters())
    # Two moments and a gradient less for each number that no longer learns.
    assert whole - step_memory(model, MASKED_LM, a_batch(), 1) >= 2 * (every - few)


def test_bfloat16_holds_less_of_a_batch(model: PreTrainedModel) -> None:
    plain, short = (step_memory(model, MASKED_LM, a_batch(64), 32, bf16=bf16) for bf16 in (False, True))
    assert short < plain


def test_measuring_leaves_no_trace(model: PreTrainedModel) -> None:
    model.eval()
    state = torch.get_rng_state()
    step_memory(model, MASKED_LM, a_batch(), 8)
    assert not model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_what_is_measured_is_the_step_that_a_training_makes(model: PreTrainedModel) -> None:
    """With its dropout, which keeps other numbers than torch's does."""
    found = []

    def loss(*given: Any) -> Any:
        found.append(torch.nn.functional.dropout)
        return MASKED_LM.loss(*given)

    step_memory(model, replace(MASKED_LM, loss=loss), a_batch(), 8)
    assert found == [dropout, dropout]


def test_measuring_is_no_training_batch() -> None:
    class Counting(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = torch.nn.BatchNorm1d(8)
            self.head = torch.nn.Linear(8, 1000)

        def forward(self, input_ids: torch.Tensor) -> Any:
            features = self.norm(torch.nn.functional.one_hot(input_ids % 8, 8).float().transpose(1, 2))
            return type("Output", (), {"logits": self.head(features.transpose(1, 2))})

    model = Counting()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    step_memory(model, CAUSAL_LM, a_batch(10), 1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_has_no_row_for_each_example_stays_as_it_is(model: PreTrainedModel) -> None:
    seen: list[dict[str, Any]] = []

    def loss(model: Any, batch: dict[str, Any]) -> Any:
        seen.append(batch)
        return MASKED_LM.loss(model, {name: batch[name] for name in ("input_ids", "labels")})

    constants = {"count": torch.tensor(3), "words": torch.ones(7), "names": ["one"]}
    step_memory(model, replace(MASKED_LM, loss=loss), {**a_batch(), **constants}, 8, bf16=False)
    assert [len(batch["input_ids"]) for batch in seen] == [1, 2]
    assert all(batch[name] is constants[name] for batch in seen for name in constants)
