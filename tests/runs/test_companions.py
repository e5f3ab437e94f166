"""What a recipe puts beside its model: trained, saved apart, resumed, evaluated with and published."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from companion_recipe import ACCOMPANIED
from hub_server import HubServer
from huggingface_hub import HfApi
from safetensors.torch import load_file, save_file

import lmtasks as package
from lmtasks.errors import InputError, PluginError, RunError
from lmtasks.models.companions import load_companions, prepare
from lmtasks.runs.result import Run
from lmtasks.runs.runner import run
from lmtasks.testing import CheckFailed, check_recipe

SMALL = {
    "block_size": 16, "learning_rate": 1e-2, "per_device_train_batch_size": 4, "lr_scheduler_type": "constant",
    "max_steps": 4, "train_file": "text.txt", "max_eval_samples": 8,
}  # fmt: skip
CLI = ("--plugin", "companion_recipe")


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in a folder of its own with a text in it."""
    shutil.copy(text_file, tmp_path / "text.txt")
    monkeypatch.chdir(tmp_path)


def accompanied(model_folders: dict[str, Path], folder: str = "out", recipe: Any = ACCOMPANIED, **more: Any) -> Run:
    model = str(more.pop("model", model_folders["roberta"]))
    return run(recipe, model_name_or_path=model, output_dir=folder, **{**SMALL, **more})


def unfinished(folder: str) -> None:
    record = json.loads(Path(folder, "run.json").read_text())
    Path(folder, "run.json").write_text(json.dumps({**record, "status": "running"}))


def trained(folder: str | Path) -> dict[str, bytes]:
    return {name: Path(folder, name, "model.safetensors").read_bytes() for name in (".", "guide", "judge")}


def test_it_keeps_the_contract_of_a_recipe() -> None:
    check_recipe(ACCOMPANIED, model="roberta")


def test_the_run_folder_is_the_model_and_what_is_trained_beside_it(model_folders: dict[str, Path]) -> None:
    done = accompanied(model_folders, "out")
    plain, report = transformers.AutoModelForMaskedLM.from_pretrained("out", output_loading_info=True)
    assert not report["unexpected_keys"] and not report["missing_keys"], "the model is nothing but the model"
    guide = transformers.AutoModelForMaskedLM.from_pretrained("out/guide")
    assert guide.config.num_hidden_layers == 1 < plain.config.num_hidden_layers
    ours, theirs = plain.get_input_embeddings().weight, guide.get_input_embeddings().weight
    assert torch.equal(ours, theirs), "they shared their table of tokens, and still do"
    assert set(load_file("out/judge/model.safetensors")) == {"weight", "bias"}
    assert not Path("out/teacher").exists(), "what was not trained is made anew"
    record = json.loads(Path("out/run.json").read_text())
    assert {"guide/config.json", "guide/model.safetensors", "judge/model.safetensors"} <= set(record["files"])
    assert {"guide/model.safetensors", "judge/model.safetensors"} <= set(record["sha256"])
    notes = " ".join(done.plan.notes)
    assert "judge: 33 weights beside the model's, trained; new" in notes and "not trained; new" in notes


def test_each_of_them_learns(model_folders: dict[str, Path]) -> None:
    begun = accompanied(model_folders, "begun", max_steps=1, learning_rate=1e-9)
    learned = accompanied(model_folders, "learned", max_steps=20)
    for name in ("text", "guide", "judge"):
        assert learned.metrics[f"eval_{name}_loss"] < begun.metrics[f"eval_{name}_loss"] * 0.95, name


def test_a_killed_run_goes_on_as_if_nothing_had_been(model_folders: dict[str, Path]) -> None:
    whole = accompanied(model_folders, "whole", max_steps=6, save_steps=3)
    shutil.copytree("whole", "killed", ignore=shutil.ignore_patterns("checkpoint-6"))
    unfinished("killed")
    for name in (".", "guide", "judge"):
        Path("killed", name, "model.safetensors").unlink()
    again = accompanied(model_folders, "killed", max_steps=6, save_steps=3, resume_from_checkpoint="auto")
    assert trained("killed") == trained("whole") != trained("killed/checkpoints/checkpoint-3")
    assert again.metrics["eval_guide_loss"] == whole.metrics["eval_guide_loss"]


def test_the_best_of_all_of_them_comes_back_at_the_end(model_folders: dict[str, Path]) -> None:
    best = {"metric_for_best_model": "eval_targets", "greater_is_better": True, "load_best_model_at_end": True}
    accompanied(model_folders, "out", **best, max_steps=6, eval_strategy="steps", eval_steps=2, save_steps=2)
    assert trained("out") == trained("out/checkpoints/checkpoint-2") != trained("out/checkpoints/checkpoint-6")


def test_evaluation_takes_what_lies_beside_the_model(
    model_folders: dict[str, Path], lmtasks: Callable[..., Any]
) -> None:
    done = accompanied(model_folders)
    told = json.loads(lmtasks("evaluate", "out", *CLI, "--json").out)
    assert told["eval_guide_loss"] == pytest.approx(done.metrics["eval_guide_loss"], rel=1e-6)
    bare = lmtasks("evaluate", model_folders["roberta"], "--recipe", "accompanied-lm", *CLI,
                   "--validation_file", "text.txt", "--block_size", 16)  # fmt: skip
    assert bare.code == 2 and "has no guide and no judge, without which accompanied-lm cannot be evaluated" in bare.err
    assert "lmtasks run accompanied-lm --model" in bare.err


def test_training_goes_on_with_what_lies_beside_the_model(model_folders: dict[str, Path]) -> None:
    first = accompanied(model_folders, "first", max_steps=20)
    second = accompanied(model_folders, "second", model="first", max_steps=1, learning_rate=1e-9)
    for name in ("text", "guide", "judge"):
        assert second.metrics[f"eval_{name}_loss"] == pytest.approx(first.metrics[f"eval_{name}_loss"], rel=1e-4)
    assert not any(note.endswith("new") for note in second.plan.notes)


def test_what_does_not_fit_or_is_damaged_is_named(model_folders: dict[str, Path], lmtasks: Callable[..., Any]) -> None:
    accompanied(model_folders, "out")
    shutil.copytree("out", "copy", ignore=shutil.ignore_patterns("run.json"))
    with pytest.raises(InputError, match="'copy/judge' is damaged, or does not fit"):
        accompanied(model_folders, "other", model="copy", judges=2)
    weights = load_file("copy/guide/model.safetensors")
    weights.pop("lm_head.dense.bias")
    save_file(weights, "copy/guide/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"'copy/guide' does not fit: it is about lm_head\.dense\.bias"):
        accompanied(model_folders, "other", model="copy")
    Path("copy/guide/model.safetensors").rename("copy/guide/pytorch_model.bin")
    with pytest.raises(InputError, match="'copy/guide' has its weights as pickle"):
        accompanied(model_folders, "other", model="copy")
    Path("out/guide/model.safetensors").write_bytes(b"no weights")
    told = lmtasks("evaluate", "out", *CLI)
    assert told.code == 2 and "'out/guide/model.safetensors' is not as the run left it" in told.err
    assert not Path("other").exists()


def test_a_run_again_leaves_nothing_of_the_first(model_folders: dict[str, Path]) -> None:
    accompanied(model_folders, "out")
    model = str(model_folders["roberta"])
    run("masked-lm", model_name_or_path=model, output_dir="out", **SMALL, overwrite_output_dir=True)
    assert not Path("out/guide").exists() and not Path("out/judge").exists()


def test_a_link_in_the_place_of_a_companion_leads_nowhere(model_folders: dict[str, Path]) -> None:
    Path("elsewhere").mkdir()
    accompanied(model_folders, "out")
    shutil.rmtree("out/guide")
    Path("out/guide").symlink_to(Path("elsewhere").absolute())
    unfinished("out")
    accompanied(model_folders, "out", resume_from_checkpoint="auto")
    assert not os.listdir("elsewhere") and not Path("out/guide").is_symlink()
    assert Path("out/guide/model.safetensors").is_file()


def test_they_are_published_and_found(
    model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lmtasks: Callable[..., Any]
) -> None:
    accompanied(model_folders, "out")
    words = ("--recipe", "accompanied-lm", *CLI, "--validation_file", "text.txt", "--block_size", 16, "--json")
    here = json.loads(lmtasks("evaluate", "out", *words).out)
    with HubServer() as hub:
        hub.use(monkeypatch, tmp_path / "home")
        package.push("out", "someone/accompanied")
        there = set(hub.files("someone/accompanied"))
        assert {"guide/config.json", "guide/model.safetensors", "judge/model.safetensors"} <= there
        told = lmtasks("evaluate", "someone/accompanied", *words)
    assert json.loads(told.out) == here


def test_documents_are_isolated_for_all_of_them(model_folders: dict[str, Path]) -> None:
    Path("rows.jsonl").write_text("".join(f'{{"text": "Row {n} says {n * n}."}}\n' for n in range(60)))
    alike = {"train_file": "rows.jsonl", "block_size": 48, "max_steps": 1, "learning_rate": 1e-9}
    alone = accompanied(model_folders, "alone", isolate_documents=True, **alike)
    together = accompanied(model_folders, "together", **alike)
    assert alone.metrics["eval_guide_loss"] != pytest.approx(together.metrics["eval_guide_loss"], rel=1e-5)


def test_an_adapter_is_trained_with_what_stands_beside_the_model(model_folders: dict[str, Path]) -> None:
    adapter = {"use_peft": True, "lora_r": 2, "max_steps": 6, "save_steps": 3}
    whole = accompanied(model_folders, "whole", **adapter)
    shutil.copytree("whole", "killed", ignore=shutil.ignore_patterns("checkpoint-6"))
    unfinished("killed")
    again = accompanied(model_folders, "killed", **adapter, resume_from_checkpoint="auto")
    assert again.metrics["eval_judge_loss"] == whole.metrics["eval_judge_loss"]
    for name in ("adapter_model.safetensors", "judge/model.safetensors", "guide/model.safetensors"):
        assert Path("killed", name).read_bytes() == Path("whole", name).read_bytes()


def save(model: Any, folder: Path) -> None:
    save_file(dict(model.judge.state_dict()), folder / "judge.safetensors")


def load(model: Any, folder: Path) -> None:
    model.judge.load_state_dict(load_file(folder / "judge.safetensors"))


OWN = replace(ACCOMPANIED, name="own", save=save, load=load)
SILENT = replace(OWN, save=lambda model, folder: None)


def test_what_a_recipe_forgets_to_save_is_found_out(model_folders: dict[str, Path]) -> None:
    only = {"model": "roberta", "only": ["saved-is-what-was-trained"]}
    with pytest.raises(CheckFailed, match=r"guide\..*, which is trained beside the model, is another after loading"):
        check_recipe(OWN, **only)
    with pytest.raises(CheckFailed, match="what stands beside the model was not saved, or is not found again"):
        check_recipe(SILENT, **only)
    with pytest.raises(RunError, match="'out' lacks what own trains beside the model"):
        accompanied(model_folders, recipe=SILENT)
    with pytest.raises(ValueError, match="has one of save and load, and needs both or none"):
        replace(OWN, load=None)


def test_what_a_recipe_saves_as_it_likes_is_found_on_the_hub(
    model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    accompanied(model_folders)
    shutil.copy("out/judge/model.safetensors", "judge.safetensors")
    shutil.copytree(model_folders["roberta"], "bare")
    shutil.move("judge.safetensors", "bare/judge.safetensors")
    with HubServer() as hub:
        hub.use(monkeypatch, tmp_path / "home")
        api = HfApi()
        api.create_repo("someone/own")
        api.upload_folder(repo_id="someone/own", folder_path="bare")
        model = transformers.AutoModelForMaskedLM.from_pretrained("bare")
        prepare(model, OWN, OWN.options(), seed=3)
        assert not torch.equal(model.judge.weight, load_file("bare/judge.safetensors")["weight"])
        assert load_companions(model, OWN, "someone/own")
    assert torch.equal(model.judge.weight, load_file("bare/judge.safetensors")["weight"])


@pytest.mark.parametrize(
    ("prepare", "told"),
    [
        (lambda model, options: torch.nn.Sequential(model), "failed in its prepare_model: it gives a Sequential"),
        (lambda model, options: 1 / 0, "division by zero"),
    ],
)
def test_a_model_is_prepared_in_place(prepare: Any, told: str, model_folders: dict[str, Path]) -> None:
    with pytest.raises((PluginError, ZeroDivisionError), match=told):
        accompanied(model_folders, recipe=replace(ACCOMPANIED, prepare_model=prepare))
    assert not Path("out").exists()
