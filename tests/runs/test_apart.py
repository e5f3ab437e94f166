"""The run folder is none of what the run reads, nor around it, nor in it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.config.request import configure
from lmtasks.errors import InputError
from lmtasks.runs.apart import require_apart


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for file in ("data/a.txt", "data/deep/b.txt", "model/config.json", "words.txt", "held.txt"):
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        Path(file).write_text("text")
    os.symlink("data", "link")
    return tmp_path


def ask(**values: Any) -> None:
    require_apart(configure(MASKED_LM, {"train_file": "held.txt", **values}))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"model": "model", "output_dir": "model"}, "'model' is what --model_name_or_path reads"),
        ({"model": "model", "output_dir": "model/a/b"}, "is inside 'model', which --model_name_or_path reads"),
        ({"model": "model", "output_dir": "."}, "holds 'model', which --model_name_or_path reads"),
        ({"config_name": "model", "train_tokenizer": 400, "output_dir": "model"}, "is what --config_name reads"),
        ({"model": "x", "tokenizer_name": "model", "output_dir": "model"}, "is what --tokenizer_name reads"),
        ({"model": "x", "add_tokens": "words.txt", "output_dir": "."}, "holds 'words.txt', which --add_tokens reads"),
        ({"train_file": "data", "output_dir": "data"}, "is what --train_file reads"),
        ({"train_file": "data", "output_dir": "data/out"}, "is inside 'data', which --train_file reads"),
        ({"train_file": ".", "output_dir": None}, "'runs/masked-lm' is inside '.', which --train_file reads"),
        ({"train_file": "data/a.txt", "output_dir": "data"}, "holds 'data/a.txt', which --train_file reads"),
        ({"train_file": "data/**/*.txt", "output_dir": "data/deep"}, "holds 'data/deep/b.txt', which --train_file"),
        ({"train_file": "link", "output_dir": "data/out"}, "is inside 'link', which --train_file reads"),
        ({"train_file": "data", "output_dir": "link/out"}, "'link/out' is inside 'data', which --train_file reads"),
        ({"validation_file": "wiki=data", "output_dir": "data/x"}, "is inside 'data', which --validation_file reads"),
        ({"train_file": None, "dataset_name": "data", "output_dir": "data"}, "is what --dataset_name reads"),
        (
            {
                "train_file": None,
                "data": {"sources": [{"name": "a", "train_file": ["data"], "weight": 1}]},
                "output_dir": "data/x",
            },
            "is inside 'data', which --train_file reads",
        ),
    ],
)
def test_a_run_folder_in_the_way_is_refused(values: dict[str, Any], says: str, home: Path) -> None:
    with pytest.raises(InputError) as caught:
        ask(**values)
    assert says in caught.value.message
    assert caught.value.hint == "give an --output_dir beside it"


@pytest.mark.parametrize(
    "values",
    [
        {"train_file": "data", "output_dir": "out"},
        {"train_file": "data/a.txt", "output_dir": "data/out"},
        {"train_file": "data/*.txt", "output_dir": "data/deep"},
        {"model": "model", "output_dir": "model-2"},
        {"model": "owner/name", "output_dir": "owner/name"},
        {"train_file": "-", "output_dir": "."},
    ],
)
def test_a_run_folder_beside_what_is_read_is_fine(values: dict[str, Any], home: Path) -> None:
    ask(**values)


def test_a_run_is_refused_before_anything_is_written(
    lmtasks: Any, home: Path, model_folders: dict[str, Path], text_file: Path
) -> None:
    shutil.copytree(model_folders["roberta"], "m")
    before = sorted(home.rglob("*"))
    words = ("--model", "m", "--train_file", text_file, "--max_steps", 1, "--output_dir", "m/out")
    outcome = lmtasks("run", "masked-lm", *words)
    assert (outcome.code, sorted(home.rglob("*"))) == (2, before)
    assert "error: output_dir 'm/out' is inside 'm', which --model_name_or_path reads" in outcome.err
