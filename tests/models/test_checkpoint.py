"""Models: which ones can be had, what they can take, and that what is saved is what was trained."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
    GPT2ForSequenceClassification,
    GPT2Model,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)
from words_tokenizer import words_tokenizer

import lmtasks
from lmtasks import Recipe
from lmtasks.artifacts.run_folder import save_into
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.config.request import configure
from lmtasks.config.settings import ModelSettings
from lmtasks.errors import InputError, RunError
from lmtasks.models.checkpoint import LoadedModel, load_model
from lmtasks.models.config import fit_to_tokenizer, load_config, usable_length
from lmtasks.runs.plan import Plan
from lmtasks.runs.prepare import prepare
from lmtasks.runs.verify import verify

TOKENIZER = words_tokenizer(pad_token="<pad>", mask_token="<mask>", eos_token="</s>")


def config_of(recipe: Recipe = MASKED_LM, **settings: Any) -> PretrainedConfig:
    return load_config(ModelSettings(**settings), recipe)


def load(folder: Path, tokenizer: Any, recipe: Recipe = MASKED_LM, **settings: Any) -> LoadedModel:
    chosen = ModelSettings(model_name_or_path=str(folder), **settings)
    return load_model(chosen, recipe, load_config(chosen, recipe), tokenizer, seed=1)


def changed(folder: Path, to: Path, change: Any) -> Path:
    """A copy of a model folder with other weights."""
    shutil.copytree(folder, to)
    weights = load_file(to / "model.safetensors")
    change(weights)
    save_file(weights, to / "model.safetensors", metadata={"format": "pt"})
    return to


# --- the configuration ---


def test_unknown_model_type_names_the_nearest() -> None:
    with pytest.raises(InputError, match="unknown model type 'robrta', did you mean 'roberta'"):
        config_of(model_type="robrta")


def test_missing_folder_and_folder_without_configuration_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no model folder '\./nowhere'"):
        config_of(model_name_or_path="./nowhere")
    with pytest.raises(InputError, match="cannot load model"):
        config_of(model_name_or_path=str(tmp_path))


def test_model_that_the_recipe_has_no_class_for_is_refused_and_another_recipe_named() -> None:
    with pytest.raises(InputError, match="masked-lm cannot train 'gpt2': gpt2 has no such model class") as caught:
        config_of(model_type="gpt2")
    assert caught.value.hint == "lmtasks run causal-lm takes it"


def test_a_recipe_for_one_models_class_takes_that_model_only() -> None:
    recipe = dataclasses.replace(CAUSAL_LM, name="permuted", model_class="transformers:XLNetLMHeadModel")
    assert config_of(recipe=recipe, model_type="xlnet").model_type == "xlnet"
    with pytest.raises(InputError, match="permuted cannot train 'gpt2': gpt2 has no such model class") as caught:
        config_of(recipe=recipe, model_type="gpt2")
    assert caught.value.hint == "lmtasks run causal-lm takes it"


def test_model_that_no_recipe_takes_is_refused() -> None:
    with pytest.raises(InputError, match="vit has no such model class") as caught:
        config_of(model_type="vit")
    assert caught.value.hint.startswith("it is a model of image: choose another, or install a plugin")


@pytest.mark.parametrize(
    ("model_type", "typed", "name", "value"),
    [
        ("roberta", "hidden_size=64", "hidden_size", 64),
        ("roberta", "hidden_size=64, num_hidden_layers = 3", "num_hidden_layers", 3),
        ("roberta", "hidden_act=relu", "hidden_act", "relu"),
        ("esm", "hidden_dropout_prob=0", "hidden_dropout_prob", 0.0),
        ("roberta", "is_decoder=True", "is_decoder", True),
        ("roberta", "hidden_dropout_prob=0.5", "hidden_dropout_prob", 0.5),
        ("roberta", "layer_norm_eps=1e-3", "layer_norm_eps", 1e-3),
        ("roberta", "hidden_dropout_prob=0", "hidden_dropout_prob", 0.0),
        ("roberta", "tie_word_embeddings=false", "tie_word_embeddings", False),
        ("roberta", "classifier_dropout=none", "classifier_dropout", None),
    ],
)
def test_override_has_the_type_of_the_default(model_type: str, typed: str, name: str, value: Any) -> None:
    set_to = getattr(config_of(model_type=model_type, config_overrides=typed), name)
    assert set_to == value
    assert isinstance(set_to, type(value))


def test_override_may_use_the_common_name_of_a_field() -> None:
    config = config_of(CAUSAL_LM, model_type="gpt2", config_overrides="hidden_size=48,num_attention_heads=3")
    assert (config.n_embd, config.n_head) == (48, 3)


@pytest.mark.parametrize("layers", [2, 5])
def test_fields_that_follow_from_others_follow(layers: int) -> None:
    config = config_of(model_type="modernbert", config_overrides=f"num_hidden_layers={layers}")
    assert len(config.layer_types) == layers


def test_overrides_apply_to_the_configuration_of_a_folder_and_keep_the_rest(model_folders: dict[str, Path]) -> None:
    config = config_of(config_name=str(model_folders["modernbert"]), config_overrides="num_hidden_layers=4")
    assert (config.num_hidden_layers, config.hidden_size, len(config.layer_types)) == (4, 32, 4)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("hiden_size=64", "the roberta configuration has no 'hiden_size', did you mean 'hidden_size'"),
        ("hidden_size 64", "the roberta configuration has no 'hidden_size 64'"),
        ("hidden_size=big", "'hidden_size' must be a number, got 'big'"),
        ("is_decoder=maybe", "'is_decoder' must be true or false, got 'maybe'"),
        ("hidden_size=64,,", "has no ''"),
    ],
)
def test_override_that_does_not_fit_is_refused(typed: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        config_of(model_type="roberta", config_overrides=typed)


def test_override_that_the_configuration_itself_refuses_is_refused_in_one_line() -> None:
    with pytest.raises(InputError, match=r"--config_overrides: .*'initializer_range'.* got 5\.0") as caught:
        config_of(CAUSAL_LM, model_type="llama", config_overrides="initializer_range=5.0")
    assert "\n" not in str(caught.value)


def test_configuration_that_does_not_add_up_is_refused() -> None:
    settings = ModelSettings(model_type="roberta", config_overrides="hidden_size=30,num_attention_heads=4")
    with pytest.raises(InputError) as caught:
        load_model(settings, MASKED_LM, load_config(settings, MASKED_LM), TOKENIZER, seed=0)
    assert "\n" not in caught.value.message


# --- how long an input may be ---


@pytest.mark.parametrize(
    ("model_type", "recipe", "usable"),
    [
        ("roberta", MASKED_LM, 510),
        ("bert", MASKED_LM, 512),
        ("distilbert", MASKED_LM, 512),
        ("modernbert", MASKED_LM, 8192),
        ("gpt2", CAUSAL_LM, 1024),
        ("llama", CAUSAL_LM, 2048),
    ],
)
def test_usable_length_of_the_default_configurations(model_type: str, recipe: Recipe, usable: int) -> None:
    config = config_of(recipe, model_type=model_type)
    assert usable_length(config, recipe, TOKENIZER) == usable


@pytest.mark.parametrize(("padding", "usable"), [(1, 512), (0, 513), (5, 508)])
def test_positions_up_to_the_padding_row_are_lost(padding: int, usable: int) -> None:
    config = AutoConfig.for_model("roberta", max_position_embeddings=514, vocab_size=50, pad_token_id=padding)
    assert usable_length(config, MASKED_LM, TOKENIZER) == usable


def test_usable_length_is_what_the_model_can_take_and_no_token_more() -> None:
    config = AutoConfig.for_model(
        "roberta", max_position_embeddings=20, vocab_size=50, hidden_size=8, num_hidden_layers=1, num_attention_heads=1
    )
    length = usable_length(config, MASKED_LM, TOKENIZER)
    assert length is not None
    model = AutoModelForMaskedLM.from_config(config).eval()
    assert model(input_ids=torch.full((1, length), 7)).logits.shape[1] == length
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, length + 1), 7))


def test_limit_of_the_tokenizer_counts_too() -> None:
    tokenizer = words_tokenizer(mask_token="<mask>")
    config = config_of(model_type="bert")
    tokenizer.model_max_length = 40
    assert usable_length(config, MASKED_LM, tokenizer) == 40
    tokenizer.model_max_length = 4000
    assert usable_length(config, MASKED_LM, tokenizer) == 512


# --- weights ---


def test_fresh_model_has_the_tokenizers_vocabulary_and_special_tokens() -> None:
    settings = ModelSettings(model_type="roberta", config_overrides="hidden_size=8,num_attention_heads=2")
    loaded = load_model(settings, MASKED_LM, load_config(settings, MASKED_LM), TOKENIZER, seed=0)
    assert loaded.model.get_input_embeddings().weight.shape == (len(TOKENIZER), 8)
    assert loaded.model.config.pad_token_id == TOKENIZER.pad_token_id
    assert loaded.model.config.eos_token_id == TOKENIZER.eos_token_id
    assert loaded.model.config.bos_token_id is None
    assert (loaded.new_weights, loaded.grown) == ((), 0)


def test_fresh_model_has_a_row_for_every_special_token_however_high() -> None:
    tokenizer = words_tokenizer()
    tokenizer.add_special_tokens({"mask_token": "<mask>"})
    config = fit_to_tokenizer(AutoConfig.for_model("bert"), tokenizer)
    assert config.vocab_size == tokenizer.mask_token_id + 1 == len(tokenizer)


def test_fresh_weights_are_drawn_from_the_seed() -> None:
    settings = ModelSettings(model_type="roberta", config_overrides="hidden_size=8,num_attention_heads=2")

    def weights(seed: int) -> torch.Tensor:
        config = load_config(settings, MASKED_LM)
        return load_model(settings, MASKED_LM, config, TOKENIZER, seed).model.get_input_embeddings().weight

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


def test_checkpoint_is_loaded_as_it_is(model_folders: dict[str, Path], masked_tokenizer: Any) -> None:
    loaded = load(model_folders["roberta"], masked_tokenizer)
    stored = load_file(model_folders["roberta"] / "model.safetensors")
    ours = loaded.model.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in stored.items())
    assert (loaded.new_weights, loaded.grown) == ((), 0)


def test_half_precision_checkpoint_is_trained_in_float32(
    model_folders: dict[str, Path], masked_tokenizer: Any, tmp_path: Path
) -> None:
    model = AutoModelForMaskedLM.from_pretrained(model_folders["bert"])
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    assert {value.dtype for value in load(tmp_path, masked_tokenizer).model.parameters()} == {torch.float32}


def test_checkpoint_that_lacks_weights_needs_leave(
    model_folders: dict[str, Path], masked_tokenizer: Any, tmp_path: Path
) -> None:
    name = "bert.encoder.layer.0.attention.self.query.weight"
    folder = changed(model_folders["bert"], tmp_path / "m", lambda weights: weights.pop(name))
    with pytest.raises(InputError) as caught:
        load(folder, masked_tokenizer)
    assert caught.value.message == f"'{folder}' lacks 1 of the model's weights, such as {name}"
    assert "--allow_new_weights" in caught.value.hint
    assert load(folder, masked_tokenizer, allow_new_weights=True).new_weights == (name,)


def test_pickled_weights_are_refused(model_folders: dict[str, Path], masked_tokenizer: Any, tmp_path: Path) -> None:
    shutil.copytree(model_folders["bert"], tmp_path / "m")
    torch.save(load_file(tmp_path / "m" / "model.safetensors"), tmp_path / "m" / "pytorch_model.bin")
    (tmp_path / "m" / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"has its weights as pickle \(\.bin\)"):
        load(tmp_path / "m", masked_tokenizer)


def test_folder_without_weights_is_refused(
    model_folders: dict[str, Path], masked_tokenizer: Any, tmp_path: Path
) -> None:
    shutil.copy(model_folders["bert"] / "config.json", tmp_path)
    with pytest.raises(InputError, match=r"has no weights \(\*\.safetensors\)"):
        load(tmp_path, masked_tokenizer)


@pytest.mark.parametrize("damage", ["cut", "emptied", "overwritten"])
def test_damaged_weights_are_refused(
    damage: str, model_folders: dict[str, Path], masked_tokenizer: Any, tmp_path: Path
) -> None:
    shutil.copytree(model_folders["bert"], tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    content = file.read_bytes()
    file.write_bytes({"cut": content[: len(content) // 2], "emptied": b"", "overwritten": b"x" * 999}[damage])
    with pytest.raises(InputError, match=r"damaged|cannot load model") as caught:
        load(tmp_path / "m", masked_tokenizer)
    assert "\n" not in caught.value.message


def test_tokenizer_with_more_tokens_grows_the_embeddings_and_keeps_the_old_rows(
    model_folders: dict[str, Path], masked_tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    masked_tokenizer.save_pretrained(tmp_path)
    bigger = type(masked_tokenizer).from_pretrained(tmp_path)
    bigger.add_tokens(["lmtasks", "recipe", "catalog"])
    loaded = load(model_folders["bert"], bigger)
    old = load_file(model_folders["bert"] / "model.safetensors")["bert.embeddings.word_embeddings.weight"]
    new = loaded.model.get_input_embeddings().weight
    assert loaded.grown == 3
    assert new.shape[0] == len(bigger) == 403
    assert torch.equal(new[:400], old)
    assert loaded.model(input_ids=torch.tensor([[402]])).logits.shape[-1] == 403


def test_smaller_tokenizer_does_not_shrink_the_embeddings(model_folders: dict[str, Path]) -> None:
    loaded = load(model_folders["bert"], TOKENIZER)
    assert (loaded.grown, loaded.model.get_input_embeddings().weight.shape[0]) == (0, 400)


# --- weights of a checkpoint that the model has no place for ---

RECIPE_OF = {"gpt2": CAUSAL_LM, "llama": CAUSAL_LM}
LAYERS = {"gpt2": "n_layer", "distilbert": "n_layers"}
POOLER = ("bert.pooler.dense.bias", "bert.pooler.dense.weight")


def saved_as(model_class: Any, like: Path, to: Path, **config: Any) -> Path:
    """A model of another class with the configuration of a folder."""
    model_class(AutoConfig.from_pretrained(like, **config)).save_pretrained(to)
    return to


def with_weights(folder: Path, to: Path, *names: str) -> Path:
    """A copy of a model folder that has more weights."""
    return changed(folder, to, lambda weights: weights.update({name: torch.ones(2, 2) for name in names}))


def set_in_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_pooler_and_head_of_another_task_are_left_out_and_reported(
    model_folders: dict[str, Path], masked_tokenizer: Any, tmp_path: Path
) -> None:
    folder = saved_as(BertForPreTraining, model_folders["bert"], tmp_path)
    loaded = load(folder, masked_tokenizer)
    assert loaded.unused == (*POOLER, "cls.seq_relationship.bias", "cls.seq_relationship.weight")
    stored = load_file(folder / "model.safetensors")
    assert set(stored) - set(loaded.unused) <= set(loaded.model.state_dict())


def test_checkpoint_that_fits_has_nothing_unused(
    model_folders: dict[str, Path], masked_tokenizer: Any, causal_tokenizer: Any
) -> None:
    for kind, folder in model_folders.items():
        recipe = RECIPE_OF.get(kind, MASKED_LM)
        assert load(folder, causal_tokenizer if recipe is CAUSAL_LM else masked_tokenizer, recipe).unused == ()


def test_base_model_is_taken_where_the_head_is_tied_and_needs_leave_where_it_is_new(
    model_folders: dict[str, Path], masked_tokenizer: Any, causal_tokenizer: Any, tmp_path: Path
) -> None:
    decoder = saved_as(GPT2Model, model_folders["gpt2"], tmp_path / "gpt2")
    assert load(decoder, causal_tokenizer, CAUSAL_LM).unused == ()
    encoder = saved_as(BertModel, model_folders["bert"], tmp_path / "bert")
    with pytest.raises(InputError, match=r"lacks \d of the model's weights"):
        load(encoder, masked_tokenizer)
    loaded = load(encoder, masked_tokenizer, allow_new_weights=True)
    assert loaded.unused == ("pooler.dense.bias", "pooler.dense.weight")
    assert all(name.startswith("cls.") for name in loaded.new_weights)


def test_classifier_lacks_the_head_or_has_one_of_its_own(
    model_folders: dict[str, Path], masked_tokenizer: Any, causal_tokenizer: Any, tmp_path: Path
) -> None:
    encoder = saved_as(BertForSequenceClassification, model_folders["bert"], tmp_path / "bert")
    with pytest.raises(InputError, match=r"lacks \d of the model's weights"):
        load(encoder, masked_tokenizer)
    assert load(encoder, masked_tokenizer, allow_new_weights=True).unused == (
        *POOLER,
        "classifier.bias",
        "classifier.weight",
    )
    decoder = saved_as(GPT2ForSequenceClassification, model_folders["gpt2"], tmp_path / "gpt2")
    assert load(decoder, causal_tokenizer, CAUSAL_LM).unused == ("score.weight",)


@pytest.mark.parametrize(
    ("kind", "prefix"),
    [
        ("bert", "bert.encoder.layer.2."),
        ("roberta", "roberta.encoder.layer.2."),
        ("distilbert", "distilbert.transformer.layer.2."),
        ("gpt2", "transformer.h.2."),
        ("llama", "model.layers.2."),
    ],
)
@pytest.mark.parametrize("kept", [1, 2])
def test_layer_that_the_configuration_does_not_have_is_not_dropped_in_silence(
    kind: str, prefix: str, kept: int, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    recipe, layers = RECIPE_OF.get(kind, MASKED_LM), LAYERS.get(kind, "num_hidden_layers")
    auto = AutoModelForCausalLM if recipe is CAUSAL_LM else AutoModelForMaskedLM
    saved_as(auto.from_config, model_folders[kind], tmp_path, num_hidden_layers=3)
    assert load(tmp_path, TOKENIZER, recipe).unused == ()
    set_in_config(tmp_path, **{layers: kept})
    prefix = prefix.replace("2", str(kept))
    with pytest.raises(InputError) as caught:
        load(tmp_path, TOKENIZER, recipe)
    with_leave = load(tmp_path, TOKENIZER, recipe, allow_new_weights=True).unused
    assert caught.value.message == (
        f"the model has no place for {len(with_leave)} of the weights in '{tmp_path}', such as {with_leave[0]}"
    )
    assert with_leave[0].startswith(prefix)
    assert "--allow_new_weights" in caught.value.hint
    assert "\n" not in str(caught.value)


def test_layer_of_a_base_model_is_not_dropped_either(
    model_folders: dict[str, Path], causal_tokenizer: Any, tmp_path: Path
) -> None:
    saved_as(GPT2Model, model_folders["gpt2"], tmp_path, num_hidden_layers=3)
    set_in_config(tmp_path, n_layer=2)
    with pytest.raises(InputError, match=r"no place for \d+ of the weights in .*, such as h\.2\."):
        load(tmp_path, causal_tokenizer, CAUSAL_LM)


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("bert", "bert.encoder.layer.1.output.adapter.down.weight"),
        ("bert", "encoder.layer.1.output.adapter.down.weight"),
        ("bert", "bert.encoder.adapter.weight"),
        ("bert", "bert.embeddings.project.weight"),
        ("bert", "cls.predictions.adapter.weight"),
        ("bert", "cls.scale"),
        ("bert", "bert.scale"),
        ("bert", "scale"),
        ("roberta", "lm_head.adapter.weight"),
        ("modernbert", "head.adapter.weight"),
        ("modernbert", "model.layers.0.attn.Wqkv.bias"),
        ("gpt2", "lm_head.bias"),
        ("gpt2", "transformer.h.0.attn.c_attn.lora_A.weight"),
        ("llama", "lm_head.bias"),
        ("llama", "lm_head.lora_A.weight"),
        ("llama", "model.layers.0.self_attn.q_proj.bias"),
        ("llama", "model.layers.0.self_attn.q_norm.weight"),
    ],
)
def test_weight_that_belongs_inside_the_model_needs_leave_to_be_dropped(
    kind: str, name: str, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    recipe = RECIPE_OF.get(kind, MASKED_LM)
    folder = with_weights(model_folders[kind], tmp_path / "m", name, "another_head.dense.weight")
    with pytest.raises(InputError) as caught:
        load(folder, TOKENIZER, recipe)
    assert caught.value.message == f"the model has no place for 1 of the weights in '{folder}', such as {name}"
    loaded = load(folder, TOKENIZER, recipe, allow_new_weights=True)
    assert loaded.unused == tuple(sorted([name, "another_head.dense.weight"]))
    assert loaded.new_weights == ()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("bert", "bert.pooler.dense.weight"),
        ("roberta", "roberta.pooler.dense.weight"),
        ("roberta", "classifier.out_proj.weight"),
        ("distilbert", "qa_outputs.bias"),
        ("gpt2", "multiple_choice_head.summary.weight"),
        ("llama", "model.mtp.layers.0.weight"),
        ("llama", "v_head.summary.weight"),
    ],
)
def test_part_that_the_model_lacks_as_a_whole_is_reported(
    kind: str, name: str, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    folder = with_weights(model_folders[kind], tmp_path / "m", name)
    assert load(folder, TOKENIZER, RECIPE_OF.get(kind, MASKED_LM)).unused == (name,)


def test_buffer_that_the_model_computes_for_itself_is_no_weight(model_folders: dict[str, Path], tmp_path: Path) -> None:
    name = "bert.embeddings.token_type_ids"
    assert load(with_weights(model_folders["bert"], tmp_path / "m", name), TOKENIZER).unused == (name,)


def test_causal_masks_that_were_saved_along_are_no_weights(tmp_path: Path) -> None:
    config = AutoConfig.for_model(
        "gpt_neo",
        vocab_size=50,
        hidden_size=8,
        num_layers=2,
        num_heads=2,
        attention_types=[[["global", "local"], 1]],
        max_position_embeddings=16,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "new")
    masks = [f"transformer.h.{layer}.attn.attention.{name}" for layer in (0, 1) for name in ("bias", "masked_bias")]
    folder = with_weights(tmp_path / "new", tmp_path / "old", *masks)
    assert load(folder, TOKENIZER, CAUSAL_LM).unused == tuple(masks)


class StackConfig(PretrainedConfig):
    """Configuration of :class:`Stack`."""

    model_type = "test-stack"
    vocab_size: int = 50
    hidden_size: int = 4


class Head(torch.nn.Module):
    """A head with one module and a parameter of its own."""

    def __init__(self, config: StackConfig) -> None:
        super().__init__()
        self.decoder = torch.nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.bias = torch.nn.Parameter(torch.zeros(config.vocab_size))


class Stack(PreTrainedModel):
    """A model without a base model, whose layers lie at the top."""

    config_class = StackConfig

    def __init__(self, config: StackConfig) -> None:
        super().__init__(config)
        self.embedding = torch.nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = torch.nn.ModuleList([torch.nn.Linear(config.hidden_size, config.hidden_size)])
        self.head = Head(config)
        self.post_init()

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return self.embedding


@pytest.mark.parametrize(
    ("name", "inside"),
    [("layers.1.weight", True), ("layers.0.scale", True), ("head.adapter.weight", True), ("pooler.weight", False)],
)
def test_model_without_a_base_model_is_judged_by_its_top(name: str, inside: bool, tmp_path: Path) -> None:
    recipe = dataclasses.replace(MASKED_LM, model_class="test_checkpoint:Stack")
    config = StackConfig()
    Stack(config).save_pretrained(tmp_path / "new")
    folder = with_weights(tmp_path / "new", tmp_path / "more", name)
    if inside:
        with pytest.raises(InputError, match=f"such as {name}"):
            load_model(ModelSettings(model_name_or_path=str(folder)), recipe, config, TOKENIZER, seed=1)
    else:
        loaded = load_model(ModelSettings(model_name_or_path=str(folder)), recipe, config, TOKENIZER, seed=1)
        assert loaded.unused == (name,)


# --- through a whole preparation ---


def plan(recipe: str, text_file: Path, out: Path, **values: Any) -> Plan:
    result = lmtasks.run(
        recipe, train_file=str(text_file), output_dir=str(out / "out"), block_size=16, dry_run=True, **values
    )
    assert isinstance(result, Plan)
    assert not (out / "out").exists()
    return result


def test_encoder_is_refused_by_causal_lm(model_folders: dict[str, Path], text_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="causal-lm cannot train this bert model: it sees the tokens") as caught:
        plan("causal-lm", text_file, tmp_path, model=str(model_folders["bert"]))
    assert "masked-lm" in caught.value.hint
    assert not (tmp_path / "out").exists()


def fresh(**overrides: Any) -> dict[str, Any]:
    shape = {"num_hidden_layers": 1, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 16}
    pairs = ",".join(f"{name}={value}" for name, value in (shape | overrides).items())
    return {"train_tokenizer": 300, "config_overrides": pairs}


def test_encoder_that_is_made_a_decoder_is_taken_by_causal_lm_only(text_file: Path, tmp_path: Path) -> None:
    decoder = {"model_type": "bert", **fresh(is_decoder=True)}
    assert plan("causal-lm", text_file, tmp_path, **decoder).model == "new bert"
    with pytest.raises(InputError, match="masked-lm cannot train this bert model: it does not see the text after"):
        plan("masked-lm", text_file, tmp_path, **decoder)
    with pytest.raises(InputError, match="causal-lm cannot train this bert model"):
        plan("causal-lm", text_file, tmp_path, model_type="bert", **fresh(is_decoder=False))


def test_default_block_is_cut_to_the_model_and_a_longer_one_refused(
    model_folders: dict[str, Path], text_file: Path, tmp_path: Path
) -> None:
    values = {"train_file": str(text_file), "output_dir": str(tmp_path / "out"), "dry_run": True}
    cut = lmtasks.run("masked-lm", model=str(model_folders["roberta"]), **values)
    assert isinstance(cut, Plan)
    assert cut.block_size == 64
    assert "block_size 64: the model takes no more" in cut.notes
    with pytest.raises(InputError, match="--block_size 65 is more than the model can take: 64 tokens"):
        lmtasks.run("masked-lm", model=str(model_folders["roberta"]), block_size=65, **values)


def test_grown_and_new_weights_are_noted(
    model_folders: dict[str, Path], masked_tokenizer: PreTrainedTokenizerBase, text_file: Path, tmp_path: Path
) -> None:
    masked_tokenizer.save_pretrained(tmp_path / "t")
    bigger = type(masked_tokenizer).from_pretrained(tmp_path / "t")
    bigger.add_tokens(["lmtasks"])
    bigger.save_pretrained(tmp_path / "t")
    name = "bert.encoder.layer.1.output.dense.bias"
    folder = changed(model_folders["bert"], tmp_path / "m", lambda weights: weights.pop(name))
    result = plan(
        "masked-lm", text_file, tmp_path, model=str(folder), tokenizer_name=str(tmp_path / "t"), allow_new_weights=True
    )
    assert f"1 weights are new: {name}" in result.notes
    assert "embeddings grown by 1 rows for the tokenizer's tokens" in result.notes


def test_tokenizer_without_padding_makes_a_model_or_a_plain_refusal(
    masked_tokenizer: PreTrainedTokenizerBase, text_file: Path, tmp_path: Path
) -> None:
    masked_tokenizer.save_pretrained(tmp_path / "padded")
    without = type(masked_tokenizer).from_pretrained(tmp_path / "padded", pad_token=None)
    without.save_pretrained(tmp_path / "t")
    assert without.pad_token_id is None
    values = {**fresh(), "tokenizer_name": str(tmp_path / "t")}
    values.pop("train_tokenizer")
    assert plan("masked-lm", text_file, tmp_path, model_type="bert", **values).parameters > 0
    # RoBERTa reads positions off the padding id.
    with pytest.raises(InputError, match="the model fails on a block of 16 tokens") as caught:
        plan("masked-lm", text_file, tmp_path, model_type="roberta", **values)
    assert "\n" not in caught.value.message


# --- what is saved ---


@pytest.mark.parametrize("kind", ["roberta", "gpt2"])
def test_model_that_is_saved_other_than_it_was_trained_fails_the_run(
    kind: str, model_folders: dict[str, Path], text_file: Path, tmp_path: Path
) -> None:
    recipe = MASKED_LM if kind == "roberta" else CAUSAL_LM
    values = {"model": str(model_folders[kind]), "train_file": str(text_file), "output_dir": str(tmp_path)}
    prepared = prepare(configure(recipe, values))
    save_into(tmp_path, prepared.model, prepared.processor)
    verify(prepared.model, prepared)
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    name = max(weights, key=lambda name: weights[name].numel())
    weights[name] = weights[name].flip(0)
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(RunError, match="is not the one that was trained") as caught:
        verify(prepared.model, prepared)
    assert caught.value.exit_code == 3


def test_figures_of_a_run_in_bfloat16_are_those_of_the_model_that_is_saved(
    model_folders: dict[str, Path], text_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    values = {"train_file": str(text_file), "block_size": 16, "max_steps": 2, "bf16": True, "use_cpu": True}
    run = lmtasks.run("masked-lm", model=str(model_folders["roberta"]), output_dir=str(out), **values)
    assert isinstance(run, lmtasks.Run)
    assert run.metrics["eval_loss"] == lmtasks.evaluate(out)["eval_loss"]


# --- code from a model's repository ---

REMOTE = """
from pathlib import Path
from transformers import BertConfig, BertForMaskedLM
Path({marker!r}).touch()

class OddConfig(BertConfig):
    model_type = "odd-{name}"

class OddForMaskedLM(BertForMaskedLM):
    config_class = OddConfig
"""


@pytest.fixture
def remote(tmp_path: Path, model_folders: dict[str, Path]) -> tuple[Path, Path]:
    """A model whose classes are code in its folder, and the file that this code leaves when it runs."""
    folder, marker = tmp_path / "remote", tmp_path / "was-run"
    shutil.copytree(model_folders["bert"], folder)
    (folder / "odd.py").write_text(REMOTE.format(marker=str(marker), name=tmp_path.name.replace("_", "-")))
    config = json.loads((folder / "config.json").read_text())
    config |= {
        "model_type": f"odd-{tmp_path.name.replace('_', '-')}",
        "architectures": ["OddForMaskedLM"],
        "auto_map": {"AutoConfig": "odd.OddConfig", "AutoModelForMaskedLM": "odd.OddForMaskedLM"},
    }
    (folder / "config.json").write_text(json.dumps(config))
    return folder, marker


def test_code_of_a_repository_does_not_run_unasked(remote: tuple[Path, Path], text_file: Path, tmp_path: Path) -> None:
    folder, marker = remote
    with pytest.raises(InputError, match="cannot load model"):
        lmtasks.run("masked-lm", model=str(folder), train_file=str(text_file), output_dir=str(tmp_path / "out"))
    assert not marker.exists()
    assert not (tmp_path / "out").exists()


def test_code_of_a_repository_runs_when_it_is_trusted(
    remote: tuple[Path, Path], text_file: Path, tmp_path: Path
) -> None:
    folder, marker = remote
    run = lmtasks.run(
        "masked-lm",
        model=str(folder),
        trust_remote_code=True,
        train_file=str(text_file),
        block_size=16,
        max_steps=2,
        output_dir=str(tmp_path / "out"),
    )
    assert marker.exists()
    assert run.metrics["eval_loss"] > 0


# --- sizes, and ties ---


@pytest.mark.parametrize(
    ("recipe", "kind", "typed"),
    [
        (CAUSAL_LM, "gpt2", "n_layer=-1"),
        (CAUSAL_LM, "gpt2", "n_head=0"),
        (CAUSAL_LM, "gpt2", "n_embd=64.5"),
        (CAUSAL_LM, "gpt2", "n_inner=0"),
        (CAUSAL_LM, "gpt2", "n_layer=10001"),
        (CAUSAL_LM, "llama", "hidden_size=-4"),
        (CAUSAL_LM, "llama", "num_key_value_heads=0"),
        (CAUSAL_LM, "llama", "head_dim=-1"),
        (MASKED_LM, "roberta", "intermediate_size=0"),
        (MASKED_LM, "roberta", "max_position_embeddings=0"),
    ],
)
def test_a_size_below_one_makes_no_model(recipe: Recipe, kind: str, typed: str) -> None:
    with pytest.raises(InputError) as caught:
        config_of(recipe, model_type=kind, config_overrides=typed)
    assert f"--config_overrides: {typed} is no size: it must be a whole number from 1 to" in caught.value.message
    assert caught.value.hint.startswith("its default is ")


def test_what_may_be_none_may_be_zero() -> None:
    assert config_of(model_type="roberta", config_overrides="type_vocab_size=0").type_vocab_size == 0
    assert config_of(CAUSAL_LM, model_type="gpt2", config_overrides="resid_pdrop=0").resid_pdrop == 0
    assert config_of(CAUSAL_LM, model_type="gpt2", config_overrides="n_inner=none").n_inner is None


@pytest.mark.parametrize("typed", ["attention_dropout=inf", "rms_norm_eps=nan"])
def test_endless_overrides_are_refused(typed: str) -> None:
    with pytest.raises(InputError, match="must be a number"):
        config_of(CAUSAL_LM, model_type="llama", config_overrides=typed)


def test_two_weights_that_are_said_to_be_one_are_refused(
    model_folders: dict[str, Path], causal_tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    embedding = load_file(model_folders["gpt2"] / "model.safetensors")["transformer.wte.weight"]
    head = {"lm_head.weight": embedding + 1}
    two = changed(model_folders["gpt2"], tmp_path / "two", lambda weights: weights.update(head))
    for use in (lambda: load(two, causal_tokenizer, CAUSAL_LM), lambda: lmtasks.predict(two, "a")):
        with pytest.raises(InputError, match=r"ties lm_head.weight to transformer.wte.weight") as caught:
            use()
        assert "write tie_word_embeddings: false into its config.json" in caught.value.hint
    # What the hint says helps, and the model is the two that it was.
    config = json.loads((two / "config.json").read_text())
    (two / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": False}))
    model = load(two, causal_tokenizer, CAUSAL_LM).model
    assert torch.equal(model.get_output_embeddings().weight, embedding + 1)
    assert torch.equal(model.get_input_embeddings().weight, embedding)


def test_one_weight_that_is_there_twice_is_one(
    model_folders: dict[str, Path], causal_tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    embedding = load_file(model_folders["gpt2"] / "model.safetensors")["transformer.wte.weight"]
    head = {"lm_head.weight": embedding.clone()}
    twice = changed(model_folders["gpt2"], tmp_path / "twice", lambda weights: weights.update(head))
    model = load(twice, causal_tokenizer, CAUSAL_LM).model
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_a_model_to_be_asked_is_whole_and_at_rest(model_folders: dict[str, Path], tmp_path: Path) -> None:
    model = lmtasks.from_pretrained("transformers:AutoModelForMaskedLM", str(model_folders["roberta"]))
    assert type(model).__name__ == "RobertaForMaskedLM" and not model.training
    model.to(torch.bfloat16).save_pretrained(tmp_path / "narrow")
    narrow = lmtasks.from_pretrained("transformers:AutoModelForMaskedLM", str(tmp_path / "narrow"))
    assert narrow.dtype == torch.bfloat16
    with pytest.raises(InputError, match=r"lacks .* of the model's weights"):
        lmtasks.from_pretrained("transformers:RobertaForTokenClassification", str(model_folders["roberta"]))
