"""The proof of a recipe: every rule of the contract, tried out on a tiny model, tokenizer and corpus."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase

from lmtasks.api import Architecture, Recipe
from lmtasks.testing.battery import BATTERY
from lmtasks.testing.case import Oracle
from lmtasks.testing.proof import Proof, examine
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
            losses that are no cross-entropy.
        unmoved: patterns of parameters that training may leave where they are, ``"*.position_bias"``.
        text: what the pipeline is asked; the first of the starter's texts when not given.
        predict: arguments of the pipeline.
        module: where the recipe is declared, if in no installed plugin.
        skip: checks to leave out, each with the reason.
        only: the only checks to run; all when there are none.

    Returns:
        the outcome of each check.

    Raises:
        CheckFailed: checks failed; the message lists each, with what is wrong and what to do.
        ValueError: ``skip`` or ``only`` names no check.
    """
    with case_of(
        recipe,
        model,
        tokenizer,
        options,
        oracle=oracle,
        unmoved=tuple(unmoved),
        text=text,
        predict=predict or {},
        module=module,
    ) as case:
        checks = [check for check in BATTERY.values() if "recipe" in check.subjects]
        return examine(case, checks, skip or {}, only).require()
