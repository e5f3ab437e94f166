"""What each position feels of each token, told exactly by gradients."""

import pytest
import torch
from lmtasks_mega.config import MegaConfig
from lmtasks_mega.model import MegaForCausalLM, MegaForMaskedLM

TINY = {
    "vocab_size": 30,
    "hidden_size": 8,
    "num_hidden_layers": 1,
    "intermediate_size": 12,
    "shared_representation_size": 4,
    "nffn_hidden_size": 8,
    "ema_projection_size": 2,
    "initializer_range": 0.5,
    "add_lm_hidden_dense_layer": False,  # its tanh, where saturated, feels nothing
}
CAUSAL = {"is_decoder": True, "bidirectional": False}
LENGTH = 150  # more than two blocks of the moving average
VARIANTS = [
    {},
    {"attention_activation": "laplace"},
    {"attention_activation": "relu2"},
    {"relative_positional_bias": "simple"},
    {"use_chunking": True, "chunk_size": 16},
    {"truncation": 5},
    {"normalization_type": "batchnorm", "normalize_before_mega": False},
]


def felt(model, length=LENGTH):
    """Bool [length, length]: the logits at a position (row) depend on a token (column)."""
    ids = torch.arange(length)[None] % 30
    embedded = model.get_input_embeddings()(ids).detach().requires_grad_()
    logits = model(inputs_embeds=embedded).logits[0]
    weighting = torch.randn(logits.shape[1], generator=torch.Generator().manual_seed(0))
    rows = [torch.autograd.grad(row @ weighting, embedded, retain_graph=True)[0] for row in logits]
    return torch.cat(rows).any(dim=-1)


def build(**settings):
    torch.manual_seed(0)
    config = MegaConfig(**{**TINY, **settings})
    return (MegaForCausalLM if config.is_decoder else MegaForMaskedLM)(config).eval()


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_causal_model_feels_nothing_of_later_tokens(variant):
    seen = felt(build(**CAUSAL, **variant))
    assert not seen.triu(1).any()
    assert seen.diagonal().all()


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_a_masked_model_sees_both_sides(variant):
    seen = felt(build(**variant))
    assert seen[5, 6] and seen[6, 5]
    # Chunks end attention, not the moving average; truncation ends the average, not attention.
    assert seen[0, 40] and seen[40, 0]


def test_attention_alone_ends_at_its_chunk():
    """With averages of one token, nothing else connects two positions."""
    seen = felt(build(truncation=1, use_chunking=True, chunk_size=4, bidirectional=False), 10)
    chunk = torch.arange(10) // 4
    assert torch.equal(seen, chunk[:, None] == chunk)


def test_an_average_alone_ends_at_its_truncation():
    """With chunks of one token, the average is all that connects two positions, in each layer."""
    seen = felt(build(truncation=3, use_chunking=True, chunk_size=1, bidirectional=False), 10)
    distance = torch.arange(10)[:, None] - torch.arange(10)
    assert torch.equal(seen, (distance >= 0) & (distance < 3))


def test_a_decoder_with_a_bidirectional_average_still_looks_ahead():
    """As configured; that is why a causal model needs both settings."""
    assert felt(build(is_decoder=True, bidirectional=True), 10)[0, 5]


@pytest.mark.parametrize("padding", ["left", "right"])
@pytest.mark.parametrize("variant", VARIANTS, ids=str)
@pytest.mark.parametrize("direction", [{}, CAUSAL], ids=["masked", "causal"])
def test_padding_is_not_felt(direction, variant, padding):
    model = build(**direction, **variant)
    ids = torch.arange(9)[None]
    spare = torch.full((1, 6), 29)
    padded, mask = [ids, spare], [torch.ones_like(ids), torch.zeros_like(spare)]
    if padding == "left":
        padded, mask = padded[::-1], mask[::-1]
    embedded = model.get_input_embeddings()(torch.cat(padded, dim=1)).detach().requires_grad_()
    logits = model(inputs_embeds=embedded, attention_mask=torch.cat(mask, dim=1)).logits
    real = slice(6, None) if padding == "left" else slice(9)
    torch.testing.assert_close(logits[:, real], model(ids).logits, rtol=1e-4, atol=1e-4)
    logits[:, real].square().sum().backward()
    is_padding = torch.cat(mask, dim=1) == 0
    assert not embedded.grad[is_padding].any()
    assert embedded.grad[~is_padding].any()
