"""The rooms of the architecture: what each may import, what stays light, and where things are found."""

import ast
import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

import lmtasks

ROOT = Path(__file__).parents[1]
PACKAGE = Path(lmtasks.__file__).parent


def _loaded(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


structure = _loaded(ROOT / "benchmarks" / "structure.py")
TEXTS = structure.sources(PACKAGE)
USES = structure.graph(PACKAGE)

HEAVY = {"torch", "transformers", "datasets", "evaluate", "numpy", "huggingface_hub", "tokenizers", "accelerate"}

HEAVY_ROOMS = ("artifacts", "data", "models", "training", "inference", "serving", "runs", "launchers")
"""Those that commands which only tell have no use for."""

HEAVY_MODULES = {"lmtasks.metrics", "lmtasks.config.training_arguments", "lmtasks.config.json_schema"}
"""Modules of light rooms that are imported by those who need torch anyway."""

LIGHT_IN_KIT = ("lmtasks.testing", "lmtasks.testing.proof", "lmtasks.testing.fixtures")
"""The checks of the kit are imported when one is run."""


def _stays_light(module: str) -> bool:
    if structure.room_of(module) == "testing":
        return module in LIGHT_IN_KIT
    if module == "lmtasks.artifacts.failures":  # every command tells of these
        return True
    return structure.room_of(module) not in HEAVY_ROOMS and module not in HEAVY_MODULES


@pytest.mark.parametrize("what", structure.LIMITS)
def test_the_structure_is_within_its_limits(what: str) -> None:
    least, most = structure.LIMITS[what]
    assert least <= structure.figures(PACKAGE)[what] <= most


def test_every_module_stands_in_a_room() -> None:
    known = {*structure.ROOMS, *structure.GROUND, "builtin", "testing", "__init__", "__main__"}
    assert {structure.room_of(module) for module in TEXTS} == known


def test_an_import_that_runs_upwards_is_seen() -> None:
    uses = {"lmtasks.api.x": {"lmtasks.data.y"}, "lmtasks.data.y": {"lmtasks.errors"}, "lmtasks.errors": set()}
    assert list(structure.upward(uses)) == [("lmtasks.api.x", "lmtasks.data.y")]


def test_an_import_for_types_and_one_in_a_function_count() -> None:
    text = "if TYPE_CHECKING:\n    from lmtasks.b import B\ndef f():\n    from lmtasks import c\n"
    assert structure.imports("lmtasks.a", text, dict.fromkeys(("lmtasks", "lmtasks.b", "lmtasks.c"), "")) == {
        "lmtasks.b",
        "lmtasks.c",
    }


def test_a_circle_is_seen() -> None:
    uses = {"lmtasks.a": {"lmtasks.b"}, "lmtasks.b": {"lmtasks.c"}, "lmtasks.c": {"lmtasks.b"}, "lmtasks.d": set()}
    assert [sorted(circle) for circle in structure.circles(uses)] == [["lmtasks.b", "lmtasks.c"]]


@pytest.mark.parametrize("module", [module for module in TEXTS if _stays_light(module)])
def test_what_telling_commands_may_import_imports_nothing_heavy(module: str) -> None:
    names = []
    for node in ast.parse(TEXTS[module]).body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(str(node.module))
    assert not {name.split(".")[0] for name in names} & HEAVY
    heavy = {name for name in names if name in TEXTS and not _stays_light(name)}
    assert not heavy, "what it imports of ours must be light as well"


@pytest.mark.parametrize("room", [module for module in TEXTS if structure.room_of(module) in structure.ROOMS])
def test_a_module_says_what_it_is_for(room: str) -> None:
    assert ast.get_docstring(ast.parse(TEXTS[room]))


def test_the_table_of_places_names_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    table = text.partition("## Where is …?")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ") and "`" in line]
    assert len(rows) >= 14
    for row in rows:
        places = re.findall(r"`((?:lmtasks|plugins)/[\w/.-]+)`", row)
        assert places, row
        assert all((ROOT / place).exists() for place in places), row


def test_the_runner_knows_no_recipe_by_name() -> None:
    recipes = lmtasks.recipes()
    for module, text in TEXTS.items():
        if structure.room_of(module) == "builtin":
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Compare):
                assert "recipe.name ==" not in ast.unparse(node)
                assert not any(isinstance(part, ast.Constant) and part.value in recipes for part in node.comparators)
