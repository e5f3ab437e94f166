"""What is imported until there is an answer, or a first step: nothing that the job does not need."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

DATA = ("datasets", "evaluate", "pandas", "pyarrow")
TRAINING = ("bitsandbytes", "lmtasks.data", "lmtasks.runs", "lmtasks.training", "peft", "transformers.trainer")
OTHERS = ("PIL", "gradio", "lmtasks.serving", "matplotlib", "scipy", "sklearn", "starlette", "uvicorn")


def imported(words: list[str], before: str = "") -> dict[str, Any]:
    """What a process has imported when it has carried out a command: the models' modules, and the rest.

    Args:
        before: a statement, whose imports are not told.
    """
    code = f"""
        import json, sys
        {before}
        known = {{*sys.modules}}
        from lmtasks.cli import main
        code = main({words!r})
        modules = {{*sys.modules}} - known
        models = sorted(name for name in modules if name.startswith("transformers.models.") and ".modeling_" in name)
        print()
        print(json.dumps(dict(code=code, models=models, modules=sorted(modules))))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert found["code"] == 0, done.stderr
    return found


@pytest.mark.parametrize(("kind", "text"), [("roberta", "the <mask> is"), ("gpt2", "the")])
def test_an_answer_imports_its_own_model_and_nothing_for_data_or_training(
    kind: str, text: str, model_folders: dict[str, Path]
) -> None:
    found = imported(["predict", str(model_folders[kind]), text])
    own = ["transformers.models.auto.modeling_auto", f"transformers.models.{kind}.modeling_{kind}"]
    assert found["models"] == own
    assert not {*DATA, *TRAINING, *OTHERS} & {*found["modules"]}


def test_a_run_imports_its_own_model_and_nothing_that_serves(
    model_folders: dict[str, Path], text_file: Path, tmp_path: Path
) -> None:
    words = ["run", "masked-lm", "--model", str(model_folders["roberta"]), "--train_file", str(text_file)]
    words += ["--output_dir", str(tmp_path / "run"), "--max_steps", "1", "--block_size", "16", "--use_cpu"]
    # What the Trainer itself imports depends on what is installed.
    found = imported(words, before="from transformers import Trainer")
    assert set(found["models"]) <= {
        "transformers.models.auto.modeling_auto",
        "transformers.models.roberta.modeling_roberta",
    }
    assert not {*OTHERS} & {*found["modules"]}
