"""Every model type of a recipe, proved one by one: what ``lmtasks architectures`` knows comes from here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from transformers import PreTrainedTokenizerBase
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from lmtasks.api import Architecture, Recipe
from lmtasks.errors import InputError, first_line, nearest
from lmtasks.models.architectures import takes
from lmtasks.models.lm_head import EVERYWHERE
from lmtasks.registry.catalog import Catalog
from lmtasks.registry.support import Row, State
from lmtasks.testing.battery import prove
from lmtasks.testing.proof import Proof
from lmtasks.testing.set_up import register
from lmtasks.testing.specimens import tiny_config, tokenizer_for

LIMITING = {
    "padding-does-not-matter": "no --line_by_line: its losses depend on the padding",
    "evaluation-batches-do-not-matter": "no --line_by_line: its losses depend on the padding",
    "batched-answers-are-the-same": "asked again or among others, it answers otherwise",
    "texts-share-a-batch": "predict answers one text at a time: its answers depend on the padding",
}
"""Limits for a user when a check fails without which a model can still be trained, and asked."""


def types_of(recipe: Recipe, catalog: Catalog) -> list[str]:
    """The model types that the recipe's class knows, plugins' included."""
    register(catalog.architectures.values())
    return sorted(kind for kind, config in CONFIG_MAPPING.items() if takes(recipe, config))


def survey(recipe: Recipe, catalog: Catalog, kinds: Iterable[str] = ()) -> Iterator[tuple[Row, Proof | None]]:
    """Prove model types with a recipe, one by one.

    Args:
        kinds: model types; all that the recipe's class knows when there are none.

    Yields:
        what is known then, with the proof, if one was possible.

    Raises:
        InputError: the recipe knows no such type.
    """
    known = types_of(recipe, catalog)
    for kind in (wanted := list(kinds)):
        if kind not in known:
            raise InputError(
                f"{recipe.name} knows no model type '{kind}'{nearest(kind, known)}",
                f"lmtasks architectures {recipe.name} lists them",
            )
    tokenizer = tokenizer_for(recipe)
    owners = {kind: plugin.distribution for plugin in catalog.plugins for kind in plugin.architectures}
    for kind in wanted or known:
        package = owners.get(kind, "lmtasks")
        architecture = catalog.architectures.get(kind, Architecture(model_type=kind))
        state, notes, proof = _surveyed(recipe, architecture, tokenizer)
        yield Row(kind, state, tuple(notes), "" if package == "lmtasks" else package), proof


def _surveyed(
    recipe: Recipe, architecture: Architecture, tokenizer: PreTrainedTokenizerBase
) -> tuple[State, list[str], Proof | None]:
    if reason := architecture.refused.get(recipe.model_class.partition(":")[2]):
        return "refused", [reason], None
    try:
        proof = prove(tiny_config(architecture.model_type, recipe), recipe, tokenizer)
    # What a configuration of somebody else's says to numbers that do not suit it may be anything.
    except Exception as error:
        return "refused", [f"no tiny model of it can be made: {first_line(error)}"], None
    return *_judged(proof, architecture), proof


def _judged(proof: Proof, architecture: Architecture) -> tuple[State, list[str]]:
    """The state that a proof comes to, and its reasons in words."""
    failed = dict(proof.failed)
    limits = [architecture.limits] if architecture.limits else []
    limits += dict.fromkeys(LIMITING[name] for name in [*failed] if name in LIMITING and failed.pop(name))
    if failed:
        return "refused", [f"{name}: {outcome.reason}" for name, outcome in failed.items()]
    passed = [outcome.reason for outcome in proof.checks.values() if outcome.state == "ok"]
    limits += [reason for reason in passed if reason.startswith(EVERYWHERE)]
    return ("limited" if limits else "runs"), limits
