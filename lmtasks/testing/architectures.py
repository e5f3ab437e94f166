"""The proof of an architecture: everything that a model must do for a recipe, measured on a tiny one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from lmtasks.api import Architecture, Recipe
from lmtasks.models.architectures import takes
from lmtasks.registry.catalog import load_catalog
from lmtasks.testing.battery import BATTERY
from lmtasks.testing.proof import CheckFailed, Fault, Proof, examine
from lmtasks.testing.set_up import case_of


def prove(
    model: str | Architecture | PretrainedConfig,
    recipe: Recipe,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    unmoved: Iterable[str] = (),
    skip: Mapping[str, str] | None = None,
    only: Sequence[str] = (),
    **more: Any,
) -> Proof:
    """Whether models of a type do all that the recipe needs, check by check.

    Nothing is raised for what is wrong with the model: it is in the proof. It takes seconds on one core.

    Args:
        model: model type, architecture, or the configuration of a tiny model. Of a type that no plugin declares
            ``tiny`` for, the default configuration is shrunk.
        recipe: trains the model and asks it.
        tokenizer: a tiny one; trained on the spot when None.
        unmoved: patterns of parameters that training may leave where they are, ``"*.position_bias"``.
        skip: checks to leave out, each with the reason.
        only: the only checks to run; all when there are none.
        more: ``options`` of the recipe by name, ``oracle``, ``text``, ``predict``; see
            :func:`lmtasks.testing.check_recipe`.

    Raises:
        ValueError: ``skip`` or ``only`` names no check.
    """
    with case_of(recipe, model, tokenizer, unmoved=tuple(unmoved), **more) as case:
        checks = [check for check in BATTERY.values() if "architecture" in check.subjects]
        return examine(case, checks, skip or {}, only)


def check_architecture(architecture: Architecture, recipe: Recipe | None = None, **how: Any) -> list[Proof]:
    """Prove an architecture with each recipe whose model class it declares.

    Args:
        architecture: with a ``tiny`` configuration.
        recipe: the only one to take; all installed ones that fit when None.
        how: as for :func:`prove`.

    Returns:
        the proof for each recipe.

    Raises:
        CheckFailed: a check failed, or no recipe fits; names each, with what to do.
    """
    recipes = [recipe] if recipe else _recipes_for(architecture)
    if not recipes:
        wrong = Fault(
            f"no installed recipe trains one of {', '.join(architecture.models) or 'its classes'}",
            "declare models={'AutoModelForCausalLM': 'package.module:Class'}, or give a recipe",
        )
        raise CheckFailed([Proof.of_fault(architecture.model_type, "architecture-registers", wrong)])
    proofs = [prove(architecture, one, **how) for one in recipes]
    if any(proof.failed for proof in proofs):
        raise CheckFailed(proofs)
    return proofs


def _recipes_for(architecture: Architecture) -> list[Recipe]:
    """The installed recipes that can train it."""
    return [recipe for recipe in load_catalog().recipes.values() if _trains(recipe, architecture)]


def _trains(recipe: Recipe, architecture: Architecture) -> bool:
    """Whether the recipe's Auto class is one that the architecture declares, or that transformers has for it."""
    name = recipe.model_class.rpartition(":")[2]
    if architecture.models:
        return name in architecture.models or recipe.model_class in architecture.models.values()
    return architecture.model_type in CONFIG_MAPPING and takes(recipe, CONFIG_MAPPING[architecture.model_type])
