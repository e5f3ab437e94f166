"""Completion: what a real shell is told, where its cursor stands."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lmtasks.config.commands import COMMANDS

# What bash itself does at a TAB: the words so far, and the function that the program taught it.
TAB = """
eval "$(lmtasks completion bash)"
COMP_LINE="$1"; COMP_POINT=${#COMP_LINE}; COMP_TYPE=9
read -ra COMP_WORDS <<< "$COMP_LINE"; COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
_python_argcomplete lmtasks
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture
def tab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The words that bash offers behind a line, in a folder with a run."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "run.json").write_text("{}")
    (tmp_path / "text.txt").write_text("a")
    program = tmp_path / "bin" / "lmtasks"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m lmtasks "$@"\n')
    program.chmod(0o755)
    environment = {**os.environ, "PATH": f"{program.parent}:{os.environ['PATH']}"}

    def press(line: str) -> list[str]:
        done = subprocess.run(
            ["bash", "-c", TAB, "bash", line], env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return [word.rstrip() for word in done.stdout.splitlines() if word]

    return press


def test_commands(tab: Any) -> None:
    assert tab("lmtasks ru") == ["run", "runs"]
    assert set(tab("lmtasks ")) == set(COMMANDS)


def test_recipes(tab: Any) -> None:
    assert tab("lmtasks run ma") == ["masked-lm"]
    assert {"masked-lm", "causal-lm"} <= set(tab("lmtasks show "))


def test_flags_of_the_recipe_that_stands_there(tab: Any) -> None:
    assert tab("lmtasks run masked-lm --mlm") == ["--mlm_probability"]
    assert tab("lmtasks run causal-lm --mlm") == []
    assert tab("lmtasks data masked-lm --held") == ["--held_out"]
    assert tab("lmtasks run masked-lm --load_in_") == ["--load_in_8bit", "--load_in_4bit"]


def test_flags_of_commands_without_a_recipe(tab: Any) -> None:
    assert tab("lmtasks push runs/mine --pri") == ["--private"]
    assert tab("lmtasks list --") == ["--all", "--engines", "--launchers", "--json"]


def test_values(tab: Any) -> None:
    assert tab("lmtasks run masked-lm --mask_unit ") == ["token", "word"]
    assert tab("lmtasks run masked-lm --line_by_line ") == ["true", "false"]
    assert tab("lmtasks completion z") == ["zsh"]
    assert tab("lmtasks run masked-lm --engine ") == ["trainer"]
    assert tab("lmtasks run masked-lm --launcher ") == ["torchrun"]


def test_runs_and_files(tab: Any) -> None:
    assert tab("lmtasks predict run") == ["runs/", "runs/mine"]
    assert tab("lmtasks report run") == ["runs/", "runs/mine"]
    assert tab("lmtasks run masked-lm --model runs/m") == ["runs/mine", "runs/mine/"]
    assert tab("lmtasks run masked-lm --train_file te") == ["text.txt"]


def test_behind_a_mistake_there_is_nothing_to_say(tab: Any) -> None:
    assert tab("lmtasks run no-such-recipe --") == []
    assert tab("lmtasks no-such-command ") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_every_shell_is_taught(shell: str, lmtasks: Any) -> None:
    outcome = lmtasks("completion", shell)
    assert (outcome.code, outcome.err) == (0, "")
    assert "lmtasks" in outcome.out
    if program := shutil.which(shell):
        assert subprocess.run([program, "-n"], input=outcome.out, text=True).returncode == 0


def test_no_other_shell(lmtasks: Any) -> None:
    outcome = lmtasks("completion", "fisch")
    assert outcome.code == 2
    assert outcome.err == "error: no completion for 'fisch', did you mean 'fish'?\nhint: one of bash, zsh, fish\n"


def test_hf_finds_the_program_as_its_extension(tmp_path: Path) -> None:
    # As `hf extensions install` leaves it, which would fetch it from a repository.
    folder = tmp_path / ".local" / "share" / "hf" / "extensions" / "hf-lmtasks"
    folder.mkdir(parents=True)
    program = Path(sys.executable).with_name("hf-lmtasks")
    about = {"owner": "o", "repo": "hf-lmtasks", "repo_id": "o/hf-lmtasks", "short_name": "lmtasks", "type": "python"}
    about |= {"executable_path": str(program), "installed_at": "2026-11-29T00:00:00+00:00"}
    (folder / "manifest.json").write_text(json.dumps(about))
    environment = {**os.environ, "HOME": str(tmp_path), "HF_HUB_DISABLE_UPDATE_CHECK": "1"}
    hf = Path(sys.executable).with_name("hf")
    done = subprocess.run([hf, "lmtasks", "list"], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("causal-lm")
