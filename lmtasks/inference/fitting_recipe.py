"""The recipe that a model is for: the one of its run, or one that fits its configuration."""

from __future__ import annotations

from lmtasks.api import Recipe, resolve
from lmtasks.artifacts.run_folder import not_finished, read_record
from lmtasks.errors import InputError
from lmtasks.models.architectures import register_architectures, takes
from lmtasks.models.config import require_class, saved_config
from lmtasks.registry.catalog import Catalog, load_catalog
from lmtasks.registry.faults import require_references
from lmtasks.registry.recorded import recorded_recipe


def installed_recipe(name: str, wanted: str | None = None, revision: str = "main") -> Recipe:
    """As :func:`recipe_of`, of what is installed, whose architectures transformers then knows.

    Raises:
        InputError: also where the recipe that is wanted has no class for the model.
    """
    catalog = load_catalog()
    register_architectures(catalog)
    recipe = catalog.watched(recipe_of(name, catalog, wanted, revision))
    if wanted:
        require_references(recipe, "model_class")
        require_class(saved_config(name, revision), name, recipe, training=False)
    return recipe


def recipe_of(name: str, catalog: Catalog, wanted: str | None = None, revision: str = "main") -> Recipe:
    """The recipe of a run, or the one whose models the configuration's class belongs to.

    Raises:
        InputError: no such model, or no recipe takes it.
    """
    if wanted:
        return catalog.recipe(wanted)
    if record := read_record(name):
        if record.get("status") != "done":
            raise not_finished(name)
        return recorded_recipe(record, catalog)
    config = saved_config(name, revision)
    architectures = config.architectures if isinstance(config.architectures, list) else []
    for recipe in catalog.recipes.values():
        if not takes(recipe, type(config)):
            continue
        # Only asked about this one: the truth value of the mapping alone would import every model that there is.
        mapping = getattr(resolve(recipe.model_class), "_model_mapping", None)
        if mapping is None or type(config) not in mapping:
            continue
        if mapping[type(config)].__name__ in architectures:
            return recipe
    raise InputError(
        f"no recipe fits '{name}' ({', '.join(map(str, architectures or [config.model_type]))})",
        f"name one with --recipe: {', '.join(catalog.recipes)}",
    )
