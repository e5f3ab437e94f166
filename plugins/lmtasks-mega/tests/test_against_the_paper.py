"""Every setting against MEGA once more: one text, no padding, loops and explicit sums, from the paper's definitions."""

import math
import random

import pytest
import torch
from lmtasks_mega.config import MegaConfig
from lmtasks_mega.model import MegaForCausalLM, MegaForMaskedLM
from torch.nn import functional
from transformers.activations import ACT2FN

TINY = {
    "vocab_size": 30,
    "hidden_size": 6,
    "num_hidden_layers": 2,
    "intermediate_size": 10,
    "shared_representation_size": 4,
    "nffn_hidden_size": 7,
    "ema_projection_size": 3,
    "max_positions": 20,
}
CHOICES = {
    "attention_activation": ["softmax", "laplace", "relu2"],
    "relative_positional_bias": ["rotary", "simple"],
    "is_decoder": [False, True],
    "bidirectional": [False, True],
    "chunk_size": [-1, 4, 5],
    "truncation": [None, 1, 3, 50],
    "normalization_type": ["scalenorm", "layernorm", "rmsnorm", "batchnorm", "syncbatchnorm"],
    "norm_affine": [True, False],
    "normalize_before_mega": [True, False],
    "normalize_before_ffn": [True, False],
    "use_normalized_ffn": [True, False],
    "ema_projection_size": [3, 1],
    "activation": ["silu", "gelu"],
    "add_token_type_embeddings": [False, True],
    "add_lm_hidden_dense_layer": [True, False],
    "tie_word_embeddings": [True, False],
}


def cases() -> list[dict]:
    """Each choice alone, and mixtures in which all meet all sooner or later."""
    alone = [{name: choice} for name, choices in CHOICES.items() for choice in choices[1:]]
    draw = random.Random(0)
    mixed = [{name: draw.choice(choices) for name, choices in CHOICES.items()} for _ in range(30)]
    return [{}, *alone, *mixed]


def name_of(case: dict) -> str:
    return ",".join(f"{name}={value}" for name, value in case.items()) if len(case) < 2 else "mixed"


def build(**settings):
    config = MegaConfig(**{**TINY, **settings, "use_chunking": settings.get("chunk_size", -1) > 0})
    torch.manual_seed(0)
    model = (MegaForCausalLM if config.is_decoder else MegaForMaskedLM)(config).eval()
    # Large enough for everything to matter; fresh weights hide half of the model.
    with torch.no_grad():
        for tensor in [*model.parameters(), *(one for one in model.buffers() if one.is_floating_point())]:
            tensor.normal_(std=0.5)
        for name, tensor in model.named_buffers():
            if name.endswith("running_var"):
                tensor.abs_().add_(0.5)
    return model


def norm(weights, path, x, config):
    kind = config.normalization_type
    centre = x.mean(-1, keepdim=True) if kind == "layernorm" else 0
    spread = ((x - centre) ** 2).mean(-1, keepdim=True)
    if "batch" in kind:
        centre, spread = weights[path + "running_mean"], weights[path + "running_var"]
    x = (x - centre) / torch.sqrt(spread + 1e-5)
    x = x * weights.get(path + "scalar", weights.get(path + "weight", torch.ones(())))
    return x + weights.get(path + "bias", 0)


def average(weights, path, x, config):
    """The recurrence of equations 5 and 6, restarted for each token where its window is truncated."""
    d = config.hidden_size
    ways = [(slice(None, d), x)] + ([(slice(d, None), x.flip(0))] if config.bidirectional else [])
    total = torch.zeros_like(x)
    for rows, text in ways:
        alpha = weights[path + "damping_factor"][rows, :, 0].sigmoid()
        delta = weights[path + "decay_factor"][rows, :, 0].sigmoid()
        beta = weights[path + "ema_expansion_matrix"][rows, :, 0]
        eta = weights[path + "kernel_projection_matrix"][rows] / math.sqrt(config.ema_projection_size)
        outputs = []
        for t in range(len(text)):
            start = 0 if config.truncation is None else max(0, t - config.truncation + 1)
            state = torch.zeros_like(beta)
            for s in range(start, t + 1):
                state = alpha * (beta * text[s][:, None]) + (1 - alpha * delta) * state
            outputs.append((eta * state).sum(-1))
        way = torch.stack(outputs)
        total = total + (way if text is x else way.flip(0))
    return functional.silu(total + weights[path + "residual_weight"] * x)


def position_bias(weights, path, query, key, config):
    if config.relative_positional_bias == "simple":
        return weights[path + "rel_pos_bias"][config.max_positions - 1 + key - query]
    # As complex numbers, the two turned vectors meet in the difference of their angles.
    half = config.shared_representation_size // 2
    a, b = (torch.complex(one[0, :half], one[0, half:]) for one in (weights[path + "alpha"], weights[path + "b_param"]))
    speeds = torch.tensor([10000 ** (-i / half) for i in range(half)])
    return (a * b.conj() * torch.polar(torch.ones(half), speeds * (query - key))).real.sum()


def attend(weights, path, q, k, v, config):
    outputs = []
    for i in range(len(q)):
        seen = [
            j
            for j in range(len(k))
            if (j <= i or not config.is_decoder)
            and (not config.use_chunking or j // config.chunk_size == i // config.chunk_size)
        ]
        products = k[seen] @ q[i]
        bias = torch.stack([position_bias(weights, path + "rel_pos_bias.", i, j, config) for j in seen])
        if config.attention_activation == "softmax":
            weight = functional.softmax(products / math.sqrt(config.shared_representation_size) + bias, dim=0)
        elif config.attention_activation == "relu2":
            weight = (products / len(seen) + bias).clamp(min=0) ** 2
        else:
            moved = (products / len(seen) + bias - math.sqrt(0.5)) / (math.sqrt(1 / (4 * math.pi)) * math.sqrt(2))
            weight = 0.5 * (1 + torch.erf(moved))
        outputs.append(weight @ v[seen])
    return torch.stack(outputs)


def block(weights, path, x, config):
    act = ACT2FN[config.activation]

    def linear(name, states):
        return functional.linear(states, weights[f"{path}{name}.weight"], weights[f"{path}{name}.bias"])

    residual = x
    if config.normalize_before_mega:
        x = norm(weights, path + "mega_layer.norm.norm.", x, config)
    averages = average(weights, path + "mega_layer.ema_gate.", x, config)
    d, z, v = config.hidden_size, config.shared_representation_size, config.intermediate_size
    phi, shared, gamma, candidate = linear("mega_layer.mx_proj", averages).split([d, z, v, d], dim=-1)
    scale, offset = weights[path + "mega_layer.qk_weight"], weights[path + "mega_layer.qk_bias"]
    q, k = (scale[one] * act(shared) + offset[one] for one in (0, 1))
    attended = attend(weights, path + "mega_layer.", q, k, act(linear("mega_layer.v_proj", x)), config)
    candidate = act(candidate + linear("mega_layer.h_proj", act(gamma) * attended))
    phi = torch.sigmoid(phi)
    x = phi * candidate + (1 - phi) * residual
    if not config.normalize_before_mega:
        x = norm(weights, path + "mega_layer.norm.norm.", x, config)
    if not config.use_normalized_ffn:
        return x
    inner = norm(weights, path + "nffn.norm.norm.", x, config) if config.normalize_before_ffn else x
    x = x + linear("nffn.fc2", act(linear("nffn.fc1", inner)))
    return x if config.normalize_before_ffn else norm(weights, path + "nffn.norm.norm.", x, config)


def paper(model, ids, types):
    """Logits [length, vocabulary] of one text."""
    config = model.config
    weights = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    x = weights["mega.embedding_layer.word_embeddings.weight"][ids]
    if config.add_token_type_embeddings:
        x = x + weights["mega.embedding_layer.token_type_embeddings.weight"][types]
    for layer in range(config.num_hidden_layers):
        x = block(weights, f"mega.layers.{layer}.", x, config)
    if config.add_lm_hidden_dense_layer:
        x = torch.tanh(functional.linear(x, weights["dense.weight"], weights["dense.bias"]))
    return functional.linear(x, weights[model.head + ".weight"], weights[model.head + ".bias"])


def batch_of(texts, left):
    """Texts padded to the longest, with what must not matter at padding."""
    longest = max(map(len, texts))
    ids, mask = torch.full((len(texts), longest), 7), torch.zeros(len(texts), longest, dtype=torch.long)
    places = [slice(longest - len(text), None) if left else slice(len(text)) for text in texts]
    for row, (text, place) in enumerate(zip(texts, places, strict=True)):
        ids[row, place], mask[row, place] = text, 1
    return ids, mask, places


@pytest.mark.parametrize("left", [False, True], ids=["right", "left"])
@pytest.mark.parametrize("case", cases(), ids=name_of)
def test_logits_and_gradients_are_the_papers_whatever_is_padded(case, left):
    model = build(**case)
    generator = torch.Generator().manual_seed(1)
    # 13 is no multiple of a chunk, 8 is one of one of them, 3 is less than any.
    texts = [torch.randint(30, (length,), generator=generator) for length in (13, 8, 3)]
    ids, mask, places = batch_of(texts, left)
    types = torch.randint(2, ids.shape, generator=generator)
    logits = model(ids, attention_mask=mask, token_type_ids=types).logits
    assert logits.isfinite().all()
    logits = [logits[row, place] for row, place in enumerate(places)]
    expected = [paper(model, text, types[row, places[row]]) for row, text in enumerate(texts)]
    torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)

    def gradients(of):
        loss = sum((one * torch.linspace(-1, 1, one.numel()).view_as(one)).sum() for one in of)
        names, parameters = zip(*model.named_parameters(), strict=True)
        return dict(zip(names, torch.autograd.grad(loss, parameters, allow_unused=True), strict=True))

    wanted, got = gradients(expected), gradients(logits)
    for name, gradient in wanted.items():
        if gradient is None:
            assert not got[name].any()
        else:
            torch.testing.assert_close(
                got[name], gradient, rtol=1e-3, atol=1e-3, msg=lambda text, name=name: name + text
            )


@pytest.mark.parametrize("truncation", [None, 5])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_the_average_is_its_recurrence_however_long_the_text(bidirectional, length, truncation):
    """Block boundaries lie at multiples of 64."""
    model = build(bidirectional=bidirectional, truncation=truncation)
    ema = model.mega.layers[0].mega_layer.ema_gate
    x = torch.randn(length, 6, generator=torch.Generator().manual_seed(2))
    expected = average(ema.state_dict(), "", x, model.config)
    torch.testing.assert_close(ema(x[None])[0], expected, rtol=1e-4, atol=1e-5)
