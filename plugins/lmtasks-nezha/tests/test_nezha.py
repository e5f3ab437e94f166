"""NEZHA against the weights and figures of another implementation, against its definition, and in use."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from lmtasks_nezha.model import NezhaConfig, NezhaForMaskedLM, relative_positions
from safetensors.torch import load_file, save_file
from torch.nn import functional
from transformers import AutoModelForMaskedLM

import lmtasks
from lmtasks.models.lm_head import separate_head

REFERENCES = sorted((Path(__file__).parent / "reference").iterdir())
TEXT = "the quick brown fox jumps over the lazy dog. " * 200
SHAPE = (
    "hidden_size=64,num_hidden_layers=2,num_attention_heads=4,intermediate_size=128,max_relative_position=4,"
    "hidden_dropout_prob=0.0,attention_probs_dropout_prob=0.0,initializer_range=0.1"
)


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    lmtasks.register_architectures()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> lmtasks.Run:
    folder = tmp_path_factory.mktemp("nezha")
    return lmtasks.run(
        "masked-lm",
        model_type="nezha",
        config_overrides=SHAPE,
        train_tokenizer=300,
        train_dataset=[TEXT] * 4,
        test_size=0.25,
        block_size=32,
        learning_rate=5e-3,
        num_train_epochs=6,
        per_device_train_batch_size=8,
        output_dir=str(folder / "out"),
    )


def made(**fields: Any) -> NezhaForMaskedLM:
    """A small random model that would show a mistake: no weight is near zero."""
    torch.manual_seed(0)
    shape = {"vocab_size": 50, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 20}
    config = NezhaConfig(**{**shape, "num_hidden_layers": 2, "max_relative_position": 3, **fields})
    model = NezhaForMaskedLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def batch() -> dict[str, torch.Tensor]:
    """Two texts of two segments, the second one padded."""
    inputs = {
        "input_ids": torch.randint(50, (2, 11), generator=torch.Generator().manual_seed(1)),
        "token_type_ids": (torch.arange(11) > 5).long().expand(2, -1),
        "attention_mask": torch.ones(2, 11, dtype=torch.long),
    }
    inputs["attention_mask"][1, 8:] = 0
    return inputs


# Against another implementation


@pytest.mark.parametrize("folder", REFERENCES, ids=lambda folder: folder.name)
def test_logits_loss_and_gradients_are_those_of_the_reference(folder: Path) -> None:
    model, report = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    expected = load_file(folder / "expected.safetensors")
    outputs = model(**{name: expected[name] for name in ("input_ids", "attention_mask", "labels")})
    torch.testing.assert_close(outputs.logits, expected["logits"], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(outputs.loss, expected["loss"], atol=1e-5, rtol=1e-5)
    outputs.loss.backward()
    norms = {name: float(parameter.grad.norm()) for name, parameter in model.named_parameters()}
    assert norms == pytest.approx(json.loads((folder / "gradient_norms.json").read_text()), abs=1e-5)


# Against the definition


def vector(distance: int, size: int, limit: int) -> list[float]:
    place = max(-limit, min(limit, distance)) + limit
    return [
        math.cos(place / 10000 ** ((k - 1) / size)) if k % 2 else math.sin(place / 10000 ** (k / size))
        for k in range(size)
    ]


@pytest.mark.parametrize("size", [4, 5])
def test_a_relative_position_is_a_sinusoid_of_the_limited_distance(size: int) -> None:
    made = relative_positions(9, size, 3, torch.zeros(()))
    expected = [[vector(j - i, size, 3) for j in range(9)] for i in range(9)]
    torch.testing.assert_close(made, torch.tensor(expected))


def defined(model: NezhaForMaskedLM, inputs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The logits by the equations, in float64, one pair of positions at a time."""
    config, of = model.config, {name: weight.double() for name, weight in model.state_dict().items()}
    act = {"gelu": functional.gelu, "relu": functional.relu, "silu": functional.silu}[config.hidden_act]

    def linear(states: torch.Tensor, name: str) -> torch.Tensor:
        return states @ of[f"{name}.weight"].T + of[f"{name}.bias"]

    def normed(states: torch.Tensor, name: str) -> torch.Tensor:
        centred = states - states.mean(-1, keepdim=True)
        deviation = (centred.square().mean(-1, keepdim=True) + config.layer_norm_eps).sqrt()
        return centred / deviation * of[f"{name}.LayerNorm.weight"] + of[f"{name}.LayerNorm.bias"]

    def attention(states: torch.Tensor, seen: list[bool], name: str) -> torch.Tensor:
        size = config.hidden_size // config.num_attention_heads
        query, key, value = (linear(states, f"{name}.{part}") for part in ("query", "key", "value"))
        result = torch.zeros_like(states)
        for head in range(config.num_attention_heads):
            part = slice(head * size, (head + 1) * size)
            for i in range(len(states)):
                others = [j for j in range(len(states)) if seen[j]]
                away = [vector(j - i, size, config.max_relative_position) for j in others]
                away = torch.tensor(away, dtype=torch.float64)
                weights = (((key[others, part] + away) @ query[i, part]) / math.sqrt(size)).softmax(0)
                result[i, part] = weights @ (value[others, part] + away)
        return result

    rows = []
    for ids, types, mask in zip(*inputs.values(), strict=True):
        words = of["nezha.embeddings.word_embeddings.weight"][ids]
        states = normed(words + of["nezha.embeddings.token_type_embeddings.weight"][types], "nezha.embeddings")
        for number in range(config.num_hidden_layers):
            name = f"nezha.encoder.layer.{number}"
            context = attention(states, mask.bool().tolist(), f"{name}.attention.self")
            states = normed(states + linear(context, f"{name}.attention.output.dense"), f"{name}.attention.output")
            inner = act(linear(states, f"{name}.intermediate.dense"))
            states = normed(states + linear(inner, f"{name}.output.dense"), f"{name}.output")
        states = normed(act(linear(states, "cls.predictions.transform.dense")), "cls.predictions.transform")
        rows.append(linear(states, "cls.predictions.decoder"))
    return torch.stack(rows)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"hidden_act": "relu", "num_hidden_layers": 1},
        {"hidden_act": "silu", "num_attention_heads": 1, "layer_norm_eps": 1e-3},
        {"hidden_size": 25, "num_attention_heads": 5},  # heads of odd size
        {"max_relative_position": 1},
        {"max_relative_position": 64},
        {"chunk_size_feed_forward": 2},
        {"tie_word_embeddings": False},
        {"classifier_dropout": None, "type_vocab_size": 3, "pad_token_id": None},
    ],
    ids=str,
)
def test_logits_are_those_of_the_definition(fields: dict[str, Any]) -> None:
    model, inputs = made(**fields), batch()
    if "chunk_size_feed_forward" in fields:
        inputs = {name: value[:, :10] for name, value in inputs.items()}
    logits = model(**inputs).logits.double()
    seen = inputs["attention_mask"].bool()
    torch.testing.assert_close(logits[seen], defined(model, inputs)[seen], atol=1e-4, rtol=1e-4)


def test_without_segments_all_is_the_first() -> None:
    model, inputs = made(), batch()
    inputs["token_type_ids"] = torch.zeros_like(inputs["token_type_ids"])
    expected = model(**inputs).logits
    del inputs["token_type_ids"]
    assert torch.equal(model(**inputs).logits, expected)


def test_attention_weights_and_states_can_be_asked_for() -> None:
    outputs = made()(**batch(), output_attentions=True, output_hidden_states=True)
    assert [weights.shape for weights in outputs.attentions] == [(2, 3, 11, 11)] * 2
    assert len(outputs.hidden_states) == 3
    torch.testing.assert_close(outputs.attentions[1].sum(-1), torch.ones(2, 3, 11))
    assert not outputs.attentions[0][1, :, :, 8:].any()


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")  # its new name is not in 5.20
def test_recomputing_layers_gives_the_same_gradients() -> None:
    def gradients(model: NezhaForMaskedLM) -> list[torch.Tensor]:
        return torch.autograd.grad(model(**batch()).logits.square().sum(), list(model.parameters()))

    model = made(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0).train()
    plain = gradients(model)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for one, other in zip(plain, gradients(model), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("tied", [True, False])
def test_the_bias_has_one_value_under_two_names(tied: bool, tmp_path: Path) -> None:
    model = made(tie_word_embeddings=tied)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForMaskedLM.from_pretrained(tmp_path)
    assert torch.equal(loaded(**batch()).logits, model(**batch()).logits)
    loaded.resize_token_embeddings(60)
    logits = loaded(**batch()).logits
    logits.sum().backward()
    assert logits.shape[-1] == 60
    assert loaded.cls.predictions.decoder.bias is loaded.cls.predictions.bias
    words = loaded.get_input_embeddings().weight
    assert (loaded.get_output_embeddings().weight is words) == tied
    assert all(parameter.grad is not None for parameter in loaded.parameters())


# In use


def test_the_plugin_is_in_the_catalog() -> None:
    catalog = lmtasks.load_catalog()
    assert not [plugin for plugin in catalog.plugins if plugin.name == "nezha" and plugin.broken]
    tiny = NezhaConfig(**catalog.architectures["nezha"].tiny)
    assert sum(parameter.numel() for parameter in NezhaForMaskedLM(tiny).parameters()) < 1_000_000


def test_it_learns(run: lmtasks.Run) -> None:
    assert run.metrics["eval_loss"] < 0.5 * run.metrics["unigram_loss"]


def test_the_saved_model_gives_the_same_figures(run: lmtasks.Run) -> None:
    figures = lmtasks.evaluate(run.output_dir, eval_dataset=[TEXT])
    assert figures["eval_loss"] == pytest.approx(run.metrics["eval_loss"], rel=1e-5)


def test_it_fills_in_a_word(run: lmtasks.Run) -> None:
    guesses = run.predict("the quick brown<mask> jumps over the lazy dog. the quick brown fox", top_k=1)
    assert "fox" in guesses[0]["token_str"]


def test_older_names_and_other_heads_of_a_checkpoint_do_no_harm(run: lmtasks.Run, tmp_path: Path) -> None:
    for path in Path(run.output_dir).glob("*.json"):
        if path.name != "run.json":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(Path(run.output_dir, "model.safetensors"))
    older = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): weight
        for name, weight in weights.items()
    }
    assert older.keys() != weights.keys()
    older["nezha.pooler.dense.weight"] = torch.zeros(64, 64)
    older["nezha.pooler.dense.bias"] = torch.zeros(64)
    older["cls.seq_relationship.weight"] = torch.zeros(2, 64)
    older["cls.seq_relationship.bias"] = torch.zeros(2)
    save_file(older, tmp_path / "model.safetensors", {"format": "pt"})
    figures = lmtasks.evaluate(tmp_path, recipe="masked-lm", eval_dataset=[TEXT], block_size=32)
    expected = lmtasks.evaluate(run.output_dir, eval_dataset=[TEXT])
    assert figures["eval_loss"] == pytest.approx(expected["eval_loss"], rel=1e-6)


def test_its_head_runs_on_its_own_and_so_does_its_last_layer_on_targets() -> None:
    model, labels = made(), torch.full((2, 11), -100)
    labels[0, 3], labels[1, 5] = 7, 8
    assert separate_head(model, batch()) is None
    rows: list[int] = []
    for layer in model.nezha.encoder.layer:
        layer.output.register_forward_hook(lambda part, given, states: rows.append(states.shape[:2].numel()))
    total, _, _ = lmtasks.masked_loss(model, {**batch(), "labels": labels})
    assert rows == [22, 2]
    assert total.item() == pytest.approx(2 * model(**batch(), labels=labels).loss.item(), rel=1e-5)


def test_documents_of_a_block_can_be_isolated(tmp_path: Path) -> None:
    plan = lmtasks.run(
        "masked-lm",
        model_type="nezha",
        config_overrides=SHAPE,
        train_tokenizer=300,
        train_dataset=["the quick brown fox. " * 9] * 9,
        test_size=0.25,
        isolate_documents=True,
        output_dir=str(tmp_path / "out"),
        dry_run=True,
    )
    assert plan.steps  # the model has passed the check that documents come out as they do alone


@pytest.mark.parametrize(("field", "says"), [("is_decoder=true", "encoder"), ("use_relative_position=false", "bert")])
def test_what_is_no_nezha_is_refused(field: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(lmtasks.InputError, match=says):
        lmtasks.run(
            "masked-lm",
            model_type="nezha",
            config_overrides=f"{SHAPE},{field}",
            train_tokenizer=300,
            train_dataset=[TEXT] * 4,
            test_size=0.25,
            output_dir=str(tmp_path / "out"),
        )
