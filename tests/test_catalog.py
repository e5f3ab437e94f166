"""The catalog: plugins are loaded one by one, and no plugin takes another down."""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest

import lmtasks
from lmtasks.catalog import GROUP, Catalog, Plugin, load_catalog
from lmtasks.errors import InputError

ROOT = Path(__file__).parents[1]

GOOD = """
import dataclasses
from lmtasks import hookimpl
from lmtasks.builtin.masked_lm import MASKED_LM

@hookimpl
def lmtasks_recipes():
    return [dataclasses.replace(MASKED_LM, name="{name}")]
"""

ARCHITECTURE = """
from lmtasks import Architecture, hookimpl

@hookimpl
def lmtasks_architectures():
    return [Architecture(model_type="{name}")]
"""

BROKEN = {
    "import error": (
        "import no_such_module_anywhere",
        "ModuleNotFoundError: No module named 'no_such_module_anywhere'",
    ),
    "syntax error": ("exec('def')", "SyntaxError: invalid syntax (<string>, line 1)"),
    "exit": ("import sys; sys.exit('bye')", "SystemExit: bye"),
    "two lines": ("raise RuntimeError('first\\nsecond')", "RuntimeError: first"),
    "nothing said": ("raise RuntimeError", "RuntimeError"),
    "misspelt hook": (
        "from lmtasks import hookimpl\n@hookimpl\ndef lmtasks_recipe(): return []",
        "there is no hook 'lmtasks_recipe', did you mean 'lmtasks_recipes'?",
    ),
    "hook with arguments": (
        "from lmtasks import hookimpl\n@hookimpl\ndef lmtasks_recipes(catalog): return []",
        "PluginValidationError: Plugin 'broken:plug' for hook 'lmtasks_recipes'",
    ),
    "hook returns other objects": (
        "from lmtasks import hookimpl\n@hookimpl\ndef lmtasks_recipes(): return ['masked']",
        "lmtasks_recipes must return Recipe objects, got 'masked'",
    ),
    "hook returns nothing": (
        "from lmtasks import hookimpl\n@hookimpl\ndef lmtasks_recipes(): pass",
        "TypeError: 'NoneType' object is not iterable",
    ),
    "hook raises": (
        "from lmtasks import hookimpl\n@hookimpl\ndef lmtasks_recipes(): return 1 / 0",
        "ZeroDivisionError: division by zero",
    ),
    "other contract": (
        GOOD.format(name="new").replace('name="new"', 'name="new", api_version=2'),
        "written for version 2 of the contract, this lmtasks has 1",
    ),
    "architecture of another contract": (
        ARCHITECTURE.format(name="retro").replace('"retro"', '"retro", api_version=9'),
        "written for version 9 of the contract, this lmtasks has 1",
    ),
    "recipe that is none": (
        GOOD.format(name="Not A Name"),
        "ValueError: recipe name 'Not A Name' must be lower case letters, digits and hyphens",
    ),
    "taken name": (GOOD.format(name="masked-lm"), "recipe 'masked-lm' already belongs to lmtasks:masked-lm"),
}


Install = Callable[..., metadata.EntryPoint]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make a package with one entry point: ``install("their-package", CODE)``."""

    def make(distribution: str, code: str, *, entry_point: str = "plug", version: str = "1.0") -> metadata.EntryPoint:
        folder = tmp_path / f"{distribution}-{entry_point}"
        about = folder / f"{distribution}-{version}.dist-info"
        about.mkdir(parents=True)
        # Module names are as unique as the test's folder: Python keeps what it has imported.
        module = f"plugin_{abs(hash(folder))}"
        (folder / f"{module}.py").write_text(code)
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
        (about / "entry_points.txt").write_text(f"[{GROUP}]\n{entry_point} = {module}\n")
        monkeypatch.syspath_prepend(folder)
        (found,) = metadata.Distribution.discover(path=[str(folder)])
        (entry,) = found.entry_points
        return entry

    return make


def builtin() -> list[metadata.EntryPoint]:
    return [entry for entry in metadata.entry_points(group=GROUP) if entry.dist and entry.dist.name == "lmtasks"]


def plugin(catalog: Catalog, distribution: str) -> Plugin:
    return next(plugin for plugin in catalog.plugins if plugin.distribution == distribution)


# --- what is built in ---


def test_builtin_recipes_come_in_by_the_entry_points_of_pyproject() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][GROUP]
    installed = {entry.name: entry.value for entry in builtin()}
    files = {f"lmtasks.builtin.{path.stem}" for path in (ROOT / "lmtasks" / "builtin").glob("[a-z]*.py")}
    assert installed == declared
    assert set(declared.values()) == files
    assert {name: load_catalog(builtin()).owner(name).name for name in declared} == {
        name: f"lmtasks:{name}" for name in declared
    }


def test_recipes_are_those_of_the_catalog() -> None:
    assert {"masked-lm", "causal-lm"} <= set(lmtasks.recipes())
    assert lmtasks.recipes().keys() == load_catalog().recipes.keys()


def test_changing_the_answer_of_recipes_changes_nothing() -> None:
    lmtasks.recipes().clear()
    assert lmtasks.recipes()


# --- plugins ---


def test_plugin_adds_a_recipe_and_owns_it(install: Install) -> None:
    theirs = install("theirs", GOOD.format(name="my-task"), version="2.3")
    catalog = load_catalog([theirs, *builtin()])
    assert catalog.recipe("my-task").name == "my-task"
    assert catalog.owner("my-task") == Plugin("theirs", "2.3", "plug", theirs.module, recipes=("my-task",))
    assert list(catalog.recipes) == ["causal-lm", "masked-lm", "my-task"], "lmtasks' own first"


def test_plugin_adds_an_architecture(install: Install) -> None:
    catalog = load_catalog([install("theirs", ARCHITECTURE.format(name="retro"))])
    assert catalog.architectures["retro"].model_type == "retro"
    assert plugin(catalog, "theirs").architectures == ("retro",)


def test_two_packages_may_use_the_same_entry_point_name(install: Install) -> None:
    catalog = load_catalog([install("one", GOOD.format(name="first")), install("two", GOOD.format(name="second"))])
    assert set(catalog.recipes) == {"first", "second"}
    assert [known.name for known in catalog.plugins] == ["one:plug", "two:plug"]


def test_one_package_may_have_several_entry_points(install: Install) -> None:
    entries = [install("one", GOOD.format(name=name), entry_point=name) for name in ("second", "first")]
    assert list(load_catalog(entries).recipes) == ["first", "second"]


def test_order_of_discovery_does_not_matter(install: Install) -> None:
    entries = [install("b", GOOD.format(name="x")), install("a", GOOD.format(name="x")), *builtin()]
    one, other = load_catalog(entries), load_catalog(entries[::-1])
    assert one.plugins == other.plugins
    assert plugin(one, "b").broken == "recipe 'x' already belongs to a:plug"


def test_plugin_without_hooks_brings_nothing_and_is_not_broken(install: Install) -> None:
    entry_point = install("idle", "x = 1")
    assert load_catalog([entry_point]).plugins == (Plugin("idle", "1.0", "plug", entry_point.module),)


def test_helpers_that_are_called_like_hooks_but_not_marked_are_left_alone(install: Install) -> None:
    catalog = load_catalog([install("theirs", GOOD.format(name="my-task") + "\ndef lmtasks_recipe(): pass\n")])
    assert plugin(catalog, "theirs").broken == ""


def test_model_type_that_another_plugin_has_is_refused(install: Install) -> None:
    entries = [install(name, ARCHITECTURE.format(name="retro")) for name in ("a", "b")]
    catalog = load_catalog(entries)
    assert plugin(catalog, "a").architectures == ("retro",)
    assert plugin(catalog, "b").broken == "architecture 'retro' already belongs to a:plug"


# --- broken plugins ---


@pytest.mark.parametrize("case", BROKEN)
def test_broken_plugin_says_why_in_one_line_and_the_rest_works(case: str, install: Install) -> None:
    code, reason = BROKEN[case]
    catalog = load_catalog([install("broken", code), install("good", GOOD.format(name="fine")), *builtin()])
    found = plugin(catalog, "broken")
    assert found.broken == reason
    assert (found.recipes, found.architectures) == ((), ())
    assert list(catalog.recipes) == ["causal-lm", "masked-lm", "fine"]
    assert catalog.owner("masked-lm").distribution == "lmtasks"


def test_nothing_of_a_broken_plugin_is_used(install: Install) -> None:
    half = GOOD.format(name="fine") + ARCHITECTURE.format(name="retro").replace('"retro"', '"retro", api_version=2')
    catalog = load_catalog([install("half", half)])
    assert (dict(catalog.recipes), dict(catalog.architectures)) == ({}, {})


def test_interrupting_the_import_of_a_plugin_interrupts(install: Install) -> None:
    with pytest.raises(KeyboardInterrupt):
        load_catalog([install("slow", "raise KeyboardInterrupt")])


def test_asking_for_a_broken_recipe_says_what_is_broken(install: Install) -> None:
    catalog = load_catalog([install("theirs", "import nowhere_at_all", entry_point="my-task", version="0.3")])
    with pytest.raises(InputError) as caught:
        catalog.recipe("my-task")
    assert caught.value.message == (
        "recipe 'my-task' is broken: theirs:my-task 0.3: ModuleNotFoundError: No module named 'nowhere_at_all'"
    )
    assert caught.value.hint.startswith("lmtasks plugins")


def test_asking_for_an_unknown_recipe_names_the_nearest() -> None:
    with pytest.raises(InputError) as caught:
        load_catalog(builtin()).recipe("maskd-lm")
    assert caught.value.message == "unknown recipe 'maskd-lm', did you mean 'masked-lm'?"
    assert caught.value.hint == "lmtasks list shows what is installed: causal-lm, masked-lm"


def test_entry_point_of_no_package_is_named_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "plugin_of_nobody.py").write_text("")
    catalog = load_catalog([metadata.EntryPoint("plug", "plugin_of_nobody", GROUP)])
    assert [known.name for known in catalog.plugins] == ["unknown:plug"]
