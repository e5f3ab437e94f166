"""The chapters of a book, in the order of reading."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree
from zipfile import BadZipFile, ZipFile

from bs4 import BeautifulSoup, Tag

from lmtasks import Reading

CONTAINER = "META-INF/container.xml"
ENCRYPTION = "META-INF/encryption.xml"
PAGES = ("application/xhtml+xml", "text/html")
BREAK = "\v"
"""A line break that the page asks for; those in its source are mere white space."""

BLOCKS = ["p", "h1", "h2", "h3", "h4", "h5", "h6", "li", "blockquote", "pre", "td", "th", "dt", "dd", "figcaption"]


def read(file: Path, reading: Reading) -> Iterator[str]:
    """The text of each chapter that has any.

    Raises:
        ValueError: no EPUB, or one that is encrypted.
    """
    try:
        with ZipFile(file) as book:
            for page in _pages(book):
                if text := _text(book.read(page)):
                    yield text
    except (BadZipFile, KeyError, ElementTree.ParseError) as error:
        raise ValueError(f"it is no EPUB book, or damaged: {error}") from error


def _pages(book: ZipFile) -> Iterator[str]:
    """The names of the pages, as the book's own list puts them in order."""
    if ENCRYPTION in book.namelist() and b"algorithm" in book.read(ENCRYPTION).lower():
        raise ValueError("it is encrypted")
    root = next((node.attrib["full-path"] for node in _nodes(book, CONTAINER, "rootfile")), None)
    if root is None:
        raise ValueError("it is no EPUB book: nothing says where its contents are")
    items = {node.attrib["id"]: node.attrib for node in _nodes(book, root, "item")}
    for node in _nodes(book, root, "itemref"):
        item = items[node.attrib["idref"]]
        if item["media-type"] in PAGES and "nav" not in item.get("properties", "").split():
            yield posixpath.normpath(posixpath.join(posixpath.dirname(root), unquote(item["href"])))


def _nodes(book: ZipFile, name: str, tag: str) -> Iterator[ElementTree.Element]:
    """The elements of that name, in whatever namespace."""
    return (node for node in ElementTree.fromstring(book.read(name)).iter() if node.tag.rpartition("}")[2] == tag)


def _text(page: bytes) -> str:
    """The text of a page, a line for each of its blocks."""
    body = BeautifulSoup(page, "html.parser").body
    if body is None:
        return ""
    for node in body.find_all(["script", "style"]):
        node.decompose()
    for node in body.find_all("br"):
        node.replace_with(BREAK)
    blocks = [node for node in body.find_all(BLOCKS) if not node.find(BLOCKS)]
    lines = (line for node in blocks or [body] for line in _lines(node))
    return "".join(f"{line}\n" for line in lines)


def _lines(node: Tag) -> Iterator[str]:
    """The lines of a block that hold something; white space within them is one space."""
    text = node.get_text()
    for line in (text.replace("\n", BREAK) if node.name == "pre" else text).split(BREAK):
        if words := line.split():
            yield " ".join(words)
