"""Runs that go on: from what was left by kills, signals and damage, longer than before, or not at all."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from test_runner import contents, log_of, scratch, tuned, untimed, weights

from lmtasks.errors import InputError, Interrupted, RunError
from lmtasks.runs.plan import Plan
from lmtasks.runs.result import Run

SAVED: dict[str, Any] = {"max_steps": 6, "save_steps": 2, "lr_scheduler_type": "constant"}


@pytest.fixture(autouse=True)
def in_folder(tmp_path: Path, text_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(text_file, tmp_path / "text.txt")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def gpt2(model_folders: dict[str, Path]) -> Path:
    return model_folders["gpt2"]


def unfinish(folder: str = "out") -> None:
    """As if the run had been killed after its last checkpoint."""
    record = contents(f"{folder}/run.json")
    Path(folder, "run.json").write_text(json.dumps({**record, "status": "running"}))
    for name in ("model.safetensors", "all_results.json"):
        Path(folder, name).unlink()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def steps(folder: str = "out") -> list[int]:
    """The steps of which there are checkpoints."""
    names = (path.name for path in Path(folder, "checkpoints").iterdir())
    return sorted(int(name.removeprefix("checkpoint-")) for name in names)


# --- auto ---


def test_the_same_command_ends_a_run_whatever_is_there(gpt2: Path, lmtasks: Any) -> None:
    words = ["run", "causal-lm", "--model", gpt2, "--train_file", "text.txt", "--block_size", 16, "--max_steps", 4]
    words += ["--save_steps", 2, "--resume_from_checkpoint", "auto"]
    assert lmtasks(*words, "--output_dir", "whole").code == 0
    before = Path("whole/model.safetensors").read_bytes()
    # No checkpoint yet: as if it had been killed right after it began.
    Path("begun").mkdir()
    record = contents("whole/run.json")
    Path("begun/run.json").write_text(json.dumps({**record, "status": "running", "files": [], "sha256": {}}))
    Path("begun/log.jsonl").write_text('{"step": 1, "lo')
    # A disk that failed: neither UTF-8, nor JSON, nor what a line of the log is.
    Path("torn").mkdir()
    shutil.copy("begun/run.json", "torn")
    Path("torn/log.jsonl").write_bytes(b'\xff\x00{\n[1]\n{"loss": 1}\n')
    # Nothing but the trace of a process that was killed before it wrote a word.
    Path("bare").mkdir()
    Path("bare/.lock").write_text("1")
    for folder in ("begun", "torn", "bare", "whole"):
        outcome = lmtasks(*words, "--output_dir", folder)
        assert outcome.code == 0, outcome.err
        assert Path(folder, "model.safetensors").read_bytes() == before
        assert untimed(f"{folder}/all_results.json") == untimed("whole/all_results.json")
        assert [line["step"] for line in log_of(folder)][-1] == 4
    assert outcome.err == "the run in 'whole' is finished\n"
    assert "perplexity" in outcome.out


def test_a_finished_run_is_told_as_it_was_and_not_touched(gpt2: Path) -> None:
    first = tuned("causal-lm", gpt2, "out")
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")}
    again = tuned("causal-lm", gpt2, "out", resume_from_checkpoint="auto")
    assert again.metrics == first.metrics
    assert (again.plan, again.perplexity_name, again.example) == (None, first.perplexity_name, first.example)
    greedy = {"max_new_tokens": 3, "do_sample": False}
    assert again.predict("the", **greedy) == first.predict("the", **greedy)
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("*")} == before


def test_without_a_folder_the_run_goes_on_where_it_began() -> None:
    how: dict[str, Any] = {"max_steps": 2, "save_steps": 1}
    first, other = scratch("causal-lm", None, **how), scratch("causal-lm", None, seed=1, **how)
    assert [str(run.output_dir) for run in (first, other)] == ["runs/causal-lm", "runs/causal-lm-2"]
    unfinish("runs/causal-lm-2")
    again = scratch("causal-lm", None, seed=1, resume_from_checkpoint="auto", **how)
    assert str(again.output_dir) == "runs/causal-lm-2"
    assert any("goes on after step 2 of 2" in note for note in again.plan.notes)
    assert str(scratch("causal-lm", None, resume_from_checkpoint="auto", **how).output_dir) == "runs/causal-lm"
    assert not Path("runs/causal-lm-3").exists()


# --- damage ---


def test_a_damaged_checkpoint_is_passed_over_and_named(gpt2: Path) -> None:
    tuned("causal-lm", gpt2, "whole", **SAVED)
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"):
        shutil.rmtree("out", ignore_errors=True)
        shutil.copytree("whole", "out")
        unfinish()
        Path("out/checkpoints/checkpoint-6", name).unlink()
        flip(Path("out/checkpoints/checkpoint-4", name))
        run = tuned("causal-lm", gpt2, "out", **SAVED, resume_from_checkpoint=True)
        assert run.plan is not None
        assert run.plan.notes[-3:-1] == (
            f"passed over checkpoint-6: {name} is missing",
            f"passed over checkpoint-4: {name} is not as it was written",
        )
        assert run.plan.notes[-1] == "goes on after step 2 of 6, from checkpoint-2"
        assert Path("out/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
        assert untimed("out/all_results.json") == untimed("whole/all_results.json")
        assert steps() == [2, 4, 6]


class Planted:
    """Code that a pickle would run."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("executed",)


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_planted_pickle_is_not_run_even_where_the_manifest_vouches_for_it(name: str, gpt2: Path) -> None:
    from lmtasks.artifacts.checkpoints import finish, read_manifest

    tuned("causal-lm", gpt2, "out", **SAVED)
    unfinish()
    last = Path("out/checkpoints/checkpoint-6")
    torch.save(Planted(), last / name)
    Path("out/checkpoints/checkpoint-6/training_args.bin").write_bytes(pickle.dumps(Planted()))
    facts = read_manifest(last)
    assert facts is not None
    finish(last, {key: value for key, value in facts.items() if key != "files"})
    with pytest.raises(RunError, match="holds something else than data, which was not run"):
        tuned("causal-lm", gpt2, "out", **SAVED, resume_from_checkpoint=True)
    assert not Path("executed").exists()


@pytest.mark.parametrize("command", ["predict", "evaluate", "push"])
def test_a_finished_model_that_was_damaged_is_not_used(command: str, gpt2: Path, lmtasks: Any) -> None:
    tuned("causal-lm", gpt2, "out")
    more = {"predict": ["the", "--max_new_tokens", "3"], "evaluate": [], "push": ["me/it"]}[command]
    flip(Path("out/model.safetensors"))
    os.environ.setdefault("HF_TOKEN", "hf_" + "x" * 34)
    outcome = lmtasks(command, "out", *more)
    assert outcome.code == 2
    assert "error: 'out/model.safetensors' is not as the run left it\n" in outcome.err
    tuned("causal-lm", gpt2, "out", resume_from_checkpoint="auto")
    if command != "push":
        assert lmtasks(command, "out", *more).code == 0


# --- retention ---


def test_only_so_many_checkpoints_are_kept_and_folders_of_the_user_stay(gpt2: Path) -> None:
    Path("out/checkpoints/checkpoint-best").mkdir(parents=True)
    shutil.rmtree("out")
    how = {"max_steps": 8, "save_steps": 1, "save_total_limit": 2}
    tuned("causal-lm", gpt2, "out", **how)
    assert steps() == [7, 8]


def test_a_run_that_was_killed_before_it_let_old_checkpoints_go_does_so_when_it_goes_on(gpt2: Path) -> None:
    """Also where only the final save was left to do, and no other checkpoint comes."""
    how = {"max_steps": 3, "save_steps": 1}
    tuned("causal-lm", gpt2, "out", **how)
    unfinish()
    tuned("causal-lm", gpt2, "out", **how, save_total_limit=1, resume_from_checkpoint="auto")
    assert steps() == [3]


def test_the_best_checkpoint_is_kept_beside_the_newest(gpt2: Path) -> None:
    how = {"max_steps": 5, "save_steps": 1, "eval_strategy": "steps", "eval_steps": 1, "learning_rate": 1.0}
    best = {"save_total_limit": 1, "load_best_model_at_end": True, "lr_scheduler_type": "constant"}
    tuned("causal-lm", gpt2, "out", **how, **best)
    best_step = min((line for line in log_of("out") if "eval_loss" in line), key=lambda line: line["eval_loss"])["step"]
    assert best_step < 5, "a wild learning rate makes it worse"
    assert steps() == [best_step, 5]


# --- weights only ---


def test_a_checkpoint_of_weights_only_is_not_resumed(gpt2: Path) -> None:
    how = {**SAVED, "save_only_model": True}
    tuned("causal-lm", gpt2, "out", **how)
    unfinish()
    with pytest.raises(InputError, match=r"checkpoint-6: it has the weights only \(--save_only_model\)"):
        tuned("causal-lm", gpt2, "out", **how, resume_from_checkpoint=True)


# --- signals ---

SIGNALLED = """
import os, signal, sys
import lmtasks
from lmtasks.errors import Interrupted
from lmtasks.training.trainer import RecipeTrainer
{arranged}
try:
    lmtasks.run("causal-lm", model={model!r}, train_file="text.txt", output_dir="out", block_size=16, **{how})
except Interrupted as stop:
    print(stop.message)
    sys.exit(stop.exit_code)
"""
"""A run that gets a signal at a certain place, as if from outside."""

AT = {
    "step": """
stepped = RecipeTrainer.training_step
def training_step(self, *given, **named):
    if self.state.global_step == 2:
        os.kill(os.getpid(), signal.SIGTERM)
    return stepped(self, *given, **named)
RecipeTrainer.training_step = training_step
""",
    "evaluation": """
evaluated = RecipeTrainer.evaluate
def evaluate(self, *given, **named):
    if self.state.global_step == 3:
        os.kill(os.getpid(), signal.SIGTERM)
    return evaluated(self, *given, **named)
RecipeTrainer.evaluate = evaluate
""",
    "checkpoint": """
saved = RecipeTrainer.save_model
def save_model(self, *given, **named):
    if self.state.global_step == 3:
        os.kill(os.getpid(), signal.SIGTERM)
    return saved(self, *given, **named)
RecipeTrainer.save_model = save_model
""",
    "preparation": """
import lmtasks.runs.prepare as prepare
prepare.load = lambda *given, **named: os.kill(os.getpid(), signal.SIGTERM)
""",
    "final save": """
import lmtasks.runs.verify as verifying
verifying.verify = lambda *given, **named: os.kill(os.getpid(), signal.SIGTERM)
""",
}


def signalled(at: str, model: Path, **how: Any) -> subprocess.CompletedProcess[str]:
    script = SIGNALLED.format(arranged=AT[at], model=str(model), how=how)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)


ORDINARY: dict[str, Any] = {"max_steps": 6, "save_steps": 3, "learning_rate": 5e-3, "per_device_train_batch_size": 8}
EVALUATING = {"eval_strategy": "steps", "eval_steps": 3}


@pytest.mark.parametrize(
    ("at", "how", "told", "left"),
    [
        ("step", {}, " after step 3, with a checkpoint", [3]),
        ("step", {"save_strategy": "no"}, " after step 3, with a checkpoint", [3]),
        ("step", {"save_only_model": True}, " after step 3, with a checkpoint", [3]),
        (
            "step",
            {**EVALUATING, "save_strategy": "best", "metric_for_best_model": "loss"},
            " after step 3, with a checkpoint",
            [3],
        ),
        (
            "step",
            {**EVALUATING, "save_steps": 1, "eval_steps": 1, "save_total_limit": 1, "load_best_model_at_end": True},
            " after step 3, with a checkpoint",
            None,
        ),
        ("evaluation", {**EVALUATING, "save_strategy": "no"}, " after step 3, with a checkpoint", [3]),
        ("checkpoint", {}, " after step 3, with a checkpoint", [3]),
        ("preparation", {}, ", before anything was written", None),
        ("final save", {}, "; all is safe up to step 6", [3, 6]),
    ],
)
def test_a_signal_leaves_what_it_says_and_the_run_goes_on_as_if_nothing_had_happened(
    at: str, how: dict[str, Any], told: str, left: list[int] | None, gpt2: Path
) -> None:
    how = {**ORDINARY, **how}
    done = signalled(at, gpt2, **how)
    assert done.returncode == 143, done.stderr
    assert done.stdout == f"stopped by SIGTERM{told}\n"
    if at == "preparation":
        assert not Path("out").exists()
    else:
        assert contents("out/run.json")["status"] == "running"
        assert left is None or steps() == left
        assert {path.name for path in Path("out").iterdir() if path.name.startswith(".")} == set()
    tuned("causal-lm", gpt2, "out", **how, resume_from_checkpoint="auto")
    tuned("causal-lm", gpt2, "whole", **how)
    assert Path("out/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
    assert untimed("out/all_results.json") == untimed("whole/all_results.json")


# --- longer ---


def test_a_finished_run_is_made_longer(gpt2: Path) -> None:
    """At a constant rate it is then what it would have been had it been as long from the start."""
    tuned("causal-lm", gpt2, "out", **SAVED)
    plan = tuned("causal-lm", gpt2, "out", **{**SAVED, "max_steps": 10}, resume_from_checkpoint=True, dry_run=True)
    assert isinstance(plan, Plan)
    assert plan.notes[-2:] == (
        "goes on after step 6 of 10, from checkpoint-6",
        "the learning rate is that of a constant schedule of 10 steps: 0.005 in its next step",
    )
    longer = tuned("causal-lm", gpt2, "out", **{**SAVED, "max_steps": 10}, resume_from_checkpoint=True)
    whole = tuned("causal-lm", gpt2, "whole", **{**SAVED, "max_steps": 10})
    assert longer.metrics["eval_loss"] == whole.metrics["eval_loss"]
    assert all(torch.equal(tensor, weights("whole")[name]) for name, tensor in weights("out").items())
    assert longer.metrics["train_loss"] == whole.metrics["train_loss"]
    with pytest.raises(InputError, match="has 10 steps, and the run is to have 8"):
        tuned("causal-lm", gpt2, "out", **{**SAVED, "max_steps": 8}, resume_from_checkpoint=True)
    with pytest.raises(InputError, match=r"finished run with other options: --learning_rate 0\.005 there"):
        tuned("causal-lm", gpt2, "out", **{**SAVED, "max_steps": 12, "learning_rate": 1}, resume_from_checkpoint="auto")


def test_the_rates_of_a_longer_run_are_those_of_its_own_schedule(gpt2: Path) -> None:
    """Half of a linear schedule of 4 steps ends at 0; of one of 8, there is half of the rate left."""
    how = {"save_steps": 4, "lr_scheduler_type": "linear", "learning_rate": 0.008, "logging_steps": 1}
    tuned("causal-lm", gpt2, "out", max_steps=4, **how)
    assert [line["learning_rate"] for line in log_of("out") if "learning_rate" in line] == pytest.approx(
        [0.008, 0.006, 0.004, 0.002]
    )
    run = tuned("causal-lm", gpt2, "out", max_steps=8, **how, resume_from_checkpoint=True)
    assert run.plan is not None
    assert "the learning rate is that of a linear schedule of 8 steps: 0.004 in its next step" in run.plan.notes
    rates = [line["learning_rate"] for line in log_of("out") if "learning_rate" in line]
    assert rates[4:] == pytest.approx([0.004, 0.003, 0.002, 0.001])


def test_a_longer_run_that_was_killed_goes_on_in_its_own_way(gpt2: Path) -> None:
    """The checkpoints of the shorter run after the branch are of another one."""
    tuned("causal-lm", gpt2, "out", **SAVED)
    longer = {**SAVED, "max_steps": 9, "resume_from_checkpoint": "out/checkpoints/checkpoint-4"}
    tuned("causal-lm", gpt2, "out", **longer)
    unfinish()
    shutil.rmtree("out/checkpoints/checkpoint-9")
    shutil.rmtree("out/checkpoints/checkpoint-8")
    record = contents("out/run.json")
    assert [entry["steps"] for entry in record["earlier"]] == [4]
    run = tuned("causal-lm", gpt2, "out", **{**longer, "resume_from_checkpoint": "auto"})
    assert run.plan is not None
    assert "goes on after step 6 of 9, from checkpoint-6" in run.plan.notes, "which was written once more"


# --- early stopping ---

PATIENT: dict[str, Any] = {
    "max_steps": 12, "eval_strategy": "steps", "eval_steps": 1, "save_steps": 1, "learning_rate": 1.0,
    "lr_scheduler_type": "constant", "early_stopping_patience": 2,
}  # fmt: skip


def losses(folder: str) -> list[float]:
    return [line["eval_loss"] for line in log_of(folder) if "eval_loss" in line]


def test_training_ends_when_the_model_gets_no_better(gpt2: Path) -> None:
    run = tuned("causal-lm", gpt2, "out", **PATIENT)
    seen = losses("out")
    last = contents("out/run.json")["stopped_early"]
    assert len(seen) == last < 12
    best = min(range(last), key=lambda step: seen[step])
    assert last == best + 1 + 2, "two evaluations after the best one"
    assert run.plan is not None
    assert run.plan.notes[-2:] == (
        "ends early when loss has not become better in 2 evaluations",
        "the last model is kept, not the best: --load_best_model_at_end true keeps that",
    )
    assert contents("out/run.json")["status"] == "done"
    assert isinstance(tuned("causal-lm", gpt2, "out", **PATIENT, resume_from_checkpoint="auto"), Run)


def test_an_early_end_comes_at_the_same_step_after_a_resumption(gpt2: Path) -> None:
    tuned("causal-lm", gpt2, "whole", **PATIENT)
    last = contents("whole/run.json")["stopped_early"]
    for step in (last - 1, last):
        shutil.rmtree("out", ignore_errors=True)
        shutil.copytree("whole", "out")
        unfinish()
        named = f"out/checkpoints/checkpoint-{step}"
        tuned("causal-lm", gpt2, "out", **PATIENT, resume_from_checkpoint=named)
        assert contents("out/run.json")["stopped_early"] == last
        assert Path("out/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()
        assert untimed("out/all_results.json") == untimed("whole/all_results.json")


def test_a_threshold_says_how_much_better_is_better(gpt2: Path) -> None:
    tuned("causal-lm", gpt2, "out", **{**PATIENT, "learning_rate": 1e-3, "early_stopping_threshold": 100.0})
    assert contents("out/run.json")["stopped_early"] == 3, "the first evaluation is the best so far, two are no better"


def test_patience_can_be_asked_for_later(gpt2: Path) -> None:
    """The checkpoint has no count yet."""
    how = {name: value for name, value in PATIENT.items() if name != "early_stopping_patience"}
    tuned("causal-lm", gpt2, "out", **{**how, "max_steps": 1})
    tuned("causal-lm", gpt2, "out", **PATIENT, resume_from_checkpoint=True)
    assert contents("out/run.json")["stopped_early"] < 12


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ({"early_stopping_patience": 2}, "--early_stopping_patience: nothing is evaluated during training"),
        ({"early_stopping_threshold": 0.1}, "--early_stopping_threshold means nothing alone"),
        ({"early_stopping_patience": 0}, "--early_stopping_patience cannot be 0"),
    ],
)
def test_stopping_early_needs_something_to_go_by(how: dict[str, Any], said: str, gpt2: Path) -> None:
    with pytest.raises(InputError, match=said):
        tuned("causal-lm", gpt2, "out", **how)
    assert not Path("out").exists()


def test_python_gets_the_same_word_on_a_signal(gpt2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import lmtasks.runs.prepare as preparation

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(preparation, "load", lambda *given, **named: signal.raise_signal(signal.SIGINT))
    with pytest.raises(Interrupted, match="stopped by SIGINT, before anything was written") as caught:
        tuned("causal-lm", gpt2, "out")
    assert caught.value.exit_code == 130
    assert signal.getsignal(signal.SIGINT) is before
