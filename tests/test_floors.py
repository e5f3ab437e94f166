"""The floors of the architecture: a module imports, at its top, only from floors below its own."""

import ast
from pathlib import Path

import pytest

import lmtasks

ROOT = Path(lmtasks.__file__).parent

FLOORS = {
    0: {"errors"},
    1: {"options", "settings", "recipe", "architecture", "blocks", "hookspecs", "medium", "references", "selection"},
    2: {"catalog", "configure", "evidence", "flags", "listing", "loading", "new_plugin", "sample", "words"},
    3: {
        "allocation", "arguments", "cache", "card", "corpus", "encoding", "evaluation", "examples", "filling", "folder",
        "heads", "hub", "inference", "isolation", "losses", "metrics", "models", "modes", "packing", "pipelines",
        "plan", "precision", "probes", "processing", "progress", "projection", "publishing", "schema", "segmentation",
        "stream", "texts", "tiny", "tokenization", "training",
    },
    4: {"doctor", "preparation", "results", "runner"},
    5: {"cli", "testing", "__main__"},
}  # fmt: skip
"""The rooms of each floor. Rooms of one floor may use each other, as long as nobody goes in circles."""

HEAVY = {"torch", "transformers", "datasets", "evaluate", "numpy", "huggingface_hub", "tokenizers", "accelerate"}

LIGHT = {
    path
    for path in ROOT.rglob("*.py")
    if path.parent.name != "testing" or path.stem in ("__init__", "proof", "fixtures")
}
"""What floor 5 is at its top. The checks of the testing kit are imported when one is run."""

FLOOR_OF = {room: floor for floor, rooms in FLOORS.items() for room in rooms}


def _room(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def _modules() -> list[Path]:
    return [path for path in sorted(ROOT.rglob("*.py")) if _room(path) not in ("__init__", "builtin")]


def _at_the_top(path: Path) -> list[str]:
    """Modules imported when this one is, leaving out what only type checkers read."""
    names = []
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [
                f"{node.module}.{alias.name}" if node.module == "lmtasks" else str(node.module) for alias in node.names
            ]
    return names


def _rooms_used(path: Path) -> set[str]:
    own = {name.split(".")[1] for name in _at_the_top(path) if name.startswith("lmtasks.")}
    return {name for name in own if name in FLOOR_OF} - {_room(path)}


def test_every_module_has_a_floor() -> None:
    assert {_room(path) for path in _modules()} == set(FLOOR_OF)


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_from_its_own_floor_or_below(path: Path) -> None:
    above = {room for room in _rooms_used(path) if FLOOR_OF[room] > FLOOR_OF[_room(path)]}
    assert not above


@pytest.mark.parametrize(
    "path", [path for path in _modules() if FLOOR_OF[_room(path)] in (0, 1, 2, 5) and path in LIGHT], ids=_room
)
def test_the_floors_of_the_telling_commands_import_nothing_heavy(path: Path) -> None:
    assert not {name.split(".")[0] for name in _at_the_top(path)} & HEAVY


def test_no_circles() -> None:
    uses: dict[str, set[str]] = {}
    for path in _modules():
        uses.setdefault(_room(path), set()).update(_rooms_used(path))
    while uses:
        free = {room for room, others in uses.items() if not others & uses.keys()}
        assert free, f"these import each other: {sorted(uses)}"
        uses = {room: others for room, others in uses.items() if room not in free}


def test_the_runner_knows_no_recipe_by_name() -> None:
    for path in _modules():
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Compare):
                assert "recipe.name ==" not in ast.unparse(node)
                assert not any(
                    isinstance(part, ast.Constant) and part.value in lmtasks.recipes() for part in node.comparators
                )
