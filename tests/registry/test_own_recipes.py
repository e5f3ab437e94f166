"""Recipes that no package brings: a file, or a module that is named; and the way back to them from a run."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lmtasks.artifacts.model_card import model_card
from lmtasks.artifacts.redact import redacted
from lmtasks.artifacts.run_folder import unsealed

CODE = """
import dataclasses

from lmtasks import hookimpl
from lmtasks.builtin.masked_lm import MASKED_LM

OWN = dataclasses.replace(MASKED_LM, name="{name}", summary="My own.", starter=None)
"""


@pytest.fixture
def here(
    tmp_path: Path, text_file: Path, model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """A folder with a text, a model, a file and a module, and a person who has not used them yet."""
    shutil.copy(text_file, tmp_path / "text.txt")
    shutil.copytree(model_folders["roberta"], tmp_path / "model")
    # Modules have names of their own: Python keeps what it has imported.
    (tmp_path / "my_recipe.py").write_text(CODE.format(name="own-file"))
    (tmp_path / f"module_{tmp_path.name}.py").write_text(CODE.format(name="own-module"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield tmp_path
    for name in [name for name in sys.modules if str(tmp_path) in str(getattr(sys.modules[name], "__file__", ""))]:
        del sys.modules[name]


WORDS = [
    "--model",
    "model",
    "--train_file",
    "text.txt",
    "--block_size",
    "16",
    "--max_steps",
    "1",
    "--output_dir",
    "out",
]
TEXT = ["--validation_file", "text.txt", "--block_size", "16"]


def record() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(Path("out/run.json").read_text())
    return loaded


def test_a_file_is_run_and_its_run_leads_back_to_it(here: Path, lmtasks: Any) -> None:
    done = lmtasks("run", "./my_recipe.py", *WORDS)
    assert done.code == 0, done.err
    assert (record()["recipe"], record()["origin"]) == ("own-file", {"file": str(here / "my_recipe.py")})
    figures = lmtasks("evaluate", "out", "--json")
    assert figures.code == 0, figures.err
    assert json.loads(figures.out)["eval_loss"] == pytest.approx(record()["metrics"]["eval_loss"], rel=1e-5)
    answers = lmtasks("predict", "out", "a <mask> b", "--top_k", 1)
    assert answers.code == 0, answers.err
    assert len(answers.out.splitlines()) == 1


def test_a_run_of_a_file_that_was_not_used_here_says_what_to_type(
    here: Path, lmtasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lmtasks("run", "my_recipe.py:own-file", *WORDS).code == 0
    monkeypatch.setenv("XDG_CACHE_HOME", str(here / "other"))
    for words in (["evaluate", "out"], ["predict", "out", "a <mask> b"]):
        outcome = lmtasks(*words)
        assert outcome.code == 2
        error, hint = outcome.err.splitlines()
        assert error.endswith(f"is in '{here / 'my_recipe.py'}', which was not used here before")
        assert hint == f"hint: if you trust it, name it: --recipe {here / 'my_recipe.py'}"
        assert lmtasks(*words, "--recipe", "my_recipe.py").code == 0


def test_a_file_that_has_moved_is_missed(here: Path, lmtasks: Any) -> None:
    assert lmtasks("run", "my_recipe.py", *WORDS).code == 0
    Path("my_recipe.py").rename("your_recipe.py")
    outcome = lmtasks("predict", "out", "a <mask> b")
    assert (outcome.code, outcome.err.splitlines()[0]) == (
        2,
        f"error: '{here / 'my_recipe.py'}' cannot be used: there is no such file, did you mean 'your_recipe.py'?",
    )
    assert lmtasks("predict", "out", "a <mask> b", "--recipe", "./your_recipe.py").code == 0


def test_a_module_that_is_named_is_a_plugin_of_the_command(here: Path, lmtasks: Any) -> None:
    module = f"module_{here.name}"
    assert "own-module" not in lmtasks("list").out
    for words in (["--plugin", module, "list"], ["list", "--plugin", module], ["list", f"--plugin=./{module}.py"]):
        outcome = lmtasks(*words)
        assert (outcome.code, "My own." in outcome.out) == (0, True), outcome.err
    assert lmtasks("show", "own-module", "--plugin", module).out.startswith("own-module: My own.")
    both = lmtasks("list", "--plugin", module, "--plugin", "./my_recipe.py", "--no_plugins")
    assert [line.split()[0] for line in both.out.splitlines()] == ["causal-lm", "masked-lm", "own-module", "own-file"]
    assert lmtasks("run", "own-module", *WORDS).code == 2
    done = lmtasks("run", "own-module", "--plugin", module, *WORDS)
    assert done.code == 0, done.err
    assert record()["origin"] == {"module": module}
    assert lmtasks("evaluate", "out", *TEXT).code == 0
    assert lmtasks("evaluate", "model", "--recipe", "own-module", "--plugin", module, *TEXT).code == 0


def test_a_folder_cannot_have_its_own_code_run_by_the_name_of_a_module(here: Path, lmtasks: Any) -> None:
    """A run and a module beside it, as somebody might send them, where the person has a module of that name."""
    module = f"module_{here.name}"
    assert lmtasks("run", "own-module", "--plugin", module, *WORDS).code == 0
    sent = here / "sent"
    sent.mkdir()
    Path("out").rename(sent / "out")
    (sent / f"{module}.py").write_text(f"open('ran', 'w')\n{CODE.format(name='own-module')}")

    def evaluate(*words: str) -> subprocess.CompletedProcess[str]:
        """As the installed command: this folder is not on the search path of its own accord."""
        command = [sys.executable, "-I", "-c", "from lmtasks.cli import main; raise SystemExit(main())"]
        words = ("evaluate", "out", "--validation_file", str(here / "text.txt"), *words)
        return subprocess.run([*command, *words], cwd=sent, capture_output=True, text=True)

    outcome = evaluate()
    assert not (sent / "ran").exists()
    assert (outcome.returncode, outcome.stderr.splitlines()) == (
        2,
        [
            f"error: the recipe 'own-module' of this run is in '{module}' ({sent / module}.py),"
            " which was not used here before",
            f"hint: if you trust it, name it: --plugin {module}",
        ],
    )
    named = evaluate("--plugin", module)
    assert (named.returncode, (sent / "ran").exists()) == (0, True), named.stderr


def test_a_module_that_is_not_there_any_more_is_missed(
    here: Path, lmtasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"module_{here.name}"
    assert lmtasks("run", "own-module", "--plugin", module, *WORDS).code == 0
    Path(f"{module}.py").unlink()
    monkeypatch.delitem(sys.modules, module)
    outcome = lmtasks("evaluate", "out")
    assert (outcome.code, outcome.err.splitlines()) == (
        2,
        [
            f"error: the recipe 'own-module' of this run is in the module '{module}', which is not found here",
            "hint: start lmtasks where it can be imported, or set PYTHONPATH",
        ],
    )


def test_a_run_of_a_package_says_so_and_a_package_that_is_gone_is_missed(here: Path, lmtasks: Any) -> None:
    assert lmtasks("run", "masked-lm", *WORDS).code == 0
    run = record()
    assert run["origin"] == {"package": "lmtasks", "version": run["versions"]["lmtasks"]}
    Path("out/run.json").write_text(json.dumps({**unsealed(run), "origin": {"package": "gone", "version": "1.0"}}))
    outcome = lmtasks("evaluate", "out")
    assert (outcome.code, outcome.err.splitlines()[0]) == (
        2,
        "error: recipe 'gone:masked-lm': there is no plugin 'gone'",
    )
    assert lmtasks("evaluate", "out", "--recipe", "masked-lm").code == 0


def test_an_unfinished_run_is_still_told_to_be_unfinished(here: Path, lmtasks: Any) -> None:
    assert lmtasks("run", "my_recipe.py", *WORDS).code == 0
    Path("out/run.json").write_text(json.dumps({**record(), "status": "running"}))
    assert "is not finished" in lmtasks("evaluate", "out").err


def test_what_is_published_names_no_file_and_no_package(here: Path, lmtasks: Any) -> None:
    assert lmtasks("run", "my_recipe.py", *WORDS).code == 0
    assert str(here) not in json.dumps(redacted(record()))
    assert "pip install" not in str(model_card(record()))


def test_the_options_of_a_file_are_flags_and_a_schema(here: Path, lmtasks: Any) -> None:
    assert "--mlm_probability" in lmtasks("run", "./my_recipe.py", "--help").out
    assert "--eval_mlm_probability" in lmtasks("evaluate", "--help", "--recipe", "./my_recipe.py").out
    assert lmtasks("show", "./my_recipe.py").out.startswith("own-file: My own.")
    assert json.loads(lmtasks("schema", "./my_recipe.py").out)["title"] == "lmtasks run own-file"


NOISY = """
from dataclasses import dataclass, replace

from lmtasks import option
from lmtasks.builtin.masked_lm import MASKED_LM, MaskedLMOptions


@dataclass(frozen=True, kw_only=True)
class Options(MaskedLMOptions):
    noise: float = option(0.5, help="noise of training", training_only=True)


NOISY = replace(MASKED_LM, name="noisy", options=Options, starter=None)
"""


def test_an_evaluation_refuses_what_a_recipe_says_that_only_training_uses(here: Path, lmtasks: Any) -> None:
    Path("noisy.py").write_text(NOISY)
    words = ["evaluate", "model", "--recipe", "./noisy.py", *TEXT]
    assert lmtasks(*words).code == 0
    assert "--noise" not in lmtasks("evaluate", "--help", "--recipe", "./noisy.py").out
    outcome = lmtasks(*words, "--noise", "0.1")
    assert (outcome.code, outcome.err.splitlines()) == (
        2,
        ["error: --noise means nothing to an evaluation", "hint: lmtasks evaluate --help shows what does"],
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("run ./gone.py", "gone.py' cannot be used: there is no such file"),
        ("show my_recipe.py:own-fiel", "has no recipe 'own-fiel', did you mean 'own-file'"),
        ("list --plugin", "--plugin needs a value"),
        ("list --plugin no_such_module_at_all", "module 'no_such_module_at_all' cannot be used"),
    ],
)
def test_what_is_not_there_is_bad_input(words: str, says: str, here: Path, lmtasks: Any) -> None:
    outcome = lmtasks(*words.split())
    assert outcome.code == 2
    error, hint = outcome.err.splitlines()
    assert error.startswith("error: ") and says in error
    assert hint.startswith("hint: ")
