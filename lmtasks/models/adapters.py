"""Adapters: few weights that are trained beside those of a checkpoint, which stay as they are; the work is peft's.

They lie within the model itself (transformers' ``add_adapter``), not around it: to all that looks at the model, and to
``from_pretrained`` of its folder, it is one of its own class.
"""

from __future__ import annotations

import json
import os
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors.torch import load_file
from transformers import PreTrainedModel
from transformers.integrations.peft import MIN_PEFT_VERSION
from transformers.utils import cached_file, check_peft_version

from lmtasks.api import Recipe
from lmtasks.artifacts.run_folder import require_intact
from lmtasks.config.settings import AdapterSettings
from lmtasks.config.yaml_file import read_mapping
from lmtasks.errors import InputError, first_line
from lmtasks.models.load_errors import found_or_explained, is_local
from lmtasks.models.weight_files import require_no_danger

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"
NAME = "default"
"""What peft calls the only adapter of a model."""

ALL_LINEAR = "all-linear"

_PREFIX = "base_model.model."
"""Of the names of weights in the files of peft."""

_TASKS = {"AutoModelForCausalLM": "CAUSAL_LM", "AutoModelForSeq2SeqLM": "SEQ_2_SEQ_LM"}
"""What peft calls the task of a class; masked language modelling has no name there."""


@dataclass(frozen=True)
class Base:
    """The model that an adapter is for.

    Args:
        name: folder or Hub id.
        revision: branch, tag or commit.
        config: the adapter's own configuration, as its file has it.
    """

    name: str
    revision: str
    config: Mapping[str, Any]


def base_of(name: str, revision: str = "main") -> Base | None:
    """The model that an adapter is for; None where the name is that of a model.

    Raises:
        InputError: the adapter's configuration is damaged, or names no model.
    """
    config = _config(name, revision)
    if config is None:
        return None
    base = config.get("base_model_name_or_path")
    if not isinstance(base, str) or not base:
        raise InputError(f"the adapter '{name}' does not say which model it is for", f"write it into its {CONFIG}")
    if is_local(base) and not Path(base).is_dir():
        raise InputError(
            f"the model that the adapter '{name}' is for is not there any more: '{base}'",
            f"bring it back, or write its new place into base_model_name_or_path of {CONFIG}",
        )
    return Base(base, str(config.get("revision") or "main"), config)


def require_whole(name: str, revision: str = "main") -> None:
    """Refuse a model that is dangerous to load, or a finished run that was damaged since; to be asked before all else.

    Of an adapter, the model that it is for is looked at too.

    Reads every file, so it is asked once for each use of a model.

    Raises:
        InputError: names the file that is missing, is not as the run left it, or is not to be loaded.
    """
    base = base_of(name, revision)
    for folder in (name, base.name) if base else (name,):
        # What could do harm is worth more words than what is merely not there.
        require_no_danger(folder)
        require_intact(folder)


def _config(name: str, revision: str) -> dict[str, Any] | None:
    path: Path | str | None = Path(name, CONFIG) if os.path.isdir(name) else None
    if path is None:
        path = _from_hub(name, revision)
    elif os.path.isfile(Path(name, "config.json")):
        return None  # a whole model, whatever lies beside it
    if path is None or not Path(path).is_file():
        return None
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"'{path}' is damaged: {first_line(error)}", "download or copy it again") from error
    if not isinstance(config, dict):
        raise InputError(f"'{path}' is damaged: it is no mapping", "download or copy it again")
    return config


def _from_hub(name: str, revision: str) -> str | None:
    """The file of an adapter's configuration; None where there is none, and where the model is for others to miss."""
    if is_local(name):
        return None
    try:
        if isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str):
            return None  # a whole model
        return hf_hub_download(name, CONFIG, revision=revision)
    except LocalEntryNotFoundError as error:  # and it is not known either whether there is one
        if constants.HF_HUB_OFFLINE:
            return None
        with found_or_explained("model", name):
            raise error
    except (HfHubHTTPError, HFValidationError, OSError, ValueError):
        return None


def has_adapter(model: torch.nn.Module) -> bool:
    """Whether a model has one."""
    return bool(getattr(model, "_hf_peft_config_loaded", False))


def base_model(name: str | None, model: torch.nn.Module) -> str | None:
    """The checkpoint under a model: what was named, and for an adapter the model that it is for."""
    return str(model.peft_config[NAME].base_model_name_or_path) if has_adapter(model) else name  # type: ignore[union-attr,index]


def adapter_kind(model: torch.nn.Module) -> str:
    """What peft calls the kind of a model's adapter, such as ``LORA``."""
    return str(model.peft_config[NAME].peft_type.value)  # type: ignore[union-attr,index]


def add_adapter(
    model: PreTrainedModel, recipe: Recipe, settings: AdapterSettings, name: str, revision: str, new: Sequence[str] = ()
) -> None:
    """Give the model an adapter to be trained, and freeze all else; drawn from torch's generator as it stands.

    Args:
        name, revision: of the checkpoint.
        new: names of the weights that the checkpoint did not have.

    Raises:
        InputError: peft is not installed, there is an adapter already, the settings do not fit the model, or weights
            that are new would neither be trained nor saved.
    """
    if has_adapter(model):
        raise InputError(f"'{name}' is an adapter already, and trained on", "leave --use_peft out, or merge it first")
    _require_peft()
    config = _asked(settings, recipe)
    with _settings_told(model, settings.peft_config):
        _insert(model, config, name, revision)
    kept = set(config.modules_to_save or ()) if hasattr(config, "modules_to_save") else set()
    if lost := [weight for weight in new if not kept & set(weight.split("."))]:
        part = lost[0].split(".")[0]
        raise InputError(
            f"{len(lost)} weights that '{name}' lacks would be neither trained nor saved, such as {lost[0]}",
            f"--lora_modules_to_save {part}",
        )


def load_adapter(model: PreTrainedModel, name: str, base: Base, revision: str = "main") -> None:
    """Give the model that an adapter is for the adapter of a folder or Hub id; its weights are trained on.

    Raises:
        InputError: peft is not installed, or the adapter is damaged or does not fit the model.
    """
    _require_peft()
    from peft import PeftConfig

    with found_or_explained("adapter", name):
        config = PeftConfig.from_pretrained(name, revision=revision)
        weights = cached_file(name, WEIGHTS, revision=revision)
    config.inference_mode = False
    with _settings_told(model, str(Path(name, CONFIG))):
        _insert(model, config, base.name, base.revision)
    with found_or_explained("adapter", name):
        saved = load_file(weights)
    if wrong := _restore(model, saved):
        raise InputError(f"the weights of the adapter '{name}' do not fit: {wrong}", "take the model that it is for")


def restore_adapter(model: PreTrainedModel, folder: str | Path) -> None:
    """Set the weights of the model's adapter to those of a checkpoint.

    Raises:
        ValueError: they do not fit.
    """
    if wrong := _restore(model, load_file(Path(folder, WEIGHTS))):
        raise ValueError(f"the adapter in '{folder}' does not fit: {wrong}")


@contextmanager
def thawed(model: torch.nn.Module) -> Iterator[None]:
    """While this is open, what is frozen for the sake of an adapter has gradients as well, as it has without one."""
    frozen = [one for one in model.parameters() if has_adapter(model) and not one.requires_grad and _has_gradients(one)]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


def _has_gradients(parameter: torch.nn.Parameter) -> bool:
    """Whether it could have any: what is held in few bits is no number of the machine's."""
    return parameter.is_floating_point()


def merge_into(model: PreTrainedModel) -> PreTrainedModel:
    """The model with what its adapter adds in its own weights, and no adapter.

    Raises:
        InputError: peft cannot do that with this kind of adapter, or it gives numbers that are none.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer
    from peft.utils import AuxiliaryTrainingWrapper
    from peft.utils.other import ModulesToSaveWrapper

    _part(model, (BaseTunerLayer, ModulesToSaveWrapper))
    for path, module in list(model.named_modules()):
        parent, _, own = path.rpartition(".")
        if isinstance(module, BaseTunerLayer):
            try:
                module.merge(safe_merge=True)
            except (NotImplementedError, ValueError, AttributeError, TypeError) as error:
                raise InputError(f"{path} cannot be merged: {first_line(error)}", "use the adapter as it is") from error
            setattr(model.get_submodule(parent), own, module.get_base_layer())
        elif isinstance(module, ModulesToSaveWrapper):
            setattr(model.get_submodule(parent), own, module.modules_to_save[NAME])
        elif isinstance(module, AuxiliaryTrainingWrapper):
            raise InputError(f"{path} cannot be merged: {type(module).__name__}", "use the adapter as it is")
    del model.peft_config
    model._hf_peft_config_loaded = False
    return model.requires_grad_(True)


def _part(model: PreTrainedModel, kinds: tuple[Any, ...]) -> None:
    """Make two weights of one that several parts have, where an adapter is on some of them: merged, they differ."""
    owners: dict[int, list[tuple[torch.nn.Module, str]]] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            owners.setdefault(id(parameter), []).append((module, name))
    shared = [places for key, places in owners.items() if len(places) > 1 and key != id(None)]
    with_adapter = [module for module in model.modules() if isinstance(module, kinds)]
    adapted: set[torch.nn.Module] = {part for module in with_adapter for part in module.modules()}
    if adapted.isdisjoint(module for places in shared for module, _ in places):
        return
    for module, name in (place for places in shared for place in places[1:]):
        setattr(module, name, torch.nn.Parameter(getattr(module, name).detach().clone(), requires_grad=False))
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = False
    model.all_tied_weights_keys = {}


def _require_peft() -> None:
    try:
        import peft
    except ImportError as error:
        raise InputError("adapters need the package peft", "pip install lmtasks[peft]") from error
    try:
        check_peft_version(MIN_PEFT_VERSION)
    except ValueError as error:
        needed = f"adapters need peft {MIN_PEFT_VERSION} or later, this is {peft.__version__}"
        raise InputError(needed, "pip install --upgrade lmtasks[peft]") from error


def _asked(settings: AdapterSettings, recipe: Recipe) -> Any:
    """peft's configuration of the adapter that the settings ask for."""
    from peft import LoraConfig, get_peft_config

    task = settings.lora_task_type or _TASKS.get(recipe.model_class.partition(":")[2])
    try:
        if settings.peft_config is not None:
            given = read_mapping(settings.peft_config, "peft_config", "peft_type: LORA")
            return get_peft_config({"task_type": task, **given})
        targets = settings.lora_target_modules or [ALL_LINEAR]
        return LoraConfig(
            r=settings.lora_r,
            lora_alpha=settings.lora_alpha,
            lora_dropout=settings.lora_dropout,
            target_modules=ALL_LINEAR if targets == [ALL_LINEAR] else targets,
            modules_to_save=settings.lora_modules_to_save,
            use_rslora=settings.use_rslora,
            use_dora=settings.use_dora,
            task_type=task,
        )
    except (KeyError, TypeError, ValueError) as error:
        told = f"unknown {first_line(error)}" if isinstance(error, KeyError) else first_line(error)
        flag = "--peft_config" if settings.peft_config is not None else "--use_peft"
        raise InputError(
            f"{flag}: {told}", "peft's documentation has its kinds of adapters and their settings"
        ) from error


@contextmanager
def unwarned() -> Iterator[None]:
    """While this is open, peft does not warn of what is taken care of here."""
    with warnings.catch_warnings():
        # Layers that keep their weights the other way round are found by themselves.
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        # Merged, such weights become two.
        warnings.filterwarnings("ignore", message="Model has `tie_word_embeddings=True`")
        # Which is what an adapter on them needs.
        warnings.filterwarnings("ignore", message="Setting `save_embedding_layers` to `True`")
        yield


def _insert(model: PreTrainedModel, config: Any, name: str, revision: str) -> None:
    """Put an adapter into a model, in float32, as the one that is trained."""
    if config.is_prompt_learning:
        raise InputError(
            f"{config.peft_type.value} adds words to the input, which no adapter within the model can do",
            "take another peft_type, such as LORA, IA3 or LOHA",
        )
    for kind in ("target_modules", "modules_to_save"):
        _require_modules(model, getattr(config, kind, None))
    with unwarned():
        model.add_adapter(config)
    config.base_model_name_or_path = str(Path(name).resolve()) if is_local(name) else name
    config.revision = None if is_local(name) or revision == "main" else revision
    if config.task_type is None:  # by which peft finds the class where its tasks have no name for it
        config.auto_mapping = {"base_model_class": type(model).__name__, "parent_library": type(model).__module__}
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def _require_modules(model: PreTrainedModel, names: Any) -> None:
    """Refuse a name that no module has: peft overlooks it, as long as another one has its module."""
    paths = [f".{path}" for path, _ in model.named_modules()]
    for name in () if names is None or isinstance(names, str) else sorted(names):
        if not any(path.endswith(f".{name}") for path in paths):
            raise ValueError(f"it has no module '{name}'")


def _restore(model: PreTrainedModel, saved: Mapping[str, torch.Tensor]) -> str | None:
    """Set the adapter's weights, all of them; or what does not fit, in words."""
    from peft import get_peft_model_state_dict, set_peft_model_state_dict

    with unwarned():
        ours = get_peft_model_state_dict(model, adapter_name=NAME)
    given = {key.removeprefix(_PREFIX): value for key, value in saved.items()}
    saved_as = {ours[key].data_ptr(): key for key in ours.keys() & given.keys()}
    for key in ours.keys() - given.keys():  # of one weight with two names, one is saved
        if other := saved_as.get(ours[key].data_ptr()):
            given[key] = given[other]
    if missing := sorted(ours.keys() - given.keys()):
        return f"{missing[0]} is missing"
    if unknown := sorted(given.keys() - ours.keys()):
        return f"the model has no place for {unknown[0]}"
    for key, value in given.items():
        if value.shape != ours[key].shape:
            return f"{key} is {list(value.shape)}, not {list(ours[key].shape)}"
    set_peft_model_state_dict(model, given, adapter_name=NAME)
    return None


@contextmanager
def _settings_told(model: PreTrainedModel, file: str | None) -> Iterator[None]:
    """What peft says of settings that do not fit a model, in two lines.

    Args:
        file: that has the settings; None where they are flags.
    """
    linear = dict.fromkeys(
        path.rpartition(".")[2]
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) or type(module).__name__ == "Conv1D"
    )
    try:
        yield
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError, ImportError) as error:
        told = re.sub(r"^\[PEFT:[^]]*\] ", "", first_line(error))
        fit = [name for name in linear if f"'{name}'" not in told]
        where = f"another peft_type in '{file}', or target_modules" if file else "--lora_target_modules"
        raise InputError(
            f"no such adapter for a {model.config.model_type} model: {told.split('. ')[0]}",
            f"{where} with some of its linear layers: {' '.join(fit)}",
        ) from error
