"""``lmtasks runs``, and commands under the names that people know: the runs that are there, with their figures."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmtasks import __version__
from lmtasks.config.commands import COMMANDS, PEERS

FIGURES = {"eval_loss": 2.5, "perplexity": 12.182, "bits_per_byte": 1.25, "accuracy": 0.5}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four folders: two runs, one within a folder, a damaged record, and a run within a run."""
    monkeypatch.chdir(tmp_path)
    about = {"recipe": "masked-lm", "started": "2026-11-29T08:00:00Z", "base_model": None, "model_type": "roberta"}
    for name, record in {
        "b": {**about, "status": "done", "metrics": FIGURES},
        "a/deep": {**about, "recipe": "causal-lm", "status": "running"},
        "b/checkpoints/c": {**about, "status": "done", "metrics": FIGURES},
    }.items():
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "run.json").write_text(json.dumps(record))
    for name, text in {"damaged": "{", "other": '{"name": "of another tool"}'}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text(text)
    return tmp_path


def test_runs_below_a_folder(here: Path, lmtasks: Callable[..., Any]) -> None:
    done = lmtasks("runs")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == [
        "run     recipe        loss  perplexity  bits/byte     started",
        "a/deep  causal-lm  running                         2026-11-29",
        "b       masked-lm   2.5000       12.18      1.250  2026-11-29",
    ]
    told = json.loads(lmtasks("runs", "b", "--json").out)
    assert [(one["folder"], one["status"], one["perplexity"], one["model_type"]) for one in told] == [
        ("b", "done", 12.182, "roberta")
    ]


def test_figures_of_any_kind_and_a_long_path_leave_the_others_readable(here: Path, lmtasks: Callable[..., Any]) -> None:
    about = {"recipe": "masked-lm", "status": "done", "started": "2026-11-29"}
    for name, metrics in {"c": [1], "d": {"eval_loss": "low", "perplexity": None}, "e" * 99: FIGURES}.items():
        (here / name).mkdir()
        (here / name / "run.json").write_text(json.dumps({**about, "metrics": metrics}))
    told = lmtasks("runs")
    assert told.code == 0, told.err
    assert {len(line) for line in told.out.splitlines() if not line.startswith("e")} <= set(range(80))
    rows = json.loads(lmtasks("runs", "--json").out)
    assert [row["eval_loss"] for row in rows if row["folder"] in ("b", "c", "d")] == [2.5, None, None]


def test_no_run_there(here: Path, lmtasks: Callable[..., Any]) -> None:
    assert lmtasks("runs", "other").out == "no run below 'other'\n"
    assert lmtasks("runs", "other", "--json").out == "[]\n"
    missing = lmtasks("runs", "nowhere")
    assert (missing.code, missing.err.splitlines()[0]) == (2, "error: no such folder: 'nowhere'")
    two = lmtasks("runs", "a", "b")
    assert (two.code, two.err.splitlines()[0]) == (2, "error: unexpected 'b'")


def test_the_version_in_one_letter(lmtasks: Callable[..., Any]) -> None:
    assert lmtasks("-V") == (0, f"lmtasks {__version__}\n", "")


@pytest.mark.parametrize("name", PEERS)
def test_a_command_of_another_tool_leads_to_ours(name: str, lmtasks: Callable[..., Any]) -> None:
    done = lmtasks(name, "x")
    assert (done.code, done.err) == (2, f"error: unknown command '{name}'\nhint: here it is lmtasks {PEERS[name]}\n")
    assert name not in COMMANDS
    assert PEERS[name] in (*COMMANDS, "--version")


def test_a_recipe_is_found_with_underscores(lmtasks: Callable[..., Any]) -> None:
    assert lmtasks("show", "masked_lm").out == lmtasks("show", "masked-lm").out


def test_a_config_names_its_recipe(tmp_path: Path, text_file: Path, lmtasks: Callable[..., Any]) -> None:
    config = tmp_path / "config.yaml"
    config.write_text(f"recipe: causal-lm\ntrain_file: {text_file}\nmax_steps: 1\n")
    planned = lmtasks("run", "--config", config, "--dry_run", "--json")
    assert planned.code == 0, planned.err
    assert json.loads(planned.out)["recipe"].startswith("causal-lm")
    assert lmtasks("data", "--config", config).out.startswith("recipe     causal-lm")
    other = lmtasks("run", "masked-lm", "--config", config, "--dry_run")
    assert other.code == 2
    assert "error: the config is for the recipe 'causal-lm', and this is masked-lm" in other.err
    config.write_text("max_steps: 1\n")
    nobody = lmtasks("run", "--config", config)
    assert (nobody.code, nobody.err.splitlines()[0]) == (2, "error: run needs a recipe")
