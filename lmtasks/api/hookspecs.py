"""The hooks that a plugin may implement, and the marker with which it does.

::

    from lmtasks import hookimpl

    @hookimpl
    def lmtasks_recipes():
        return [MY_RECIPE]
"""

from __future__ import annotations

from collections.abc import Sequence

import pluggy

from lmtasks.api.architecture import Architecture
from lmtasks.api.engine import Engine
from lmtasks.api.extension import Extension
from lmtasks.api.format import Format
from lmtasks.api.launcher import Launcher
from lmtasks.api.recipe import Recipe
from lmtasks.api.word_segmenter import WordSegmenter

hookspec = pluggy.HookspecMarker("lmtasks")
hookimpl = pluggy.HookimplMarker("lmtasks")


@hookspec
def lmtasks_recipes() -> Sequence[Recipe]:  # type: ignore[empty-body]  # a spec has no body
    """The recipes that this plugin declares."""


@hookspec
def lmtasks_architectures() -> Sequence[Architecture]:  # type: ignore[empty-body]  # a spec has no body
    """The architectures that this plugin declares."""


@hookspec
def lmtasks_engines() -> Sequence[Engine]:  # type: ignore[empty-body]  # a spec has no body
    """The engines that this plugin declares."""


@hookspec
def lmtasks_extensions() -> Sequence[Extension]:  # type: ignore[empty-body]  # a spec has no body
    """The extensions that this plugin declares."""


@hookspec
def lmtasks_formats() -> Sequence[Format]:  # type: ignore[empty-body]  # a spec has no body
    """The formats of data files that this plugin declares."""


@hookspec
def lmtasks_launchers() -> Sequence[Launcher]:  # type: ignore[empty-body]  # a spec has no body
    """The launchers that this plugin declares."""


@hookspec
def lmtasks_word_segmenters() -> Sequence[WordSegmenter]:  # type: ignore[empty-body]  # a spec has no body
    """The word segmenters that this plugin declares."""
