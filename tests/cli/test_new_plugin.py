"""A new plugin installs, works and passes its own tests as it was written; a bad name writes nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from lmtasks.cli.new_plugin import KINDS

ROOT = Path(__file__).parents[2]

LONGEST = {"recipe": 40, "architecture": 25, "engine": 55, "extension": 30, "launcher": 65}
"""Lines that a reader has before them, blank ones aside."""


@pytest.fixture
def in_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


def written(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def project(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new package of a kind, and what pip would make of it, in the folder ``site`` beside it."""
    folder = tmp_path_factory.mktemp(request.param) / "lmtasks-new-one"
    done = python("-m", "lmtasks", "new-plugin", "lmtasks-new-one", "--kind", request.param, "--output_dir", folder)
    assert done.returncode == 0, done.stderr
    declared = tomllib.loads((folder / "pyproject.toml").read_text())
    about = declared["project"]
    info = folder.parent / "site" / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n")
    entries = [f"{name} = {module}" for name, module in about["entry-points"]["lmtasks"].items()]
    (info / "entry_points.txt").write_text("\n".join(["[lmtasks]", *entries, ""]))
    for package in declared["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        (info.parent / package).symlink_to(folder / package)
    return folder


def python(*words: Any, site: Path | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that has lmtasks and what is installed in a folder."""
    path = os.pathsep.join([str(ROOT), *([str(site)] if site else [])])
    return subprocess.run(
        [sys.executable, *map(str, words)],
        env={**os.environ, "PYTHONPATH": path},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


recipe_only = pytest.mark.parametrize("project", ["recipe"], indirect=True)
architecture_only = pytest.mark.parametrize("project", ["architecture"], indirect=True)
engine_only = pytest.mark.parametrize("project", ["engine"], indirect=True)
extension_only = pytest.mark.parametrize("project", ["extension"], indirect=True)
launcher_only = pytest.mark.parametrize("project", ["launcher"], indirect=True)
each_kind = pytest.mark.parametrize("project", KINDS, indirect=True)


# --- what is written ---


@each_kind
def test_nothing_in_it_is_longer_than_a_reader_wants(project: Path) -> None:
    kind = tomllib.loads((project / "pyproject.toml").read_text())["project"]["description"].split()[1]
    modules = [path.read_text() for path in (project / "lmtasks_new_one").glob("*.py")]
    assert sum(bool(line.strip()) for text in modules for line in text.splitlines()) <= LONGEST[kind]
    others = [text for path, text in written(project).items() if path.endswith((".toml", ".md"))]
    assert max(len(text.splitlines()) for text in others) <= 30


@each_kind
def test_it_uses_what_is_public(project: Path) -> None:
    text = "".join(text for path, text in written(project).items() if path.endswith(".py"))
    used = set(re.findall(r"(?:from|import) (lmtasks[\w.]*)", text)) - {"lmtasks_new_one"}
    assert used <= {"lmtasks", "lmtasks.testing", "lmtasks.builtin.masked_lm"}
    assert not re.search(r"\b(?:import|\.) *_[a-z]", text)


@each_kind
@pytest.mark.parametrize("width", [88, 120])
def test_ruff_has_nothing_to_say(width: int, project: Path) -> None:
    ruff = [sys.executable, "-m", "ruff"]
    if find_spec("ruff") is None:
        pytest.skip("ruff is not installed")
    for rest in (["check", "--select", "E,F,W,I,N,UP,B,C4,SIM,RUF,TID"], ["format", "--check"]):
        words = [*ruff, *rest, "--isolated", "--no-cache", "--line-length", str(width), "."]
        done = subprocess.run(words, cwd=project, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, done.stdout


# --- that it works ---


@each_kind
def test_it_is_in_the_catalog_and_loading_it_is_light(project: Path) -> None:
    code = "import sys; from lmtasks.cli import main; main(['plugins']); print(*{'torch', 'transformers', 'numpy'}"
    done = python("-c", f"{code} & {{*sys.modules}})", site=project.parent / "site")
    assert "lmtasks-new-one:new-one 0.1.0: new-one\n" in done.stdout
    assert done.stdout.splitlines()[-1] == "", "heavy modules"


@recipe_only
def test_the_recipe_is_listed_and_runs_with_no_more_said(project: Path, tmp_path: Path) -> None:
    site = project.parent / "site"
    listed = python("-m", "lmtasks", "list", site=site)
    assert "new-one" in [line.split()[0] for line in listed.stdout.splitlines()]
    short = ["--max_steps", 2, "--max_eval_samples", 4, "--output_dir", tmp_path / "out", "--json"]
    done = python("-m", "lmtasks", "run", "new-one", *short, "--span", 4, site=site)
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["recipe"], record["origin"]["package"]) == ("new-one", "lmtasks-new-one")
    assert "4 in a row" in (tmp_path / "out" / "README.md").read_text()


@recipe_only
def test_the_recipe_hides_neighbours_together(project: Path, masked_tokenizer: Any, monkeypatch: Any) -> None:
    monkeypatch.syspath_prepend(project.parent / "site")
    import numpy as np
    from lmtasks_new_one import RECIPE, Options  # type: ignore[import-not-found]

    ids = np.full(600, masked_tokenizer.convert_tokens_to_ids("a"), np.int32)
    examples = [{"input_ids": ids, "seed": (0, 0, number)} for number in range(20)]
    counts = {}
    for span in (1, 6):
        labels = RECIPE.collator(masked_tokenizer, Options(span=span), True)(examples)["labels"].numpy() != -100
        edges = np.flatnonzero(np.diff(labels.astype(int), axis=1).ravel())
        counts[span] = len(edges)
        assert labels.mean() == pytest.approx(0.15, abs=0.03), "as many targets, whatever the runs"
    assert counts[1] > 4 * counts[6]


@architecture_only
def test_the_architecture_trains_and_is_found_again(project: Path, text_file: Path, tmp_path: Path) -> None:
    site, out = project.parent / "site", tmp_path / "out"
    shape = "n_layer=2,n_embd=32,n_head=2,n_positions=64"
    model = ["--model_type", "new-one", "--config_overrides", shape, "--train_tokenizer", 400, "--block_size", 32]
    done = python(
        "-m", "lmtasks", "run", "causal-lm", *model, "--train_file", text_file, "--max_steps", 2, "--output_dir", out,
        site=site,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    config = json.loads((out / "config.json").read_text())
    assert config["architectures"] == ["NewOneForCausalLM"]
    assert config["activation_function"] == "relu2"
    assert python("-m", "lmtasks", "predict", out, "it", "--max_new_tokens", 3, site=site).returncode == 0


RUN = ["-m", "lmtasks", "run", "masked-lm", "--max_eval_samples", 4, "--logging_steps", 1, "--train_batch_size", 4]
"""A run that is to be as short as it gets, of a command that follows."""


@engine_only
def test_the_engine_trains(project: Path, text_file: Path, tmp_path: Path) -> None:
    site, out = project.parent / "site", tmp_path / "out"
    assert "new-one" in python("-m", "lmtasks", "list", "--engines", site=site).stdout
    how = ["--train_file", text_file, "--max_steps", 2, "--engine", "new-one", "--new_one.momentum", 0.5]
    done = python(*RUN, *how, "--output_dir", out, site=site)
    assert done.returncode == 0, done.stderr
    record = json.loads((out / "run.json").read_text())
    assert (record["engine"], record["status"]) == ("new-one", "done")
    refused = python(*RUN, *how, "--weight_decay", 0.1, "--output_dir", tmp_path / "other", site=site)
    assert (refused.returncode, (tmp_path / "other").exists()) == (2, False)


@extension_only
def test_the_extension_ends_a_training(project: Path, text_file: Path, tmp_path: Path) -> None:
    how = ["--train_file", text_file, "--max_steps", 5, "--new_one.loss", 100, "--output_dir", tmp_path / "out"]
    done = python(*RUN, *how, site=project.parent / "site")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (record["status"], record["stopped_early"]) == ("done", 1)


@launcher_only
def test_the_launcher_starts_a_run(project: Path, text_file: Path, tmp_path: Path) -> None:
    how = ["--train_file", text_file, "--max_steps", 2, "--output_dir", "out", "--launcher", "new-one"]
    done = python(*RUN, *how, "--num_processes", 2, site=project.parent / "site", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "run.json").read_text())["status"] == "done"
    assert sorted(log.name for log in (tmp_path / "logs").iterdir()) == ["0.txt", "1.txt"]


@each_kind
def test_it_passes_its_own_tests(project: Path) -> None:
    done = python("-m", "pytest", "-q", "-p", "no:cacheprovider", site=project.parent / "site", cwd=project)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout


# --- what a person types ---


@pytest.mark.parametrize(
    ("typed", "package", "recipe"),
    [
        ("lmtasks-shuffle", "lmtasks_shuffle", "shuffle"),
        ("Shuffle.Words", "shuffle_words", "shuffle-words"),
        ("t5-noise", "t5_noise", "t5-noise"),
    ],
)
def test_names(typed: str, package: str, recipe: str, in_folder: Path, lmtasks: Any) -> None:
    outcome = lmtasks("new-plugin", typed, "--json", "--no_plugins")
    told = json.loads(outcome.out)
    assert (told["package"], told["recipe"]) == (package, recipe)
    files = written(in_folder / told["output_dir"])
    assert sorted(files) == told["files"]
    assert f'name="{recipe}"' in files[f"{package}/__init__.py"]
    assert tomllib.loads(files["pyproject.toml"])["project"]["entry-points"]["lmtasks"] == {recipe: package}


def test_it_says_what_it_wrote_and_what_to_type_next(in_folder: Path, lmtasks: Any) -> None:
    outcome = lmtasks("new-plugin", "lmtasks-shuffle", "--output-dir", "mine", "--no_plugins")
    assert outcome.code == 0
    assert {f"mine/{path}" for path in written(in_folder / "mine")} < set(outcome.out.splitlines())
    assert "  pip install -e ./mine\n  lmtasks run shuffle\n  pytest ./mine\n" in outcome.out


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["bad name"], "'bad name' cannot be the name of a package"),
        (["../up"], "'../up' cannot be the name of a package"),
        (["lmtasks_3d"], "'lmtasks_3d' cannot be the name of a package"),
        (["lmtasks-"], "'lmtasks-' cannot be the name of a package"),
        (["x" * 70], f"'{'x' * 70}' is too long for a name that people type"),
        (["masked-lm"], "there is a recipe 'masked-lm' already, in lmtasks:masked-lm"),
        (["lmtasks-causal-lm"], "there is a recipe 'causal-lm' already, in lmtasks:causal-lm"),
        (["llama", "--kind", "architecture"], "there is an architecture 'llama' already"),
        (["lmtasks-xlm-roberta", "--kind", "architecture"], "there is an architecture 'xlm-roberta' already"),
        (["lmtasks-trainer", "--kind", "engine"], "there is the engine 'trainer' already, in lmtasks:engines"),
        (["trainer", "--kind", "extension"], "there is the engine 'trainer' already, in lmtasks:engines"),
        (["torchrun", "--kind", "launcher"], "there is the launcher 'torchrun' already, in lmtasks:launchers"),
        (["torch"], "Python knows 'torch' already"),
        (["lmtasks"], "Python knows 'lmtasks' already"),
        (["class"], "Python knows 'class' already"),
        (["lmtasks-new", "--kind", "metric"], "--kind cannot be 'metric'"),
        (["lmtasks-new", "--output_dir", "full"], "'full' is not empty"),
        (["lmtasks-new", "--output_dir", "file"], "'file' is a file"),
        (["lmtasks-new", "--output_dir", "file/below"], "cannot write 'file/below': Not a directory"),
        ([], "the following arguments are required: NAME"),
    ],
    ids=" ".join,
)
def test_bad_input_writes_nothing(words: list[str], problem: str, in_folder: Path, lmtasks: Any) -> None:
    (in_folder / "full").mkdir()
    (in_folder / "full" / "something").touch()
    (in_folder / "file").touch()
    before = written(in_folder.parent)
    outcome = lmtasks("new-plugin", *words)
    assert outcome.code == 2
    error, hint = outcome.err.splitlines()
    assert error.startswith(f"error: {problem}")
    assert hint.startswith("hint: ")
    assert written(in_folder.parent) == before
    assert not (in_folder / "lmtasks-new").exists()


def test_an_empty_folder_is_used(in_folder: Path, lmtasks: Any) -> None:
    (in_folder / "lmtasks-shuffle").mkdir()
    assert lmtasks("new-plugin", "lmtasks-shuffle", "--no_plugins").code == 0
    assert (in_folder / "lmtasks-shuffle" / "pyproject.toml").exists()


def test_an_architecture_that_a_plugin_has_is_refused(in_folder: Path, lmtasks: Any) -> None:
    declares = "from lmtasks import Architecture, hookimpl\n@hookimpl\ndef lmtasks_architectures():\n"
    (in_folder / "mine.py").write_text(f"{declares}    return [Architecture(model_type='retro')]\n")
    outcome = lmtasks("new-plugin", "lmtasks-retro", "--kind", "architecture", "--plugin", "./mine.py")
    assert (outcome.code, outcome.err.splitlines()[0]) == (2, "error: there is an architecture 'retro' already")
