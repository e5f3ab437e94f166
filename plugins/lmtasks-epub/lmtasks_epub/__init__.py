"""EPUB books: each chapter a document."""

from __future__ import annotations

from lmtasks import Format, hookimpl

EPUB = Format(name="epub", suffixes=(".epub",), read="lmtasks_epub.chapters:read")


@hookimpl
def lmtasks_formats() -> list[Format]:
    """The format of this package."""
    return [EPUB]
