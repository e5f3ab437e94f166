"""The documentation as a site: every page of the repository, and the public names from their docstrings.

    python docs/site.py OUT

The pages stay where people on a code host read them. They are copied with the folders that they lie in, so that their
links hold, and given to Sphinx, whose search needs neither a server nor a network. A warning of it is an error.
"""

from __future__ import annotations

import argparse
import inspect
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

import lmtasks

ROOT = Path(__file__).parents[1]

PAGES = ("*.md", "docs/**/*.md", "docs/notebooks/*.ipynb", "docs/pictures/*.png", "plugins/*/README.md")

CONTENTS = {
    "Use": ("tutorial", "recipes", "data", "adapters", "reports", "scoring", "serving", "python", "keras", "cli"),
    "Extend": ("extending", "testing", "api", "architectures"),
    "Know": ("design", "scale", "correctness", "reliability", "benchmarks"),
    "In other languages": ("ja/tutorial", "zh/tutorial", "ko/tutorial", "ar/tutorial"),
}
"""The pages in the order of the menu. One that is not here comes last."""

SETTINGS: dict[str, Any] = {
    "project": "lmtasks",
    "version": lmtasks.__version__,
    "root_doc": "README",
    "extensions": ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"],
    "source_suffix": {".md": "markdown", ".rst": "restructuredtext"},
    "html_theme": "furo",
    "html_title": f"lmtasks {lmtasks.__version__}",
    "html_copy_source": False,
    "html_show_sphinx": False,
    "html_show_search_summary": False,  # it would ask a server for each page that was found
    "myst_heading_anchors": 5,
    "myst_all_links_external": False,
    "autodoc_typehints": "description",
    "napoleon_google_docstring": True,
}


def build(out: Path) -> None:
    """Write the site into a folder.

    Raises:
        sphinx.errors.SphinxWarning: a link leads nowhere, or a docstring cannot be read.
    """
    with tempfile.TemporaryDirectory() as place:
        source = Path(place, "source")
        for pattern in PAGES:
            for page in sorted(ROOT.glob(pattern)):
                copy = source / page.relative_to(ROOT)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(page, copy)
        (source / "docs" / "api.rst").write_text(api(), encoding="utf-8")
        with (source / "README.md").open("a", encoding="utf-8") as readme:
            readme.write(contents(source))
        app = Sphinx(
            str(source), None, str(out), str(Path(place, "doctrees")), "html", SETTINGS,
            status=None, warning=sys.stderr, warningiserror=True,
        )  # fmt: skip
        app.build()
        if app.statuscode:
            raise SystemExit(app.statuscode)
    (out / "index.html").write_text('<meta http-equiv="refresh" content="0; url=README.html">\n', encoding="utf-8")


def contents(source: Path) -> str:
    """The menu, as Sphinx wants it on the first page."""
    listed = {f"docs/{page}" for pages in CONTENTS.values() for page in pages}
    found = [path.relative_to(source).with_suffix("").as_posix() for path in sorted(source.rglob("*.[mr][ds]*"))]
    others = [page for page in found if page not in listed and page != "README"]
    menu = {title: [f"docs/{page}" for page in pages] for title, pages in CONTENTS.items()} | {"And": others}
    return "".join(
        "\n```{toctree}\n:hidden:\n:caption: " + title + "\n\n" + "\n".join(pages) + "\n```\n"
        for title, pages in menu.items()
    )


def api() -> str:
    """The page of the public names: what is done with lmtasks, and what is declared for it."""
    values = {name: getattr(lmtasks, name) for name in lmtasks.__all__}
    functions = [name for name, value in values.items() if inspect.isroutine(value)]
    classes = [name for name, value in values.items() if inspect.isclass(value)]
    lines = ["Public names", "============", "", "Functions", "---------", ""]
    lines += [f".. autofunction:: lmtasks.{name}\n" for name in functions]
    lines += ["Classes", "-------", ""]
    lines += [f".. autoclass:: lmtasks.{name}\n   :members:\n" for name in classes]
    lines += ["Values", "------", ""]
    others = [name for name in values if name not in (*functions, *classes)]
    lines += [f"``lmtasks.{name}`` is ``{values[name]!r}``.\n" for name in others]
    return "\n".join(lines)


def main() -> None:
    """Build the site in the folder that was named."""
    parser = argparse.ArgumentParser(description="The documentation as a site.")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write it in")
    out = parser.parse_args().out
    build(out)
    print(out / "index.html")


if __name__ == "__main__":
    main()
