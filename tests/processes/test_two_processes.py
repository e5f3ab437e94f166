"""Two processes do together what one does alone: the same numbers, one voice, one set of files."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import two_terms
from launched import distance, free_port, in_two_processes, lines_of, two_processes

from lmtasks.runs.runner import run

MODELS = {"masked-lm": "modernbert", "causal-lm": "llama"}
"""Without dropout, whose draws do depend on the process."""


WITHOUT_LABELS = """
from dataclasses import replace

import torch
from lmtasks import causal_loss, stack
from lmtasks.builtin.causal_lm import CAUSAL_LM


def collator(tokenizer, options, training):
    return lambda examples: stack(examples, tokenizer)


def answers(batch):
    ids = batch["input_ids"]
    labels = ids.masked_fill(batch.get("attention_mask", torch.ones_like(ids)) == 0, -100)
    labels[:, 0] = -100
    return labels


def targets(batch):
    labels = answers(batch)
    return labels[labels != -100]


def loss(model, batch):
    return causal_loss(model, {**batch, "labels": answers(batch)})


WITHOUT_LABELS = replace(CAUSAL_LM, name="without-labels", collator=collator, targets=targets, loss=loss, starter=None)
"""


@pytest.fixture
def recipes(tmp_path: Path) -> dict[str, tuple[str, Any, str]]:
    """What to type, what to give to Python, and a model for it."""
    file = tmp_path / "without_labels.py"
    file.write_text(WITHOUT_LABELS)
    own = runpy.run_path(str(file))["WITHOUT_LABELS"]
    built_in = {name: (name, name, model) for name, model in MODELS.items()}
    terms = (two_terms.__file__, two_terms.TWO_TERMS, MODELS["masked-lm"])
    return {**built_in, "two-terms": terms, "without-labels": (str(file), own, MODELS["causal-lm"])}


@pytest.mark.parametrize(
    ("recipe", "examples"),
    [("masked-lm", 13), ("masked-lm", 11), ("causal-lm", 13), ("causal-lm", 11), ("without-labels", 13),
     ("without-labels", 11), ("two-terms", 11)],
)  # fmt: skip
def test_two_processes_give_the_numbers_of_one(
    recipe: str,
    examples: int,
    recipes: dict[str, tuple[str, Any, str]],
    model_folders: dict[str, Path],
    text_file: Path,
    tmp_path: Path,
) -> None:
    """Epochs of one and a half batches: in the second, of 13 examples one process has 4 and one has 1, of 11 none."""
    typed, given, kind = recipes[recipe]
    start = model_folders[kind]
    asked = {
        "model": str(start),
        "train_file": str(text_file),
        "block_size": 16,
        "line_by_line": True,  # lines of all lengths, so no two batches have the same number of targets
        "max_train_samples": examples,
        "max_eval_samples": 7,
        "per_device_eval_batch_size": 2,
        "eval_strategy": "epoch",
        "num_train_epochs": 3,
        "logging_steps": 1,
        "learning_rate": 0.1,
        "optim": "sgd",  # Adam makes a step of full size of a gradient that is nothing but rounding
        "label_smoothing_factor": 0.1,
    }
    one, two = tmp_path / "one", tmp_path / "two"
    alone = run(given, **asked, per_device_train_batch_size=8, use_cpu=True, output_dir=str(one))
    words = [word for name, value in asked.items() for word in (f"--{name}", str(value))]
    together = in_two_processes(
        "run", typed, *words, "--per_device_train_batch_size", "4", "--use_cpu", "--output_dir", str(two)
    )
    for name in ("train_loss", "eval_loss", "unigram_loss", "perplexity", "bits_per_byte", "accuracy", "eval_targets"):
        assert together["metrics"][name] == pytest.approx(alone.metrics[name], rel=1e-4), name
    logs = lines_of(one / "log.jsonl"), lines_of(two / "log.jsonl")
    assert [line["step"] for line in logs[0]] == [line["step"] for line in logs[1]]
    assert [line["step"] for line in logs[0] if "loss" in line] == [1, 2, 3, 4, 5, 6]
    for here, there in zip(*logs, strict=True):
        of_terms = {"hidden_loss", "size_loss", "eval_hidden_loss", "eval_size_loss"} & here.keys()
        for name in of_terms | {"loss", "grad_norm", "eval_loss", "eval_perplexity", "eval_accuracy"} & here.keys():
            assert there[name] == pytest.approx(here[name], rel=1e-4), (name, here["step"])
    assert distance(one, two) < 1e-4 * distance(one, start)
    assert {path.name for path in one.iterdir()} == {path.name for path in two.iterdir()}


def test_two_processes_resume_to_the_results_of_the_uninterrupted_run(
    model_folders: dict[str, Path], text_file: Path, tmp_path: Path
) -> None:
    """In mid-epoch, at a constant rate, and with losses that are logged further apart."""
    out = tmp_path / "out"
    words = ["run", "masked-lm", "--model", str(model_folders["modernbert"]), "--train_file", str(text_file)]
    words += ["--block_size", "16", "--max_train_samples", "26", "--max_eval_samples", "7", "--max_steps", "5"]
    words += ["--per_device_train_batch_size", "4", "--save_steps", "1", "--logging_steps", "4", "--use_cpu"]
    words += ["--lr_scheduler_type", "constant", "--output_dir", str(out)]
    whole, weights = in_two_processes(*words)["metrics"], (out / "model.safetensors").read_bytes()
    record = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**record, "status": "running"}))
    checkpoint = str(out / "checkpoints" / "checkpoint-2")
    resumed = in_two_processes(*words, "--resume_from_checkpoint", checkpoint)["metrics"]
    timed = {name for name in whole if name == "train_runtime" or name.endswith("_per_second")}
    assert timed and whole["train_loss"] > 0
    assert {name: resumed[name] for name in whole.keys() - timed} == {
        name: whole[name] for name in whole.keys() - timed
    }
    assert (out / "model.safetensors").read_bytes() == weights


def test_a_signal_to_one_process_stops_both_after_the_same_step(
    model_folders: dict[str, Path], text_file: Path, tmp_path: Path
) -> None:
    words = ["run", "masked-lm", "--model", str(model_folders["modernbert"]), "--train_file", str(text_file)]
    words += ["--block_size", "16", "--per_device_train_batch_size", "4", "--max_steps", "400", "--use_cpu"]
    words += ["--save_strategy", "no", "--logging_steps", "1", "--output_dir", str(tmp_path / "out")]
    port = str(free_port())
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "lmtasks", *words, "--resume_from_checkpoint", "auto"],
            env={**os.environ, "OMP_NUM_THREADS": "1", "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}
            | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]
    log = tmp_path / "out" / "log.jsonl"
    while all(process.poll() is None for process in processes) and not (log.exists() and len(lines_of(log)) > 2):
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)
    told = [process.communicate(timeout=120)[1] for process in processes]
    assert [process.returncode for process in processes] == [143, 143], told
    (checkpoint,) = (tmp_path / "out" / "checkpoints").iterdir()
    step = checkpoint.name.removeprefix("checkpoint-")
    assert sum(said.count(f"error: stopped by SIGTERM after step {step}, with a checkpoint") for said in told) == 1
    end = json.loads((tmp_path / "out" / "exit.json").read_text())
    assert (end["exit_code"], end["reason"]) == (143, f"stopped by SIGTERM after step {step}, with a checkpoint")
    assert json.loads((checkpoint / "manifest.json").read_text())["processes"] == 2
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= {path.name for path in checkpoint.iterdir()}


def test_a_recipe_whose_batches_have_no_row_for_each_example_is_refused_before_training(
    recipes: dict[str, tuple[str, Any, str]], model_folders: dict[str, Path], text_file: Path, tmp_path: Path
) -> None:
    file = Path(recipes["without-labels"][0])
    whole = '{**stack(examples, tokenizer), "count": torch.tensor(len(examples))}'
    file.write_text(file.read_text().replace("stack(examples, tokenizer)\n", f"{whole}\n"))
    file.write_text(file.read_text().replace("{**batch,", '{"input_ids": batch["input_ids"],'))
    words = ["run", str(file), "--model", str(model_folders["llama"]), "--train_file", str(text_file)]
    words += ["--block_size", "16", "--max_steps", "1", "--use_cpu", "--output_dir", str(tmp_path / "out")]
    refused = two_processes(*words)
    assert refused.stderr.splitlines().count(
        "error: without-labels cannot train in several processes: 'count' in its batches is not a row for each example"
    )
    assert "hint: train in one process, or leave out the end of an epoch with --dataloader_drop_last" in refused.stderr
    assert not (tmp_path / "out").exists()
    assert two_processes(*words, "--dataloader_drop_last").returncode == 0


LATE = """
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from lmtasks.builtin.masked_lm import MASKED_LM, MaskedLMOptions


@dataclass(frozen=True, kw_only=True)
class Options(MaskedLMOptions):
    def __post_init__(self):
        if os.environ["RANK"] == "1" and not Path("runs/late").exists():
            end = time.monotonic() + 8
            while not Path("looked").exists() and time.monotonic() < end:
                time.sleep(0.05)
            Path("runs/late").mkdir(parents=True)  # another run of that name begins meanwhile


def preprocess(tokenizer, options):
    Path("looked").touch()
    return MASKED_LM.preprocess(tokenizer, options)


LATE = replace(MASKED_LM, name="late", options=Options, preprocess=preprocess, starter=None)
"""


def test_all_processes_write_into_the_folder_that_one_of_them_chose(
    model_folders: dict[str, Path], text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("late.py").write_text(LATE)
    words = ["--model", str(model_folders["modernbert"]), "--train_file", str(text_file), "--block_size", "16"]
    done = in_two_processes("run", "./late.py", *words, "--max_steps", "2", "--use_cpu")
    (folder,) = (path for path in Path("runs").iterdir() if any(path.iterdir()))
    assert done["output_dir"] == str(folder)
    saved = {path.name for path in (folder / "checkpoints" / "checkpoint-2").iterdir()}
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= saved


def test_an_evaluation_that_two_processes_were_asked_for_gives_the_figures_of_one(
    model_folders: dict[str, Path], text_file: Path
) -> None:
    words = ("evaluate", str(model_folders["llama"]), "--validation_file", str(text_file), "--block_size", "16")
    alone = subprocess.run([sys.executable, "-m", "lmtasks", *words], capture_output=True, text=True, check=True)
    together = two_processes(*words)
    assert together.returncode == 0, together.stderr
    assert "perplexity" in alone.stdout
    assert set(alone.stdout.splitlines()) == set(together.stdout.splitlines())


def test_two_processes_mix_as_one(model_folders: dict[str, Path], text_file: Path, tmp_path: Path) -> None:
    lines = text_file.read_text(encoding="utf-8").splitlines(keepends=True)
    for name, part in {"a": lines[:80], "b": lines[80:120], "c": lines[120:140]}.items():
        (tmp_path / f"{name}.txt").write_text("".join(part), encoding="utf-8")
    mix = [
        {"name": name, "train_file": str(tmp_path / f"{name}.txt"), "validation_file": str(tmp_path / "c.txt"), **more}
        for name, more in {"a": {"weight": 3}, "b": {"weight": 1}}.items()
    ]
    values = {"model": str(model_folders["llama"]), "data": json.dumps({"sources": mix}), "block_size": 16}
    values |= {"max_train_samples": 13, "num_train_epochs": 2, "optim": "sgd", "learning_rate": 0.1}
    one, two = tmp_path / "one", tmp_path / "two"
    run("causal-lm", **values, per_device_train_batch_size=8, use_cpu=True, output_dir=str(one))
    words = [word for name, value in values.items() for word in (f"--{name}", str(value))]
    in_two_processes(
        "run", "causal-lm", *words, "--per_device_train_batch_size", "4", "--use_cpu", f"--output_dir={two}"
    )
    assert distance(one, two) < 1e-4 * distance(one, model_folders["llama"])
    ours, theirs = (json.loads((folder / "eval_results.json").read_text()) for folder in (one, two))
    assert ours == pytest.approx(theirs, rel=1e-5) and "eval_b_loss" in ours
