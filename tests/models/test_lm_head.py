"""The head on its own: the same loss, gradients and figures as the plain path, for heads of many shapes."""

from __future__ import annotations

import copy
import functools
import math
from pathlib import Path
from types import MethodType
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutput, MaskedLMOutput

from lmtasks import causal_loss, masked_loss, run, target_sums
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.models import cross_entropy as projection
from lmtasks.models import last_layer
from lmtasks.models import lm_head as heads
from lmtasks.models.document_mask import isolate
from lmtasks.models.lm_head import separate_head, separated

SHAPE = {
    "vocab_size": 100,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 66,
    "pad_token_id": 1,
}
MASKED = (
    "bert",
    "roberta",
    "distilbert",
    "electra",
    "albert",
    "modernbert",
    "deberta-v2",
    "mpnet",
    "fnet",
    "bart",
    "xlm",
)
CAUSAL = ("gpt2", "llama", "gemma2", "cohere", "opt", "bloom", "mamba", "mixtral", "phi", "gptj", "granite")
MORE: dict[str, dict[str, Any]] = {
    "modernbert": {"local_attention": 8},
    "gemma2": {"head_dim": 16},  # caps its logits
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": 32},  # runs the decoder of its base model
    "mixtral": {"num_local_experts": 2},
    "llama4_text": {"head_dim": 16, "num_local_experts": 2, "intermediate_size_mlp": 64},
    "gptj": {"rotary_dim": 8},  # has a bias in its head
    "bart": {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
             "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32},
}  # fmt: skip


def model_of(kind: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    shape = {**SHAPE, **MORE.get(kind, {})}
    if kind == "bart":
        shape = {name: value for name, value in shape.items() if "hidden" not in name}
    torch.manual_seed(0)
    auto = AutoModelForMaskedLM if kind in MASKED else AutoModelForCausalLM
    model = auto.from_config(AutoConfig.for_model(kind, **shape)).to(dtype).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):  # fresh ones are zero, and a bias left out would not be missed
                parameter.normal_(std=0.1)
    return model


def batch_of(targets: float = 0.4, *, label_smoothing: float = 0.0) -> dict[str, Any]:
    draw = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 100, (3, 20), generator=draw)
    labels = ids.masked_fill(torch.rand(3, 20, generator=draw) >= targets, -100)
    return {"input_ids": ids, "labels": labels, **({"label_smoothing": label_smoothing} if label_smoothing else {})}


def loss_of(kind: str) -> Any:
    return masked_loss if kind in MASKED else causal_loss


def gradients(model: PreTrainedModel, kind: str, batch: dict[str, Any]) -> tuple[float, int, dict[str, Any]]:
    model.zero_grad()
    total, targets, more = loss_of(kind)(model, batch)
    assert more == {}
    (total / 7).backward()
    return total.item(), int(targets), {name: one.grad for name, one in model.named_parameters()}


def distance(one: dict[str, Any], other: dict[str, Any]) -> float:
    """Norm of the difference of two gradients, relative to the first."""
    assert [name for name in one if one[name] is None] == [name for name in other if other[name] is None]
    pairs = [(one[name], other[name]) for name in one if one[name] is not None]
    difference = sum(float((a - b).double().square().sum()) for a, b in pairs)
    return (difference / sum(float(a.double().square().sum()) for a, _ in pairs)) ** 0.5


@pytest.fixture(autouse=True)
def few_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces may have as few words as it takes, for the vocabularies of tests."""
    monkeypatch.setattr(projection, "WORDS", 1)


@pytest.fixture(params=[10**9, 700], ids=["at once", "in pieces"])
def piece(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """All at once; or seven tokens at a time, and of these as many words as make up a piece."""
    monkeypatch.setattr(heads, "PIECE", request.param)
    monkeypatch.setattr(projection, "PIECE", request.param // 5)
    monkeypatch.setattr(projection, "TOKENS", request.param // 100)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
@pytest.mark.parametrize("kind", [*MASKED, *CAUSAL])
@pytest.mark.usefixtures("piece")
def test_loss_gradients_and_figures_are_those_of_the_plain_path(kind: str, label_smoothing: float) -> None:
    model = model_of(kind)
    batch = batch_of(label_smoothing=label_smoothing)
    plain = gradients(model, kind, batch)
    with torch.no_grad():
        figures = loss_of(kind)(model, batch)
    assert separate_head(model, {"input_ids": batch["input_ids"][:1]}) is None
    assert separated(model)
    fast = gradients(model, kind, batch)
    assert fast[:2] == (pytest.approx(plain[0], rel=1e-6), plain[1])
    assert distance(plain[2], fast[2]) < 2e-6
    with torch.no_grad():
        total, targets, more = loss_of(kind)(model, batch)
    assert total.item() == pytest.approx(figures[0].item(), rel=1e-6)
    assert (total.dtype, targets.item()) == (torch.float64, figures[1].item())
    assert more["correct"].item() == figures[2]["correct"].item()


@pytest.mark.parametrize("kind", ["bert", "gemma2"])
@pytest.mark.usefixtures("piece")
def test_weights_of_the_targets_reach_loss_and_gradients(kind: str) -> None:
    """bert's last layer gives the logits; gemma2 does something to them after, and is left to autograd."""
    model, batch = model_of(kind), batch_of(label_smoothing=0.1)
    weights = 10 * torch.rand(3, 20, generator=torch.Generator().manual_seed(2))

    def weighted() -> tuple[float, float, dict[str, Any]]:
        model.zero_grad()
        total, _, _ = target_sums(model, batch, batch["labels"], weights)
        (total / 7).backward()
        with torch.no_grad():
            figure, _, _ = target_sums(model, batch, batch["labels"], weights)
        return total.item(), figure.item(), {name: one.grad for name, one in model.named_parameters()}

    plain = weighted()
    assert separate_head(model, {"input_ids": batch["input_ids"][:1]}) is None
    fast = weighted()
    assert fast[:2] == (pytest.approx(plain[0], rel=1e-6), pytest.approx(plain[1], rel=1e-6))
    assert distance(plain[2], fast[2]) < 2e-6
    assert plain[0] != pytest.approx(target_sums(model, batch, batch["labels"])[0].item(), rel=0.1)


@pytest.mark.parametrize("kind", ["roberta", "gpt2"])
def test_the_head_runs_on_targets_only(kind: str) -> None:
    model = model_of(kind)
    seen: list[int] = []
    model.get_output_embeddings().register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[1]))
    separate_head(model, {"input_ids": batch_of()["input_ids"][:1]})
    seen.clear()
    _, targets, _ = loss_of(kind)(model, batch_of())
    with torch.no_grad():
        loss_of(kind)(model, batch_of())
    assert seen == [int(targets), int(targets)]
    assert int(targets) < 3 * 20 / 2


WIDE = {
    **dict.fromkeys(("bert", "roberta", "electra"), "encoder.layer.{}.output.dense"),
    "distilbert": "transformer.layer.{}.ffn.lin2",
    "modernbert": "layers.{}.mlp.Wo",
    "deberta-v2": "encoder.layer.{}.output.dense",
    "gpt2": "h.{}.mlp.c_proj",
    "llama": "layers.{}.mlp.down_proj",
    "albert": "encoder.albert_layer_groups.0.albert_layers.0.ffn_output",
    "mixtral": "layers.{}.mlp.experts",
}
"""What gives a layer its rows back, for each of two layers."""


@pytest.mark.parametrize("kind", [*MASKED, *CAUSAL])
def test_the_last_layer_runs_on_targets_where_these_are_few(kind: str) -> None:
    """It is measured on shorter texts; a layer that is every layer runs everywhere, and so do experts."""
    model, batch = model_of(kind), batch_of(0.2)
    plain = gradients(model, kind, batch)
    assert separate_head(model, {"input_ids": batch["input_ids"][:1, :11]}) is None
    rows: list[int] = []
    for layer in (0, 1) if kind in WIDE else ():
        part = model.base_model.get_submodule(WIDE[kind].format(layer))
        part.register_forward_hook(lambda part, given, made: rows.append(made.shape[:-1].numel()))
    fast = gradients(model, kind, batch)
    assert fast[:2] == (pytest.approx(plain[0], rel=1e-6), plain[1])
    assert distance(plain[2], fast[2]) < 1e-6
    if kind in ("albert", "mixtral"):
        assert set(rows) == {60}
    elif kind in WIDE:
        assert rows == [60, plain[1]]
        rows.clear()
        with torch.autocast("cpu", torch.bfloat16):
            rounded = gradients(model, kind, batch)
        gradients(model, kind, batch_of(0.8))
        assert rows == [60, 16, 60, 60] and plain[1] < 16
        assert distance(plain[2], rounded[2]) < 3e-2


class Centred(nn.Linear):
    """A layer that keeps something about its rows, as BatchNorm does, in a way of its own."""

    def __init__(self) -> None:
        super().__init__(12, 8)
        self.register_buffer("mean", torch.zeros(12))

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input - (input.mean((0, 1)) if self.training else self.mean))


class Layer(nn.Module):
    """Some of it takes each row on its own, and there is more that does not, or only where it is measured."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.inner, self.far = nn.Linear(8, 12), nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(12) if way == "statistics" else nn.Identity()
        self.outer = Centred() if way == "its own statistics" else nn.Linear(12, 8)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        states = states + states.roll(2, dims=1)
        inner, far = self.inner(states).relu(), self.far(states)
        made = self.outer(self.norm(inner.flatten(0, 1)).view_as(inner))
        if self.way == "neighbours":
            made = made + made.roll(1, dims=1)
        if self.way == "long texts" and states.shape[1] > 11:
            made = made + far.mean(1, keepdim=True)
        return states + made


@pytest.mark.parametrize(
    "way", ["alone", "long texts", "neighbours", "statistics", "its own statistics", "one for all", "a part for all"]
)
def test_only_what_takes_each_row_on_its_own_runs_on_targets(way: str) -> None:
    torch.manual_seed(0)
    model, batch, layers = Odd("straight"), batch_of(0.2), [Layer(way), Layer(way)]
    if way == "a part for all":
        layers[0].outer = layers[1].outer
    model.body.layers = nn.ModuleList([layers[1]] * 2 if way == "one for all" else layers)
    model.body.embedding.register_forward_hook(
        lambda part, given, made: functools.reduce(lambda states, one: one(states), model.body.layers, made)
    )
    model.train()
    plain, kept = gradients(model, "bert", batch), copy.deepcopy(model.state_dict())
    assert separate_head(model, {"input_ids": batch["input_ids"][:1, :11]}) is None
    assert all(torch.equal(value, kept[name]) for name, value in model.state_dict().items())
    rows: set[int] = set()
    layers[1].outer.register_forward_hook(lambda part, given, made: rows.add(made.shape[:-1].numel()))
    fast = gradients(model, "bert", batch)
    assert rows == {plain[1] if way in ("alone", "long texts") else 60}
    assert fast[:2] == (pytest.approx(plain[0], rel=1e-6), plain[1])
    assert distance(plain[2], fast[2]) < 1e-6


@pytest.mark.parametrize(("kind", "plain"), [("gpt2", True), ("gptj", True), ("bert", True), ("gemma2", False)])
def test_the_loss_is_cut_by_vocabulary_where_the_last_layer_gives_the_logits(kind: str, plain: bool) -> None:
    model = model_of(kind)
    separate_head(model, {"input_ids": batch_of()["input_ids"][:1]})
    assert (model.lmtasks_head.last is model.get_output_embeddings()) is plain


@pytest.mark.parametrize("way", ["twice", "its own bias"])
def test_a_last_layer_that_is_not_all_is_left_to_autograd(way: str) -> None:
    """Its weight is used once more, or a bias of zeros, which is to be learned, is added after it (ESM)."""
    model = Odd(way)
    plain = gradients(copy.deepcopy(model), "bert", batch_of())
    assert separate_head(model, {"input_ids": batch_of()["input_ids"][:1]}) is None
    assert distance(plain[2], gradients(model, "bert", batch_of())[2]) < 2e-6


@pytest.mark.parametrize(("kind", "most"), [("llama", 6 * 19), ("gemma2", 5 * 100)])
def test_logits_never_exist_at_once(kind: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of(kind)  # gemma2 does something to the output of its last layer
    separate_head(model, {"input_ids": batch_of()["input_ids"][:1]})
    monkeypatch.setattr(heads, "PIECE", 5 * 100)
    monkeypatch.setattr(projection, "PIECE", 6 * 19)
    monkeypatch.setattr(projection, "TOKENS", 19)
    seen: list[int] = []

    def watched(function: Any, *arguments: Any, **more: Any) -> Any:
        made = function(*arguments, **more)
        if made.shape[-1] not in (32, 64):  # of the body
            seen.append(made.numel())
        return made

    linear = nn.functional.linear
    monkeypatch.setattr(nn.functional, "linear", lambda *given, **more: watched(linear, *given, **more))
    total, targets, _ = causal_loss(model, batch_of(1.0))
    total.backward()
    assert int(targets) == 3 * 19
    assert max(seen) == most


@pytest.mark.parametrize("left", [0, 40 * 19 * 4, 1 << 20])
def test_what_is_kept_for_the_gradient_changes_nothing_about_it(left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing, a part, or all; and a second time, when nothing is left of it."""
    monkeypatch.setattr(projection, "PIECE", 20 * 19)
    monkeypatch.setattr(projection, "KEPT", left)
    monkeypatch.setattr(projection, "SPARE", left)
    torch.manual_seed(0)
    features, weight, bias = (torch.randn(*shape, requires_grad=True) for shape in ((19, 8), (101, 8), (101,)))
    labels = torch.randint(0, 101, (19,))
    oracle = nn.functional.cross_entropy(
        (features.double() @ weight.double().t() + bias.double()), labels, reduction="sum"
    )
    total = projection.projected_total(features, labels, weight, bias)
    assert total.item() == pytest.approx(oracle.item(), rel=1e-6)
    expected = torch.autograd.grad(oracle, (features, weight, bias))
    for _ in range(2):
        found = torch.autograd.grad(total, (features, weight, bias), retain_graph=True)
        for one, other in zip(found, expected, strict=True):
            assert torch.allclose(one, other, atol=1e-5)


def test_a_part_of_a_batch_keeps_its_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "PIECE", 20 * 19)
    monkeypatch.setattr(projection, "KEPT", 4 * 20 * 19 * 4)
    features, weight = torch.randn(19, 8), torch.randn(101, 8, requires_grad=True)
    kept = []
    for share in (1.0, 0.5):
        with projection.keeping(share):
            pieces = projection.projected_total(features, torch.arange(19), weight, None).grad_fn.kept
            kept.append(sum(chances.shape[1] for chances, *_ in pieces))
    assert kept == [4 * 20, 4 * 10], "as many pieces, each of half the words"


def test_a_part_of_a_batch_is_cut_as_the_whole() -> None:
    """So the sizes of its tensors say those of the whole: rows of the weight are as many, tokens its share."""
    whole = [*projection._pieces(32_000, 3_000)]
    with projection.keeping(1 / 8):
        part = [*projection._pieces(32_000, 375)]
    assert [words for words, _ in part] == [words for words, _ in whole]
    assert [8 * tokens.start for _, tokens in part] == [tokens.start for _, tokens in whole]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighed", [False, True])
def test_projection_that_does_not_learn_is_gone_through_once(
    smoothing: float, weighed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Piece by piece, in an order in which the largest logits come first, last and between."""
    monkeypatch.setattr(projection, "PIECE", 20 * 19)
    torch.manual_seed(0)
    features, weight, bias = torch.randn(19, 8, requires_grad=True), torch.randn(101, 8) * 3, torch.randn(101)
    labels, scales = torch.randint(0, 101, (19,)), torch.rand(19) if weighed else None
    logits = features.double() @ weight.double().t() + bias.double()
    smoothed = nn.functional.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing)
    plain = nn.functional.cross_entropy(logits, labels, reduction="none")
    share = 1.0 if scales is None else scales
    [expected] = torch.autograd.grad((smoothed * share).sum(), features)

    made: list[int] = []
    product = nn.functional.linear
    monkeypatch.setattr(nn.functional, "linear", lambda *given: (made.append(1), product(*given))[1])
    total = projection.projected_total(features, labels, weight, bias, smoothing, scales)
    pieces = len(made)
    (total * 3).backward()
    assert pieces == len(made) == 6, "logits are made once, six times twenty words of them"
    assert total.item() == pytest.approx((plain * share).sum().item(), rel=1e-6)
    assert distance({"": features.grad}, {"": 3 * expected}) < 1e-6


@pytest.mark.parametrize("learns", [True, False])
def test_gradient_of_a_token_that_is_nearly_certain_is_exact_in_half_precision(learns: bool) -> None:
    """One less its probability, taken in bfloat16, would be nothing, or four times as much."""
    features, weight = torch.eye(8)[:1].requires_grad_(), torch.zeros(100, 8)
    weight[3, 0] = 12.0
    weight.requires_grad_(learns)
    with torch.autocast("cpu", torch.bfloat16):
        total = projection.projected_total(features, torch.tensor([3]), weight, None)
    total.backward()
    doubt = 99 / (99 + math.exp(12))
    assert total.item() == pytest.approx(-math.log1p(-doubt), rel=1e-3)
    assert features.grad[0, 0].item() == pytest.approx(-12 * doubt, rel=1e-2)
    if learns:
        assert weight.grad[3, 0].item() == pytest.approx(-doubt, rel=1e-2)
        assert weight.grad[:, 0].sum().item() == pytest.approx(0, abs=doubt * 1e-2)


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_everything_else_about_the_model_is_as_before(kind: str, tmp_path: Path) -> None:
    model = model_of(kind)
    ids = batch_of()["input_ids"]
    plain = model(input_ids=ids, labels=ids)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    separate_head(model, {"input_ids": ids[:1]})
    again = model(input_ids=ids, labels=ids)
    assert torch.equal(again.logits, plain.logits)
    assert torch.equal(again.loss, plain.loss)
    assert model.state_dict().keys() == weights.keys()
    model.save_pretrained(tmp_path)
    assert torch.equal(type(model).from_pretrained(tmp_path)(input_ids=ids).logits, plain.logits)
    if kind == "gpt2":
        assert model.generate(ids[:1, :3], max_new_tokens=3, do_sample=False).shape == (1, 6)
    model.lmtasks_head.remove()
    assert not separated(model)
    assert "forward" not in vars(model) and "forward" not in vars(model.base_model)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_no_target_is_zero_of_zero_with_a_gradient_of_zero(kind: str) -> None:
    model = model_of(kind)
    separate_head(model, {"input_ids": batch_of()["input_ids"][:1]})
    total, targets, found = gradients(model, kind, batch_of(0.0))
    assert (total, targets) == (0.0, 0)
    assert all(one is None or not one.any() for one in found.values())


@pytest.mark.parametrize("kind", ["roberta", "gpt2"])
def test_frozen_parameters_stay_without_a_gradient(kind: str) -> None:
    model = model_of(kind)
    frozen = [name for name, _ in model.named_parameters() if "bias" in name]
    for name in frozen:
        model.get_parameter(name).requires_grad_(False)
    plain = gradients(model, kind, batch_of())
    separate_head(model, {"input_ids": batch_of()["input_ids"][:1]})
    fast = gradients(model, kind, batch_of())
    assert all(fast[2][name] is None for name in frozen)
    assert distance(plain[2], fast[2]) < 2e-6


@pytest.mark.parametrize("kind", ["roberta", "llama"])
@pytest.mark.usefixtures("piece")
def test_in_bfloat16_it_is_as_near_to_float32_as_the_plain_path(kind: str) -> None:
    model, batch = model_of(kind), batch_of()
    exact = gradients(model, kind, batch)
    with torch.autocast("cpu", torch.bfloat16):
        plain = gradients(model, kind, batch)
    separate_head(model, {"input_ids": batch["input_ids"][:1]})
    with torch.autocast("cpu", torch.bfloat16):
        fast = gradients(model, kind, batch)
    assert fast[0] == pytest.approx(exact[0], rel=1e-2)
    assert distance(exact[2], fast[2]) < 1.5 * distance(exact[2], plain[2]) + 1e-3
    assert all(one is None or one.dtype == torch.float32 for one in fast[2].values())


@pytest.mark.parametrize("kind", ["roberta", "gpt2", "gemma2"])
def test_in_bfloat16_numbers_of_targets_are_few(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows without weight fill them up, and neither loss nor gradients feel these; in float32 there are none."""
    model, batch = model_of(kind), batch_of(0.45)
    separate_head(model, {"input_ids": batch["input_ids"][:1]})
    filled, seen = heads._filled, list[int]()

    def counted(*given: Any) -> Any:
        done = filled(*given)
        seen.append(len(done[0]))
        return done

    monkeypatch.setattr(heads, "_filled", counted)
    found = []
    for rows in (16, 1):
        monkeypatch.setattr(last_layer, "ROWS", rows)
        with torch.autocast("cpu", torch.bfloat16):
            found.append(gradients(model, kind, batch))
    gradients(model, kind, batch)
    (total, count, slopes), (right, number, others) = found
    assert number == count == seen[1] == seen[2] < seen[0] < count + 16 and seen[0] % 16 == 0
    assert total == pytest.approx(right, rel=1e-3) and distance(others, slopes) < 1e-2


@pytest.mark.parametrize("kind", ["bert", "gpt2"])
def test_isolated_documents_go_well_with_it(kind: str) -> None:
    model = model_of(kind)
    isolate(model, MASKED_LM if kind in MASKED else CAUSAL_LM)
    batch = {**batch_of(), "document_ids": torch.arange(20).div(7, rounding_mode="floor").expand(3, 20)}
    plain = gradients(model, kind, batch)
    separate_head(model, {name: batch[name][:1] for name in ("input_ids", "document_ids")})
    fast = gradients(model, kind, batch)
    assert fast[0] == pytest.approx(plain[0], rel=1e-6)
    assert distance(plain[2], fast[2]) < 2e-6


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_gradient_checkpointing_goes_well_with_it() -> None:
    model = model_of("llama").train()
    plain = gradients(model, "llama", batch_of(0.2))
    separate_head(model, {"input_ids": batch_of()["input_ids"][:1]})
    model.gradient_checkpointing_enable()
    fast = gradients(model, "llama", batch_of(0.2))
    assert distance(plain[2], fast[2]) < 2e-6


# --- models that do not allow it ---


class OddConfig(PretrainedConfig):
    model_type = "odd"
    hidden_size: int = 8
    vocab_size: int = 100


class Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 8)

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        return BaseModelOutput(last_hidden_state=self.embedding(input_ids))


class Odd(PreTrainedModel):
    """A model with a body and a head that goes its own way."""

    config_class = OddConfig
    base_model_prefix = "body"

    def __init__(self, way: str) -> None:
        super().__init__(OddConfig())
        self.way = way
        self.body = Body()
        self.head = nn.Linear(8, 100)
        self.bias = nn.Parameter(torch.zeros(100))
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.body.embedding

    def get_output_embeddings(self) -> nn.Module:
        return self.head

    def forward(self, input_ids: torch.Tensor, **_: Any) -> Any:
        states = self.body(input_ids)
        if self.way == "a tuple":
            states = (states.last_hidden_state,)
        states = states[0]
        if self.way == "neighbours":
            states = states + states.roll(1, dims=1)
        if self.way == "places":
            states = states * torch.arange(1, states.shape[1] + 1)[None, :, None]
        if self.way == "beside the body":
            states = self.body.embedding(input_ids)
        if self.way == "twice":
            states = states + states @ self.head.weight.t() @ self.head.weight / 100
        if self.way == "by the way":
            states = states + self.body.embedding(input_ids)
        return MaskedLMOutput(logits=self.head(states) + self.bias if self.way == "its own bias" else self.head(states))


@pytest.mark.parametrize("way", ["neighbours", "places", "by the way"])
def test_a_head_that_needs_more_than_the_states_is_left_alone(way: str) -> None:
    torch.manual_seed(0)
    model = Odd(way)
    ids = batch_of()["input_ids"]
    plain = gradients(copy.deepcopy(model), "bert", batch_of())
    reason = separate_head(model, {"input_ids": ids[:1]})
    assert reason and "\n" not in reason
    assert not separated(model)
    assert "forward" not in vars(model)
    again = gradients(model, "bert", batch_of())
    assert again[:2] == plain[:2]
    assert distance(plain[2], again[2]) == 0


def test_a_model_without_a_body_is_left_alone() -> None:
    model = Odd("straight")
    assert separate_head(model, {"input_ids": batch_of()["input_ids"][:1]}) is None
    bare = Odd("straight")
    bare.base_model_prefix = "nothing"
    bare.children = lambda: iter(())
    assert separate_head(bare, {"input_ids": batch_of()["input_ids"][:1]}) == "it has no body apart from its head"


def test_a_body_that_is_not_called_so_is_found() -> None:
    model = model_of("llama4_text")
    assert model.base_model is model
    plain = gradients(model, "llama4_text", batch_of())
    assert separate_head(model, {"input_ids": batch_of()["input_ids"][:1]}) is None
    fast = gradients(model, "llama4_text", batch_of())
    assert fast[:2] == (pytest.approx(plain[0], rel=1e-6), plain[1])
    assert distance(plain[2], fast[2]) < 2e-6


def test_a_loss_of_the_router_has_its_gradient_and_stays_out_of_the_figure() -> None:
    model = model_of("mixtral")
    plain = causal_loss(model, batch_of())[0].item()
    model.config.output_router_logits, model.config.router_aux_loss_coef = True, 0.5
    model.router_aux_loss_coef = 0.5
    reason = separate_head(model, {"input_ids": batch_of()["input_ids"][:1]})
    assert reason == "the loss of its router is made with the logits"
    batch = batch_of()
    total, count, _ = causal_loss(model, batch)
    assert total.item() == pytest.approx(plain, rel=1e-6)
    parameters = list(model.parameters())
    ours = torch.autograd.grad(total / count, parameters)
    outputs = model(input_ids=batch["input_ids"])
    told = nn.functional.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())
    right = torch.autograd.grad(told + 0.5 * outputs.aux_loss, parameters)
    for one, other in zip(ours, right, strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-7)


def test_the_forward_pass_may_be_bound_as_accelerate_leaves_it_after_bfloat16() -> None:
    model = model_of("gpt2")
    inputs = {"input_ids": batch_of()["input_ids"]}
    expected = model(**inputs).logits
    assert separate_head(model, {"input_ids": inputs["input_ids"][:1]}) is None
    model.forward = MethodType(model.forward, model)
    assert torch.equal(model(**inputs).logits, expected)
    assert torch.equal(model(inputs["input_ids"]).logits, expected)
    assert causal_loss(model, batch_of())[1] > 0


@pytest.mark.parametrize("recipe", ["masked-lm", "causal-lm"])
def test_a_run_with_it_ends_where_one_without_it_does(
    recipe: str, text_file: Path, model_folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = "roberta" if recipe == "masked-lm" else "gpt2"
    more = {"model": str(model_folders[kind]), "train_file": str(text_file), "block_size": 16, "max_steps": 6,
            "learning_rate": 1e-3, "optim": "sgd"}  # fmt: skip
    fast = run(recipe, output_dir=str(tmp_path / "fast"), **more)
    monkeypatch.setattr("lmtasks.runs.checks.separate_head", lambda model, inputs: "not today")
    plain = run(recipe, output_dir=str(tmp_path / "plain"), **more)
    assert "the head runs on every position: not today" in plain.plan.notes
    assert not any("head" in note for note in fast.plan.notes)
    for name in ("eval_loss", "train_loss", "perplexity"):
        assert fast.metrics[name] == pytest.approx(plain.metrics[name], rel=1e-5)
    assert fast.metrics["eval_targets"] == plain.metrics["eval_targets"]
