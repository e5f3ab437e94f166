"""A book made here, and the text of its chapters."""

from __future__ import annotations

from pathlib import Path
from zipfile import ZipFile

import pytest

import lmtasks
from lmtasks.config.settings import DataSettings
from lmtasks.data.corpus import load_corpus

CONTAINER = """<container xmlns="urn:oasis:names:tc:opendocument:xmlns:container"><rootfiles>
<rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"""
PACKAGE = """<package xmlns="http://www.idpf.org/2007/opf"><manifest>
<item id="two" href="text/second%20one.xhtml" media-type="application/xhtml+xml"/>
<item id="one" href="text/first.xhtml" media-type="application/xhtml+xml"/>
<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="art" href="art.png" media-type="image/png"/>
</manifest><spine><itemref idref="nav"/>
<itemref idref="one"/><itemref idref="two"/><itemref idref="art"/></spine></package>"""
FIRST = """<html><head><title>Not text</title></head><body><h1>One</h1><script>var x</script>
<p>It was a
dark   night.</p><blockquote><p>Rain<br/>and wind</p></blockquote></body></html>"""
SECOND = "<html><body><p>Cl&#233;ment &amp; co.</p><pre>a  b\nc</pre></body></html>"


def book(name: str, **more: str) -> str:
    with ZipFile(name, "w") as file:
        parts = {"META-INF/container.xml": CONTAINER, "OEBPS/book.opf": PACKAGE, "OEBPS/text/first.xhtml": FIRST}
        parts |= {"OEBPS/text/second one.xhtml": SECOND, "OEBPS/nav.xhtml": "<html><body><p>1</p></body></html>"}
        for path, content in {**parts, **more}.items():
            file.writestr(path, content)
    return name


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def test_each_chapter_is_a_document_in_the_order_of_reading() -> None:
    split = load_corpus(DataSettings(validation_file=[book("a.epub")])).evaluation
    assert split.documents
    texts = [text for batch in split.texts() for text in batch]
    assert texts == ["One\nIt was a dark night.\nRain\nand wind\n", "Clément & co.\na b\nc\n"]


def test_books_are_found_in_folders_beside_other_files() -> None:
    Path("d").mkdir()
    book("d/a.epub")
    Path("d/b.jsonl").write_text('{"text": "row"}\n')
    split = load_corpus(DataSettings(validation_file=["d"])).evaluation
    assert [text.split()[0] for batch in split.texts() for text in batch] == ["One", "Clément", "row"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"META-INF/encryption.xml": "<encryption><EncryptionMethod Algorithm='x'/></encryption>"}, "it is encrypted"),
        ({"META-INF/container.xml": "<container/>"}, "nothing says where its contents are"),
        ({"OEBPS/book.opf": "<package"}, "or damaged"),
    ],
)
def test_what_is_no_book_is_refused_by_its_name(content: dict[str, str], message: str) -> None:
    with ZipFile("bad.epub", "w") as file:
        for path, text in {"META-INF/container.xml": CONTAINER, **content}.items():
            file.writestr(path, text)
    with pytest.raises(lmtasks.InputError, match=f"bad.epub cannot be read as epub: .*{message}"):
        load_corpus(DataSettings(validation_file=["bad.epub"]))


def test_what_is_no_archive_is_refused() -> None:
    Path("bad.epub").write_bytes(b"words")
    with pytest.raises(lmtasks.InputError, match="it is no EPUB book, or damaged: File is not a zip file"):
        load_corpus(DataSettings(validation_file=["bad.epub"]))
