"""``lmtasks new-plugin``: a small package that installs, works and passes its own tests, for its author to change."""

from __future__ import annotations

import keyword
import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from string import Template

from lmtasks.api import NAME
from lmtasks.cli.argv import asks_help
from lmtasks.cli.lookup import installed
from lmtasks.cli.parser import Parser, add_last
from lmtasks.cli.report import print_json
from lmtasks.errors import InputError
from lmtasks.registry.catalog import Catalog

KINDS = ("recipe", "architecture")

TEMPLATES = Path(__file__).parent / "templates"
"""Files by kind; their names and their text have the placeholders of :attr:`NewPlugin.words`."""

SUFFIX = ".template"
"""After a template's name, so that no tool takes it for what it will be."""


@dataclass(frozen=True)
class NewPlugin:
    """A plugin that is to be written.

    Args:
        name: of the distribution, ``lmtasks-shuffle``.
        kind: what it brings; one of :data:`KINDS`.
    """

    name: str
    kind: str

    @property
    def package(self) -> str:
        """What is imported: ``lmtasks_shuffle``."""
        return self.name.replace("-", "_")

    @property
    def word(self) -> str:
        """The recipe, or the model type: ``shuffle``."""
        return self.name.removeprefix("lmtasks-")

    @property
    def words(self) -> dict[str, str]:
        """What stands for the placeholders of a template."""
        camel = "".join(part.capitalize() for part in self.word.split("-"))
        return {"name": self.name, "package": self.package, "kind": self.kind, "word": self.word, "camel": camel}

    def files(self) -> dict[str, str]:
        """The text of each file by its path within the package's folder."""
        texts = {}
        for folder in (TEMPLATES / "any", TEMPLATES / self.kind):
            for path in folder.rglob(f"*{SUFFIX}"):
                name = path.relative_to(folder).as_posix().removesuffix(SUFFIX)
                texts[self._filled(name)] = self._filled(path.read_text(encoding="utf-8"))
        return dict(sorted(texts.items()))

    def _filled(self, template: str) -> str:
        return Template(template).substitute(self.words)


def command(words: list[str]) -> int:
    """Write the package and say what to type next."""
    parser = Parser(prog="lmtasks new-plugin", description="A package that works, to make your own of.")
    parser.add_argument("name", metavar="NAME", help="of the package, such as lmtasks-shuffle")
    parser.add_argument("--kind", metavar="KIND", default="recipe", help=f"{' or '.join(KINDS)} (default: recipe)")
    parser.add_argument("--output_dir", metavar="FOLDER", help="where to write it (default: ./NAME)")
    add_last(parser)
    if asks_help(words):
        parser.print_help()
        return 0
    typed = vars(parser.parse_args(words))
    plugin = new_plugin(typed["name"], typed["kind"], installed(light=True))
    folder = Path(typed.get("output_dir") or plugin.name)
    files = write_plugin(plugin, folder)
    if typed.get("json"):
        print_json({"output_dir": str(folder), "package": plugin.package, plugin.kind: plugin.word, "files": files})
        return 0
    place = folder if folder.is_absolute() else f"./{folder}"
    first = f"lmtasks run {plugin.word}" if plugin.kind == "recipe" else "lmtasks plugins"
    print("\n".join(str(folder / file) for file in files))
    print(f"\ntry next\n  pip install -e {place}\n  {first}\n  pytest {place}")
    return 0


def new_plugin(name: str, kind: str, catalog: Catalog) -> NewPlugin:
    """The plugin of that name.

    Args:
        name: as typed; capitals, dots and underscores are those of the distribution's canonical name.
        catalog: what is installed.

    Raises:
        InputError: no such name or kind is possible, or others have it.
    """
    if kind not in KINDS:
        raise InputError(f"--kind cannot be '{kind}'", f"one of {', '.join(KINDS)}")
    plugin = NewPlugin(re.sub(r"[-_.]+", "-", name).lower(), kind)
    if not (re.fullmatch(r"[a-z][a-z0-9-]*[a-z0-9]", plugin.name) and re.match("[a-z]", plugin.word)):
        raise InputError(
            f"'{name}' cannot be the name of a package", "letters, digits and hyphens, a letter first: lmtasks-shuffle"
        )
    if not NAME.fullmatch(plugin.word):
        raise InputError(f"'{plugin.word}' is too long for a name that people type", "at most 64 letters")
    _refuse_taken(plugin, catalog)
    return plugin


def write_plugin(plugin: NewPlugin, folder: Path) -> list[str]:
    """Write the plugin's files.

    Returns:
        their paths within the folder.

    Raises:
        InputError: there is something in the folder already, or it cannot be made.
    """
    files = plugin.files()
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            what = "is not empty" if folder.is_dir() else "is a file"
            raise InputError(f"'{folder}' {what}", "choose another --output_dir")
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write '{folder}': {error.strerror}", "choose another --output_dir") from error
    return list(files)


def _refuse_taken(plugin: NewPlugin, catalog: Catalog) -> None:
    """Refuse a name under which the plugin would hide something, or be hidden."""
    word, hint = plugin.word, "choose another name: lmtasks new-plugin lmtasks-NAME"
    if plugin.kind == "recipe" and word in catalog.recipes:
        raise InputError(f"there is a recipe '{word}' already, in {catalog.owner(word).title}", hint)
    if plugin.kind == "architecture" and (word in catalog.architectures or _has_transformers(word)):
        raise InputError(f"there is an architecture '{word}' already", hint)
    if keyword.iskeyword(plugin.package) or _is_importable(plugin.package):
        raise InputError(f"Python knows '{plugin.package}' already, so no package can be called that", hint)


def _has_transformers(model_type: str) -> bool:
    """Whether transformers has that architecture: by its folders, since importing it takes long."""
    spec = find_spec("transformers")
    folders = spec.submodule_search_locations if spec else None
    return any(os.path.isdir(os.path.join(folder, "models", model_type.replace("-", "_"))) for folder in folders or ())


def _is_importable(module: str) -> bool:
    spec = find_spec(module)
    return spec is not None and spec.origin is not None
