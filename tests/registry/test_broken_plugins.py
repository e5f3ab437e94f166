"""Every way in which an installed plugin can be broken, all at once: it is named, and everything else works."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

ROOT = Path(__file__).parents[2]

RECIPE = """
import dataclasses
from lmtasks import hookimpl
from lmtasks.builtin.masked_lm import MASKED_LM

@hookimpl
def lmtasks_recipes():
    return [dataclasses.replace(MASKED_LM, name="{name}", summary="Of {name}.")]
"""


class Kind(NamedTuple):
    """One way to be broken.

    Args:
        name: of the package ``broken-NAME``, whose entry point is ``NAME``.
        code: its module.
        reason: how it must be told.
        asked: the recipe to ask for, when it is not called like the entry point.
        answer: what asking for it must say, when it is not the reason.
    """

    name: str
    code: str
    reason: str
    asked: str = ""
    answer: str = ""


HOOK = "from lmtasks import hookimpl\n@hookimpl\n"

KINDS = [
    Kind("missing-module", "import no_such_module_anywhere", "No module named 'no_such_module_anywhere'"),
    Kind("missing-name", "from lmtasks import nothing_like_it", "ImportError: cannot import name 'nothing_like_it'"),
    Kind("raises", "raise RuntimeError('out of cheese')", "RuntimeError: out of cheese"),
    Kind("exits", "import sys\nsys.exit(3)", "SystemExit: 3"),
    Kind("syntax", "def lmtasks_recipes(:", "SyntaxError: "),
    Kind("misspelt", f"{HOOK}def lmtasks_recipies(): return []", "there is no hook 'lmtasks_recipies', did you mean"),
    Kind("unmarked", "def lmtasks_recipes(): return []", "lmtasks_recipes is not marked with @hookimpl"),
    Kind("hook-raises", f"{HOOK}def lmtasks_recipes(): return 1 / 0", "ZeroDivisionError: division by zero"),
    Kind("hook-exits", f"{HOOK}def lmtasks_recipes(): raise SystemExit(1)", "SystemExit: 1"),
    Kind("no-recipe", f"{HOOK}def lmtasks_recipes(): return ['x']", "lmtasks_recipes must return Recipe objects"),
    Kind(
        "newer",
        RECIPE.format(name="of-tomorrow").replace('name="of', 'api_version=2, name="of'),
        "needs a newer lmtasks: written for version 2 of the contract, this lmtasks has 1",
        "of-tomorrow",
    ),
    Kind("unknown-field", RECIPE.format(name="x").replace("name=", "nome='x', name="), "TypeError: "),
    Kind("shadow", RECIPE.format(name="masked-lm"), "recipe 'masked-lm' is built in; this one is broken-shadow:masked"),
    Kind(
        "twin",
        RECIPE.format(name="good"),
        "recipe 'good' is also in broken-sane:sane 1.0; this one is broken-twin:good",
        "good",
        "recipe 'good' is in several packages: broken-sane:sane 1.0 and broken-twin:twin 1.0",
    ),
]

SLOW = "import torch\n" + RECIPE.format(name="slow-task")


def install(site: Path, name: str, code: str, entry_point: str = "") -> None:
    """What pip leaves behind: a module and a folder about it."""
    module = f"broken_{name.replace('-', '_')}"
    (site / f"{module}.py").write_text(code)
    about = site / f"{module}-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: broken-{name}\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(f"[lmtasks]\n{entry_point or name} = {module}\n")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every kind installed in one folder, with a slow plugin, and two sound ones that share an entry point's name."""
    site = tmp_path_factory.mktemp("site-packages")
    for kind in KINDS:
        install(site, kind.name, kind.code)
    install(site, "slow", SLOW)
    install(site, "sane", RECIPE.format(name="good"))
    install(site, "other", RECIPE.format(name="better"), entry_point="sane")
    return site


def told(site: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, which says at the end what is heavy in it."""
    code = """
        import sys
        from lmtasks.cli import main
        code = main(sys.argv[1:])
        heavy = [name for name in ("torch", "transformers", "datasets", "numpy") if name in sys.modules]
        print("heavy:", *heavy, file=sys.stderr)
        sys.exit(code)
    """
    path = os.pathsep.join([str(ROOT), str(site)])
    cache = f"{site}-cache"  # not inside: that folder is on the search path, and would change
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), *words],
        env={**os.environ, "PYTHONPATH": path, "XDG_CACHE_HOME": cache, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_list_has_all_that_works_and_a_line_for_all_that_does_not(site: Path) -> None:
    first, again = told(site, "list", "--json"), told(site, "list", "--json")
    assert first.returncode == 0, first.stderr
    names = [row["name"] for row in json.loads(first.stdout)]
    assert {"masked-lm", "causal-lm", "better", "broken-sane:good", "broken-twin:good"} <= set(names)
    assert "broken-shadow:masked-lm" in names
    for kind in KINDS:
        start = f"warning: broken-{kind.name}:{kind.name} 1.0 is broken: "
        (line,) = [line for line in first.stderr.splitlines() if line.startswith(start)]
        assert kind.reason in line
    assert "warning: broken-slow:slow 1.0 is slow: it imports torch at its top; lmtasks list --all" in first.stderr
    assert first.stderr.splitlines()[-1] == "heavy:"
    assert (again.stdout, again.stderr) == (first.stdout, first.stderr), "remembered"


def test_plugins_names_each_with_its_reason(site: Path) -> None:
    outcome = told(site, "plugins")
    assert outcome.returncode == 0, outcome.stderr
    lines = dict(line.split(" 1.0: ", 1) for line in outcome.stdout.splitlines() if line.startswith("broken-"))
    for kind in KINDS:
        assert (
            f"BROKEN: {kind.reason}" in lines[f"broken-{kind.name}:{kind.name}"]
            or kind.reason in (lines[f"broken-{kind.name}:{kind.name}"])
        )
    assert lines["broken-slow:slow"] == "SLOW: imports torch at its top"
    assert (lines["broken-other:sane"], lines["broken-sane:sane"].split(";")[0]) == ("better", "good")
    assert outcome.stderr == "heavy:\n"


@pytest.mark.parametrize("name", ["masked-lm", "causal-lm", "better", "broken-sane:good", "broken-shadow:masked-lm"])
def test_what_is_sound_is_shown(name: str, site: Path) -> None:
    outcome = told(site, "show", name)
    assert outcome.returncode == 0, outcome.stderr
    assert outcome.stdout.startswith(f"{name}: ")
    assert outcome.stderr == "heavy:\n"


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind.name != "shadow"], ids=lambda kind: kind.name)
def test_asking_for_a_broken_recipe_ends_with_the_reason(
    kind: Kind, site: Path, lmtasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(site)
    outcome = lmtasks("run", kind.asked or kind.name)
    assert outcome.code == 2
    error, hint = outcome.err.splitlines()
    assert error.startswith("error: ")
    assert (kind.answer or kind.reason) in error
    assert hint.startswith("hint: ")


def test_a_slow_plugin_is_imported_when_it_is_needed(site: Path) -> None:
    shown = told(site, "show", "slow-task")
    assert (shown.returncode, shown.stdout[:9]) == (0, "slow-task"), shown.stderr
    assert "torch" in shown.stderr.splitlines()[-1]


def test_list_all_imports_what_is_slow_and_is_remembered(site: Path) -> None:
    everything = told(site, "list", "--all", XDG_CACHE_HOME=f"{site}-second")
    assert "Of slow-task." in everything.stdout
    assert "is slow" not in everything.stderr
    plain = told(site, "list", XDG_CACHE_HOME=f"{site}-second")
    assert plain.stdout == everything.stdout
    assert plain.stderr.splitlines()[-1] == "heavy:"


@pytest.mark.parametrize(
    "top",
    [
        "try:\n    import torch\nexcept ImportError:\n    torch = None",
        "try:\n    import torch\nexcept BaseException:\n    torch = None",
        "from torch import nn",
        "import torch.nn.functional",
        "import broken_helper",
    ],
)
def test_there_is_no_way_to_import_torch_at_the_top_unnoticed(top: str, tmp_path: Path) -> None:
    (tmp_path / "broken_helper.py").write_text("import torch")
    install(tmp_path, "top", f"{top}\n{RECIPE.format(name='x')}")
    outcome = told(tmp_path, "plugins")
    assert "broken-top:top 1.0: SLOW: imports torch at its top" in outcome.stdout.splitlines()
    assert outcome.stderr == "heavy:\n"


def test_a_plugin_may_ask_whether_torch_is_there(tmp_path: Path) -> None:
    looks = "from importlib.util import find_spec\nassert find_spec('torch') and not find_spec('jax')\n"
    install(tmp_path, "looks", f"{looks}{RECIPE.format(name='x')}")
    outcome = told(tmp_path, "plugins")
    assert "broken-looks:looks 1.0: x" in outcome.stdout.splitlines()
    assert outcome.stderr == "heavy:\n"


@pytest.mark.parametrize("words", [["--no_plugins", "list"], ["list", "--no-plugins"]], ids=" ".join)
def test_without_plugins_nothing_is_broken(words: list[str], site: Path) -> None:
    outcome = told(site, *words)
    assert [line.split()[0] for line in outcome.stdout.splitlines()] == ["causal-lm", "masked-lm"]
    assert outcome.stderr == "heavy:\n"


def test_a_trace_says_what_happened_to_each(site: Path) -> None:
    outcome = told(site, "list", LMTASKS_TRACE_PLUGINS="1", LMTASKS_PLUGINS="broken-sane,broken-raises")
    traced = [line for line in outcome.stderr.splitlines() if line.startswith("plugins: ")]
    assert sum(" skipped: not in LMTASKS_PLUGINS" in line for line in traced) >= len(KINDS)
    assert any(line.startswith("plugins: broken-sane:sane 1.0 loaded in ") for line in traced)
    assert any(line.startswith("plugins: broken-raises:raises 1.0 broken after ") for line in traced)
    assert "good" in [line.split()[0] for line in outcome.stdout.splitlines()]


def test_a_run_is_the_same_with_all_of_them(
    site: Path, text_file: Path, tmp_path: Path, lmtasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = ["run", "masked-lm", "--train_file", text_file, "--max_steps", 2, "--max_eval_samples", 8, "--json"]
    alone = lmtasks(*asked, "--output_dir", tmp_path / "alone")
    monkeypatch.syspath_prepend(site)
    among = lmtasks(*asked, "--output_dir", tmp_path / "among")
    assert (alone.code, among.code) == (0, 0), among.err
    losses = [json.loads(outcome.out)["metrics"]["eval_loss"] for outcome in (alone, among)]
    assert losses[0] == losses[1]
    predicted = lmtasks("predict", tmp_path / "among", "it <mask>", "--json")
    assert predicted.code == 0, predicted.err
    assert lmtasks("evaluate", tmp_path / "among", "--json").code == 0


def test_doctor_names_what_is_broken_and_exits_3(site: Path, lmtasks: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(site)
    outcome = lmtasks("doctor")
    assert outcome.code == 3
    for kind in KINDS:
        lines = [line for line in outcome.out.splitlines() if line.startswith("BROKEN") and kind.reason in line]
        assert any(f"broken-{kind.name}:{kind.name} 1.0: " in line for line in lines)
    error, hint = outcome.err.splitlines()
    assert error.startswith(f"error: {len(KINDS) + 1} broken: "), "of the two that have one name, each"
    assert hint.startswith("hint: ")
    assert lmtasks("doctor", "--no_plugins").code == 0


def test_control_c_passes_through(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "texts")
    install(tmp_path, "endless", f"open({str(tmp_path / 'texts')!r}).read()")
    process = subprocess.Popen(
        [sys.executable, "-m", "lmtasks", "list"],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(tmp_path)])},
    )
    # Opening for writing waits until the plugin has opened for reading, so it is being imported now.
    with (tmp_path / "texts").open("w"):
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "error: interrupted\n")
