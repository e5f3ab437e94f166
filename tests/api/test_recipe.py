"""Declarations: what a recipe and an architecture must be, and what the built-in ones may rely on."""

from __future__ import annotations

import ast
import dataclasses
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import lmtasks
from lmtasks import Architecture, Blocks, Recipe
from lmtasks.api import resolve
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM

BUILTIN = sorted(Path(lmtasks.__file__).parent.glob("builtin/[a-z]*.py"))


def changed(**values: Any) -> Recipe:
    return dataclasses.replace(MASKED_LM, **values)


@pytest.mark.parametrize("name", ["", "-a", "Masked", "masked_lm", "mäsk", "a b", "a" * 65, "a\n"])
def test_name_of_the_wrong_shape_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="must be lower case letters, digits and hyphens"):
        changed(name=name)


@pytest.mark.parametrize("name", ["a", "0", "masked-lm-2", "a" * 64])
def test_name_of_the_right_shape_is_taken(name: str) -> None:
    assert changed(name=name).name == name


@pytest.mark.parametrize("reference", ["", "transformers", "transformers.AutoModel", "a:b:c", "a:b.c", ":b", "a b:c"])
def test_class_string_of_the_wrong_shape_is_refused(reference: str) -> None:
    for values in ({"model_class": reference}, {"metrics": ("lmtasks.metrics:Perplexity", reference)}):
        with pytest.raises(ValueError, match="must look like 'module:Class'"):
            changed(**values)
    if reference:
        with pytest.raises(ValueError, match="must look like 'module:Class'"):
            Architecture(model_type="x", models={"AutoModelForMaskedLM": reference})


def test_options_that_are_no_options_are_refused() -> None:
    @dataclass
    class Careless:
        rate: float = 0.5

    with pytest.raises(TypeError, match=r"Careless\.rate"):
        changed(options=Careless)
    with pytest.raises(TypeError, match="must be a dataclass"):
        changed(options=dict)


def test_recipe_cannot_be_changed_in_place() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        MASKED_LM.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("recipe", [MASKED_LM, CAUSAL_LM], ids=lambda recipe: recipe.name)
def test_everything_that_a_builtin_recipe_names_exists(recipe: Recipe) -> None:
    for reference in (recipe.model_class, *recipe.metrics):
        assert isinstance(resolve(reference), type)


def test_reference_to_nothing_is_an_import_error_that_has_all_of_it() -> None:
    with pytest.raises(ImportError, match="'lmtasks:nothing' does not exist"):
        resolve("lmtasks:nothing")
    with pytest.raises(ImportError, match="nowhere"):
        resolve("lmtasks_nowhere:thing")


@pytest.mark.parametrize(("framing", "body"), [({}, 8), ({"start": (1,), "end": (2, 3)}, 5)])
def test_body_is_what_the_frame_leaves(framing: dict[str, Any], body: int) -> None:
    assert Blocks(size=8, **framing).body == body


# --- the built-in recipes are plugins like any other ---


def _imports(body: list[ast.stmt]) -> list[tuple[str, list[str]]]:
    found = []
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.ImportFrom):
                found.append((node.module or "", [alias.name for alias in node.names]))
            elif isinstance(node, ast.Import):
                found += [(alias.name, []) for alias in node.names]
    return found


def _is_for_types(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING"


@pytest.mark.parametrize("path", BUILTIN, ids=lambda path: path.stem)
def test_builtin_recipe_uses_only_public_names_of_lmtasks(path: Path) -> None:
    body = ast.parse(path.read_text()).body
    run = [entry for entry in _imports([s for s in body if not _is_for_types(s)]) if entry[0].startswith("lmtasks")]
    typed = [entry for entry in _imports([s for s in body if _is_for_types(s)]) if entry[0].startswith("lmtasks")]
    assert {module for module, _ in run} == {"lmtasks"}
    assert {name for _, names in run for name in names} <= set(lmtasks.__all__)
    assert {module for module, _ in typed} <= {"lmtasks", "lmtasks.api"}


@pytest.mark.parametrize("path", BUILTIN, ids=lambda path: path.stem)
def test_builtin_recipe_imports_nothing_heavy_at_the_top(path: Path) -> None:
    code = (
        f"import sys, lmtasks.builtin.{path.stem};"
        "print(sorted({'torch', 'transformers', 'datasets', 'evaluate', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_all_builtin_plugins_are_looked_at() -> None:
    others = ["architectures", "engines", "formats", "launchers"]
    assert [path.stem for path in BUILTIN] == sorted([*others, "causal_lm", "masked_lm"])


@pytest.mark.parametrize("name", lmtasks.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(lmtasks, name) is not None


def test_what_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'lmtasks' has no attribute 'nothing'"):
        lmtasks.nothing  # noqa: B018  (looking is the point)
