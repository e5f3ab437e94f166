"""Whole runs of tiny models: what they leave, what they say, and that doing it again gives the same."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file

from lmtasks import Blocks
from lmtasks.artifacts.report.reading import read_reading
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.config.request import configure
from lmtasks.errors import InputError
from lmtasks.registry.catalog import load_catalog
from lmtasks.runs.execute import execute
from lmtasks.runs.prepare import prepare
from lmtasks.runs.result import Run
from lmtasks.runs.runner import run
from lmtasks.runs.standalone_evaluation import evaluate

FROM_SCRATCH: dict[str, dict[str, Any]] = {
    "masked-lm": {
        "model_type": "roberta",
        "config_overrides": "num_hidden_layers=2,hidden_size=32,num_attention_heads=2,intermediate_size=64,"
        "max_position_embeddings=66",
    },
    "causal-lm": {"model_type": "gpt2", "config_overrides": "n_layer=2,n_embd=32,n_head=2,n_positions=64"},
}
SMALL: dict[str, Any] = {"block_size": 16, "learning_rate": 5e-3, "per_device_train_batch_size": 8}
RECIPES = tuple(FROM_SCRATCH)

DOCUMENTED = {
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "run.json",
    "all_results.json",
    "train_results.json",
    "eval_results.json",
    "trainer_state.json",
    "README.md",
    "log.jsonl",
    "report.html",
    "report.json",
    "learning_curve.svg",
    "checkpoints",
}
MEASURED = {"eval_loss", "perplexity", "bits_per_byte", "accuracy", "eval_targets", "unigram_loss"}
TIMES = {"train_runtime", "train_tokens_per_second", "train_samples_per_second", "train_steps_per_second"}


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test works in a folder of its own with a text in it, and names files as users do."""
    shutil.copy(text_file, tmp_path / "text.txt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module", params=RECIPES)
def fresh(
    request: pytest.FixtureRequest, text_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Run, Path]]:
    """A finished run from scratch of each recipe, and the folder that it was started in. Do not write to it."""
    home = tmp_path_factory.mktemp(request.param)
    shutil.copy(text_file, home / "text.txt")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        yield scratch(request.param, "out", max_steps=4, save_steps=2), home


def scratch(recipe: str, folder: str, **more: Any) -> Run:
    """Train a new model and its tokenizer on the text."""
    values = {**FROM_SCRATCH[recipe], **SMALL, "train_tokenizer": 400, "train_file": "text.txt", "max_steps": 4}
    return run(recipe, output_dir=folder, **{**values, **more})


def tuned(recipe: str, model: Path, folder: str, **more: Any) -> Run:
    """Fine-tune a saved model on the text."""
    values = {**SMALL, "train_file": "text.txt", "max_steps": 4, **more}
    return run(recipe, model_name_or_path=str(model), output_dir=folder, **values)


def contents(path: str | Path) -> Any:
    """A JSON file that holds nothing which only Python would read."""

    def refuse(word: str) -> None:
        raise AssertionError(f"{path} holds {word}")

    return json.loads(Path(path).read_text(encoding="utf-8"), parse_constant=refuse)


def untimed(path: str) -> dict[str, float]:
    """Results but for the times, which are there."""
    results = contents(path)
    assert results.keys() >= TIMES
    return {name: value for name, value in results.items() if name not in TIMES}


def log_of(folder: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(folder, "log.jsonl").read_text().splitlines()]


def weights(folder: str | Path) -> dict[str, torch.Tensor]:
    return load_file(Path(folder, "model.safetensors"))


def without_times(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if name not in TIMES}


def everything(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# --- what a run leaves ---


def test_the_folder_holds_exactly_what_is_documented(fresh: tuple[Run, Path]) -> None:
    result, _ = fresh
    generates = {"generation_config.json"} if result.recipe.name == "causal-lm" else set()
    assert {path.name for path in (fresh[1] / "out").iterdir()} == DOCUMENTED | generates


def test_nothing_but_the_run_folder_is_written(fresh: tuple[Run, Path]) -> None:
    assert {path.name for path in fresh[1].iterdir()} == {"text.txt", "out"}


def test_no_file_knows_where_the_run_took_place(fresh: tuple[Run, Path]) -> None:
    _, home = fresh
    secrets = {str(home).encode(), str(Path.home()).encode() + b"/", os.environ["HF_HOME"].encode()}
    files = [path for path in (home / "out").rglob("*") if path.is_file()]
    assert len(files) > len(DOCUMENTED)
    for path in files:
        content = path.read_bytes()
        assert not [secret for secret in secrets if secret in content], path


def test_run_json_says_what_was_done(fresh: tuple[Run, Path]) -> None:
    result, home = fresh
    record = contents(home / "out" / "run.json")
    assert record["status"] == "done"
    assert record["recipe"] == result.recipe.name
    assert record["owner"] == f"lmtasks:{result.recipe.name}"
    assert record["model_type"] == FROM_SCRATCH[result.recipe.name]["model_type"]
    assert record["metrics"] == result.metrics
    assert record["options"]["block_size"] == 16
    assert record["training"]["learning_rate"] == 5e-3
    assert record["seeds"] == {"seed": 42, "split": 42, "evaluation": 0}
    assert record["versions"]["transformers"] == transformers.__version__
    assert record["data"]["source"] == "text.txt"
    assert record["settings"]["train_file"] == ["text.txt"]
    assert record["base_model"] is None
    assert set(record["files"]) == {path.name for path in (home / "out").iterdir()} - DOCUMENTED | {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_the_results_have_the_names_that_people_know(fresh: tuple[Run, Path]) -> None:
    result, home = fresh
    training, evaluation, both = (contents(home / "out" / f"{part}_results.json") for part in ("train", "eval", "all"))
    assert set(evaluation) == MEASURED
    assert {"train_loss", "train_runtime", "train_tokens_per_second"} <= set(training)
    assert both == {**training, **evaluation} == result.metrics
    assert both["perplexity"] == math.exp(both["eval_loss"])
    assert 0 <= both["accuracy"] <= 1
    assert both["train_tokens_per_second"] == pytest.approx(4 * 8 * 16 / both["train_runtime"], rel=0.01)


def test_trainer_state_is_the_trainers_own(fresh: tuple[Run, Path]) -> None:
    state = transformers.TrainerState.load_from_json(str(fresh[1] / "out" / "trainer_state.json"))
    assert state.global_step == state.max_steps == 4


def test_the_log_has_one_object_a_line_in_the_order_of_the_steps(fresh: tuple[Run, Path]) -> None:
    lines = log_of(fresh[1] / "out")
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 4]
    assert all(line["loss"] > 0 and line["train_tokens_per_second"] > 0 for line in lines[:4])
    assert lines[-1]["train_loss"] == fresh[0].metrics["train_loss"]


def test_the_report_is_that_of_the_run(fresh: tuple[Run, Path], lmtasks: Any, tmp_path: Path) -> None:
    result, home = fresh
    out, reading = home / "out", read_reading(home / "out")
    text = (out / "report.html").read_text(encoding="utf-8")
    assert lmtasks("report", out, "--output", tmp_path / "again.html").code == 0
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == text, "it can be made again of what lies there"
    assert result.verdict is not None and result.verdict.sentences[0] in text
    assert reading is not None and "Most surprising first" in text
    assert f"]({contents(out / 'run.json')['curve']})" in (out / "README.md").read_text(encoding="utf-8")


def test_the_folder_loads_with_transformers_alone(fresh: tuple[Run, Path]) -> None:
    result, home = fresh
    auto = getattr(transformers, result.recipe.model_class.partition(":")[2])
    model = auto.from_pretrained(home / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(home / "out")
    assert model.config.vocab_size == len(tokenizer) == 400
    assert tokenizer.decode(tokenizer("some text", add_special_tokens=False)["input_ids"]) == "some text"


def test_the_folder_works_in_a_pipeline(fresh: tuple[Run, Path]) -> None:
    result, home = fresh
    pipeline = transformers.pipeline(result.recipe.pipeline, model=str(home / "out"))
    if result.recipe.name == "masked-lm":
        answers = pipeline(f"a {pipeline.tokenizer.mask_token} b", top_k=3)
        assert len(answers) == 3
        assert 0 < answers[0]["score"] < 1
    else:
        (answer,) = pipeline("a text", max_new_tokens=3, do_sample=False)
        assert answer["generated_text"].startswith("a text")
        assert len(answer["generated_text"]) > len("a text")


def test_checkpoints_are_models_with_their_tokenizer(fresh: tuple[Run, Path], lmtasks: Any) -> None:
    result, home = fresh
    assert {path.name for path in (home / "out" / "checkpoints").iterdir()} == {"checkpoint-2", "checkpoint-4"}
    checkpoint = home / "out" / "checkpoints" / "checkpoint-2"
    auto = getattr(transformers, result.recipe.model_class.partition(":")[2])
    assert auto.from_pretrained(checkpoint).config.vocab_size == 400
    assert len(transformers.AutoTokenizer.from_pretrained(checkpoint)) == 400
    starter = result.recipe.starter
    arguments = [word for name, value in starter.predict.items() for word in (f"--{name}", value)]
    outcome = lmtasks("predict", checkpoint, starter.texts[0], *arguments)
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip()


def test_the_last_checkpoint_has_the_weights_of_the_run(fresh: tuple[Run, Path]) -> None:
    out = fresh[1] / "out"
    last = weights(out / "checkpoints" / "checkpoint-4")
    assert all(torch.equal(last[name], tensor) for name, tensor in weights(out).items())


# --- the figures ---


def test_evaluate_gives_the_figures_of_the_run_to_the_last_digit(
    fresh: tuple[Run, Path], lmtasks: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fresh[1])
    before = everything(fresh[1])
    outcome = lmtasks("evaluate", "out", "--json")
    assert outcome.code == 0, outcome.err
    assert json.loads(outcome.out) == contents("out/eval_results.json")
    assert everything(fresh[1]) == before


def test_evaluate_uses_other_data_and_options_when_given(
    fresh: tuple[Run, Path], documents: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(fresh[1])
    other = evaluate("out", eval_dataset=documents[60:70])
    assert set(other) == MEASURED
    assert other["eval_loss"] != fresh[0].metrics["eval_loss"]
    fewer = evaluate("out", eval_dataset=documents[60:70], max_eval_samples=3)
    assert fewer["eval_targets"] < other["eval_targets"]
    longer = evaluate("out", eval_dataset=documents[60:70], max_eval_samples=3, block_size=32)
    assert longer["eval_targets"] > fewer["eval_targets"]


@pytest.mark.parametrize(("recipe", "kind"), [("masked-lm", "bert"), ("causal-lm", "llama")])
def test_fine_tuning_makes_the_figures_of_the_same_data_better(
    recipe: str, kind: str, model_folders: dict[str, Path], lmtasks: Any
) -> None:
    Path("held-out.txt").write_text("".join(Path("text.txt").read_text().splitlines(keepends=True)[:60]))
    before = lmtasks("evaluate", model_folders[kind], "--validation_file", "held-out.txt", "--block_size", 16, "--json")
    assert before.code == 0, before.err
    result = tuned(recipe, model_folders[kind], "out", validation_file="held-out.txt", max_steps=60)
    assert result.metrics["eval_targets"] == json.loads(before.out)["eval_targets"]
    assert result.metrics["eval_loss"] < json.loads(before.out)["eval_loss"] - 0.5
    assert contents("out/run.json")["base_model"] == str(model_folders[kind])


@pytest.mark.parametrize(("recipe", "kind"), [("masked-lm", "modernbert"), ("causal-lm", "gpt2")])
def test_fine_tuning_moves_every_parameter(recipe: str, kind: str, model_folders: dict[str, Path]) -> None:
    tuned(recipe, model_folders[kind], "out")
    before, after = weights(model_folders[kind]), weights("out")
    assert before.keys() == after.keys()
    assert [name for name in before if torch.equal(before[name], after[name])] == []


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_same_command_gives_the_same_run(recipe: str) -> None:
    one = scratch(recipe, "one", num_train_epochs=2, max_steps=-1, max_train_samples=40)
    two = scratch(recipe, "two", num_train_epochs=2, max_steps=-1, max_train_samples=40)
    assert without_times(one.metrics) == without_times(two.metrics)
    for file in ("model.safetensors", "tokenizer.json", "config.json", "eval_results.json"):
        assert Path("one", file).read_bytes() == Path("two", file).read_bytes(), file
    untimed = [[without_times(line) for line in log_of(folder)] for folder in ("one", "two")]
    assert untimed[0] == untimed[1]


def test_another_seed_gives_another_run(model_folders: dict[str, Path]) -> None:
    one = tuned("masked-lm", model_folders["roberta"], "one", seed=1)
    two = tuned("masked-lm", model_folders["roberta"], "two", seed=2)
    assert one.metrics["train_loss"] != two.metrics["train_loss"]
    assert one.metrics["eval_targets"] == two.metrics["eval_targets"], "evaluation hides the same tokens for every seed"


def test_samples_count_packed_blocks(model_folders: dict[str, Path]) -> None:
    result = tuned(
        "causal-lm",
        model_folders["gpt2"],
        "out",
        max_train_samples=10,
        max_eval_samples=3,
        num_train_epochs=2,
        max_steps=-1,
        per_device_train_batch_size=4,
    )
    data = contents("out/run.json")["data"]
    assert (data["train"]["blocks"], data["evaluation"]["blocks"]) == (10, 3)
    assert result.metrics["eval_targets"] == 3 * (16 - 1)
    assert contents("out/trainer_state.json")["global_step"] == 2 * math.ceil(10 / 4)


def test_accumulated_batches_train_as_one_big_batch(model_folders: dict[str, Path]) -> None:
    plain = {"max_steps": 3, "optim": "sgd", "learning_rate": 0.1, "logging_steps": 1}
    big = tuned("masked-lm", model_folders["modernbert"], "big", **plain)
    small = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4}
    parts = tuned("masked-lm", model_folders["modernbert"], "parts", **plain, **small)
    assert big.metrics["eval_loss"] == pytest.approx(parts.metrics["eval_loss"], rel=1e-5)
    for one, other in zip(log_of("big")[:3], log_of("parts")[:3], strict=True):
        assert one["loss"] == pytest.approx(other["loss"], rel=1e-4)
        assert one["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-3)


def test_evaluations_during_training_are_logged(model_folders: dict[str, Path]) -> None:
    result = tuned(
        "masked-lm",
        model_folders["roberta"],
        "out",
        eval_strategy="epoch",
        num_train_epochs=2,
        max_steps=-1,
        max_train_samples=24,
    )
    evaluations = [line for line in log_of("out") if "eval_loss" in line]
    assert [line["step"] for line in evaluations] == [3, 6]
    assert evaluations[-1]["eval_loss"] == result.metrics["eval_loss"]
    assert evaluations[-1]["eval_perplexity"] == result.metrics["perplexity"]
    assert [line for line in contents("out/trainer_state.json")["log_history"] if "eval_loss" in line]


def test_the_best_checkpoint_can_be_kept(model_folders: dict[str, Path]) -> None:
    best = {"eval_strategy": "steps", "eval_steps": 10, "save_steps": 10, "load_best_model_at_end": True}
    few = {"max_train_samples": 8, "max_steps": 60, "learning_rate": 1e-2, "lr_scheduler_type": "constant"}
    result = tuned("causal-lm", model_folders["llama"], "out", **best, **few)
    losses = {line["step"]: line["eval_loss"] for line in log_of("out") if "eval_loss" in line}
    assert min(losses.values()) < losses[60], "so few blocks are soon known by heart"
    assert result.metrics["eval_loss"] == min(losses.values())


# --- data ---


def test_data_in_memory_needs_no_file(model_folders: dict[str, Path], documents: list[str]) -> None:
    result = run(
        "causal-lm",
        model=str(model_folders["gpt2"]),
        train_dataset=datasets.Dataset.from_dict({"body": documents[:20]}),
        eval_dataset=documents[20:23],
        text_column="body",
        output_dir="out",
        **SMALL,
        max_steps=2,
    )
    record = contents("out/run.json")
    assert record["data"]["train"]["rows"] == 20
    assert record["data"]["evaluation"]["rows"] == 3
    assert record["data"]["source"] == "in-memory data"
    assert "train_dataset" not in record["settings"]
    assert result.metrics["eval_loss"] > 0


def test_a_run_of_data_in_memory_cannot_be_evaluated_without_data(
    model_folders: dict[str, Path], documents: list[str]
) -> None:
    run("causal-lm", model=str(model_folders["gpt2"]), train_dataset=documents, output_dir="out", **SMALL, max_steps=1)
    with pytest.raises(InputError, match="no data"):
        evaluate("out")


def test_documents_of_json_lines_with_nested_text(model_folders: dict[str, Path], documents: list[str]) -> None:
    rows = [{"id": number, "answers": {"text": [text[:300], "more"]}} for number, text in enumerate(documents[:30])]
    Path("answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    more = {"train_file": "answers.jsonl", "text_column": "answers.text", "test_size": 0.2}
    tuned("masked-lm", model_folders["distilbert"], "out", **more)
    data = contents("out/run.json")["data"]
    assert (data["train"]["rows"], data["evaluation"]["rows"]) == (24, 6)
    assert data["train"]["unit"] == "documents"


# --- plans and folders ---


@pytest.mark.parametrize("as_json", [False, True])
def test_a_dry_run_writes_nothing_and_its_numbers_come_true(
    as_json: bool, lmtasks: Any, model_folders: dict[str, Path], in_folder: Path
) -> None:
    words = ["run", "masked-lm", "--model", model_folders["roberta"], "--train_file", "text.txt", "--block_size", 16]
    words += ["--output_dir", "out", "--max_train_samples", 20, "--num_train_epochs", 1]
    before = everything(in_folder)
    outcome = lmtasks(*words, "--dry_run", *["--json"] * as_json)
    assert outcome.code == 0, outcome.err
    assert everything(in_folder) == before
    assert lmtasks(*words).code == 0
    record = contents("out/run.json")
    parameters = sum(tensor.numel() for tensor in weights("out").values())
    steps = contents("out/trainer_state.json")["global_step"]
    if as_json:
        plan = json.loads(outcome.out)
        assert (plan["steps"], plan["parameters"]) == (steps, parameters)
        assert plan["train"] == record["data"]["train"]
        assert plan["evaluation"] == record["data"]["evaluation"]
        assert plan["output_dir"] == "out"
        assert plan["writes"] == ["out"]
    else:
        assert f"{steps} steps of 8 blocks" in outcome.out
        assert f"{parameters:,} parameters" in outcome.out
        assert f"{record['data']['train']['tokens']:,} tokens, 20 blocks" in outcome.out


def test_runs_without_a_folder_are_numbered(model_folders: dict[str, Path]) -> None:
    for number in range(3):
        result = run("masked-lm", model=str(model_folders["roberta"]), train_file="text.txt", **SMALL, max_steps=1)
        assert str(result.output_dir) == "runs/masked-lm" + ("", "-2", "-3")[number]
    assert {path.name for path in Path("runs").iterdir()} == {"masked-lm", "masked-lm-2", "masked-lm-3"}


def test_overwriting_replaces_the_run_and_keeps_the_users_files(model_folders: dict[str, Path]) -> None:
    tuned("causal-lm", model_folders["gpt2"], "out")
    assert Path("out/generation_config.json").exists()
    Path("out/notes.txt").write_text("mine")
    Path("out/figures").mkdir()
    Path("out/figures/loss.png").write_text("mine too")
    tuned("masked-lm", model_folders["roberta"], "out", overwrite_output_dir=True, max_steps=2)
    assert {path.name for path in Path("out").iterdir()} == DOCUMENTED | {"notes.txt", "figures"}
    assert Path("out/notes.txt").read_text() == "mine"
    assert Path("out/figures/loss.png").read_text() == "mine too"
    assert {path.name for path in Path("out/checkpoints").iterdir()} == {"checkpoint-2"}
    assert [line["step"] for line in log_of("out")] == [1, 2, 2]


@pytest.mark.parametrize("padding", ["its own", "end of text"])
def test_the_padding_id_that_positions_hang_on_stays(
    padding: str, model_folders: dict[str, Path], masked_tokenizer: Any
) -> None:
    shutil.copytree(model_folders["roberta"], "model")
    tokenizer = transformers.AutoTokenizer.from_pretrained("model")
    if padding == "end of text":
        tokenizer.pad_token = tokenizer.eos_token
        tokenizer.save_pretrained("model")
    values = {**SMALL, "model": "model", "train_file": "text.txt", "output_dir": "out", "max_steps": 3}
    prepared = prepare(configure(MASKED_LM, values))
    execute(prepared, load_catalog())

    assert contents("out/config.json")["pad_token_id"] == contents("model/config.json")["pad_token_id"]
    reloaded = transformers.AutoModelForMaskedLM.from_pretrained("out")
    rows = [prepared.data.encoded.evaluation.example(number)["input_ids"] for number in range(4)]
    ids = torch.tensor(np.stack(rows), dtype=torch.int64)
    with torch.no_grad():
        assert torch.equal(prepared.model.eval()(ids).logits, reloaded.eval()(ids).logits)


def test_a_tokenizer_with_more_tokens_makes_the_model_grow(model_folders: dict[str, Path]) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folders["gpt2"])
    tokenizer.add_tokens(["<one>", "<two>"])
    tokenizer.save_pretrained("tokenizer")
    result = tuned("causal-lm", model_folders["gpt2"], "out", tokenizer_name="tokenizer")
    assert "embeddings grown by 2 rows for the tokenizer's tokens" in result.plan.notes
    assert contents("out/config.json")["vocab_size"] == 402
    assert len(transformers.AutoTokenizer.from_pretrained("out")) == 402


def test_weights_that_a_checkpoint_lacks_can_be_allowed(model_folders: dict[str, Path]) -> None:
    shutil.copytree(model_folders["bert"], "model")
    Path("model/model.safetensors").unlink()
    transformers.AutoModel.from_pretrained(model_folders["bert"]).save_pretrained("model")
    result = tuned("masked-lm", Path("model"), "out", allow_new_weights=True)
    assert any(note.startswith("6 weights are new: cls.predictions") for note in result.plan.notes)


# --- what goes wrong ---


def test_a_run_that_diverges_fails_and_is_not_done(lmtasks: Any, model_folders: dict[str, Path]) -> None:
    words = ["run", "causal-lm", "--model", model_folders["gpt2"], "--train_file", "text.txt", "--block_size", 16]
    words += ["--output_dir", "out", "--max_steps", 50, "--learning_rate", 100, "--max_grad_norm", 0, "--optim", "sgd"]
    outcome = lmtasks(*words)
    assert outcome.code == 3
    assert "error: training diverged: " in outcome.err
    assert "hint: lower --learning_rate" in outcome.err
    assert outcome.out == ""
    assert contents("out/run.json")["status"] == "running"
    assert not Path("out/model.safetensors").exists()


@pytest.mark.parametrize(
    ("recipe", "number", "code"), [("masked-lm", signal.SIGTERM, 143), ("causal-lm", signal.SIGINT, 130)]
)
def test_an_interrupted_run_goes_on_as_if_nothing_had_happened(
    recipe: str, number: signal.Signals, code: int, lmtasks: Any, model_folders: dict[str, Path], in_folder: Path
) -> None:
    model = model_folders["roberta" if recipe == "masked-lm" else "gpt2"]
    words = ["run", recipe, "--model", str(model), "--train_file", "text.txt", "--block_size", "16"]
    words += ["--max_steps", "300", "--logging_steps", "1", "--save_strategy", "no", "--learning_rate", "1e-3"]
    interrupted = [*words, "--output_dir", "interrupted"]
    process = subprocess.Popen(
        [sys.executable, "-m", "lmtasks", *interrupted],
        cwd=in_folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    log = in_folder / "interrupted" / "log.jsonl"
    while process.poll() is None and not (log.exists() and log.read_bytes().count(b"\n") > 2):
        time.sleep(0.005)
    process.send_signal(number)
    out, err = process.communicate(timeout=120)

    assert process.returncode == code, err.decode()
    assert out == b""
    assert f"error: stopped by {number.name} after step ".encode() in err
    assert b"hint: the same command with --resume_from_checkpoint true" in err
    assert contents("interrupted/run.json")["status"] == "running"
    assert not Path("interrupted/model.safetensors").exists()
    (checkpoint,) = Path("interrupted/checkpoints").iterdir()
    assert 2 < int(checkpoint.name.removeprefix("checkpoint-")) < 300

    assert lmtasks(*interrupted).code == 2, "the same command alone does not throw the work away"
    resumed = lmtasks(*interrupted, "--resume_from_checkpoint", "true")
    assert resumed.code == 0, resumed.err
    assert lmtasks(*words, "--output_dir", "whole").code == 0
    assert Path("interrupted/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    assert contents("interrupted/eval_results.json") == contents("whole/eval_results.json")
    for name in ("train_results.json", "all_results.json"):
        assert untimed(f"interrupted/{name}") == untimed(f"whole/{name}")
    assert contents("interrupted/run.json")["status"] == "done"
    steps = [line["step"] for line in log_of("interrupted") if "loss" in line]
    assert steps == list(range(1, 301))


def test_resuming_skips_a_checkpoint_that_was_not_written_to_its_end(model_folders: dict[str, Path]) -> None:
    more = {"max_steps": 6, "save_steps": 2}
    whole = tuned("masked-lm", model_folders["roberta"], "out", **more)
    # As if killed while saving the checkpoint of step 6.
    record = contents("out/run.json")
    Path("out/run.json").write_text(json.dumps({**record, "status": "running"}))
    Path("out/checkpoints/checkpoint-6/trainer_state.json").unlink()
    Path("out/checkpoints/checkpoint-6/optimizer.pt").write_bytes(b"half")
    before = weights("out")
    Path("out/model.safetensors").unlink()

    again = tuned("masked-lm", model_folders["roberta"], "out", **more, resume_from_checkpoint=True)

    assert all(torch.equal(tensor, before[name]) for name, tensor in weights("out").items())
    assert again.metrics["eval_loss"] == whole.metrics["eval_loss"]
    assert [line["step"] for line in log_of("out")][-3:] == [5, 6, 6]


KILLED = """
import os, signal

import lmtasks.runs.execute
from lmtasks import run

lmtasks.runs.execute.figures_of = lambda *given: os.kill(os.getpid(), signal.SIGKILL)
run("{recipe}", model="{model}", output_dir="killed", **{how})
"""


def test_a_run_killed_after_its_last_step_only_evaluates_and_saves(model_folders: dict[str, Path]) -> None:
    how = {**SMALL, "train_file": "text.txt", "max_steps": 7, "save_steps": 7, "lr_scheduler_type": "constant"}
    script = KILLED.format(recipe="masked-lm", model=model_folders["roberta"], how=how)
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == -signal.SIGKILL
    assert [path.name for path in Path("killed/checkpoints").iterdir()] == ["checkpoint-7"]
    assert contents("killed/run.json")["status"] == "running"
    tuned("masked-lm", model_folders["roberta"], "killed", **how, resume_from_checkpoint=True)
    tuned("masked-lm", model_folders["roberta"], "whole", **how)
    assert Path("killed/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    assert untimed("killed/all_results.json") == untimed("whole/all_results.json")
    assert contents("killed/run.json")["status"] == "done"
    state = contents("killed/trainer_state.json")
    assert (state["global_step"], state["max_steps"]) == (7, 7)


def test_a_named_checkpoint_can_be_resumed(model_folders: dict[str, Path]) -> None:
    more = {"max_steps": 6, "save_steps": 2}
    tuned("causal-lm", model_folders["gpt2"], "out", **more)
    record, before = contents("out/run.json"), weights("out")
    Path("out/run.json").write_text(json.dumps({**record, "status": "running"}))
    tuned("causal-lm", model_folders["gpt2"], "out", **more, resume_from_checkpoint="out/checkpoints/checkpoint-2")
    assert [line["step"] for line in log_of("out")][-5:] == [3, 4, 5, 6, 6]
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights("out").items())


def test_a_run_is_not_resumed_on_other_text(model_folders: dict[str, Path]) -> None:
    more = {"max_steps": 4, "save_steps": 2}
    tuned("causal-lm", model_folders["gpt2"], "out", **more)
    record = contents("out/run.json")
    Path("out/run.json").write_text(json.dumps({**record, "status": "running"}))
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")}
    Path("text.txt").write_text("Something else.\n" * 2000)
    with pytest.raises(InputError, match="not the one that the run in 'out' began with"):
        tuned("causal-lm", model_folders["gpt2"], "out", **more, resume_from_checkpoint=True)
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")} == before


LONG = """
from lmtasks import run

run("causal-lm", model="{model}", train_file="text.txt", block_size=16, max_steps=100000, output_dir="out")
"""


@pytest.mark.parametrize("more", [{}, {"overwrite_output_dir": True}, {"resume_from_checkpoint": True}])
def test_a_folder_in_which_a_run_goes_on_is_refused(more: dict[str, Any], model_folders: dict[str, Path]) -> None:
    model = model_folders["gpt2"]
    with subprocess.Popen([sys.executable, "-c", LONG.format(model=model)], stderr=subprocess.DEVNULL) as other:
        while other.poll() is None and not Path("out/run.json").exists():
            time.sleep(0.1)
        before = Path("out/run.json").stat().st_mtime_ns
        with pytest.raises(InputError) as caught:
            tuned("causal-lm", model, "out", **more)
        assert caught.value.message == f"output_dir 'out' is in use: process {other.pid} runs there"
        assert Path("out/run.json").stat().st_mtime_ns == before
        other.send_signal(signal.SIGTERM)
        other.wait()
    assert not Path("out/.lock").exists()


def test_a_run_that_came_and_went_since_the_folder_was_looked_at_is_kept(model_folders: dict[str, Path]) -> None:
    values = {**SMALL, "train_file": "text.txt", "max_steps": 2, "output_dir": "out"}
    prepared = prepare(configure(CAUSAL_LM, {**values, "model": str(model_folders["gpt2"])}))
    tuned("causal-lm", model_folders["gpt2"], "out", max_steps=3)
    before = weights("out")
    with pytest.raises(InputError, match="output_dir 'out' holds a finished run"):
        execute(prepared, load_catalog())
    assert all(torch.equal(before[name], value) for name, value in weights("out").items())
    assert ".lock" not in {path.name for path in Path("out").iterdir()}


def test_recipes_of_the_built_in_plugins_are_those_that_run() -> None:
    assert load_catalog().recipes["masked-lm"] is MASKED_LM
    assert load_catalog().recipes["causal-lm"] is CAUSAL_LM


def test_evaluate_refuses_a_run_whose_held_out_text_has_changed(model_folders: dict[str, Path]) -> None:
    tuned("causal-lm", model_folders["gpt2"], "out", max_steps=2)
    lines = Path("text.txt").read_text().splitlines(keepends=True)
    Path("text.txt").write_text("".join(lines[len(lines) // 3 :]))
    with pytest.raises(InputError, match="held out is no longer there as it was"):
        evaluate("out")
    # However it is evaluated, and however much of it.
    for more in ({"stride": 5}, {"block_size": 8}, {"line_by_line": True}, {"max_eval_samples": 2}):
        with pytest.raises(InputError, match="held out is no longer there as it was"):
            evaluate("out", **more)
    assert evaluate("out", validation_file="text.txt")["eval_targets"] > 0


def test_held_out_text_that_is_as_it_was_may_be_evaluated_in_any_way(model_folders: dict[str, Path]) -> None:
    done = tuned("causal-lm", model_folders["gpt2"], "out", max_steps=2, max_eval_samples=9)
    for more in ({"stride": 5}, {"block_size": 8}, {"line_by_line": True}, {"overwrite_cache": True}):
        assert evaluate("out", **more)["eval_targets"] > 0
    assert evaluate("out", max_eval_samples=2)["eval_targets"] < done.metrics["eval_targets"]
    other = evaluate("out", tokenizer_name=str(model_folders["llama"]), test_size=0.5)
    assert other["eval_targets"] > 0


@pytest.mark.parametrize("values", [{"model": "nowhere"}, {"learning_rate": 1e-3}])
def test_evaluate_refuses_what_it_would_ignore(values: dict[str, Any], model_folders: dict[str, Path]) -> None:
    with pytest.raises(InputError):
        evaluate(model_folders["gpt2"], validation_file="text.txt", **values)


@pytest.mark.parametrize("values", [{"mlm_probability": 0.3}, {"mlm-probability": 0.3}, {"max_train_samples": 3}])
def test_evaluate_refuses_what_only_training_uses(values: dict[str, Any], model_folders: dict[str, Path]) -> None:
    with pytest.raises(InputError) as caught:
        evaluate(model_folders["bert"], validation_file="text.txt", **values)
    (name,) = (name.replace("-", "_") for name in values)
    assert caught.value.message == f"--{name} means nothing to an evaluation"
    assert (
        caught.value.hint
        == {
            "mlm_probability": "--eval_mlm_probability is its like for evaluation",
            "max_train_samples": "--max_eval_samples is its like for evaluation",
        }[name]
    )


def test_what_only_training_uses_may_stand_in_the_record_of_a_run(model_folders: dict[str, Path]) -> None:
    done = tuned("masked-lm", model_folders["bert"], "out", max_steps=2, mlm_probability=0.4, max_train_samples=9)
    assert evaluate("out")["eval_loss"] == pytest.approx(done.metrics["eval_loss"], rel=1e-6)


def test_evaluate_takes_none_as_not_given(model_folders: dict[str, Path]) -> None:
    done = tuned("causal-lm", model_folders["gpt2"], "out", max_steps=2)
    assert evaluate("out", validation_file=None)["eval_loss"] == done.metrics["eval_loss"]


def test_a_run_whose_blocks_were_shortened_can_be_resumed(model_folders: dict[str, Path]) -> None:
    ask: dict[str, Any] = {"block_size": None, "max_steps": 4, "save_steps": 2}
    done = tuned("causal-lm", model_folders["gpt2"], "out", **ask)
    assert done.plan.block_size == 66, "the model takes no more"
    record = contents("out/run.json")
    assert record["options"]["block_size"] == 66
    Path("out/run.json").write_text(json.dumps({**record, "status": "running"}))
    assert (
        tuned("causal-lm", model_folders["gpt2"], "out", **ask, resume_from_checkpoint=True).metrics["perplexity"] > 0
    )


def test_a_resumed_run_tells_of_all_its_steps(model_folders: dict[str, Path]) -> None:
    more = {"max_steps": 6, "save_steps": 5}
    tuned("causal-lm", model_folders["gpt2"], "out", **more)
    before, record = untimed("out/all_results.json"), contents("out/run.json")
    Path("out/run.json").write_text(json.dumps({**record, "status": "running"}))
    last = "out/checkpoints/checkpoint-5"
    metrics = tuned("causal-lm", model_folders["gpt2"], "out", **more, resume_from_checkpoint=last).metrics
    assert untimed("out/all_results.json") == before
    assert metrics["train_tokens_per_second"] == pytest.approx(6 * 8 * 16 / metrics["train_runtime"], rel=0.01)
    assert log_of("out")[-1]["train_loss"] == before["train_loss"]


def test_evaluate_takes_a_run_of_fewer_samples(model_folders: dict[str, Path]) -> None:
    done = tuned("causal-lm", model_folders["gpt2"], "out", max_train_samples=16, max_eval_samples=5)
    assert evaluate("out")["eval_loss"] == done.metrics["eval_loss"]


def test_what_lacks_a_part_of_its_tokenizer_is_refused(model_folders: dict[str, Path]) -> None:
    tuned("masked-lm", model_folders["roberta"], "out", max_steps=1)
    Path("out/tokenizer_config.json").unlink()
    with pytest.raises(InputError, match=r"'out/tokenizer_config\.json' is missing"):
        evaluate("out")
    with pytest.raises(InputError, match=r"'out/tokenizer_config\.json' is missing"):
        tuned("masked-lm", Path("out"), "next", max_steps=1)
    assert not Path("next").exists()


# --- ways to cut text ---


DOCUMENTS = [f"Document {number} says that {number} plus {number} is {2 * number}." for number in range(60)]


@pytest.mark.parametrize(("recipe", "model"), [("masked-lm", "roberta"), ("causal-lm", "gpt2")])
def test_line_by_line_every_line_is_an_example(recipe: str, model: str, model_folders: dict[str, Path]) -> None:
    Path("lines.txt").write_text("\n\n".join(DOCUMENTS) + "\n")
    result = tuned(recipe, model_folders[model], "out", train_file="lines.txt", test_size=0.2, line_by_line=True,
                   block_size=64)  # fmt: skip
    data = contents("out/run.json")["data"]
    assert data["train"]["blocks"] + data["evaluation"]["blocks"] == 60
    assert data["train"]["tail"] == data["evaluation"]["tail"] == 0
    assert evaluate("out") == pytest.approx({name: result.metrics[name] for name in evaluate("out")}, rel=1e-6)
    if recipe == "causal-lm":
        # All but the first of each line, and the end of each.
        assert result.metrics["eval_targets"] == data["evaluation"]["tokens"] - data["evaluation"]["blocks"]


@pytest.mark.parametrize(
    ("recipe", "model"), [("masked-lm", "bert"), ("masked-lm", "modernbert"), ("causal-lm", "llama")]
)
def test_isolated_documents_train_resume_and_evaluate(recipe: str, model: str, model_folders: dict[str, Path]) -> None:
    datasets.Dataset.from_dict({"text": DOCUMENTS}).to_json("rows.jsonl")
    more = {"train_file": "rows.jsonl", "test_size": 0.2, "isolate_documents": True, "block_size": 48}
    result = tuned(recipe, model_folders[model], "out", **more)
    plain = tuned(recipe, model_folders[model], "plain", **{**more, "isolate_documents": False})
    assert result.metrics["eval_loss"] != pytest.approx(plain.metrics["eval_loss"], rel=1e-5)
    again = evaluate("out")
    assert again == pytest.approx({name: result.metrics[name] for name in again}, rel=1e-6)


def test_a_model_that_cannot_isolate_is_refused_before_anything_is_written(model_folders: dict[str, Path]) -> None:
    datasets.Dataset.from_dict({"text": DOCUMENTS}).to_json("rows.jsonl")
    with pytest.raises(InputError, match="causal-lm cannot isolate documents with this mamba model"):
        run("causal-lm", train_file="rows.jsonl", isolate_documents=True, model_type="mamba", train_tokenizer=400,
            config_overrides="num_hidden_layers=2,hidden_size=32", block_size=48, output_dir="out")  # fmt: skip
    assert not Path("out").exists()


def test_whole_words_are_said_in_the_label(model_folders: dict[str, Path]) -> None:
    more = {"mask_unit": "word", "eval_mlm_probability": 0.225}
    result = tuned("masked-lm", model_folders["roberta"], "out", **more)
    label = "masked-token perplexity, 22.5% of words hidden, mask seed 0"
    assert result.perplexity_name == contents("out/run.json")["perplexity_label"] == label
    assert label.removeprefix("masked") in Path("out/README.md").read_text()
    assert evaluate("out") == pytest.approx({name: result.metrics[name] for name in evaluate("out")}, rel=1e-6)
    by_token = tuned("masked-lm", model_folders["roberta"], "tokens", **{**more, "mask_unit": "token"})
    assert by_token.metrics["eval_loss"] != result.metrics["eval_loss"]


def test_less_than_a_block_is_trained_on_all_the_same(model_folders: dict[str, Path]) -> None:
    Path("short.txt").write_text("A few words.\n")
    result = tuned("causal-lm", model_folders["gpt2"], "out", train_file="text.txt", validation_file="short.txt",
                   block_size=64)  # fmt: skip
    data = contents("out/run.json")["data"]["evaluation"]
    assert (data["blocks"], data["tail"]) == (1, 0)
    assert result.metrics["eval_targets"] == data["tokens"] - 1


# --- what is worth knowing about the text ---


def test_held_out_text_that_is_trained_on_is_counted_and_said(model_folders: dict[str, Path]) -> None:
    Path("train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS))
    held_out = [*DOCUMENTS[:3], " " + DOCUMENTS[3] + "\n", "Nobody has seen this before."]
    Path("eval.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in held_out))
    result = tuned("causal-lm", model_folders["gpt2"], "out", train_file="train.jsonl", validation_file="eval.jsonl")
    assert "4 of 5 held-out documents are in the training text, too" in result.plan.notes
    assert contents("out/run.json")["data"]["evaluation"]["duplicates"] == 4
    clean = tuned("causal-lm", model_folders["gpt2"], "clean", train_file="train.jsonl", test_size=0.2)
    assert not any("in the training text" in note for note in clean.plan.notes)


def wordpiece(*words: str) -> str:
    """A saved tokenizer that knows only these words."""
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words]
    Path("vocab.txt").write_text("\n".join(vocabulary))
    transformers.BertTokenizer("vocab.txt").save_pretrained("wordpiece")
    return "wordpiece"


@pytest.mark.parametrize(("unknown", "refused"), [(0, False), (15, False), (25, True)])
def test_unknown_tokens_are_said_and_too_many_are_refused(unknown: int, refused: bool) -> None:
    words = ["what"] * unknown + ["known"] * (100 - unknown)
    Path("known.txt").write_text((" ".join(words) + "\n") * 40)
    more = {**FROM_SCRATCH["masked-lm"], **SMALL, "train_file": "known.txt", "max_steps": 1, "output_dir": "out"}
    if refused:
        with pytest.raises(InputError, match="25% of the training tokens are unknown to the tokenizer") as caught:
            run("masked-lm", tokenizer_name=wordpiece("known"), **more)
        assert "--train_tokenizer" in str(caught.value.hint)
        assert not Path("out").exists()
        return
    result = run("masked-lm", tokenizer_name=wordpiece("known"), **more)
    said = [note for note in result.plan.notes if "unknown" in note]
    assert said == (
        [f"{unknown:.1f}% of the {name} tokens are unknown to the tokenizer" for name in ("training", "held-out")]
        if unknown
        else []
    )
    train = contents("out/run.json")["data"]["train"]
    assert train["unknown"] == train["tokens"] * unknown / 100


def test_tokens_are_found_again_and_any_change_makes_new_ones(
    model_folders: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    def hits(folder: str, **more: Any) -> int:
        capsys.readouterr()
        tuned("causal-lm", model_folders["gpt2"], folder, train_file="own.txt", max_steps=1, **more)
        return capsys.readouterr().err.count("from the cache")

    Path("own.txt").write_text(Path("text.txt").read_text() + "Some words of its own.\n")
    assert hits("one") == 0
    assert hits("two") == 2, "training and held-out text"
    assert hits("three", block_size=32) == 2, "another cut of the same tokens"
    assert hits("four", split_seed=1) == 0
    assert hits("five", overwrite_cache=True) == 0
    Path("own.txt").write_text(Path("own.txt").read_text().replace("its own", "its owm"))
    assert hits("six") < 2
    assert weights("one").keys() == weights("two").keys()
    assert all(torch.equal(value, weights("two")[name]) for name, value in weights("one").items())


def test_a_recipe_that_takes_no_notice_of_a_flag_is_refused_it(model_folders: dict[str, Path]) -> None:
    def preprocess(tokenizer: Any, options: Any) -> Blocks:
        return Blocks(size=options.block_size)

    deaf = dataclasses.replace(CAUSAL_LM, preprocess=preprocess)
    for flag in ("line_by_line", "isolate_documents"):
        with pytest.raises(InputError, match=f"causal-lm takes no notice of --{flag}"):
            run(deaf, model=str(model_folders["gpt2"]), train_file="text.txt", output_dir="out", **{flag: True})


# --- weights ---


def test_weights_that_find_no_place_are_said(model_folders: dict[str, Path]) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(model_folders["bert"])
    config = transformers.AutoConfig.from_pretrained(model_folders["bert"])
    transformers.BertForPreTraining(config).save_pretrained("pretrained")
    tokenizer.save_pretrained("pretrained")
    result = tuned("masked-lm", Path("pretrained"), "out")
    assert any("weights of the checkpoint have no use here: bert.pooler" in note for note in result.plan.notes)


def test_a_fresh_model_says_its_first_loss_next_to_that_of_a_guess() -> None:
    result = scratch("masked-lm", "out", max_steps=1)
    assert isinstance(result, Run)
    size = result.plan.vocabulary
    assert any(f"a uniform guess costs {math.log(size):.2f}" in note for note in result.plan.notes)
