"""The proofs that all checks make of a recipe or an architecture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from lmtasks.api import Architecture, Recipe
from lmtasks.models.architectures import takes
from lmtasks.registry.catalog import load_catalog
from lmtasks.testing.order import checks
from lmtasks.testing.proof import CheckFailed, Oracle, Outcome, Proof, examine
from lmtasks.testing.set_up import case_of


def check_recipe(
    recipe: Recipe,
    *,
    model: str | Architecture | PretrainedConfig | None = None,
    tokenizer: PreTrainedTokenizerBase | None = None,
    options: Mapping[str, Any] | None = None,
    oracle: Oracle | None = None,
    unmoved: Iterable[str] = (),
    text: str = "",
    predict: Mapping[str, Any] | None = None,
    module: str = "",
    skip: Mapping[str, str] | None = None,
    only: Sequence[str] = (),
) -> Proof:
    """Run every check on a recipe. It needs no network, and less than a minute on two cores.

    Args:
        recipe: from wherever; it need not be installed.
        model: model type, architecture, or configuration of a tiny model. The starter's model type, made small,
            when None; without a starter one that the recipe's class knows.
        tokenizer: a tiny one; trained for the recipe when None.
        options: of the recipe by name, such as ``{"block_size": 16}``.
        oracle: (model, batch) to sum of the losses and number of targets as they should be, in plain torch; for
            losses that are no cross-entropy. Of a loss with terms, both by name for as many as can be told.
        unmoved: patterns of parameters that training may leave where they are, ``"*.position_bias"``.
        text: what the pipeline is asked; the first of the starter's texts when not given.
        predict: arguments of the pipeline.
        module: where the recipe is declared, if in no installed plugin.
        skip: checks to leave out, each with the reason.
        only: the only checks to run; all when there are none.

    Returns:
        the outcome of each check.

    Raises:
        CheckFailed: checks failed; the message lists each fault once, what to do, and what was not reached.
        ValueError: ``skip`` or ``only`` names no check.
    """
    told = {"oracle": oracle, "unmoved": tuple(unmoved), "text": text, "predict": predict or {}, "module": module}
    with case_of(recipe, model, tokenizer, options, **told) as case:
        return examine(case, "recipe", checks(), skip or {}, only).require()


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
        more: ``options``, ``oracle``, ``text``, ``predict``; these and all others as for :func:`check_recipe`.

    Raises:
        ValueError: ``skip`` or ``only`` names no check.
    """
    with case_of(recipe, model, tokenizer, unmoved=tuple(unmoved), **more) as case:
        return examine(case, "architecture", checks(), skip or {}, only)


def check_architecture(architecture: Architecture, recipe: Recipe | None = None, **how: Any) -> list[Proof]:
    """Prove an architecture with each recipe whose model class it declares.

    Args:
        architecture: with a ``tiny`` configuration.
        recipe: the only one to take; when None, all installed ones that fit and put nothing beside the model.
        how: as for :func:`prove`.

    Returns:
        the proof for each recipe.

    Raises:
        CheckFailed: a check failed, or no recipe fits; names each, with what to do.
    """
    recipes = [recipe] if recipe else [one for one in load_catalog().recipes.values() if _trains(one, architecture)]
    proofs = [prove(architecture, one, **how) for one in recipes]
    if not recipes:
        wrong = Outcome(
            "failed",
            f"no installed recipe trains one of {', '.join(architecture.models) or 'its classes'}",
            "declare models={'AutoModelForCausalLM': 'package.module:Class'}, or give a recipe",
        )
        proofs = [Proof(architecture.model_type, {"architecture-registers": wrong})]
    if any(proof.failed for proof in proofs):
        raise CheckFailed(proofs)
    return proofs


def _trains(recipe: Recipe, architecture: Architecture) -> bool:
    """Whether the recipe's Auto class is one that the architecture declares, or that transformers has for it.

    Recipes with companions are left out: these are for certain models, or have to be named, such as a teacher.
    """
    if recipe.prepare_model is not None or recipe.frozen:
        return False
    name = recipe.model_class.rpartition(":")[2]
    if architecture.models:
        return name in architecture.models or recipe.model_class in architecture.models.values()
    return architecture.model_type in CONFIG_MAPPING and takes(recipe, CONFIG_MAPPING[architecture.model_type])
