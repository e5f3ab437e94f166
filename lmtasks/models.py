"""The model of a run: a checkpoint or a fresh one, and what it can take."""

from __future__ import annotations

import json
import re
import warnings
from contextlib import AbstractContextManager
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from lmtasks.architecture import Architecture
from lmtasks.catalog import Catalog, load_catalog
from lmtasks.errors import InputError, first_line, nearest
from lmtasks.evidence import package_of
from lmtasks.filling import fill_up
from lmtasks.hub import found_or_explained, is_local
from lmtasks.modes import in_mode
from lmtasks.recipe import Recipe
from lmtasks.references import resolve
from lmtasks.settings import ModelSettings

LENGTHS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length")
"""Names under which configurations keep the longest input."""

OLD_MASK = re.compile(r"(^|\.)(attn|attention)\.(bias|masked_bias|causal_mask)$")
"""Causal masks that older versions of transformers saved among the weights; models make their own."""


_registered: dict[str, Architecture] = {}
"""What was declared about model types; transformers keeps its Auto classes for the whole process, too."""


def register_architectures(catalog: Catalog | None = None) -> None:
    """Make every installed plugin's architecture known to transformers' Auto classes.

    One that cannot be imported is left out with a warning: it must not stop the others.
    """
    for architecture in (catalog or load_catalog()).architectures.values():
        try:
            _register(architecture)
        except (ImportError, ValueError) as error:
            warnings.warn(f"architecture '{architecture.model_type}' cannot be used: {error}", stacklevel=2)
        else:
            _registered[architecture.model_type] = architecture


def architecture_of(config: PretrainedConfig) -> Architecture:
    """What was declared about the model type of a configuration; nothing is, about most."""
    return _registered.get(config.model_type) or Architecture(model_type=config.model_type)


def with_gradients(model: PreTrainedModel) -> AbstractContextManager[None]:
    """While this is open the model is in the mode that it has gradients in: evaluation, without chance, if it can."""
    return in_mode(model, training=architecture_of(model.config).reversible)


def _register(architecture: Architecture) -> None:
    """Register the configuration, where transformers lacks it, and the model classes."""
    # The mapping is lazy and knows everything by [] and `in`, but nothing by get().
    known = CONFIG_MAPPING[architecture.model_type] if architecture.model_type in CONFIG_MAPPING else None  # noqa: SIM401
    config = resolve(architecture.config) if architecture.config else known
    if config is None:
        raise ValueError("transformers has no such model type, and the declaration names no configuration")
    if known is not None and known.__name__ != config.__name__:
        raise ValueError(f"transformers already has this model type, as {known.__name__}")
    if known is None:
        AutoConfig.register(architecture.model_type, config)
    for auto, reference in architecture.models.items():
        getattr(transformers, auto).register(config, resolve(reference), exist_ok=True)


def load_config(settings: ModelSettings, recipe: Recipe) -> PretrainedConfig:
    """The configuration of the checkpoint, or of the model to make.

    Raises:
        InputError: unknown model type, no such checkpoint, or one that the recipe cannot train.
    """
    name = settings.model_name_or_path or settings.config_name
    if name:
        with found_or_explained("model", name):
            config = AutoConfig.from_pretrained(
                name, revision=settings.revision, trust_remote_code=settings.trust_remote_code
            )
    else:
        config = _default_config(str(settings.model_type))
    made = {} if settings.model_name_or_path else settings_of_fresh(architecture_of(config), recipe)
    if made or settings.config_overrides:
        written = type(config).get_config_dict(name)[0] if name else {}
        config = _overridden(config, settings.config_overrides or "", {**made, **written})
    _require_class(config, name or str(settings.model_type), recipe)
    return config


def settings_of_fresh(architecture: Architecture, recipe: Recipe) -> dict[str, Any]:
    """What the configuration of a model to make has beside the defaults of its type."""
    return {**architecture.fresh, **(architecture.causal if recipe.attention == "causal" else {})}


def _default_config(model_type: str) -> PretrainedConfig:
    if model_type not in CONFIG_MAPPING:
        known, package = list(CONFIG_MAPPING.keys()), package_of(model_type)
        if package:
            raise InputError(f"model type '{model_type}' is in the package {package}", f"pip install {package}")
        raise InputError(
            f"unknown model type '{model_type}'{nearest(model_type, known)}",
            "transformers or a plugin must have it, such as roberta, modernbert, gpt2, llama",
        )
    return AutoConfig.for_model(model_type)


def _overridden(config: PretrainedConfig, overrides: str, written: dict[str, Any]) -> PretrainedConfig:
    """The configuration with ``a=1,b=2``, each in the type that its default has.

    Args:
        config: as it is without them.
        written: the fields that its file spells out; none for a model type's defaults.

    It is made anew from these, so that fields which follow from others follow: the kinds of the
    layers from their number, the size of a head from that of the model.
    """
    values: dict[str, Any] = {}
    for pair in re.split(r",(?![^\[]*\])", overrides) if overrides else ():  # not within a list
        key, separator, text = pair.partition("=")
        key = key.strip()
        if not separator or not hasattr(config, key):
            known = [name for name in config.to_dict() if not name.startswith("_")]
            raise InputError(
                f"--config_overrides: the {config.model_type} configuration has no '{key}'{nearest(key, known)}",
                "write name=value,name=value",
            )
        values[config.attribute_map.get(key, key)] = _typed(key, text.strip(), getattr(config, key))
    if "num_hidden_layers" in values:
        written.pop("layer_types", None)
    try:
        return type(config)(**{**written, **values})
    except StrictDataclassError as error:
        # Its first line names the field, its second says what is wrong with it.
        raise InputError(f"--config_overrides: {' '.join(str(error).split())}", "choose another value") from error
    except (ValueError, TypeError, ZeroDivisionError) as error:
        raise InputError(f"--config_overrides: {_first_line(error)}", "check the values against each other") from error


def _first_line(error: BaseException) -> str:
    """What went wrong, without the library's own preamble."""
    return first_line(error.__cause__ or error)


def _typed(key: str, text: str, default: Any) -> Any:
    if isinstance(default, (list, tuple)):
        return _typed_list(key, text)
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise InputError(f"--config_overrides: '{key}' must be true or false, got '{text}'", f"write {key}=true")
        return text.lower() == "true"
    for kind in (float,) if isinstance(default, float) else (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    if isinstance(default, (int, float)):
        raise InputError(f"--config_overrides: '{key}' must be a number, got '{text}'", f"its default is {default}")
    return None if text.lower() == "none" else text


def _typed_list(key: str, text: str) -> list[Any]:
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if not isinstance(values, list):
        raise InputError(f"--config_overrides: '{key}' must be a list, got '{text}'", f"write {key}=[1,2,3]")
    return values


def _require_class(config: PretrainedConfig, name: str, recipe: Recipe) -> None:
    """Refuse a model type that the recipe's class is not for."""
    auto = recipe.model_class.partition(":")[2]
    if reason := architecture_of(config).refused.get(auto):
        raise InputError(f"{recipe.name} cannot train '{name}': {reason}", "choose another model")
    if takes(recipe, type(config)):
        return
    if _is_remote(config) and auto in (getattr(config, "auto_map", None) or {}):
        return
    others = [other.name for other in load_catalog().recipes.values() if takes(other, type(config))]
    hint = f"lmtasks run {others[0]} takes it" if others else _what_it_is(config)
    raise InputError(f"{recipe.name} cannot train '{name}': {config.model_type} has no such model class", hint)


def _is_remote(config: PretrainedConfig) -> bool:
    """Whether its class is code from the model's repository, which takes ``--trust_remote_code`` to come this far."""
    return type(config).__module__.startswith("transformers_modules.")


def takes(recipe: Recipe, config: type[PretrainedConfig]) -> bool:
    """Whether the recipe, and its class, an Auto class or one model's, are for models of this configuration."""
    if recipe.model_types and config.model_type not in recipe.model_types:
        return False
    model_class = resolve(recipe.model_class)
    # What an Auto class maps is the one thing that tells; transformers has no public name for it.
    mapping = getattr(model_class, "_model_mapping", None)
    if mapping is not None:
        return config in mapping
    own = getattr(model_class, "config_class", None)
    return own is None or issubclass(config, own)


def _what_it_is(config: PretrainedConfig) -> str:
    """What a model is that no installed recipe takes, as far as transformers knows."""
    known = getattr(transformers.AutoModel, "_model_mapping", None) or {}
    kinds = getattr(known[type(config)], "input_modalities", "text") if type(config) in known else "text"
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if kinds == ["text"]:
        return "choose another model"
    return f"it is a model of {' and '.join(kinds)}: choose another, or install a plugin with a recipe for such models"


@dataclass(frozen=True)
class Loaded:
    """A model and how it came to be.

    Args:
        model: float32 weights, on the CPU.
        new_weights: names of the weights that the checkpoint did not have.
        grown: rows added to the embeddings for the tokenizer's tokens.
        unused: names of the checkpoint's weights that the model has no place for, sorted: those of parts
            that it lacks as a whole, such as a pooler or another task's head, and with
            ``--allow_new_weights`` any others.
    """

    model: PreTrainedModel
    new_weights: tuple[str, ...] = ()
    grown: int = 0
    unused: tuple[str, ...] = ()


def load_model(settings: ModelSettings, recipe: Recipe, config: PretrainedConfig, processor: Any, seed: int) -> Loaded:
    """The checkpoint's model, or a fresh one with weights drawn from the seed.

    Args:
        processor: the processing class; a tokenizer decides about the size of the embeddings.

    Raises:
        InputError: no weights or damaged ones; or, without ``--allow_new_weights``, some that are
            missing, or that belong inside the model and have no place there.
    """
    model_class = resolve(recipe.model_class)
    transformers.set_seed(seed)
    if not settings.model_name_or_path:
        return Loaded(adapted(_fresh(model_class, fit_to_tokenizer(config, processor)), recipe))
    name = settings.model_name_or_path
    require_safetensors(name)
    with found_or_explained("model", name):
        model, report = model_class.from_pretrained(
            name,
            config=config,
            revision=settings.revision,
            trust_remote_code=settings.trust_remote_code,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            # Only to hear which ones: transformers' own refusal has them in a table on the log.
            ignore_mismatched_sizes=True,
        )
    if report["mismatched_keys"]:
        key, saved, wanted = sorted(report["mismatched_keys"])[0]
        raise InputError(
            f"the weights in '{name}' do not fit its config.json: {key} is {list(saved)}, not {list(wanted)}",
            "take weights and configuration from the same model",
        )
    missing = tuple(sorted(report["missing_keys"]))
    if missing and not settings.allow_new_weights:
        raise InputError(
            f"'{name}' lacks {len(missing)} of the model's weights, such as {missing[0]}",
            "--allow_new_weights starts these from random numbers",
        )
    unused = tuple(sorted(report["unexpected_keys"]))
    if not settings.allow_new_weights:
        _require_place(model, unused, name)
    return Loaded(adapted(model, recipe), missing, _grow(model, processor), unused)


def adapted(model: PreTrainedModel, recipe: Recipe) -> PreTrainedModel:
    """The model, taking what recipes give although its architecture would not, and learning what it can."""
    architecture = architecture_of(model.config)
    multiple = architecture.multiple(model.config)
    if multiple > 1:
        fill_up(model, multiple)
    idle = architecture.idle.get(recipe.model_class.partition(":")[2], ())
    for name, parameter in model.named_parameters():
        if any(fnmatch(name, pattern) for pattern in idle):
            parameter.requires_grad_(False)
    if architecture.empty_padding:
        _keep_padding_empty(model)
    return model


def _keep_padding_empty(model: PreTrainedModel) -> None:
    """Let no gradient reach the embedding of the padding token, where another layer shares the table."""
    table = model.get_input_embeddings()
    padding = getattr(table, "padding_idx", None)
    if padding is not None:
        with torch.no_grad():
            table.weight[padding] = 0
        row = torch.tensor(padding)
        table.weight.register_hook(lambda gradient: gradient.index_fill(0, row.to(gradient.device), 0.0))


def _require_place(model: PreTrainedModel, unused: tuple[str, ...], checkpoint: str) -> None:
    """Refuse to leave out weights without which the model computes something else than was trained."""
    inside = [name for name in unused if _belongs_inside(model, name)]
    if inside:
        raise InputError(
            f"the model has no place for {len(inside)} of the weights in '{checkpoint}', such as {inside[0]}",
            "take weights and configuration from the same model; --allow_new_weights leaves these weights out",
        )


def _belongs_inside(model: PreTrainedModel, name: str) -> bool:
    """Whether a weight without a place in the model belongs to a part that the model computes with.

    What it lacks tells: a whole module at the top, such as a pooler or another task's head, is none
    of this task's business. A layer, a module in a layer, or a parameter of a module that is there
    had its share in what was trained.
    """
    base: torch.nn.Module = model.base_model
    # Checkpoints of a base model lack the prefix of their names.
    holder, lacking = min((_holder(start, name.split(".")) for start in (model, base)), key=lambda found: len(found[1]))
    if len(lacking) > 1:
        return holder is not model and holder is not base and not _groups_heads(model, holder)
    # A buffer that the checkpoint has as well is one that the model computes for itself.
    return lacking[0] not in dict(holder.named_buffers(recurse=False)) and not OLD_MASK.search(name)


def _holder(start: torch.nn.Module, path: list[str]) -> tuple[torch.nn.Module, list[str]]:
    """The innermost module on the path to a weight, and what of the path is not there."""
    child = dict(start.named_children()).get(path[0]) if len(path) > 1 else None
    return (start, path) if child is None else _holder(child, path[1:])


def _groups_heads(model: PreTrainedModel, module: torch.nn.Module) -> bool:
    """Whether a module at the top only wraps this task's head, where others may have lain beside it.

    BERT's family keeps the head of masked language modelling in ``cls.predictions`` and that of next
    sentences in ``cls.seq_relationship``. A list of layers is no wrapper, though it may hold only one.
    """
    at_top = any(child is module for child in model.children())
    alone = len(list(module.children())) == 1 and not list(module.parameters(recurse=False))
    return at_top and alone and not isinstance(module, (torch.nn.ModuleList, torch.nn.ModuleDict, torch.nn.Sequential))


def _fresh(model_class: Any, config: PretrainedConfig) -> PreTrainedModel:
    try:
        model: PreTrainedModel = (
            model_class.from_config(config, trust_remote_code=_is_remote(config))
            if hasattr(model_class, "from_config")
            else model_class(config)
        )
    # A configuration that does not add up surfaces as whatever the model's code trips over.
    except (ImportError, ValueError, TypeError, ZeroDivisionError, RuntimeError, AssertionError) as error:
        raise InputError(
            f"no {config.model_type} model can be made of this configuration: {_first_line(error)}",
            "check --config_overrides",
        ) from error
    return model.float()


def fit_to_tokenizer(config: PretrainedConfig, tokenizer: Any) -> PretrainedConfig:
    """A fresh configuration with the tokenizer's vocabulary size and special token ids.

    One that has other configurations within, for images say, is fitted in the part that is about text as well. Any
    other processing class has neither, and leaves the configuration as it is.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return config
    for part in (config, *_text_parts(config)):
        if hasattr(part, "vocab_size"):
            part.vocab_size = max(len(tokenizer), *(index + 1 for index in tokenizer.all_special_ids))
        for role in ("pad", "bos", "eos", "cls", "sep", "mask", "unk"):
            _fit_role(part, f"{role}_token_id", getattr(tokenizer, f"{role}_token_id", None))
    if config.is_encoder_decoder and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = tokenizer.pad_token_id  # as in T5's family
    return config


def _text_parts(config: PretrainedConfig) -> list[PretrainedConfig]:
    """The configurations within that are about text: the one called so, and those that share its vocabulary."""
    if config.is_encoder_decoder:  # one half would be a copy
        return []
    size = getattr(config, "vocab_size", None)
    inner = [part for part in vars(config).values() if isinstance(part, PretrainedConfig)]
    return [config.get_text_config(), *(part for part in inner if size and getattr(part, "vocab_size", None) == size)]


def _fit_role(config: PretrainedConfig, name: str, index: int | None) -> None:
    """Set the id of a special token, or leave the default where the type insists on having one."""
    if not hasattr(config, name):
        return
    try:
        setattr(config, name, index)
    except StrictDataclassError:
        if index is not None:
            raise


def require_safetensors(name: str) -> None:
    """Refuse a folder without weights, or with pickled ones only."""
    if not is_local(name) or any(Path(name).glob("*.safetensors")):
        return
    if any(Path(name).glob("*.bin")):
        raise InputError(
            f"'{name}' has its weights as pickle (.bin), which can run code when loaded",
            "save them as safetensors: from_pretrained, then save_pretrained, in an environment you trust",
        )
    raise InputError(f"'{name}' has no weights (*.safetensors)", "give the folder of a saved model")


def _grow(model: PreTrainedModel, tokenizer: Any) -> int:
    """Make room for the tokenizer's tokens; never shrinks, as checkpoints pad their vocabulary."""
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        return 0
    # Not every model has its table where others have (Perceiver).
    rows = getattr(model.get_input_embeddings(), "weight", None)
    rows = model.config.get_text_config().vocab_size if rows is None else rows.shape[0]
    if len(tokenizer) <= rows:
        return 0
    model.resize_token_embeddings(len(tokenizer))
    return int(len(tokenizer) - rows)


def usable_length(config: PretrainedConfig, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Most tokens that an input may have, or None when nothing says.

    Position tables with a padding row (RoBERTa's family) lose the rows up to it: 514 means 512.
    """
    limits = [length for name in LENGTHS if isinstance(length := getattr(config, name, None), int) and length > 0]
    limits += filter(None, [architecture_of(config).length(config)])
    limits += [
        table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
        for table in _position_tables(config, recipe)
    ]
    # Tokenizers without a limit say 10^30.
    if tokenizer.model_max_length < 10**9:
        limits.append(tokenizer.model_max_length)
    return min(limits, default=None)


def _position_tables(config: PretrainedConfig, recipe: Recipe) -> list[torch.nn.Embedding]:
    """The learned position embeddings, read off a model without weights."""
    with torch.device("meta"):
        model = _fresh(resolve(recipe.model_class), config)
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Embedding) and name.endswith("position_embeddings")
    ]
