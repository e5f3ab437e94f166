"""The configuration of a model: loaded or made, changed, and fitted to a tokenizer."""

from __future__ import annotations

import json
import math
import re
from contextlib import nullcontext, suppress
from typing import Any

import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from lmtasks.api import Recipe, resolve
from lmtasks.config.settings import ModelSettings
from lmtasks.errors import InputError, first_line, nearest
from lmtasks.models.adapters import base_of, require_whole
from lmtasks.models.architectures import architecture_of, takes
from lmtasks.models.forward import MODEL_FAILURES, first_position, position_tables
from lmtasks.models.load_errors import found_or_explained
from lmtasks.registry.catalog import load_catalog
from lmtasks.registry.support import package_of

LENGTHS = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "seq_length")
"""Names under which configurations keep the longest input."""

_SIZE = re.compile(
    r"(^|_)(size|dim|layers?|heads?|positions?|embeddings|embd|inner|model|ff|kv|width|blocks?)$|^num_|^n_"
)
"""How the names of sizes begin or end."""

_MAY_BE_NONE = frozenset({"type_vocab_size", "num_labels"})
"""Sizes that may be 0."""

_MOST, _MOST_LAYERS = 2**31 - 1, 10_000
"""The largest size, and the most layers; with more, a computer is busy for days before it runs out of memory."""


def load_config(settings: ModelSettings, recipe: Recipe) -> PretrainedConfig:
    """The configuration of the checkpoint, or of the model to make.

    Raises:
        InputError: unknown model type, no such checkpoint, or one that the recipe cannot train.
    """
    name = settings.model_name_or_path or settings.config_name
    if settings.model_name_or_path:
        require_whole(settings.model_name_or_path, settings.revision)
    if name:
        config = saved_config(name, settings.revision, trust_remote_code=settings.trust_remote_code)
    else:
        config = _default_config(str(settings.model_type))
    declared = architecture_of(config)
    causal = declared.causal if recipe.attention == "causal" else {}
    made = {} if settings.model_name_or_path else {**declared.fresh, **causal}
    if made or settings.config_overrides:
        written = type(config).get_config_dict(name)[0] if name else {}
        config = _overridden(config, settings.config_overrides or "", {**made, **written})
    require_class(config, name or str(settings.model_type), recipe)
    return config


def saved_config(name: str, revision: str = "main", *, trust_remote_code: bool = False) -> PretrainedConfig:
    """The configuration of a folder or Hub id; of an adapter, that of the model that it is for.

    Raises:
        InputError: not there, or damaged.
    """
    if base := base_of(name, revision):
        name, revision = base.name, base.revision
    with found_or_explained("model", name):
        config: PretrainedConfig = AutoConfig.from_pretrained(
            name, revision=revision, trust_remote_code=trust_remote_code
        )
    return config


def _default_config(model_type: str) -> PretrainedConfig:
    if model_type in CONFIG_MAPPING:
        return AutoConfig.for_model(model_type)
    if package := package_of(model_type):
        raise InputError(f"model type '{model_type}' is in the package {package}", f"pip install {package}")
    raise InputError(
        f"unknown model type '{model_type}'{nearest(model_type, CONFIG_MAPPING.keys())}",
        "transformers or a plugin must have it, such as roberta, modernbert, gpt2, llama",
    )


def _overridden(config: PretrainedConfig, overrides: str, written: dict[str, Any]) -> PretrainedConfig:
    """The configuration with ``a=1,b=2``, each in the type that its default has.

    It is made anew from these and from what is ``written`` in its file, so that fields which follow from others
    follow: the kinds of the layers from their number, the size of a head from that of the model.
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
        default = getattr(config, key)
        values[config.attribute_map.get(key, key)] = value = _typed(key, text.strip(), default)
        _require_size(key, value, default)
    if "num_hidden_layers" in values:
        written.pop("layer_types", None)
    try:
        return type(config)(**{**written, **values})
    except StrictDataclassError as error:
        # Its first line names the field, its second says what is wrong with it.
        raise InputError(f"--config_overrides: {' '.join(str(error).split())}", "choose another value") from error
    except (ValueError, TypeError, ZeroDivisionError) as error:
        # The cause, if there is one, has no preamble of the library's.
        reason = first_line(error.__cause__ or error)
        raise InputError(f"--config_overrides: {reason}", "check the values against each other") from error


def _require_size(key: str, value: Any, default: Any) -> None:
    """Refuse a size or a number of parts below 1, which some models take for none, or for all but one."""
    is_size = default is None or (isinstance(default, int) and default > 0)  # else -1 or 0 may stand for something
    if not is_size or key in _MAY_BE_NONE or not _SIZE.search(key) or not isinstance(value, int | float):
        return
    most = _MOST_LAYERS if "layer" in key else _MOST
    if not isinstance(value, bool) and not (value == int(value) and 1 <= value <= most):
        message = f"--config_overrides: {key}={value} is no size: it must be a whole number from 1 to {most}"
        raise InputError(message, f"its default is {default}")


def _typed(key: str, text: str, default: Any) -> Any:
    """The value that a text stands for, of the type of the default."""
    if isinstance(default, (list, tuple)):
        wanted, hint = "a list", f"write {key}=[1,2,3]"
        with suppress(ValueError):
            if isinstance(values := json.loads(text), list):
                return values
    elif isinstance(default, bool):
        wanted, hint = "true or false", f"write {key}=true"
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
    else:
        wanted, hint = "a number", f"its default is {default}"
        for kind in (float,) if isinstance(default, float) else (int, float):
            with suppress(ValueError):
                if isinstance(number := kind(text), int) or math.isfinite(number):
                    return number
        if not isinstance(default, (int, float)):
            return None if text.lower() == "none" else text
    raise InputError(f"--config_overrides: '{key}' must be {wanted}, got '{text}'", hint)


def require_class(config: PretrainedConfig, name: str, recipe: Recipe, *, training: bool = True) -> None:
    """Refuse a model type that the recipe's class is not for.

    Args:
        training: whether it is to be trained, and not only to be asked.

    Raises:
        InputError: names the recipe that takes it, if one does.
    """
    auto, cannot = recipe.model_class.partition(":")[2], "cannot train" if training else "is not for"
    if reason := architecture_of(config).refused.get(auto):
        raise InputError(f"{recipe.name} {cannot} '{name}': {reason}", "choose another model")
    remote = _is_remote(config) and auto in (getattr(config, "auto_map", None) or {})
    if remote or takes(recipe, type(config)):
        return
    others = [other.name for other in load_catalog().recipes.values() if takes(other, type(config))]
    taking = (f"lmtasks run {name} takes it" if training else f"--recipe {name}" for name in others)
    hint = next(taking, "") or _what_it_is(config)
    raise InputError(f"{recipe.name} {cannot} '{name}': {config.model_type} has no such model class", hint)


def _is_remote(config: PretrainedConfig) -> bool:
    """Whether its class is code from the model's repository, which takes ``--trust_remote_code`` to come this far."""
    return type(config).__module__.startswith("transformers_modules.")


def _what_it_is(config: PretrainedConfig) -> str:
    """The kind of a model that no installed recipe takes, as far as transformers knows."""
    known = transformers.AutoModel._model_mapping
    kinds = getattr(known[type(config)], "input_modalities", "text") if type(config) in known else "text"
    kinds = [kinds] if isinstance(kinds, str) else list(kinds)
    if kinds == ["text"]:
        return "choose another model"
    return f"it is a model of {' and '.join(kinds)}: choose another, or install a plugin with a recipe for such models"


def require_attention(settings: ModelSettings, model_class: Any, config: PretrainedConfig) -> None:
    """Refuse a way of computing attention that the model does not have, before weights are read.

    Raises:
        InputError: says why.
    """
    if settings.attn_implementation:
        with torch.device("meta"):
            _fresh(model_class, config, settings.attn_implementation)


def _fresh(model_class: Any, config: PretrainedConfig, attention: str | None = None) -> PreTrainedModel:
    automatic = hasattr(model_class, "from_config")
    make = model_class.from_config if automatic else model_class._from_config
    how: dict[str, Any] = {"trust_remote_code": _is_remote(config)} if automatic else {}
    how |= {"attn_implementation": attention} if attention else {}
    try:
        model: PreTrainedModel = make(config, **how)
    except (ImportError, ZeroDivisionError, *MODEL_FAILURES) as error:  # it does not add up
        reason = first_line(error.__cause__ or error)
        if attention:
            raise InputError(
                f"--attn_implementation {attention}: {reason.split('. ')[0]}", "leave it out, or give the other one"
            ) from error
        raise InputError(
            f"no {config.model_type} model can be made of this configuration: {reason}", "check --config_overrides"
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
            name = f"{role}_token_id"
            index = getattr(tokenizer, name, None)
            # Where the tokenizer has none, a type that insists on having one keeps its default.
            with suppress(StrictDataclassError) if index is None else nullcontext():
                if hasattr(part, name):
                    setattr(part, name, index)
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


def usable_length(config: PretrainedConfig, recipe: Recipe, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """Most tokens that an input may have, or None when nothing says."""
    with torch.device("meta"):
        most = most_positions(config, _fresh(resolve(recipe.model_class), config))
    # Tokenizers without a limit say 10^30.
    own = tokenizer.model_max_length if tokenizer.model_max_length < 10**9 else None
    return min((limit for limit in (most, own) if limit is not None), default=None)


def rows_of(model: PreTrainedModel) -> int:
    """The number of tokens that a model has a row of embeddings for."""
    # Not every model has its table where others have (Perceiver).
    rows = getattr(model.get_input_embeddings(), "weight", None)
    return int(model.config.get_text_config().vocab_size if rows is None else rows.shape[0])


def unknown_tokens(model: PreTrainedModel, tokenizer: Any, error: Exception) -> InputError | None:
    """Why a model failed on a text, where its tokenizer has tokens that the model does not know; else None.

    Not refused beforehand: many a checkpoint has such tokens, for padding say, and never meets them in a text.
    """
    if not isinstance(error, IndexError | RuntimeError) or not isinstance(tokenizer, PreTrainedTokenizerBase):
        return None
    told = f"the tokenizer has {len(tokenizer):,} tokens, and the model knows {rows_of(model):,}"
    hint = "take the tokenizer that the model was trained with, or train the model with this one"
    return InputError(told, hint) if len(tokenizer) > rows_of(model) else None


def most_positions(config: PretrainedConfig, model: PreTrainedModel) -> int | None:
    """Most tokens that the model itself has places for, or None when nothing says.

    Position tables with a padding row (RoBERTa's family) lose the rows up to it: 514 means 512.
    """
    limits = [length for name in LENGTHS if isinstance(length := getattr(config, name, None), int) and length > 0]
    limits = [max(limit, _stretched(config)) for limit in limits]
    limits += filter(None, [architecture_of(config).length(config)])
    limits += [table.num_embeddings - first_position(table) for table in position_tables(model)]
    return min(limits, default=None)


def _stretched(config: PretrainedConfig) -> int:
    """How far rotary positions were stretched beyond those that the model began with; 0 where they were not."""
    rope = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    factor, original = rope.get("factor"), rope.get("original_max_position_embeddings")
    if not isinstance(factor, int | float) or not isinstance(original, int):
        return 0
    return int(factor * original)
