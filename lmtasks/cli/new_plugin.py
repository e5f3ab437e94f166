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
from lmtasks.cli.answers import tell
from lmtasks.cli.lookup import installed
from lmtasks.cli.parser import Parser
from lmtasks.errors import InputError
from lmtasks.registry.catalog import Catalog

FIRST_WORDS = {
    "recipe": "run {}",
    "architecture": "plugins",
    "engine": "list --engines",
    "extension": "plugins",
    "launcher": "list --launchers",
}
"""What shows that a plugin of a kind is there, behind ``lmtasks``."""

KINDS = tuple(FIRST_WORDS)

TEMPLATES = Path(__file__).parent / "templates"
"""Files by kind; their names and their text have the placeholders of :meth:`NewPlugin.files`."""

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
        """The module: ``lmtasks_shuffle``."""
        return self.name.replace("-", "_")

    @property
    def word(self) -> str:
        """The name of what it brings, such as a recipe or a model type: ``shuffle``."""
        return self.name.removeprefix("lmtasks-")

    @property
    def option(self) -> str:
        """The word as it stands before options."""
        return self.word.replace("-", "_")

    def files(self) -> dict[str, str]:
        """The text of each file by its path within the package's folder."""
        camel = "".join(part.capitalize() for part in self.word.split("-"))
        words = {"name": self.name, "package": self.package, "kind": self.kind, "word": self.word, "camel": camel}
        words["option"] = self.option
        texts = {}
        for folder in (TEMPLATES / "any", TEMPLATES / self.kind):
            for path in folder.rglob(f"*{SUFFIX}"):
                name = Template(path.relative_to(folder).as_posix().removesuffix(SUFFIX)).substitute(words)
                texts[name] = Template(path.read_text(encoding="utf-8")).substitute(words)
        return dict(sorted(texts.items()))


def command(words: list[str]) -> int:
    """Write the package and say what to type next."""
    parser = Parser(prog="lmtasks new-plugin", description="A package that works, to make your own of.")
    parser.add_argument("name", metavar="NAME", help="of the package, such as lmtasks-shuffle")
    parser.add_argument("--kind", metavar="KIND", default="recipe", help=f"{', '.join(KINDS)} (default: recipe)")
    parser.add_argument("--output_dir", metavar="FOLDER", help="where to write it (default: ./NAME)")
    typed = parser.read_all(words)
    plugin = new_plugin(typed["name"], typed["kind"], installed(light=True))
    folder = Path(typed.get("output_dir") or plugin.name)
    files = write_plugin(plugin, folder)
    content = {"output_dir": str(folder), "package": plugin.package, plugin.kind: plugin.word, "files": files}
    place = folder if folder.is_absolute() else f"./{folder}"
    first = FIRST_WORDS[plugin.kind].format(plugin.word)
    then = f"\ntry next\n  pip install -e {place}\n  lmtasks {first}\n  pytest {place}"
    return tell(content, [*(str(folder / file) for file in files), then], as_json="json" in typed)


def new_plugin(name: str, kind: str, catalog: Catalog) -> NewPlugin:
    """The plugin of that name.

    Args:
        name: as typed; capitals, dots and underscores are those of the distribution's canonical name.

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
    """The paths of the plugin's files, which this writes, within the folder.

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
    if plugin.kind not in ("recipe", "architecture"):  # its options stand behind its name
        for other in catalog.plugins:
            if taken := other.prefixes.get(plugin.option):
                raise InputError(f"there is the {taken} already, in {other.title}", hint)
    if keyword.iskeyword(plugin.package) or getattr(find_spec(plugin.package), "origin", None):
        raise InputError(f"Python knows '{plugin.package}' already, so no package can be called that", hint)


def _has_transformers(model_type: str) -> bool:
    """Whether transformers has that architecture: by its folders, since importing it takes long."""
    spec = find_spec("transformers")
    folders = spec.submodule_search_locations if spec else None
    return any(os.path.isdir(os.path.join(folder, "models", model_type.replace("-", "_"))) for folder in folders or ())
