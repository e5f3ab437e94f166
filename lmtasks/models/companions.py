"""Companions: modules that a recipe puts beside those of a model, such as a generator or a teacher.

Frozen checkpoints are declared, and loaded here; all else is made by the recipe's ``prepare_model``.

They are attributes of the model, so that loss, optimiser and devices find them, and no part of what is saved as the
model, so that this loads with ``from_pretrained`` alone. Those with weights to train are saved in folders of their own
beside it; the others are made anew each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from safetensors.torch import load_model, save_model
from transformers import PreTrainedModel

from lmtasks.api import Frozen, Recipe
from lmtasks.config.request import Request
from lmtasks.errors import InputError, PluginError, RunError, first_line
from lmtasks.models.adapters import has_adapter, restore_adapter, unwarned
from lmtasks.models.checkpoint import from_pretrained, pretrained
from lmtasks.models.load_errors import found_or_explained, is_local
from lmtasks.registry.faults import blamed

_NAMES = "_lmtasks_companions"

_WEIGHTS = "model.safetensors"


def companions(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """What stands beside the model, by the name of the attribute."""
    return {name: model.get_submodule(name) for name in getattr(model, _NAMES, ())}


def trained_companions(model: torch.nn.Module) -> dict[str, torch.nn.Module]:
    """Those of them that have weights to train."""
    return {name: one for name, one in companions(model).items() if _is_trained(one)}


def prepare(model: PreTrainedModel, recipe: Recipe, options: Any, seed: int) -> None:
    """Put beside the model what the recipe needs for training: what it declares, and what it makes by the seed.

    Raises:
        InputError: a frozen companion is not there, or does not fit the model.
        PluginError: ``prepare_model`` makes another model, or the name of a companion is taken.
    """
    before, shapes = dict(model.named_children()), _shapes(model)
    for name, frozen in recipe.frozen.items():
        setattr(model, name, _loaded(model, recipe, options, name, frozen))
    setattr(model, _NAMES, tuple(recipe.frozen))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = recipe.prepare_model(model, options) if recipe.prepare_model else None
    if made is not None and made is not model:
        raise PluginError(
            f"recipe '{recipe.name}' failed in its prepare_model: it gives a {type(made).__name__}",
            "change the model that it gets, and give nothing: what you set as its attributes is trained with it",
        )
    setattr(model, _NAMES, tuple(name for name, _ in model.named_children() if name not in before))
    with apart(model):
        if has_adapter(model) and _shapes(model) != shapes:
            raise InputError(
                f"{recipe.name} gives the model other layers with these options; an adapter is for one as it lies",
                "leave --use_peft out, or train once without it and take that run as --model",
            )
    for one in companions(model).values():
        if not _is_trained(one):  # a teacher has no dropout
            setattr(one.eval(), "train", _stay)  # noqa: B010  (mypy takes it for a change of the class)


def accompany(model: PreTrainedModel, request: Request, *, training: bool) -> list[str]:
    """Let the recipe of a request put beside the model what it needs, as it lies beside the one that was named.

    Returns:
        what stands there, in words.

    Raises:
        InputError: what is needed to evaluate is not there.
    """
    recipe, name = request.recipe, request.model.model_name_or_path
    prepare(model, recipe, request.options, request.seed)
    told = list(notes(model))
    if name is None or load_companions(model, recipe, name, request.model.revision):
        return told
    if not training:
        missing = " and no ".join(trained_companions(model)) or "such companion"
        raise InputError(
            f"'{name}' has no {missing}, without which {recipe.name} cannot be evaluated",
            f"train it first: lmtasks run {recipe.name} --model {name}",
        )
    return [f"{line}; new" for line in told]


def require_named(request: Request) -> None:
    """Refuse a request that leaves open which checkpoint a frozen companion is.

    Raises:
        InputError: names the option.
    """
    for name in request.recipe.frozen:
        if not getattr(request.options, name):
            message = f"{request.recipe.name} needs a {name.replace('_', ' ')} beside the model"
            raise InputError(message, f"--{name} with a folder or Hub id")


def _loaded(model: PreTrainedModel, recipe: Recipe, options: Any, name: str, frozen: Frozen) -> PreTrainedModel:
    """A frozen companion, as the options name it, where it fits the model."""
    if hasattr(model, name):
        raise PluginError(
            f"recipe '{recipe.name}' has a frozen companion '{name}', and {type(model).__name__} a part of that name",
            "give the option another name",
        )
    given = getattr(options, name)
    one = from_pretrained(frozen.model_class, given).requires_grad_(False)
    with blamed(recipe, "frozen", frozen.alike):
        sizes = tuple(frozen.alike(options))
    for size in sizes:
        ours, theirs = (getattr(each.config, size, None) for each in (model, one))
        if ours != theirs:
            raise InputError(f"{size} is {ours} here, {theirs} in '{given}'", f"take a --{name} with {size} {ours}")
    return one


def _stay(mode: bool = True) -> None:
    """In the place of ``train``, of what stays in evaluation mode whatever the model is put into."""


def notes(model: torch.nn.Module) -> Iterator[str]:
    """What stands beside the model, in words."""
    for name, one in companions(model).items():
        weights = sum(parameter.numel() for parameter in one.parameters())
        yield f"{name}: {weights:,} weights beside the model's, {'trained' if _is_trained(one) else 'not trained'}"


@contextmanager
def apart(model: torch.nn.Module) -> Iterator[None]:
    """While this is open, the model has its own parts only."""
    taken = companions(model)
    for name in taken:
        del model._modules[name]
    try:
        yield
    finally:
        model._modules.update(taken)


@dataclass(frozen=True)
class Whole:
    """A model and what stands beside it, to be saved.

    Args:
        weights: of the model, where it has only a part of them itself.
    """

    model: PreTrainedModel
    recipe: Recipe
    weights: dict[str, Any] | None = None

    def save_pretrained(self, folder: Path) -> None:
        """Save the model into the folder, and its companions into others within."""
        with apart(self.model), unwarned():
            self.model.save_pretrained(folder, **({} if self.weights is None else {"state_dict": self.weights}))
        save_companions(self.model, self.recipe, folder)


def save_companions(model: PreTrainedModel, recipe: Recipe, folder: Path) -> None:
    """Save what is trained beside the model, in folders of their names, or as the recipe does it."""
    if recipe.save is not None:
        recipe.save(model, folder)
        return
    for name, one in trained_companions(model).items():
        place = folder / name
        if isinstance(one, PreTrainedModel):
            one.save_pretrained(place)
        else:
            place.mkdir(parents=True, exist_ok=True)
            save_model(one, str(place / _WEIGHTS))


def load_companions(model: PreTrainedModel, recipe: Recipe, name: str, revision: str = "main") -> bool:
    """Set what is trained beside the model to what lies beside the one of a folder or Hub id.

    Returns:
        whether it was there.

    Raises:
        InputError: it is damaged, or does not fit.
    """
    wanted = trained_companions(model)
    if recipe.load is None and not wanted:
        return True
    folder = _folder(name, revision, () if recipe.load else tuple(wanted))
    if recipe.load is not None:
        try:
            recipe.load(model, folder)
        except FileNotFoundError:
            return False
        return True
    if not all((folder / companion).is_dir() for companion in wanted):
        return False
    for companion, one in wanted.items():
        _load(one, folder / companion)
    return True


def require_companions(model: PreTrainedModel, recipe: Recipe, folder: str, hint: str) -> None:
    """Set what is trained beside the model to what a run has written.

    Raises:
        RunError: it has not.
    """
    if not load_companions(model, recipe, folder):
        raise RunError(f"'{folder}' lacks what {recipe.name} trains beside the model", hint)


def restore(model: PreTrainedModel, recipe: Recipe, checkpoint: str, plain: Callable[[], None]) -> None:
    """Set the weights of the model, or of its adapter, and what stands beside it to those of a checkpoint.

    Args:
        plain: does that for a model without adapter; the Trainer's own way with one is for models within peft's.

    Raises:
        RunError: what stands beside the model is not there.
    """
    with apart(model):
        if has_adapter(model):
            restore_adapter(model, checkpoint)
        else:
            plain()
    require_companions(model, recipe, checkpoint, "resume another checkpoint")


def _load(one: torch.nn.Module, folder: Path) -> None:
    if isinstance(one, PreTrainedModel):
        saved, missing, unused = pretrained(type(one), str(folder), config=one.config, trust_remote_code=False)
        if missing or unused:
            lost = (*missing, *unused)[0]
            raise InputError(f"'{folder}' does not fit: it is about {lost}", "take what was saved with this model")
        one.load_state_dict(saved.state_dict())
        return
    try:
        load_model(one, str(folder / _WEIGHTS))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise InputError(
            f"'{folder}' is damaged, or does not fit: {first_line(error)}", "take what was saved with this model"
        ) from error


def _folder(name: str, revision: str, wanted: tuple[str, ...]) -> Path:
    """Where they lie on this machine; without names, all that lies there."""
    if is_local(name):
        return Path(name)
    patterns = [f"{companion}/{kind}" for companion in wanted for kind in ("*.json", "*.safetensors")]
    with found_or_explained("model", name):
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns or None))


def _shapes(model: torch.nn.Module) -> dict[str, torch.Size]:
    return {name: one.shape for name, one in model.named_parameters()}


def _is_trained(one: torch.nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in one.parameters())
