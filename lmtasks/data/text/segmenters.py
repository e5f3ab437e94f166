"""Word segmenters by name: what they say of a text, and on what that depends."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lmtasks.api import UNICODE, source_of
from lmtasks.data.text.word_boundaries import Places, boundaries
from lmtasks.errors import InputError, first_line
from lmtasks.registry.catalog import load_catalog
from lmtasks.registry.discovery import version_of

Segment = Callable[[str], Places]
"""A text to the places where words begin, int64."""


def segment_of(name: str) -> Segment:
    """The function of a word segmenter, whose mistakes are told as errors.

    Raises:
        InputError: there is none of that name, or a library that it needs is missing.
    """
    if name == UNICODE:
        return boundaries
    segmenter, plugin = load_catalog().word_segmenter(name)
    title = f"word segmenter '{name}' of {plugin.title}"
    if missing := [library for library in segmenter.libraries if not version_of(library)]:
        raise InputError(f"{title} needs {' and '.join(missing)}", f"pip install {' '.join(missing)}")

    def segment(text: str) -> Places:
        try:
            places = np.asarray(list(segmenter.segment(text)), dtype=np.int64)
        except Exception as error:  # a stranger's code
            reason = f"{title} fails: {type(error).__name__}: {first_line(error)}"
            raise InputError(reason, "choose another --word_segmenter") from error
        if places.size and not 0 <= places.min() <= places.max() <= len(text):
            raise InputError(f"{title} gives places outside of the text", "choose another --word_segmenter")
        return places

    return segment


def versions_of(name: str) -> dict[str, str]:
    """The versions of the package and of the libraries of a segmenter; none for what is built in.

    Raises:
        InputError: there is none of that name.
    """
    if name == UNICODE:
        return {}
    segmenter, plugin = load_catalog().word_segmenter(name)
    own = {plugin.distribution: plugin.version} if plugin.kind == "package" else {}
    return {**own, **{library: version_of(library) for library in segmenter.libraries}}


def identity_of(name: str) -> dict[str, str]:
    """All by which the words of a segmenter may change: its name, versions and code.

    Raises:
        InputError: there is none of that name.
    """
    if name == UNICODE:
        return {}
    segmenter, _ = load_catalog().word_segmenter(name)
    return {**versions_of(name), "name": name, "code": source_of(segmenter.segment)}
