"""QDQBERT: its arithmetic by hand, its likeness to BERT, its calibration, and its use."""

import math
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lmtasks_qdqbert.__main__ import main
from lmtasks_qdqbert.model import (
    QDQBertConfig,
    QDQBertForMaskedLM,
    QDQBertLMHeadModel,
    QuantizedLinear,
    Quantizer,
    quantized_weight,
)
from safetensors.torch import load_file
from torch.nn import functional
from transformers import AutoTokenizer, BertConfig, BertForMaskedLM, BertLMHeadModel, PreTrainedModel

import lmtasks
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.models.lm_head import separate_head

TEXT = "the quick brown fox jumps over the lazy dog. " * 200
SHAPE = (
    "hidden_size=64,num_hidden_layers=2,num_attention_heads=4,intermediate_size=128,"
    "hidden_dropout_prob=0.0,attention_probs_dropout_prob=0.0,initializer_range=0.1"
)
DATA = {"train_tokenizer": 300, "train_dataset": [TEXT] * 4, "test_size": 0.25, "block_size": 32}
FIELDS = {
    "vocab_size": 50,
    "hidden_size": 24,
    "num_attention_heads": 3,
    "intermediate_size": 20,
    "num_hidden_layers": 2,
    "hidden_dropout_prob": 0.0,
    "attention_probs_dropout_prob": 0.0,
}


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    lmtasks.register_architectures()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> lmtasks.Run:
    return lmtasks.run(
        "masked-lm",
        model_type="qdqbert",
        config_overrides=f"{SHAPE},calibration_batches=4",
        learning_rate=5e-3,
        num_train_epochs=8,
        warmup_steps=0,  # ranges are taken of the first batches, when weights must have moved already
        adam_beta2=0.999,
        per_device_train_batch_size=8,
        output_dir=str(tmp_path_factory.mktemp("qdqbert") / "out"),
        **DATA,
    )


def bert(model_class: type[PreTrainedModel] = BertForMaskedLM, **fields: Any) -> PreTrainedModel:
    """A small random BERT that would show a mistake: no weight is near zero."""
    torch.manual_seed(0)
    model = model_class._from_config(BertConfig(**FIELDS, **fields), attn_implementation="eager").eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def like(model: PreTrainedModel, **fields: Any) -> PreTrainedModel:
    """QDQBERT with the weights of a BERT."""
    causal = isinstance(model, BertLMHeadModel)
    config = QDQBertConfig(**FIELDS, is_decoder=causal, **{"calibration_batches": 1, **fields})
    made = (QDQBertLMHeadModel if causal else QDQBertForMaskedLM)(config).eval()
    made.load_state_dict(model.state_dict(), strict=False)
    return made


def batch(seed: int = 1) -> dict[str, torch.Tensor]:
    """Two texts, the second one padded."""
    ids = torch.randint(50, (2, 11), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    mask[1, 8:] = 0
    return {"input_ids": ids, "attention_mask": mask}


def watch(model: PreTrainedModel, *seeds: int) -> None:
    model.train()
    for seed in seeds:
        model(**batch(seed))
    model.eval()


def ranges(model: PreTrainedModel) -> dict[str, float]:
    return {name: float(value) for name, value in model.state_dict().items() if name.endswith("amax")}


# Arithmetic, by hand


def rounded(values: torch.Tensor, amax: torch.Tensor | float) -> torch.Tensor:
    """What the papers say: scale, round, cut off, scale back."""
    scale = amax / 127
    return (values / scale).round().clamp(-127, 127) * scale


def a_node(amax: float) -> Quantizer:
    node = Quantizer(100)
    node.amax.fill_(amax)
    node.mode = "on"
    return node


def test_an_activation_is_rounded_to_a_grid_and_cut_off() -> None:
    values = torch.tensor([0.0, 0.004, 0.006, -0.026, 1.27, 1.3, -500.0])
    expected = torch.tensor([0.0, 0.0, 0.01, -0.03, 1.27, 1.27, -1.27])
    torch.testing.assert_close(a_node(1.27)(values), expected)
    values = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(a_node(2.0)(values), rounded(values, 2.0))


def test_gradients_pass_as_they_are_and_stop_beyond_the_range() -> None:
    values = torch.tensor([-2.0, -1.0, 0.1234, 0.99, 1.1], requires_grad=True)
    a_node(1.0)(values).backward(torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0]))
    assert values.grad.tolist() == [0.0, 2.0, 3.0, 4.0, 0.0]


def test_a_weight_has_a_scale_for_each_output_and_all_of_its_gradient() -> None:
    weight = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)) * torch.tensor([[1e-3], [1], [9], [50], [0]])
    weight.requires_grad_()
    made = quantized_weight(weight)
    torch.testing.assert_close(made[:4], rounded(weight, weight.abs().amax(1, keepdim=True))[:4])
    assert not made[4].any()
    made.sum().backward()
    assert torch.equal(weight.grad, torch.ones(5, 7))


def test_values_that_are_all_zero_stay_zero() -> None:
    assert not a_node(0.0)(torch.zeros(3)).any()


# BERT without its nodes


@pytest.mark.parametrize("model_class", [BertForMaskedLM, BertLMHeadModel])
def test_before_any_training_it_is_bert_to_the_last_bit(model_class: type[PreTrainedModel]) -> None:
    model = bert(model_class, is_decoder=model_class is BertLMHeadModel)
    assert torch.equal(like(model)(**batch()).logits, model(**batch()).logits)


def test_while_the_nodes_watch_it_trains_as_bert_to_the_last_bit() -> None:
    def gradients(model: PreTrainedModel) -> list[torch.Tensor]:
        return torch.autograd.grad(model.train()(**batch()).logits.square().sum(), list(model.parameters()))

    model = bert()
    assert all(torch.equal(*pair) for pair in zip(gradients(like(model)), gradients(model), strict=True))


@pytest.mark.parametrize("fields", [{}, {"tie_word_embeddings": False}], ids=str)
def test_checkpoints_of_bert_load_with_nothing_missing(fields: dict[str, Any], tmp_path: Path) -> None:
    model = bert(**fields)
    model.save_pretrained(tmp_path)
    config = QDQBertConfig(**FIELDS, **fields)
    loaded, report = QDQBertForMaskedLM.from_pretrained(tmp_path, config=config, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert torch.equal(loaded(**batch()).logits, model(**batch()).logits)


def test_nodes_that_never_watch_are_never_on() -> None:
    model = bert()
    made = like(model, calibration_batches=0)
    watch(made, 1, 2)
    assert torch.equal(made(**batch()).logits, model(**batch()).logits)


# BERT with its nodes


def defined(model: PreTrainedModel, inputs: dict[str, torch.Tensor], causal: bool) -> torch.Tensor:
    """The logits by the equations, one head at a time."""
    config, of = model.config, model.state_dict()
    size = config.hidden_size // config.num_attention_heads

    def node(values: torch.Tensor, name: str) -> torch.Tensor:
        return rounded(values, of[f"{name}.amax"])

    def linear(states: torch.Tensor, name: str) -> torch.Tensor:
        weight = of[f"{name}.weight"]
        if f"{name}.input_quantizer.amax" in of:
            states = node(states, f"{name}.input_quantizer")
            weight = rounded(weight, weight.abs().amax(1, keepdim=True))
        return states @ weight.T + of[f"{name}.bias"]

    def normed(states: torch.Tensor, name: str) -> torch.Tensor:
        weight, bias = of[f"{name}.LayerNorm.weight"], of[f"{name}.LayerNorm.bias"]
        return functional.layer_norm(states, (config.hidden_size,), weight, bias, config.layer_norm_eps)

    def residual(new: torch.Tensor, old: torch.Tensor, name: str) -> torch.Tensor:
        new = linear(new, f"{name}.dense")
        return normed(node(new, f"{name}.new_quantizer") + node(old, f"{name}.residual_quantizer"), name)

    def attention(states: torch.Tensor, hidden: torch.Tensor, name: str) -> torch.Tensor:
        query, key, value = (
            node(linear(states, f"{name}.{part}"), f"{name}.{part}_quantizer") for part in ("query", "key", "value")
        )
        heads = []
        for head in range(config.num_attention_heads):
            part = slice(head * size, (head + 1) * size)
            scores = (query[:, part] @ key[:, part].T / math.sqrt(size)).masked_fill(hidden, -math.inf)
            heads.append(node(scores.softmax(-1), f"{name}.weights_quantizer") @ value[:, part])
        return torch.cat(heads, dim=-1)

    rows = []
    for ids, mask in zip(*inputs.values(), strict=True):
        hidden = ~mask.bool().expand(len(ids), -1)
        if causal:
            hidden = hidden | torch.ones_like(hidden).triu(1)
        embedded = of["bert.embeddings.word_embeddings.weight"][ids]
        embedded = embedded + of["bert.embeddings.position_embeddings.weight"][: len(ids)]
        states = normed(embedded + of["bert.embeddings.token_type_embeddings.weight"][0], "bert.embeddings")
        for number in range(config.num_hidden_layers):
            name = f"bert.encoder.layer.{number}"
            states = residual(attention(states, hidden, f"{name}.attention.self"), states, f"{name}.attention.output")
            inner = functional.gelu(linear(states, f"{name}.intermediate.dense"))
            states = residual(inner, states, f"{name}.output")
        head = functional.gelu(linear(states, "cls.predictions.transform.dense"))
        rows.append(linear(normed(head, "cls.predictions.transform"), "cls.predictions.decoder"))
    return torch.stack(rows)


@pytest.mark.parametrize("model_class", [BertForMaskedLM, BertLMHeadModel])
@pytest.mark.parametrize("percentile", [100, 95])
def test_logits_are_those_of_the_definition(model_class: type[PreTrainedModel], percentile: float) -> None:
    causal = model_class is BertLMHeadModel
    plain = bert(model_class, is_decoder=causal)
    model = like(plain, calibration_percentile=percentile)
    watch(model, 1)
    inputs = batch(2)
    seen = inputs["attention_mask"].bool()
    logits = model(**inputs).logits[seen]
    effect = (logits - plain(**inputs).logits[seen]).abs().mean()
    assert effect > 1e-3
    # Whatever rounds the other way on another machine moves them by far less than a node does.
    assert (logits - defined(model, inputs, causal)[seen]).abs().mean() < 0.02 * effect


def test_every_value_behind_a_node_is_an_8_bit_integer_times_its_scale() -> None:
    model = like(bert(), calibration_percentile=99)
    watch(model, 1)
    seen = []

    def look(node: Quantizer, inputs: Any, output: torch.Tensor) -> None:
        integers = output.detach() / (node.amax / 127)
        torch.testing.assert_close(integers, integers.round(), atol=1e-3, rtol=0)
        seen.append(float(integers.abs().max()))

    nodes = [module for module in model.modules() if isinstance(module, Quantizer)]
    for node in nodes:
        node.register_forward_hook(look)
    model(**batch(2))
    # In each layer: query, key, value, two factors twice, three further projections, two sums of two.
    assert len(seen) == len(nodes) == 2 * (3 + 4 + 3 + 4)
    assert max(seen) == pytest.approx(127, abs=1e-3)


def test_what_is_left_out_is_the_head() -> None:
    linear = {name: type(module) for name, module in bert().named_modules() if isinstance(module, torch.nn.Linear)}
    made = dict(like(bert()).named_modules())
    assert {name for name in linear if not isinstance(made[name], QuantizedLinear)} == {
        "cls.predictions.transform.dense",
        "cls.predictions.decoder",
    }


# Calibration


def test_a_range_takes_in_the_percentile_of_the_widest_batch() -> None:
    for percentile, expected in [(100, 30.0), (99, 29.7), (50, 15.0)]:
        node = Quantizer(percentile)
        node.mode = "watching"
        for factor in (0.1, -0.3, 0.2):
            values = factor * torch.arange(101)  # 0 to 100: the percentile is the value
            assert torch.equal(node(values), values)
        assert float(node.amax) == pytest.approx(expected)


def test_ranges_come_from_the_first_training_batches_only() -> None:
    model = like(bert(), calibration_batches=2, calibration_percentile=100)
    model(**batch(1))
    assert not any(ranges(model).values()), "nothing was trained"
    watch(model, 2, 3)
    both = ranges(model)
    alone = [like(bert(), calibration_percentile=100) for _ in range(2)]
    for seed, one in zip((2, 3), alone, strict=True):
        watch(one, seed)
    assert both == {name: max(value, ranges(alone[1])[name]) for name, value in ranges(alone[0]).items()}
    watch(model, 4, 5)
    assert ranges(model) == both, "they stay"


def test_the_nodes_are_on_after_calibration_in_training_too() -> None:
    model = like(bert())
    watch(model, 1)
    evaluated = model(**batch(2)).logits
    assert torch.equal(model.train()(**batch(2)).logits, evaluated)


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")  # its new name is not in 5.20
def test_layers_that_are_computed_twice_count_once() -> None:
    def trained(model: PreTrainedModel) -> tuple[dict[str, float], list[torch.Tensor]]:
        slopes = []
        for seed in (1, 2, 3):
            loss = model.train()(**batch(seed)).logits.square().sum()
            slopes += torch.autograd.grad(loss, list(model.parameters()))
        return ranges(model), slopes

    plain, recomputed = like(bert(), calibration_batches=2), like(bert(), calibration_batches=2)
    recomputed.gradient_checkpointing_enable({"use_reentrant": False})
    (one, slopes), (other, others) = trained(plain), trained(recomputed)
    assert one == other
    assert int(recomputed.bert.batches_watched) == 2
    assert all(torch.equal(*pair) for pair in zip(slopes, others, strict=True))


def test_a_saved_model_gives_the_same_logits(tmp_path: Path) -> None:
    model = like(bert(), calibration_batches=3)
    watch(model, 1, 2)
    model.save_pretrained(tmp_path)
    loaded, report = QDQBertForMaskedLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert torch.equal(loaded(**batch(3)).logits, model(**batch(3)).logits)
    watch(model, 3, 4)
    watch(loaded, 3, 4)
    assert ranges(loaded) == ranges(model), "the calibration has gone on where it was"


# In use


def test_the_plugin_is_in_the_catalog() -> None:
    catalog = lmtasks.load_catalog()
    assert not [plugin for plugin in catalog.plugins if plugin.name == "qdqbert" and plugin.broken]
    tiny = QDQBertConfig(**catalog.architectures["qdqbert"].tiny)
    assert sum(parameter.numel() for parameter in QDQBertForMaskedLM(tiny).parameters()) < 2_000_000


def test_it_learns(run: lmtasks.Run) -> None:
    assert run.metrics["eval_loss"] < 0.5 * run.metrics["unigram_loss"]
    weights = load_file(Path(run.output_dir, "model.safetensors"))
    assert int(weights["bert.batches_watched"]) == 4
    assert all(float(value) > 0 for name, value in weights.items() if name.endswith("amax"))


def test_the_saved_model_gives_the_same_figures(run: lmtasks.Run) -> None:
    figures = lmtasks.evaluate(run.output_dir, eval_dataset=[TEXT])
    assert figures["eval_loss"] == pytest.approx(run.metrics["eval_loss"], rel=1e-5)


def test_it_fills_in_a_word(run: lmtasks.Run) -> None:
    guesses = run.predict("the quick brown<mask> jumps over the lazy dog. the quick brown fox", top_k=1)
    assert "fox" in guesses[0]["token_str"]


def test_8_bits_cost_a_trained_model_little(run: lmtasks.Run, tmp_path: Path) -> None:
    """Its weights are a BERT, which gives nearly the same figures."""
    config = BertConfig.from_pretrained(run.output_dir)
    plain, report = BertForMaskedLM.from_pretrained(run.output_dir, config=config, output_loading_info=True)
    assert not report["missing_keys"]
    plain.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(run.output_dir).save_pretrained(tmp_path)
    figures = lmtasks.evaluate(tmp_path, recipe="masked-lm", eval_dataset=[TEXT], block_size=32)
    assert figures["eval_loss"] != run.metrics["eval_loss"]
    # How little depends on where training has led, and that on how sums are rounded.
    assert figures["eval_loss"] == pytest.approx(run.metrics["eval_loss"], abs=0.1 * run.metrics["unigram_loss"])


def test_its_head_runs_on_its_own() -> None:
    assert separate_head(like(bert()), batch()) is None


def test_the_next_word(tmp_path: Path) -> None:
    run = lmtasks.run(
        "causal-lm",
        model_type="qdqbert",
        config_overrides=f"{SHAPE},calibration_batches=4,is_decoder=true",
        learning_rate=5e-3,
        num_train_epochs=4,
        output_dir=str(tmp_path / "out"),
        **DATA,
    )
    assert run.metrics["eval_loss"] < 0.5 * run.metrics["unigram_loss"]
    answers = [
        run.predict("the quick brown", max_new_tokens=6, do_sample=False, use_cache=cached) for cached in (True, False)
    ]
    assert answers[0] == answers[1]
    assert "fox" in answers[0][0]["generated_text"]


def test_from_a_bert_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = lmtasks.run(
        "masked-lm",
        model_type="bert",
        config_overrides=SHAPE,
        max_steps=20,
        learning_rate=5e-3,
        output_dir=str(tmp_path / "bert"),
        **DATA,
    )
    start = tmp_path / "start"
    monkeypatch.setattr(sys, "argv", ["lmtasks_qdqbert", str(plain.output_dir), str(start)])
    main()
    before = lmtasks.evaluate(start, recipe="masked-lm", eval_dataset=[TEXT], block_size=32)
    assert before["eval_loss"] == pytest.approx(plain.metrics["eval_loss"], rel=1e-5)
    data = {name: value for name, value in DATA.items() if name != "train_tokenizer"}
    tuned = lmtasks.run("masked-lm", model=start, max_steps=30, output_dir=str(tmp_path / "tuned"), **data)
    assert tuned.metrics["eval_loss"] < 1.2 * plain.metrics["eval_loss"]
    assert int(load_file(tmp_path / "tuned" / "model.safetensors")["bert.batches_watched"]) == 16


@pytest.mark.parametrize(
    ("source", "target", "says"),
    [
        ("a run of qdqbert", "start", "is no BERT checkpoint"),
        ("a run of qdqbert", "there", "'there' is there already"),
        ("./there", "start", "'./there' cannot be read"),
    ],
)
def test_what_cannot_be_taken_over_is_refused(
    source: str,
    target: str,
    says: str,
    run: lmtasks.Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("there").mkdir()
    monkeypatch.setattr(sys, "argv", ["", str(run.output_dir) if source == "a run of qdqbert" else source, target])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert says in capsys.readouterr().err.splitlines()[-1]
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


@pytest.mark.parametrize("batches", [2, 6], ids=["after calibration", "in the middle of it"])
def test_an_interrupted_run_goes_on_to_the_last_bit(batches: int, tmp_path: Path) -> None:
    calls = iter(range(1000))

    def interrupting_loss(model: torch.nn.Module, batch: dict[str, Any]) -> Any:
        # The first two calls measure memory, before training.
        if model.training and torch.is_grad_enabled() and next(calls) == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return MASKED_LM.loss(model, batch)

    def start(loss: Callable[..., Any], folder: str, **more: Any) -> Any:
        return lmtasks.run(
            replace(MASKED_LM, loss=loss) if loss is not MASKED_LM.loss else "masked-lm",
            model_type="qdqbert",
            config_overrides=f"{SHAPE},calibration_batches={batches}",
            max_steps=9,
            output_dir=str(tmp_path / folder),
            **DATA,
            **more,
        )

    with pytest.raises(lmtasks.Interrupted):
        start(interrupting_loss, "out")
    assert [path.name for path in (tmp_path / "out" / "checkpoints").iterdir()] == ["checkpoint-4"]
    start(MASKED_LM.loss, "out", resume_from_checkpoint=True)
    start(MASKED_LM.loss, "whole")
    one, other = (load_file(tmp_path / folder / "model.safetensors") for folder in ("out", "whole"))
    assert all(torch.equal(one[name], other[name]) for name in other)
    assert int(one["bert.batches_watched"]) == batches


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ("calibration_batches=-1", "at least 0"),
        ("calibration_percentile=0", "above 0"),
        ("calibration_percentile=101", "at most 100"),
        ("is_decoder=true,add_cross_attention=true", "no cross-attention"),
    ],
)
def test_what_it_cannot_be_is_refused(field: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(lmtasks.InputError, match=says):
        lmtasks.run(
            "masked-lm",
            model_type="qdqbert",
            config_overrides=f"{SHAPE},{field}",
            output_dir=str(tmp_path / "out"),
            **DATA,
        )
