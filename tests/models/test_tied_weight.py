"""One gradient for a weight that embeds tokens and ends in the vocabulary: that of autograd, without its zeros."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

from lmtasks import causal_loss, masked_loss
from lmtasks.models import lm_head
from lmtasks.models.lm_head import separate_head
from lmtasks.models.tied_weight import one_gradient, tied_embedding

SHAPE = {"vocab_size": 90, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "pad_token_id": 1}


def model_of(kind: str, **more: Any) -> PreTrainedModel:
    torch.manual_seed(0)
    auto = AutoModelForMaskedLM if kind == "roberta" else AutoModelForCausalLM
    return auto.from_config(AutoConfig.for_model(kind, **SHAPE, **more)).double().eval()


def batch_of(seed: int) -> dict[str, Any]:
    """Few words, many times each, padding among them."""
    ids = torch.randint(0, 9, (3, 12), generator=torch.Generator().manual_seed(seed))
    return {"input_ids": ids, "labels": ids.masked_fill(ids > 5, -100)}


class Operations(TorchDispatchMode):
    """The names of the operations that are done while this is open."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.names.add(function.overloadpacket.__name__)
        return function(*args, **(kwargs or {}))


def gradients(model: PreTrainedModel, kind: str, seeds: tuple[int, ...]) -> dict[str, torch.Tensor]:
    """Of the losses of several batches, in one pass backwards."""
    model.zero_grad()
    loss = masked_loss if kind == "roberta" else causal_loss
    sum(loss(model, batch_of(seed))[0] for seed in seeds).backward()
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("seeds", [(1,), (1, 2)], ids=["one pass", "two passes forwards, one backwards"])
@pytest.mark.parametrize("kind", ["roberta", "gpt2"])
def test_gradients_are_autograds(kind: str, seeds: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(kind)
    assert separate_head(model, {"input_ids": batch_of(1)["input_ids"]}) is None
    with Operations() as seen:
        found = gradients(model, kind, seeds)
    monkeypatch.setattr(lm_head, "tied_embedding", lambda *_: None)
    expected = gradients(model, kind, seeds)  # the same head, which computes in float32, and a gradient for each use
    assert found.keys() == expected.keys()
    for name, one in expected.items():
        torch.testing.assert_close(found[name], one, rtol=1e-11, atol=1e-13, msg=name)
    tied = model.get_input_embeddings().weight
    assert tied is model.get_output_embeddings().weight
    # Of positions, there is still a table of its own.
    wide = [one for one in model.modules() if isinstance(one, torch.nn.Embedding) and one.weight is not tied]
    assert "index_add_" in seen.names
    assert ("embedding_dense_backward" in seen.names) is bool(wide)


def test_gradients_add_up_over_batches() -> None:
    model = model_of("roberta")
    assert separate_head(model, {"input_ids": batch_of(1)["input_ids"]}) is None
    both = gradients(model, "roberta", (1, 2))
    model.zero_grad()
    for seed in (1, 2):
        masked_loss(model, batch_of(seed))[0].backward()
    for name, one in model.named_parameters():
        if name in both:
            torch.testing.assert_close(one.grad, both[name], rtol=1e-9, atol=1e-12, msg=name)


def test_padding_learns_nothing_but_as_an_output() -> None:
    weight = torch.nn.Embedding(5, 2, padding_idx=1)
    with one_gradient(weight) as shared:
        looked_up = weight(torch.tensor([[1, 2, 2]]))
    (looked_up.sum() + 10 * shared[1].sum()).backward()
    assert weight.weight.grad.tolist() == [[0, 0], [10, 10], [2, 2], [0, 0], [0, 0]]
    assert "forward" not in vars(weight)


def test_the_embedding_alone_gets_its_gradient_too() -> None:
    weight = torch.nn.Embedding(4, 2)
    with one_gradient(weight):
        looked_up = weight(torch.tensor([3, 3, 0]))
    looked_up.sum().backward()
    assert weight.weight.grad.tolist() == [[1, 1], [0, 0], [0, 0], [2, 2]]


@pytest.mark.parametrize("more", [{"tie_word_embeddings": False}, {"sparse": True}, {"max_norm": 1.0}])
def test_other_embeddings_are_left_alone(more: dict[str, Any]) -> None:
    model = model_of("gpt2", **{name: value for name, value in more.items() if name == "tie_word_embeddings"})
    for name, value in more.items():
        setattr(model.get_input_embeddings(), name, value)
    assert tied_embedding(model, model.get_output_embeddings().weight) is None
