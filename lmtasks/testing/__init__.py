"""The kit that proves a plugin right: a battery of checks on a model, a tokenizer and a corpus of its own.

::

    from lmtasks.testing import check_recipe

    def test_the_recipe_keeps_the_contract():
        check_recipe(MY_RECIPE)

Each check asserts an effect, never a form, and all are run before any is reported. Nothing here is
imported before it is used, so that a test suite pays nothing for having the kit at hand.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmtasks.testing.proof import Check, CheckFailed, Outcome, Proof

if TYPE_CHECKING:
    from lmtasks.testing.battery import check_architecture, check_recipe, prove
    from lmtasks.testing.engines import check_engine
    from lmtasks.testing.extending import check_extension
    from lmtasks.testing.launching import check_launcher
    from lmtasks.testing.order import checks
    from lmtasks.testing.plugins import installed
    from lmtasks.testing.segmenting import check_word_segmenter

__all__ = [
    "Check",
    "CheckFailed",
    "Outcome",
    "Proof",
    "check_architecture",
    "check_engine",
    "check_extension",
    "check_launcher",
    "check_recipe",
    "check_word_segmenter",
    "checks",
    "installed",
    "prove",
]


_HOMES = {
    "check_engine": "engines",
    "check_extension": "extending",
    "check_launcher": "launching",
    "check_word_segmenter": "segmenting",
    "checks": "order",
    "installed": "plugins",
}
"""The module of each name that is not in the battery."""


def __getattr__(name: str) -> Any:
    """Import a heavy name on first use."""
    import importlib

    if name in __all__:
        return getattr(importlib.import_module(f"lmtasks.testing.{_HOMES.get(name, 'battery')}"), name)
    raise AttributeError(f"module 'lmtasks.testing' has no attribute '{name}'")


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return __all__
