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
    from lmtasks.testing.battery import check_architecture, check_recipe, checks, prove
    from lmtasks.testing.plugins import installed
    from lmtasks.testing.segmenting import check_word_segmenter

__all__ = [
    "Check",
    "CheckFailed",
    "Outcome",
    "Proof",
    "check_architecture",
    "check_recipe",
    "check_word_segmenter",
    "checks",
    "installed",
    "prove",
]


def __getattr__(name: str) -> Any:
    """Import a heavy name on first use."""
    import importlib

    if name in __all__:
        home = {"installed": "plugins", "check_word_segmenter": "segmenting"}.get(name, "battery")
        return getattr(importlib.import_module(f"lmtasks.testing.{home}"), name)
    raise AttributeError(f"module 'lmtasks.testing' has no attribute '{name}'")


def __dir__() -> list[str]:
    """The public names, imported or not."""
    return __all__
