"""Models behind a pipeline: what a damaged folder holds is told, and never answered with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from lmtasks import predict
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.errors import InputError
from lmtasks.inference.load import load_pipeline


def weights(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return changed


def values(file: str, **new: Any) -> Callable[[Path], None]:
    def changed(folder: Path) -> None:
        (folder / file).write_text(json.dumps({**json.loads((folder / file).read_text()), **new}))

    return changed


def writes(file: str, text: str) -> Callable[[Path], None]:
    return lambda folder: Path(folder, file).write_text(text) and None


def without_tokenizer(folder: Path) -> None:
    for file in folder.glob("tokenizer*"):
        file.unlink()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (weights(lambda all: all.pop("lm_head.dense.weight")), "lacks 1 of the model's weights, such as lm_head"),
        (values("config.json", num_hidden_layers=3), "of the model's weights, such as roberta.encoder.layer.2."),
        (values("config.json", num_hidden_layers=1), "the model has no place for 16 of the weights in"),
        (values("config.json", intermediate_size=48), "do not fit its config.json: "),
        (values("config.json", hidden_act="nosuch"), "cannot load model '.*': KeyError: 'nosuch'"),
        (values("config.json", num_attention_heads=0), "ZeroDivisionError"),
        (writes("config.json", "5"), "cannot load model '.*': TypeError"),
        (values("config.json", architectures=5), "no recipe fits"),
        (without_tokenizer, "has no tokenizer: only special tokens, no vocabulary"),
        (writes("tokenizer.json", "[]"), "cannot load tokenizer '.*': TypeError"),
        (writes("tokenizer.json", "{}"), "cannot load tokenizer '.*': KeyError: 'added_tokens'"),
        (writes("tokenizer_config.json", "[]"), "cannot load tokenizer '.*': AttributeError"),
        (values("tokenizer_config.json", unk_token=""), "cannot load tokenizer '.*': maximum recursion depth"),
        (values("tokenizer_config.json", mask_token=None), "needs a tokenizer with a mask_token"),
    ],
)
def test_a_damaged_folder_is_told(
    change: Callable[[Path], None], says: str, model_folders: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(model_folders["roberta"], tmp_path / "m")
    change(tmp_path / "m")
    with pytest.raises(InputError, match=says) as caught:
        predict(tmp_path / "m", "a <mask>")
    assert caught.value.hint
    assert "allow_new_weights" not in caught.value.hint, "nothing is trained here"


def test_a_sound_folder_is_its_pipeline(model_folders: dict[str, Path]) -> None:
    pipeline = load_pipeline(str(model_folders["roberta"]), MASKED_LM, "main")
    assert pipeline.task == "fill-mask"
    saved = load_file(model_folders["roberta"] / "model.safetensors")
    held = pipeline.model.state_dict()
    assert all((held[name].cpu() == tensor).all() for name, tensor in saved.items())
    assert not pipeline.model.training
