"""Whole runs with an adapter: trained, stopped, gone on with, used, merged and published."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers
from companion_recipe import ACCOMPANIED
from hub_server import HubServer
from safetensors.torch import load_file

import lmtasks as package
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.config.request import configure, fingerprint
from lmtasks.errors import InputError
from lmtasks.models.weight_files import require_safetensors
from lmtasks.runs.merging import merge
from lmtasks.runs.result import Run
from lmtasks.runs.runner import run
from lmtasks.runs.standalone_evaluation import evaluate

# peft asks a model for an attribute that transformers has renamed.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")

SMALL = {"block_size": 16, "learning_rate": 1e-2, "per_device_train_batch_size": 4, "lr_scheduler_type": "constant"}
IDS = torch.arange(20, 36)[None]


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every test works in a folder of its own with a text in it."""
    shutil.copy(text_file, tmp_path / "text.txt")
    monkeypatch.chdir(tmp_path)


def adapted(recipe: Any, model: Any, folder: str = "out", **more: Any) -> Run:
    values = {**SMALL, "train_file": "text.txt", "max_steps": 4, "use_peft": True, "lora_r": 2, **more}
    return run(recipe, model_name_or_path=str(model), output_dir=folder, **values)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(input_ids=IDS).logits
    return found


def weights(folder: str) -> bytes:
    return Path(folder, "adapter_model.safetensors").read_bytes()


@pytest.mark.parametrize(("recipe", "kind"), [("causal-lm", "gpt2"), ("masked-lm", "roberta")])
def test_a_run_leaves_an_adapter_that_everybody_can_load(
    recipe: str, kind: str, model_folders: dict[str, Path], lmtasks: Callable[..., Any]
) -> None:
    base = model_folders[kind]
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    done = adapted(recipe, base, save_steps=2)
    assert {path.name: path.read_bytes() for path in base.iterdir()} == before, "the base stays as it is"
    assert not list(Path("out").glob("config.json")) and not list(Path("out").glob("model*.safetensors"))
    record = json.loads(Path("out/run.json").read_text())
    assert record["adapter"] == "LORA" and record["base_model"] == str(base.resolve())
    assert record["trained_parameters"] < record["parameters"] == done.plan.parameters
    assert f"{record['trained_parameters']:,} of them trained (LORA)" in "\n".join(done.plan.lines())
    kept = {path.name for path in Path("out/checkpoints/checkpoint-2").iterdir()}
    assert "adapter_model.safetensors" in kept and "model.safetensors" not in kept

    auto = transformers.AutoModelForCausalLM if recipe == "causal-lm" else transformers.AutoModelForMaskedLM
    ours = logits(auto.from_pretrained("out"))
    theirs = peft.AutoPeftModelForCausalLM if recipe == "causal-lm" else peft.AutoPeftModel
    assert torch.equal(logits(theirs.from_pretrained("out")), ours)
    assert not torch.allclose(logits(auto.from_pretrained(base)), ours, atol=1e-3), "it has learned"
    assert evaluate("out") == pytest.approx({name: done.metrics[name] for name in evaluate("out")}, rel=1e-6)
    text = "the module<mask>" if recipe == "masked-lm" else "the module"
    assert lmtasks("predict", "out", text).code == 0
    card = Path("out/README.md").read_text()
    assert "library_name: peft" in card and "An adapter (LORA) of" in card and "pip install peft" in card


def test_an_adapter_that_goes_on_has_the_same_bits(model_folders: dict[str, Path]) -> None:
    how = {"lora_dropout": 0.2, "save_steps": 2, "logging_steps": 1}
    adapted("masked-lm", model_folders["roberta"], "whole", max_steps=6, **how)
    adapted("masked-lm", model_folders["roberta"], "parts", max_steps=2, **how)
    assert weights("parts") != weights("whole")
    adapted("masked-lm", model_folders["roberta"], "parts", max_steps=6, **how, resume_from_checkpoint="auto")
    assert weights("parts") == weights("whole")
    optimizers = [torch.load(f"{one}/checkpoints/checkpoint-6/optimizer.pt")["state"] for one in ("whole", "parts")]
    assert all(torch.equal(optimizers[0][key]["exp_avg"], optimizers[1][key]["exp_avg"]) for key in optimizers[0])
    results = [json.loads(Path(one, "all_results.json").read_text()) for one in ("whole", "parts")]
    assert results[0]["eval_loss"] == results[1]["eval_loss"] and results[0]["train_loss"] == results[1]["train_loss"]


def test_a_checkpoint_of_another_adapter_is_not_gone_on_from(model_folders: dict[str, Path]) -> None:
    adapted("causal-lm", model_folders["gpt2"], max_steps=2, save_steps=2)
    record = json.loads(Path("out/run.json").read_text())
    Path("out/run.json").write_text(json.dumps({**record, "status": "running"}))
    with pytest.raises(InputError, match="lora_r"):
        adapted("causal-lm", model_folders["gpt2"], lora_r=4, save_steps=2, resume_from_checkpoint="auto")


def test_the_file_of_an_adapter_is_part_of_what_was_asked_for(model_folders: dict[str, Path]) -> None:
    values = {"model_name_or_path": str(model_folders["gpt2"]), "peft_config": "adapter.yaml"}
    asked = []
    for text in ("peft_type: LORA\nr: 2", "peft_type: LORA\nr: 3"):
        Path("adapter.yaml").write_text(text)
        asked.append(fingerprint(configure(CAUSAL_LM, values)))
    assert asked[0] != asked[1]


def test_the_best_adapter_comes_back_at_the_end(model_folders: dict[str, Path]) -> None:
    # A figure that stays as it is: the first evaluation is the best.
    best = {"metric_for_best_model": "eval_targets", "greater_is_better": True}
    adapted("causal-lm", model_folders["gpt2"], **best, max_steps=6, eval_strategy="steps", eval_steps=2,
            save_steps=2, load_best_model_at_end=True, max_eval_samples=8)  # fmt: skip
    state = json.loads(Path("out/trainer_state.json").read_text())
    assert Path(state["best_model_checkpoint"]).name == "checkpoint-2"
    assert weights("out") == weights("out/checkpoints/checkpoint-2") != weights("out/checkpoints/checkpoint-6")


def test_an_adapter_is_trained_on(model_folders: dict[str, Path], lmtasks: Callable[..., Any]) -> None:
    adapted("causal-lm", model_folders["llama"], "first")
    done = adapted("causal-lm", "first", "second", use_peft=None, lora_r=None)
    assert weights("second") != weights("first")
    config = json.loads(Path("second/adapter_config.json").read_text())
    assert (config["r"], config["base_model_name_or_path"]) == (2, str(model_folders["llama"].resolve()))
    assert done.plan.adapter == "LORA" and done.plan.base_model == config["base_model_name_or_path"]
    assert done.metrics["eval_loss"] < evaluate("first")["eval_loss"]
    again = lmtasks("run", "causal-lm", "--model", "first", "--use_peft", "--train_file", "text.txt",
                    "--block_size", 16, "--output_dir", "third")  # fmt: skip
    assert again.code == 2 and "'first' is an adapter already" in again.err and not Path("third").exists()


def test_documents_are_isolated_and_lines_padded_with_an_adapter(model_folders: dict[str, Path]) -> None:
    Path("rows.jsonl").write_text("".join(f'{{"text": "Row {n} says {n * n}."}}\n' for n in range(60)))
    alike = {"train_file": "rows.jsonl", "block_size": 48}
    alone = adapted("causal-lm", model_folders["llama"], "alone", isolate_documents=True, **alike)
    together = adapted("causal-lm", model_folders["llama"], "together", **alike)
    assert alone.metrics["eval_loss"] != pytest.approx(together.metrics["eval_loss"], rel=1e-5)
    lines = adapted("masked-lm", model_folders["bert"], "lines", line_by_line=True, **alike)
    assert evaluate("lines")["eval_loss"] == pytest.approx(lines.metrics["eval_loss"], rel=1e-6)


def test_layers_are_made_again_on_the_way_back(model_folders: dict[str, Path]) -> None:
    plain = adapted("causal-lm", model_folders["llama"], "plain", lora_dropout=0.0)
    again = adapted("causal-lm", model_folders["llama"], "again", lora_dropout=0.0, gradient_checkpointing=True)
    assert again.metrics["eval_loss"] == pytest.approx(plain.metrics["eval_loss"], rel=1e-5)
    assert load_file("again/adapter_model.safetensors").keys() == load_file("plain/adapter_model.safetensors").keys()


@pytest.mark.parametrize(("recipe", "kind"), [("causal-lm", "llama"), ("masked-lm", "roberta")])
def test_a_merged_run_is_a_run_without_an_adapter(
    recipe: str, kind: str, model_folders: dict[str, Path], lmtasks: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    adapted(recipe, model_folders[kind])
    merged = lmtasks("merge", "out", "merged", "--json")
    assert merged.code == 0 and json.loads(merged.out) == {"output_dir": "merged"}
    assert {"config.json", "model.safetensors", "tokenizer.json", "run.json", "README.md"} <= set(os.listdir("merged"))
    record = json.loads(Path("merged/run.json").read_text())
    assert record["merged"] == "out" and "adapter" not in record and record["status"] == "done"
    assert "library_name: transformers" in Path("merged/README.md").read_text()
    figures = evaluate("out")
    monkeypatch.setitem(sys.modules, "peft", None)  # it is not needed any more
    require_safetensors("merged")
    assert evaluate("merged") == pytest.approx(figures, rel=1e-5)


def test_what_cannot_be_merged_is_refused(model_folders: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="is no adapter"):
        merge(model_folders["gpt2"], "new")
    adapted("causal-lm", model_folders["gpt2"])
    with pytest.raises(InputError, match=r"'text\.txt' holds something already"):
        merge("out", "text.txt")
    with pytest.raises(InputError, match="'out' holds something already"):
        package.merge("out", "out")
    with pytest.raises(InputError, match="'out/merged' is inside 'out', which is merged"):
        merge("out", "out/merged")
    assert not Path("new").exists()


def test_an_adapter_of_no_run_is_merged_as_well(model_folders: dict[str, Path]) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(model_folders["llama"])
    model.add_adapter(peft.LoraConfig(target_modules="all-linear", init_lora_weights=False))
    expected = logits(model)
    model.save_pretrained("bare")
    for file in model_folders["llama"].glob("tokenizer*"):
        shutil.copy(file, "bare")
    merge("bare", "merged")
    assert torch.allclose(logits(transformers.AutoModelForCausalLM.from_pretrained("merged")), expected, atol=1e-4)
    assert not Path("merged/run.json").exists()


@pytest.mark.parametrize(
    ("recipe", "kind", "settings"),
    [
        ("causal-lm", "gpt2", {"lora_target_modules": ["wte"]}),
        ("causal-lm", "gpt2", {"lora_target_modules": ["lm_head", "c_attn"]}),
        ("causal-lm", "gpt2", {"lora_modules_to_save": ["lm_head"]}),
        ("causal-lm", "gpt2", {"lora_modules_to_save": ["wte"]}),
        ("masked-lm", "roberta", {"lora_target_modules": ["decoder"]}),
        ("masked-lm", "roberta", {"lora_modules_to_save": ["lm_head"]}),
    ],
    ids=str,
)
def test_a_weight_that_two_parts_share_is_two_once_one_of_them_is_merged(
    recipe: str, kind: str, settings: Any, model_folders: dict[str, Path]
) -> None:
    done = adapted(recipe, model_folders[kind], max_steps=10, learning_rate=0.05, **settings)
    merge("out", "merged")
    assert json.loads(Path("merged/config.json").read_text())["tie_word_embeddings"] is False
    assert evaluate("merged")["eval_loss"] == pytest.approx(done.metrics["eval_loss"], rel=1e-4)
    model = package.load_run("merged").model
    assert not torch.equal(model.get_input_embeddings().weight, model.get_output_embeddings().weight)


def test_an_adapter_without_tokenizer_has_that_of_its_model(
    model_folders: dict[str, Path], lmtasks: Callable[..., Any]
) -> None:
    """As peft itself saves one: used, evaluated, trained on and merged."""
    base = transformers.AutoModelForCausalLM.from_pretrained(model_folders["gpt2"])
    config = peft.LoraConfig(
        target_modules=["c_attn"], task_type="CAUSAL_LM", init_lora_weights=False, fan_in_fan_out=True
    )
    peft.get_peft_model(base, config).save_pretrained("bare")
    assert not [name for name in os.listdir("bare") if "tokenizer" in name]
    assert lmtasks("predict", "bare", "the list", "--max_new_tokens", "3").code == 0
    figures = evaluate("bare", recipe="causal-lm", validation_file="text.txt", block_size=16)
    adapted("causal-lm", "bare", "on", use_peft=None, lora_r=None, max_steps=1)
    merge("bare", "merged")
    assert evaluate("merged", recipe="causal-lm", validation_file="text.txt", block_size=16) == pytest.approx(
        figures, rel=1e-4
    )


def test_what_stands_beside_a_model_is_merged_along(
    model_folders: dict[str, Path], lmtasks: Callable[..., Any]
) -> None:
    done = adapted(ACCOMPANIED, model_folders["roberta"])
    assert lmtasks("merge", "out", "merged", "--plugin", "companion_recipe").code == 0
    for name in ("guide", "judge"):
        ours, theirs = (load_file(Path(folder, name, "model.safetensors")) for folder in ("out", "merged"))
        assert all(torch.equal(value, theirs[key]) for key, value in ours.items()), name
    figures = json.loads(lmtasks("evaluate", "merged", "--plugin", "companion_recipe", "--json").out)
    assert figures["eval_guide_loss"] == pytest.approx(done.metrics["eval_guide_loss"], rel=1e-5)
    assert figures["eval_text_loss"] == pytest.approx(done.metrics["eval_text_loss"], rel=1e-4)


def test_an_adapter_goes_on_only_on_the_weights_that_it_began_with(model_folders: dict[str, Path]) -> None:
    shutil.copytree(model_folders["gpt2"], "base")
    adapted("causal-lm", "base", max_steps=4, save_steps=2)
    record = json.loads(Path("out/run.json").read_text())
    assert set(record["frozen"]) == {"model"}
    model = transformers.AutoModelForCausalLM.from_pretrained("base")
    model.transformer.wpe.weight.data[0, 0] += 1e-3
    model.save_pretrained("base")
    more = {"max_steps": 6, "save_steps": 2, "resume_from_checkpoint": True}
    with pytest.raises(InputError, match="the model under what learns has other weights than when the run in 'out'"):
        adapted("causal-lm", "base", **more)
    shutil.rmtree("base")
    shutil.copytree(model_folders["gpt2"], "base")
    assert adapted("causal-lm", "base", **more).metrics["eval_loss"] > 0


def test_an_adapter_is_for_a_model_as_it_lies(model_folders: dict[str, Path]) -> None:
    cut = replace(MASKED_LM, name="cut-lm", prepare_model=lambda model, options: package.keep_layers(model, 1))
    with pytest.raises(InputError, match="cut-lm gives the model other layers with these options") as refused:
        adapted(cut, model_folders["roberta"])
    assert "train once without it" in str(refused.value.hint) and not Path("out").exists()


@pytest.mark.parametrize(
    ("flags", "error", "hint"),
    [
        (["--lora_r", "4"], "--lora_r means nothing without an adapter", "add --use_peft"),
        (
            ["--use_peft", "--peft_config", "a.yaml", "--lora_r", "4"],
            "--peft_config and --lora_r exclude",
            "one of the",
        ),
        (["--peft_config", "a.yaml"], "cannot read --peft_config 'a.yaml'", "an existing YAML file"),
        (["--use_peft", "--lora_target_modules", "c_atn"], "no such adapter for a gpt2 model", "c_attn"),
        (["--use_peft", "--lora_r", "0"], "lora_r", ""),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    flags: list[str], error: str, hint: str, model_folders: dict[str, Path], lmtasks: Callable[..., Any]
) -> None:
    refused = lmtasks("run", "causal-lm", "--model", model_folders["gpt2"], "--train_file", "text.txt",
                      "--block_size", 16, "--output_dir", "out", *flags)  # fmt: skip
    assert refused.code == 2 and error in refused.err and hint in refused.err, refused.err
    assert not Path("out").exists()


def test_an_adapter_needs_a_checkpoint(lmtasks: Callable[..., Any]) -> None:
    refused = lmtasks("run", "causal-lm", "--use_peft", "--output_dir", "out")
    assert refused.code == 2 and "an adapter needs a checkpoint" in refused.err and "add --model" in refused.err


def test_an_adapter_for_somebodys_folder_is_not_published(
    model_folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    adapted("causal-lm", model_folders["gpt2"])
    with HubServer() as hub:
        hub.use(monkeypatch, tmp_path / "home")
        with pytest.raises(InputError, match="of use to nobody who has not that folder"):
            package.push("out", "someone/adapter")
        with pytest.raises(InputError, match="of use to nobody who has not that folder"):
            adapted("causal-lm", model_folders["gpt2"], "again", push_to_hub=True, hub_model_id="someone/adapter")
    assert not Path("again").exists()


def test_an_adapter_for_a_model_of_the_hub_is_published_and_found(
    model_folders: dict[str, Path], tmp_path: Path
) -> None:
    """The whole way, in processes that know the Hub only by their environment."""
    run("causal-lm", model_name_or_path=str(model_folders["llama"]), train_file="text.txt", output_dir="base",
        max_steps=1, block_size=16)  # fmt: skip
    with HubServer() as hub:
        environment = (
            os.environ | hub.environment(tmp_path / "home") | {"PYTHONPATH": str(Path(package.__file__).parents[1])}
        )

        def command(*words: str) -> str:
            call = [sys.executable, "-m", "lmtasks", *words]
            done = subprocess.run(call, env=environment, capture_output=True, text=True, timeout=200)
            assert done.returncode == 0, done.stderr
            return done.stdout

        command("push", "base", "someone/base")
        text = ["--train_file", "text.txt", "--block_size", "16", "--max_steps", "2", "--learning_rate", "0.01"]
        command("run", "causal-lm", "--model", "someone/base", "--use_peft", *text, "--output_dir", "out")
        command("push", "out", "someone/adapter")
        assert {"adapter_config.json", "adapter_model.safetensors"} <= set(hub.files("someone/adapter"))
        assert "config.json" not in hub.files("someone/adapter")
        card = hub.files("someone/adapter")["README.md"].decode()
        assert "base_model: someone/base" in card and "library_name: peft" in card
        told = json.loads(
            command("evaluate", "someone/adapter", "--validation_file", "text.txt", "--block_size", "16", "--json")
        )
        here = json.loads(command("evaluate", "out", "--validation_file", "text.txt", "--block_size", "16", "--json"))
        assert told == here
        assert command("predict", "someone/adapter", "the module", "--max_new_tokens", "3", "--do_sample", "false")
        command("merge", "someone/adapter", "merged")
        hub.assert_no_secret_travelled(str(tmp_path))
    assert Path("merged/model.safetensors").exists()


@pytest.mark.parametrize("given", ["bfloat16", "auto"])
def test_frozen_weights_are_held_in_half_the_memory(given: str, model_folders: dict[str, Path]) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(model_folders["llama"], dtype=torch.bfloat16)
    model.save_pretrained("half")
    for file in model_folders["llama"].glob("tokenizer*"):
        shutil.copy(file, "half")
    done = adapted("causal-lm", "half", dtype=given, max_steps=6, save_steps=3)
    adapted("causal-lm", "half", "parts", dtype=given, max_steps=3, save_steps=3)
    adapted("causal-lm", "half", "parts", dtype=given, max_steps=6, save_steps=3, resume_from_checkpoint="auto")
    assert weights("parts") == weights("out")
    assert {one.dtype for one in load_file("out/adapter_model.safetensors").values()} == {torch.float32}
    assert evaluate("out") == pytest.approx({name: done.metrics[name] for name in evaluate("out")}, rel=1e-6)
    assert evaluate("out")["eval_loss"] != evaluate("out", dtype="float32")["eval_loss"]
    merge("out", "merged")
    assert {one.dtype for one in load_file("merged/model.safetensors").values()} == {torch.bfloat16}


def test_the_plan_says_what_whole_models_lose_in_bfloat16(model_folders: dict[str, Path]) -> None:
    done = adapted("causal-lm", model_folders["llama"], use_peft=None, lora_r=None, dtype="bfloat16")
    assert "weights in bfloat16 lose steps of less than 1/256 of them; float32 does not" in done.plan.notes
    assert {one.dtype for one in load_file("out/model.safetensors").values()} == {torch.bfloat16}


def test_numbers_that_cannot_be_trained_in_are_refused(
    model_folders: dict[str, Path], lmtasks: Callable[..., Any]
) -> None:
    model = transformers.AutoModelForCausalLM.from_pretrained(model_folders["llama"], dtype=torch.float16)
    model.save_pretrained("half")
    for file in model_folders["llama"].glob("tokenizer*"):
        shutil.copy(file, "half")
    with pytest.raises(InputError, match="are float16, in which small gradients are nothing"):
        adapted("causal-lm", "half", dtype="auto")
    fresh = lmtasks("run", "causal-lm", "--dtype", "bfloat16", "--output_dir", "out")
    assert fresh.code == 2 and "a new model learns in float32" in fresh.err
    assert not Path("out").exists()
