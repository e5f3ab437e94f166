"""Frozen companions: declared, loaded, asked, never trained, never saved; what does not fit is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from frozen_recipe import REFERRED, ReferredOptions

from lmtasks import Frozen, InputError, PluginError
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.models.checkpoint import from_pretrained
from lmtasks.models.companions import prepare
from lmtasks.models.layers import keep_layers
from lmtasks.runs.runner import run
from lmtasks.testing import check_recipe

SMALL = {
    "block_size": 16, "learning_rate": 1e-2, "per_device_train_batch_size": 4, "lr_scheduler_type": "constant",
    "max_steps": 4, "train_file": "text.txt", "max_eval_samples": 8, "save_strategy": "no",
}  # fmt: skip


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, text_file: Path, model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in a folder of its own with a text in it, and a reference with weights that can be felt."""
    shutil.copy(text_file, tmp_path / "text.txt")
    shutil.copytree(model_folders["roberta"], tmp_path / "reference")
    model = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "reference")
    torch.manual_seed(5)
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn(parameter.shape)
    model.save_pretrained(tmp_path / "reference")
    monkeypatch.chdir(tmp_path)


def referred(folders: dict[str, Path], folder: str = "out", recipe: Any = REFERRED, **more: Any) -> Any:
    values = {"model_name_or_path": str(folders["roberta"]), "reference": "reference", **SMALL, **more}
    return run(recipe, output_dir=folder, **{name: value for name, value in values.items() if value is not None})


def test_it_keeps_the_contract_and_the_kit_makes_the_companion() -> None:
    proof = check_recipe(REFERRED, model="roberta")
    assert "reference" in proof.checks["frozen-companions-are-asked"].reason


def test_it_is_asked_and_neither_trained_nor_saved(model_folders: dict[str, Path], lmtasks: Callable[..., Any]) -> None:
    before = Path("reference/model.safetensors").read_bytes()
    begun = referred(model_folders, "begun", max_steps=1, learning_rate=1e-9)
    done = referred(model_folders, max_steps=30)
    assert done.metrics["eval_away_loss"] < 0.8 * begun.metrics["eval_away_loss"], "the model has come nearer"
    assert Path("reference/model.safetensors").read_bytes() == before
    assert not [path for path in Path("out").rglob("*") if "reference" in path.name]
    assert "reference: " in " ".join(done.plan.notes) and "not trained" in " ".join(done.plan.notes)
    again = json.loads(lmtasks("evaluate", "out", "--plugin", "frozen_recipe", "--json").out)
    assert again["eval_away_loss"] == pytest.approx(done.metrics["eval_away_loss"], rel=1e-6)


def test_what_it_is_must_be_said_and_fit(model_folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="referred-lm needs a reference beside the model") as refused:
        referred(model_folders, reference=None)
    assert refused.value.hint == "--reference with a folder or Hub id"
    with pytest.raises(InputError, match="'nowhere'"):
        referred(model_folders, reference="nowhere")
    config = transformers.AutoConfig.from_pretrained("reference")
    config.vocab_size += 8
    transformers.RobertaForMaskedLM(config).save_pretrained("larger")
    with pytest.raises(InputError, match=rf"vocab_size is \d+ here, {config.vocab_size} in 'larger'"):
        referred(model_folders, reference="larger")
    assert not Path("out").exists()


def test_the_command_line_has_its_option(model_folders: dict[str, Path], lmtasks: Callable[..., Any]) -> None:
    small = [word for name, value in SMALL.items() for word in (f"--{name}", str(value))]
    words = ("run", "referred-lm", "--plugin", "frozen_recipe", "--model", model_folders["roberta"], *small)
    told = lmtasks(*words, "--output_dir", "out")
    assert told.code == 2
    assert "referred-lm needs a reference beside the model" in told.err and "--reference" in told.err
    assert lmtasks(*words, "--output_dir", "out", "--reference", "reference").code == 0
    assert json.loads(lmtasks("evaluate", "out", "--plugin", "frozen_recipe", "--json").out)["eval_away_loss"] > 0


def test_what_is_made_beside_the_model_sees_it(model_folders: dict[str, Path]) -> None:
    """And only the model itself loses layers."""
    seen: list[int] = []

    def prepare_model(model: Any, options: Any) -> None:
        keep_layers(model, 1)
        seen.append(model.reference.config.num_hidden_layers)

    model = from_pretrained(MASKED_LM.model_class, str(model_folders["roberta"]))
    prepare(model, replace(REFERRED, prepare_model=prepare_model), ReferredOptions(reference="reference"), 0)
    assert seen == [2] and len(model.reference.roberta.encoder.layer) == 2 and len(model.roberta.encoder.layer) == 1
    assert not model.train().reference.training, "a frozen one has no dropout"
    keep_layers(model, None)
    assert len(model.roberta.encoder.layer) == 1


def test_a_name_that_the_model_has_is_refused(model_folders: dict[str, Path]) -> None:
    class Named:
        lm_head = "reference"

    recipe = replace(REFERRED)
    object.__setattr__(recipe, "frozen", {"lm_head": Frozen(MASKED_LM.model_class)})
    model = from_pretrained(MASKED_LM.model_class, str(model_folders["roberta"]))
    with pytest.raises(PluginError, match="'referred-lm' has a frozen companion 'lm_head', and RobertaForMaskedLM"):
        prepare(model, recipe, Named(), 0)


def test_wrong_declarations_are_refused() -> None:
    with pytest.raises(ValueError, match="recipe 'referred-lm' needs an option 'judge' of type str"):
        replace(REFERRED, frozen={"judge": Frozen(MASKED_LM.model_class)})
    with pytest.raises(ValueError, match="needs an option 'block_size' of type str"):
        replace(REFERRED, frozen={"block_size": Frozen(MASKED_LM.model_class)})
    with pytest.raises(ValueError, match="a frozen companion: 'AutoModel' must look like 'module:Class'"):
        Frozen("AutoModel")


def test_a_starter_that_leaves_it_open_is_none() -> None:
    assert MASKED_LM.starter is not None and REFERRED.starter is None
    named = replace(MASKED_LM.starter, training={**MASKED_LM.starter.training, "reference": "someone/model"})
    assert replace(REFERRED, starter=named).starter is named
