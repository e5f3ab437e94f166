"""The catalog: plugins are loaded one by one, and no plugin takes another down."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path

import pytest

import lmtasks
from lmtasks import __version__
from lmtasks.errors import InputError
from lmtasks.registry.catalog import Catalog, load_catalog
from lmtasks.registry.discovery import GROUP, location
from lmtasks.registry.enabled_plugins import is_known, remember, selected
from lmtasks.registry.plugin import Plugin
from lmtasks.registry.recorded import recorded, recorded_recipe

ROOT = Path(__file__).parents[2]

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

FORMAT = """
from lmtasks import Format, hookimpl

@hookimpl
def lmtasks_formats():
    return [Format(name="{name}", suffixes=("{suffix}",), read="json:loads")]
"""

BROKEN = {
    "a suffix without a point": (
        FORMAT.format(name="sub", suffix="sub"),
        "ValueError: format 'sub': suffix 'sub' must look like '.srt'",
    ),
    "a format of two words": (
        FORMAT.format(name="sub titles", suffix=".sub"),
        "ValueError: name of a format 'sub titles' must be one word in lower case",
    ),
    "a format that is built in": (
        FORMAT.format(name="json", suffix=".x"),
        "format 'json' already belongs to lmtasks:formats",
    ),
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
        "lmtasks_recipes must return a list, got None",
    ),
    "hook returns one": (
        "from lmtasks import hookimpl\n@hookimpl\ndef lmtasks_recipes(): return 3",
        "lmtasks_recipes must return a list, got 3",
    ),
    "hook raises": (
        "from lmtasks import hookimpl\n@hookimpl\ndef lmtasks_recipes(): return 1 / 0",
        "ZeroDivisionError: division by zero",
    ),
    "other contract": (
        GOOD.format(name="new").replace('name="new"', 'name="new", api_version=2'),
        "needs a newer lmtasks: written for version 2 of the contract, this lmtasks has 1",
    ),
    "older contract": (
        GOOD.format(name="new").replace('name="new"', 'name="new", api_version=0'),
        "needs a newer plugin: written for version 0 of the contract, this lmtasks has 1",
    ),
    "architecture of another contract": (
        ARCHITECTURE.format(name="retro").replace('"retro"', '"retro", api_version=9'),
        "needs a newer lmtasks: written for version 9 of the contract, this lmtasks has 1",
    ),
    "recipe that is none": (
        GOOD.format(name="Not A Name"),
        "ValueError: recipe name 'Not A Name' must be lower case letters, digits and hyphens",
    ),
    "own kind of exit": ("class Bye(BaseException): pass\nraise Bye('now')", "Bye: now"),
    "error without words": ("class Odd(Exception):\n    def __str__(self): return str(1 / 0)\nraise Odd", "Odd"),
    "endless words": ("raise RuntimeError('x' * 9999)", f"RuntimeError: {'x' * 286}..."),
    "forgotten marker": ("def lmtasks_recipes(): return []", "lmtasks_recipes is not marked with @hookimpl"),
    "same recipe twice": (
        GOOD.format(name="new").replace("return [", "return 2 * ["),
        "lmtasks_recipes returns 'new' twice",
    ),
    "hook that gives up": (
        "from lmtasks import hookimpl\n@hookimpl\ndef lmtasks_recipes(): raise SystemExit('no GPU')",
        "SystemExit: no GPU",
    ),
}
"""What a plugin may do wrong, and how that is told."""


Install = Callable[..., metadata.EntryPoint]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Make a package with one entry point: ``install("their-package", CODE)``."""

    def make(
        distribution: str,
        code: str,
        *,
        entry_point: str = "plug",
        version: str = "1.0",
        value: str = "",
        needs: str = "",
    ) -> metadata.EntryPoint:
        folder = tmp_path / f"{distribution}-{entry_point}"
        about = folder / f"{distribution}-{version}.dist-info"
        about.mkdir(parents=True)
        # Module names are as unique as the test's folder: Python keeps what it has imported.
        module = f"plugin_{abs(hash(folder))}"
        (folder / f"{module}.py").write_text(code)
        wants = f"Requires-Dist: {needs}\n" if needs else ""
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n{wants}")
        (about / "entry_points.txt").write_text(f"[{GROUP}]\n{entry_point} = {value or module}\n")
        monkeypatch.syspath_prepend(folder)
        (found,) = metadata.Distribution.discover(path=[str(folder)])
        (entry,) = found.entry_points
        return entry

    return make


def without_place(text: str) -> str:
    """What is said of a broken plugin, without file and line."""
    return re.sub(r" \(plugin_\d+\.py, line \d+\)", "", text)


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
    recipes = declared.keys() - {"architectures", "engines", "formats", "launchers"}
    assert {name: load_catalog(builtin()).owner(name).name for name in recipes} == {
        name: f"lmtasks:{name}" for name in recipes
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
    owner = catalog.owner("my-task")
    assert (owner.title, owner.module) == ("theirs:plug 2.3", theirs.module)
    assert (tuple(owner.recipes), owner.claims, owner.problems) == (("my-task",), ("my-task",), ())
    assert list(catalog.recipes) == ["causal-lm", "masked-lm", "my-task"], "lmtasks' own first"


def test_plugin_adds_an_architecture(install: Install) -> None:
    catalog = load_catalog([install("theirs", ARCHITECTURE.format(name="retro"))])
    assert catalog.architectures["retro"].model_type == "retro"
    assert tuple(plugin(catalog, "theirs").architectures) == ("retro",)


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
    assert plugin(one, "b").taken == ("recipe 'x' is also in a:plug 1.0; this one is b:x",)


def test_plugin_without_hooks_brings_nothing_and_is_not_broken(install: Install) -> None:
    entry_point = install("idle", "x = 1")
    assert load_catalog([entry_point]).plugins == (Plugin("idle", "1.0", "plug", entry_point.module),)


def test_helpers_that_are_called_like_hooks_but_not_marked_are_left_alone(install: Install) -> None:
    catalog = load_catalog([install("theirs", GOOD.format(name="my-task") + "\ndef lmtasks_recipe(): pass\n")])
    assert plugin(catalog, "theirs").broken == ""


def test_model_type_that_another_plugin_has_is_refused(install: Install) -> None:
    entries = [install(name, ARCHITECTURE.format(name="retro")) for name in ("a", "b")]
    catalog = load_catalog(entries)
    assert tuple(plugin(catalog, "a").architectures) == ("retro",)
    assert plugin(catalog, "b").broken == "architecture 'retro' already belongs to a:plug"


def test_a_format_whose_files_are_read_as_built_in_ones_is_told(install: Install) -> None:
    catalog = load_catalog([*builtin(), install("theirs", FORMAT.format(name="sub", suffix=".srt"))])
    assert plugin(catalog, "theirs").taken == ("format 'sub': files in .srt are text; --format sub reads them",)
    assert not [one.name for one in catalog.plugins if one.taken and one.distribution != "theirs"]


def test_plugin_adds_a_format(install: Install) -> None:
    catalog = load_catalog([install("theirs", FORMAT.format(name="sub", suffix=".sub"))])
    assert catalog.formats["sub"].suffixes == (".sub",)
    assert (plugin(catalog, "theirs").state, plugin(catalog, "theirs").as_json()["formats"]) == ("sub", ["sub"])


# --- broken plugins ---


@pytest.mark.parametrize("case", BROKEN)
def test_broken_plugin_says_why_in_one_line_and_the_rest_works(case: str, install: Install) -> None:
    code, reason = BROKEN[case]
    catalog = load_catalog([install("broken", code), install("good", GOOD.format(name="fine")), *builtin()])
    found = plugin(catalog, "broken")
    assert found.broken is not None
    assert without_place(found.broken) == reason
    assert (found.recipes, found.architectures) == ({}, {})
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
    assert re.fullmatch(
        r"recipe 'my-task' is broken: theirs:my-task 0\.3: ModuleNotFoundError: No module named 'nowhere_at_all'"
        r" \(plugin_\d+\.py, line 1\)",
        caught.value.message,
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


def test_a_broken_plugin_says_which_lmtasks_it_asks_for(install: Install) -> None:
    entries = [
        install("old", "1 / 0", needs="lmtasks>=0.1"),
        install("new", "1 / 0", needs="lmtasks>=99"),
        install("odd", "1 / 0", needs="what?"),
    ]
    reasons = {known.distribution: without_place(known.broken or "") for known in load_catalog(entries).plugins}
    plain = "ZeroDivisionError: division by zero"
    assert reasons == {"old": plain, "new": f"{plain}; it asks for lmtasks >=99, this is {__version__}", "odd": plain}


def test_asking_for_a_recipe_that_is_known_to_be_broken_says_why(install: Install) -> None:
    code = GOOD.format(name="new").replace('name="new"', 'name="new", api_version=2')
    catalog = load_catalog([install("theirs", code)])
    for name in ("new", "theirs:new"):
        with pytest.raises(InputError, match=f"recipe '{name}' is broken: theirs:plug 1.0: needs a newer lmtasks"):
            catalog.recipe(name)


def test_asking_for_an_unknown_recipe_names_what_is_broken_and_may_have_it(install: Install) -> None:
    catalog = load_catalog([install("theirs", "import nowhere_at_all"), *builtin()])
    with pytest.raises(InputError) as caught:
        catalog.recipe("my-task")
    assert caught.value.message == "unknown recipe 'my-task'"
    assert without_place(caught.value.hint).endswith(
        "; broken: theirs:plug 1.0: ModuleNotFoundError: No module named 'nowhere_at_all'"
    )


def test_what_a_plugin_prints_is_no_result(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    load_catalog([install("loud", "print('hello')")])
    assert capsys.readouterr() == ("", "hello\n")


def test_the_same_module_in_two_packages_is_loaded_once(install: Install) -> None:
    first = install("a", GOOD.format(name="x"))
    catalog = load_catalog([first, install("b", "", value=first.module)])
    assert plugin(catalog, "b").broken == f"its module '{first.module}' is already that of a:plug"
    assert list(catalog.recipes) == ["x"]


def test_an_entry_point_that_is_none_is_broken(install: Install) -> None:
    catalog = load_catalog([install("odd", "", value="not a module!"), *builtin()])
    assert plugin(catalog, "odd").broken == "its entry point 'not a module!' is neither a module nor module:object"
    assert list(catalog.recipes) == ["causal-lm", "masked-lm"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"[lmtasks]\nplug\n", "its entry_points.txt is damaged: "), (b"[lmtasks]\nplug = \xff\n", "")],
)
def test_a_damaged_file_of_entry_points_hides_no_other_package(
    content: bytes, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = tmp_path / "damaged-3.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: damaged\nVersion: 3.0\n")
    (about / "entry_points.txt").write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    catalog = load_catalog()
    assert {"causal-lm", "masked-lm"} <= set(catalog.recipes)
    found = [known.broken for known in catalog.plugins if known.distribution == "damaged"]
    assert len(found) == bool(reason), "what is no text names no plugin"
    assert all(broken.startswith(reason) for broken in found)


def test_a_package_without_a_name_is_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "nameless-1.0.dist-info"
    about.mkdir()
    (about / "entry_points.txt").write_text("[lmtasks]\nplug = plugin_without_a_name\n")
    (tmp_path / "plugin_without_a_name.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    (found,) = metadata.Distribution.discover(path=[str(tmp_path)])
    assert plugin(load_catalog([*builtin(), *found.entry_points]), "unknown").broken == ""


# --- taken names ---


def test_a_recipe_of_two_packages_is_refused_until_it_is_said_which(install: Install) -> None:
    code = GOOD.format(name="x")
    other = code.replace('name="x"', 'name="x", summary="Another."')
    catalog = load_catalog([install("one", code), install("Two_More", other, version="2.0")])
    with pytest.raises(InputError) as caught:
        catalog.recipe("x")
    assert caught.value.message == "recipe 'x' is in several packages: Two_More:plug 2.0 and one:plug 1.0"
    assert caught.value.hint == "say which: Two_More:x or one:x"
    assert catalog.recipe("two-more:x").summary == "Another."
    assert catalog.recipe("one:x").summary != "Another."
    assert list(catalog.recipes) == ["Two_More:x", "one:x"]
    assert [catalog.owner(name).distribution for name in catalog.recipes] == ["Two_More", "one"]
    assert plugin(catalog, "one").taken == ("recipe 'x' is also in Two_More:plug 2.0; this one is one:x",)


def test_a_built_in_name_stays_the_built_in_and_the_other_has_its_full_name(install: Install) -> None:
    code = GOOD.format(name="masked-lm").replace('name="masked-lm"', 'name="masked-lm", summary="Another."')
    catalog = load_catalog([install("a", code), install("b", GOOD.format(name="fine")), *builtin()])
    assert catalog.recipe("masked-lm").summary != "Another."
    assert catalog.recipe("lmtasks:masked-lm") is catalog.recipe("masked-lm")
    assert catalog.recipe("a:masked-lm").summary == "Another."
    assert plugin(catalog, "a").taken == ("recipe 'masked-lm' is built in; this one is a:masked-lm",)
    assert catalog.name_of(catalog.recipe("a:masked-lm")) == "a:masked-lm"
    assert catalog.owner("masked-lm").distribution == "lmtasks"


def test_a_full_name_always_works(install: Install) -> None:
    catalog = load_catalog([install("theirs", GOOD.format(name="mine"))])
    assert catalog.find("theirs:mine") == "mine"


def test_a_full_name_that_is_wrong_says_what_there_is(install: Install) -> None:
    catalog = load_catalog([install("theirs", GOOD.format(name="mine")), install("none", "")])
    cases = {
        "thiers:mine": ("recipe 'thiers:mine': there is no plugin 'thiers', did you mean 'theirs'?", "install it"),
        "theirs:mime": ("'theirs' has no recipe 'mime', did you mean 'mine'?", "it has mine"),
        "none:x": ("'none' has no recipe 'x'", "it has none"),
    }
    for name, (message, hint) in cases.items():
        with pytest.raises(InputError) as caught:
            catalog.recipe(name)
        assert caught.value.message == message
        assert caught.value.hint.startswith(hint)


def test_one_package_has_a_name_once(install: Install) -> None:
    entries = [install("one", GOOD.format(name="x"), entry_point=entry_point) for entry_point in ("b", "a")]
    catalog = load_catalog(entries)
    assert [known.broken for known in catalog.plugins] == ["", "recipe 'x' already belongs to one:a"]
    assert list(catalog.recipes) == ["x"]


# --- which plugins count ---


def skipped(catalog: Catalog) -> dict[str, str]:
    return {known.name: known.skipped for known in catalog.plugins if known.skipped}


def test_only_the_packages_that_are_allowed_are_imported(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [install("My_One", GOOD.format(name="first")), install("two", "raise KeyboardInterrupt"), *builtin()]
    monkeypatch.setenv("LMTASKS_PLUGINS", "my-one, three")
    catalog = load_catalog(entries)
    assert list(catalog.recipes) == ["causal-lm", "masked-lm", "first"]
    assert skipped(catalog) == {"two:plug": "not in LMTASKS_PLUGINS"}
    monkeypatch.setenv("LMTASKS_PLUGINS", "")
    assert list(load_catalog(entries).recipes) == ["causal-lm", "masked-lm"]


@pytest.mark.parametrize("name", ["two", "plug", "Two:plug"])
def test_plugins_that_are_disabled_are_not_imported(
    name: str, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMTASKS_DISABLE_PLUGINS", f"none,{name}")
    catalog = load_catalog([install("two", "raise KeyboardInterrupt"), *builtin()])
    assert skipped(catalog) == {"two:plug": "in LMTASKS_DISABLE_PLUGINS"}
    with pytest.raises(InputError, match=r"not loaded: two:plug \(in LMTASKS_DISABLE_PLUGINS\)"):
        catalog.recipe("theirs")


def test_built_ins_cannot_be_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMTASKS_DISABLE_PLUGINS", "lmtasks,masked-lm")
    with selected(builtins_only=True):
        assert list(load_catalog(builtin()).recipes) == ["causal-lm", "masked-lm"]


def test_without_plugins_there_are_the_built_ins(install: Install) -> None:
    entries = [install("two", "raise KeyboardInterrupt"), *builtin()]
    with selected(builtins_only=True):
        assert skipped(load_catalog(entries)) == {"two:plug": "--no_plugins"}


def test_a_trace_tells_what_was_found_loaded_and_skipped(
    install: Install, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = [install("one", GOOD.format(name="x")), install("two", "1 / 0"), install("three", "")]
    monkeypatch.setenv("LMTASKS_DISABLE_PLUGINS", "three")
    load_catalog(entries)
    assert capsys.readouterr() == ("", "")
    monkeypatch.setenv("LMTASKS_TRACE_PLUGINS", "1")
    load_catalog(entries)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.sub(r"\d+ ms", "N ms", without_place(err)).splitlines() == [
        "plugins: 3 found in N ms",
        "plugins: one:plug 1.0 loaded in N ms: x",
        "plugins: three:plug 1.0 skipped: in LMTASKS_DISABLE_PLUGINS",
        "plugins: two:plug 1.0 broken after N ms: ZeroDivisionError: division by zero",
    ]


# --- modules and files ---

RECIPE = """
import dataclasses
from lmtasks.builtin.masked_lm import MASKED_LM

MINE = dataclasses.replace(MASKED_LM, name="{name}")
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if str(tmp_path) in str(getattr(sys.modules[name], "__file__", ""))]:
        del sys.modules[name]


def in_file(path: Path, *, name: str = "") -> tuple[Catalog, str]:
    with selected([str(path)]):
        catalog = load_catalog(builtin())
        return catalog, catalog.find(f"{path}:{name}" if name else str(path))


def test_a_file_with_one_recipe_needs_no_hook(here: Path) -> None:
    (here / "own_file.py").write_text(RECIPE.format(name="own"))
    catalog, name = in_file(here / "own_file.py")
    assert (name, catalog.recipes[name].name) == ("own", "own")
    owner = catalog.owner(name)
    assert (owner.name, owner.kind, owner.origin) == (
        str(here / "own_file.py"),
        "file",
        {"file": str(here / "own_file.py")},
    )


def test_a_file_may_use_a_hook_and_what_lies_beside_it(here: Path) -> None:
    (here / "beside_it.py").write_text("NAME = 'from-beside'")
    code = GOOD.format(name="x").replace('name="x"', "name=NAME")
    (here / "own_hook.py").write_text(f"from beside_it import NAME\n{code}")
    assert in_file(here / "own_hook.py")[1] == "from-beside"


def test_a_file_with_several_recipes_needs_a_name(here: Path) -> None:
    file = here / "own_several.py"
    file.write_text(RECIPE.format(name="one") + 'OTHER = dataclasses.replace(MINE, name="two")\nAGAIN = OTHER\n')
    assert in_file(file, name="two")[1] == "two"
    with pytest.raises(InputError) as caught:
        in_file(file)
    assert caught.value.message == f"'{file}' has several recipes: one, two"
    assert caught.value.hint == f"say which: {file}:one"
    with pytest.raises(InputError, match=r"own_several\.py' has no recipe 'tow', did you mean 'two'"):
        in_file(file, name="tow")


def test_a_file_does_not_shadow_a_built_in(here: Path) -> None:
    (here / "own_shadow.py").write_text(RECIPE.format(name="masked-lm"))
    catalog, name = in_file(here / "own_shadow.py")
    assert name == f"{here / 'own_shadow.py'}:masked-lm"
    assert catalog.owner("masked-lm").distribution == "lmtasks"


def test_a_file_that_has_changed_is_read_again(here: Path) -> None:
    (here / "own_edit.py").write_text(RECIPE.format(name="before"))
    assert in_file(here / "own_edit.py")[1] == "before"
    assert in_file(here / "own_edit.py")[1] == "before"
    (here / "own_edit.py").write_text(RECIPE.format(name="afterwards"))
    assert in_file(here / "own_edit.py")[1] == "afterwards"


def test_a_file_may_be_called_like_a_module(here: Path) -> None:
    (here / "json.py").write_text(RECIPE.format(name="own"))
    assert in_file(here / "json.py")[1] == "own"
    assert "MINE" not in vars(sys.modules["json"])


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("x = 1\ny = nowhere\n", "NameError: name 'nowhere' is not defined (line 2)"),
        ("x = (\n", "SyntaxError: '(' was never closed (broken_file.py, line 1)"),
        ("x = 1", "it declares no recipe: it needs a lmtasks_recipes hook, or a Recipe at its top level"),
        (GOOD.format(name="x").replace("@hookimpl", ""), "lmtasks_recipes is not marked with @hookimpl"),
        (None, "there is no such file"),
    ],
)
def test_a_broken_file_says_where(code: str | None, reason: str, here: Path) -> None:
    file = here / "broken_file.py"
    if code is not None:
        file.write_text(code)
    with pytest.raises(InputError) as caught:
        in_file(file)
    assert caught.value.message == f"'{file}' cannot be used: {reason}"


def test_a_file_of_architectures_has_no_recipe(here: Path) -> None:
    (here / "own_retro.py").write_text(ARCHITECTURE.format(name="retro"))
    with pytest.raises(InputError, match=r"own_retro\.py' has no recipe"):
        in_file(here / "own_retro.py")


def test_a_file_is_for_commands() -> None:
    with pytest.raises(InputError, match=r"'\./mine\.py' is a file, and only commands take those"):
        load_catalog(builtin()).recipe("./mine.py")


def test_a_module_is_a_plugin_when_it_is_named(here: Path) -> None:
    (here / "named_module.py").write_text(RECIPE.format(name="own"))
    with selected(["named_module"]):
        catalog = load_catalog(builtin())
    assert catalog.owner("own").origin == {"module": "named_module"}
    assert catalog.find("named_module:own") == "own"


def test_a_module_that_is_installed_as_a_plugin_is_one_plugin() -> None:
    with selected(["lmtasks.builtin.masked_lm"]):
        catalog = load_catalog(builtin())
    names = ["architectures", "causal-lm", "engines", "formats", "launchers", "masked-lm"]
    assert [known.name for known in catalog.plugins] == [f"lmtasks:{name}" for name in names]


def test_a_module_that_cannot_be_imported_is_bad_input() -> None:
    with selected(["no_such_module_anywhere"]), pytest.raises(InputError) as caught:
        load_catalog(builtin())
    assert caught.value.message == (
        "module 'no_such_module_anywhere' cannot be used:"
        " ModuleNotFoundError: No module named 'no_such_module_anywhere'"
    )


# --- back to the recipe of a run ---


def test_a_record_leads_back_to_the_package(install: Install) -> None:
    catalog = load_catalog([install(name, GOOD.format(name="x")) for name in ("one", "two")])
    record = {"recipe": "x", "origin": {"package": "two", "version": "1.0"}}
    assert recorded_recipe(record, catalog) is catalog.recipe("two:x")
    assert recorded({"recipe": "x"}) == ("", "x"), "an older record"


def test_a_record_leads_back_to_a_file_that_was_used_before_and_to_no_other(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(here))
    file = str(here / "recorded_file.py")
    Path(file).write_text(RECIPE.format(name="own"))
    record = {"recipe": "own", "origin": {"file": file}}
    catalog = load_catalog(builtin())
    with pytest.raises(InputError) as caught:
        recorded_recipe(record, catalog)
    assert caught.value.message == f"the recipe 'own' of this run is in '{file}', which was not used here before"
    assert caught.value.hint == f"if you trust it, name it: --recipe {file}"
    remember(file)
    remember(file)
    assert recorded_recipe(record, catalog).name == "own"


@pytest.mark.parametrize("name", ["a_module", "a_package", "a_package.inside", "a_namespace.inside"])
def test_a_module_is_known_at_the_place_where_it_was_used_and_nowhere_else(
    name: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(here))
    record = {"recipe": "own", "origin": {"module": name}}
    with pytest.raises(InputError, match=f"is in the module '{name}', which is not found here"):
        recorded(record)
    files = {
        "a_module": "a_module.py",
        "a_package": "a_package/__init__.py",
        "a_package.inside": "a_package/inside.py",
        "a_namespace.inside": "a_namespace/inside.py",
    }
    for place in (here / "mine", here / "theirs"):
        for file in files.values():
            (place / file).parent.mkdir(parents=True, exist_ok=True)
            (place / file).write_text("raise SystemExit('nothing may be run to find out where it is')")
    monkeypatch.syspath_prepend(here / "mine")
    assert location(name) == str(here / "mine" / files[name])
    with pytest.raises(InputError, match=f"which was not used here before .if you trust it, name it: --plugin {name}"):
        recorded(record)
    remember(name, location(name))
    assert recorded(record) == (name, f"{name}:own")
    monkeypatch.syspath_prepend(here / "theirs")
    with pytest.raises(InputError, match=r"theirs/.*which was not used here before"):
        recorded(record)
    with selected([name]):
        assert recorded(record) == (name, f"{name}:own"), "named for this command"


@pytest.mark.parametrize("name", ["a_namespace", "sys", "nowhere.at.all", "json.nowhere", ".", "", "a..b"])
def test_what_is_no_file_has_no_location(name: str, here: Path) -> None:
    (here / "a_namespace").mkdir()
    assert location(name) == ""


def test_a_published_record_names_no_file() -> None:
    with pytest.raises(InputError, match="is in a file of its author's"):
        recorded({"recipe": "own", "origin": {"file": "[local path]"}})


def test_a_memory_that_cannot_be_written_or_read_knows_nothing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "file"))
    remember("x")
    assert not is_known("x")


def test_an_installation_of_an_earlier_version_is_told_as_that() -> None:
    """After ``git pull`` in a checkout that is installed in place: the code is new, its entry points are not."""
    refusal = load_catalog().unknown("engine", "trainer", [], {})
    assert (refusal.message, refusal.hint.partition(":")[0]) == ("unknown engine 'trainer'", "install lmtasks anew")
