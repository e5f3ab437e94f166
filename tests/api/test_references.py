"""Functions by name: imported when they are called, and not before."""

import dataclasses
import pickle
import sys
from pathlib import Path

import pytest

from lmtasks import Architecture, Medium
from lmtasks.api.references import Deferred
from lmtasks.builtin.masked_lm import MASKED_LM

FUNCTIONS = (
    "preprocess",
    "collator",
    "loss",
    "new_processor",
    "targets",
    "before_step",
    "views",
    "perplexity_name",
    "prompt",
    "answers",
)


@pytest.mark.parametrize("field", FUNCTIONS)
def test_every_function_of_a_recipe_may_be_named(field: str) -> None:
    recipe = dataclasses.replace(MASKED_LM, **{field: "json:dumps"})
    assert getattr(recipe, field)([1]) == "[1]"
    assert dataclasses.replace(recipe, name="other") == dataclasses.replace(recipe, name="other")
    with pytest.raises(ValueError, match=r"recipe 'masked-lm': 'json\.dumps' must look like 'module:function'"):
        dataclasses.replace(MASKED_LM, **{field: "json.dumps"})


def test_functions_of_architectures_and_media_may_be_named() -> None:
    architecture = Architecture(model_type="x", length="builtins:len", multiple="builtins:max")
    assert (architecture.length([1, 2]), architecture.multiple([3, 4])) == (2, 4)
    functions = dict.fromkeys(("files", "items", "select", "filled", "duplicates"), "builtins:list")
    medium = Medium(name="numbers", suffixes=[".num"], **functions)
    assert all(getattr(medium, name)("ab") == ["a", "b"] for name in functions)
    with pytest.raises(ValueError, match="medium 'numbers': 'list' must look like 'module:function'"):
        Medium(name="numbers", suffixes=[".num"], **{**functions, "items": "list"})


def test_nothing_is_imported_before_the_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "named_later.py").write_text("def twice(x):\n    return 2 * x\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    function = Deferred("named_later:twice")
    assert "named_later" not in sys.modules
    assert pickle.loads(pickle.dumps(function))(4) == 8
    assert "named_later" in sys.modules


def test_a_function_that_is_not_there_is_named() -> None:
    with pytest.raises(ImportError, match="'json:no_such_function' does not exist"):
        Deferred("json:no_such_function")()
