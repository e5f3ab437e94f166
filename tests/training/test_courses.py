"""Engines: their steps are the Trainer's, and all that is around a step happens as with the Trainer."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from companion_recipe import ACCOMPANIED
from plain_engine import PLAIN, Loop, engine
from safetensors.torch import load_file
from transformers import TrainerCallback
from two_terms import TWO_TERMS

import lmtasks
from lmtasks import Engine, Extension, InputError, RunError, option
from lmtasks.errors import Interrupted, PluginError
from lmtasks.runs.result import Run
from lmtasks.testing import installed


@dataclass
class Place:
    """Where runs of the tests go, with what they are of."""

    root: Path
    models: dict[str, Path]
    text: Path

    def run(self, name: str, asked: str | Engine = "trainer", kind: str = "bert", **values: Any) -> Path:
        """The folder of a run with an engine, which is installed for it."""
        recipe = values.pop("recipe", "causal-lm" if kind in ("gpt2", "llama") else "masked-lm")
        usual = {"model": str(self.models[kind]), "train_file": str(self.text), "block_size": 16, "use_cpu": True}
        usual |= {"max_train_samples": 25, "max_eval_samples": 6, "logging_steps": 1, "learning_rate": 1e-3}
        usual |= {"max_steps": 6, "per_device_train_batch_size": 3, "bf16": False}
        recipes = [recipe] if not isinstance(recipe, str) else []
        extensions = values.pop("extensions", ())
        engines = [] if isinstance(asked, str) else [asked]
        brought = recipes or engines or extensions
        with installed(recipes, engines=engines, extensions=extensions) if brought else nullcontext():
            chosen = asked if isinstance(asked, str) else asked.name
            named = recipe if isinstance(recipe, str) else recipe.name
            lmtasks.run(named, output_dir=self.root / name, engine=chosen, **{**usual, **values})
        return self.root / name


@pytest.fixture
def place(tmp_path: Path, model_folders: dict[str, Path], text_file: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.chdir(tmp_path)
    return Place(Path(), model_folders, text_file)


def log(folder: Path) -> list[dict[str, Any]]:
    """The lines of a log, without what is about time."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if "second" not in name and "time" not in name} for line in lines
    ]


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in log(folder) if "loss" in line]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: Path, other: Path) -> bool:
    ours, theirs = weights(one), weights(other)
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def record(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "run.json").read_text()))


BOTH = (("plain", PLAIN), ("trainer", "trainer"))

WHOLE = {
    "max_steps": 12,
    "gradient_accumulation_steps": 2,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 3,
    "weight_decay": 0.1,
    "eval_strategy": "steps",
    "eval_steps": 5,
    "save_steps": 4,
}
"""Accumulation, an epoch with a short last batch, rates that rise and fall, decay, evaluations."""


# --- the same training ---


@pytest.mark.parametrize("kind", ["bert", "modernbert", "gpt2", "llama"])
def test_a_plain_loop_trains_as_the_trainer(kind: str, place: Place) -> None:
    """With dropout, too: both draw from torch's generator alike. What differs is the rounding of a sum of squares."""
    one, other = (place.run(name, asked, kind, **WHOLE) for name, asked in BOTH)
    ours, theirs = log(one), log(other)
    assert [(line["step"], line.keys()) for line in ours] == [(line["step"], line.keys()) for line in theirs]
    assert sum("loss" in line for line in ours) == 12
    assert sum("eval_loss" in line for line in ours) == 3
    for mine, their in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(their, rel=1e-6), mine
    final, wanted = (json.loads((folder / "all_results.json").read_text()) for folder in (one, other))
    assert final.keys() == wanted.keys()
    assert final["eval_loss"] == pytest.approx(wanted["eval_loss"], rel=1e-6)
    assert final["train_loss"] == pytest.approx(wanted["train_loss"], rel=1e-6)
    assert final["total_flos"] == wanted["total_flos"]


def test_each_term_of_a_loss_is_told(place: Place) -> None:
    one, other = (place.run(name, asked, recipe=TWO_TERMS, gradient_accumulation_steps=2) for name, asked in BOTH)
    for mine, their in zip(log(one), log(other), strict=True):
        assert mine.keys() == their.keys()
        assert mine == pytest.approx(their, rel=1e-5)
    assert {"hidden_loss", "size_loss"} <= log(one)[0].keys()


def test_what_stands_beside_a_model_is_trained_and_goes_on(place: Place) -> None:
    how = {"recipe": ACCOMPANIED, "save_steps": 3}
    for mine, theirs in zip(*(log(place.run(name, asked, **how)) for name, asked in BOTH), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5)
    place.run("halves", PLAIN, **how, max_steps=3, lr_scheduler_type="constant")
    constant = place.run("constant", PLAIN, **how, lr_scheduler_type="constant")
    halves = place.run("halves", PLAIN, **how, lr_scheduler_type="constant", resume_from_checkpoint=True)
    assert same(constant, halves)
    judges = (load_file(folder / "judge" / "model.safetensors") for folder in (constant, halves))
    one, other = judges
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_weights_elsewhere_are_written_before_anybody_looks(place: Place) -> None:
    """An engine with weights of its own evaluates, answers prompts, saves and ends with these; and not at each step."""
    written: list[int] = []

    class Away(Loop):
        def train(self) -> Any:
            self.real = self.model
            start = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
            self.stale = start
            return super().train()

        def step(self, step: int, *others: Any) -> None:
            if step:
                self.real.load_state_dict(self.own)
            self.done = step + 1
            kept = others[1].step

            def told(*figures: Any) -> bool:
                # What the model has until it is synced is of no use to anybody.
                self.own = {name: value.detach().clone() for name, value in self.real.state_dict().items()}
                self.real.load_state_dict(self.stale)
                return bool(kept(*figures))

            others[1].step = told
            try:
                super().step(step, *others)
            finally:
                others[1].step = kept

        def sync(self) -> None:
            written.append(self.done)
            self.real.load_state_dict(self.own)

    how = {"max_steps": 8, "eval_strategy": "steps", "eval_steps": 4, "save_steps": 6, "samples_every": 5}
    how |= {"max_train_samples": 24}
    away = place.run("away", engine(Away), **how)
    assert written == [4, 5, 6, 8]
    plain = place.run("plain", PLAIN, **how)
    assert same(away, plain)
    assert log(away) == log(plain)


def test_a_loss_is_read_only_when_something_is_told(place: Place) -> None:
    """A number that has to be fetched from a device is not asked for in each step."""
    read: list[int] = []

    class Number:
        def __init__(self, step: int, value: torch.Tensor) -> None:
            self.step, self.value = step, value

        def __float__(self) -> float:
            read.append(self.step)
            return float(self.value)

    class Lazy(Loop):
        def step(self, step: int, *others: Any) -> None:
            kept = others[1].step
            others[1].step = lambda loss, terms, norm: (
                kept(Number(step, loss), {}, Number(100 + step, norm)),
                moments.append(len(read)),
            )
            try:
                super().step(step, *others)
            finally:
                others[1].step = kept

    moments: list[int] = []
    folder = place.run("lazy", engine(Lazy), logging_steps=3)
    assert read == [0, 1, 2, 102, 3, 4, 5, 105]
    assert moments == [0, 0, 4, 4, 4, 8]
    assert log(folder) == log(place.run("plain", PLAIN, logging_steps=3))


def test_decay_spares_the_same_weights_as_the_trainers(place: Place) -> None:
    spared: list[frozenset[str]] = []

    def look(training: Any, options: Any) -> Any:
        spared.append(training.undecayed)
        return Loop(training).train()

    place.run("here", Engine(name="looking", summary="Looks.", train=look), kind="modernbert", max_steps=1)
    names = dict(lmtasks.load_run(place.root / "here").model.named_parameters())
    assert spared[0] == {name for name in names if "norm" in name or name.endswith("bias")}
    assert 0 < len(spared[0]) < len(names)


@pytest.mark.parametrize("how", ["workers", "one after the other", "by length", "drop last", "epochs"])
def test_examples_come_as_to_the_trainer_however_they_are_loaded(how: str, place: Place) -> None:
    values = {
        "workers": {"dataloader_num_workers": 1},
        "one after the other": {"train_sampling_strategy": "sequential"},
        "by length": {"train_sampling_strategy": "group_by_length", "line_by_line": True},
        "drop last": {"dataloader_drop_last": True, "gradient_accumulation_steps": 3},
        "epochs": {"max_steps": -1, "num_train_epochs": 1.5, "data_seed": 3},
    }[how]
    one, other = (place.run(name, asked, **values) for name, asked in BOTH)
    assert losses(one) == pytest.approx(losses(other), rel=1e-6)
    assert log(one)[-1]["step"] == log(other)[-1]["step"]


def test_prepared_examples_come_in_their_own_order_and_go_on_in_it(place: Place) -> None:
    there = str(place.root / "there")
    model = str(place.models["bert"])
    lmtasks.prepare("masked-lm", there, train_file=str(place.text), model=model, block_size=16)
    how = {"prepared": there, "train_file": None, "max_train_samples": None, "lr_scheduler_type": "constant"}
    one, other = (place.run(name, asked, **how, max_steps=8) for name, asked in (("a", PLAIN), ("b", "trainer")))
    assert losses(one) == pytest.approx(losses(other), rel=1e-6)
    place.run("halves", PLAIN, **how, max_steps=3, save_steps=3)
    assert same(one, place.run("halves", PLAIN, **how, max_steps=8, save_steps=3, resume_from_checkpoint=True))


def test_a_recipe_changes_the_model_before_each_step(place: Place) -> None:
    from dataclasses import replace

    from lmtasks.builtin.masked_lm import MASKED_LM

    seen: list[int] = []
    counting = replace(MASKED_LM, name="counting-lm", before_step=lambda model, options, steps: seen.append(steps))
    place.run("here", PLAIN, recipe=counting, save_steps=3)
    assert seen == [0, 1, 2, 3, 4, 5]
    seen.clear()
    place.run("here", PLAIN, recipe=counting, save_steps=3, max_steps=8, resume_from_checkpoint=True)
    assert seen == [6, 7]


# --- around a step ---


class Events(TrainerCallback):
    """Notes each event with where training stands."""

    UNTOLD = ("on_init_end", "on_substep_end", "on_pre_optimizer_step", "on_optimizer_step", "on_push_begin")

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []


def _noting(name: str) -> Callable[..., None]:
    def note(self: Events, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.seen.append((name, state.global_step, round(state.epoch or 0, 6)))

    return note


for _name in dir(TrainerCallback):
    if _name.startswith("on_") and _name not in Events.UNTOLD:
        setattr(Events, _name, _noting(_name))


@pytest.mark.parametrize(
    "how",
    [
        {"eval_strategy": "steps", "eval_steps": 4, "save_steps": 5, "logging_steps": 2},
        {"eval_strategy": "epoch", "save_strategy": "epoch", "logging_strategy": "epoch", "max_steps": 11},
        {"eval_strategy": "steps", "eval_steps": 3, "save_strategy": "best", "metric_for_best_model": "loss"},
        {
            "eval_strategy": "steps",
            "eval_steps": 0.3,
            "eval_delay": 4,
            "logging_first_step": True,
            "eval_on_start": True,
        },
        {"save_strategy": "no", "max_steps": -1, "num_train_epochs": 2, "gradient_accumulation_steps": 4},
    ],
)
def test_callbacks_hear_what_the_trainers_hear(how: dict[str, Any], place: Place) -> None:
    heard = []
    for name, asked in BOTH:
        events = Events()
        place.run(name, asked, callbacks=[events], **how)
        heard.append(events.seen)
    assert heard[0] == heard[1]
    assert {"on_train_begin", "on_epoch_begin", "on_step_begin", "on_step_end", "on_log", "on_train_end"} <= {
        name for name, *_ in heard[0]
    }


@pytest.mark.parametrize("save_total_limit", [1, 2])
def test_the_best_model_is_kept_as_by_the_trainer(save_total_limit: int, place: Place) -> None:
    how = {"eval_strategy": "steps", "eval_steps": 2, "save_steps": 2, "load_best_model_at_end": True}
    how |= {"learning_rate": 0.1, "lr_scheduler_type": "constant", "save_total_limit": save_total_limit}
    one, other = (place.run(name, asked, **how) for name, asked in BOTH)
    states = [json.loads((folder / "trainer_state.json").read_text()) for folder in (one, other)]
    step = states[0]["best_global_step"]
    assert step == states[1]["best_global_step"] < 6
    kept = [sorted(path.name for path in (folder / "checkpoints").iterdir()) for folder in (one, other)]
    assert kept[0] == kept[1]
    best = load_file(one / "checkpoints" / f"checkpoint-{step}" / "model.safetensors")
    assert all(torch.equal(value, best[name]) for name, value in weights(one).items())


def test_training_ends_early_at_the_same_step(place: Place) -> None:
    how = {"eval_strategy": "steps", "eval_steps": 1, "early_stopping_patience": 2, "learning_rate": 0.3}
    how |= {"lr_scheduler_type": "constant", "max_steps": 12, "save_steps": 1}
    one, other = (place.run(name, asked, **how) for name, asked in BOTH)
    assert record(one)["stopped_early"] == record(other)["stopped_early"] == 3


def test_an_extension_may_end_training(place: Place) -> None:
    class Ends(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_training_stop = state.global_step >= 4

    ends = Extension(name="ends", summary="Ends at four.", callbacks=lambda recipe, options: [Ends()])
    assert record(place.run("here", PLAIN, extensions=[ends]))["stopped_early"] == 4


# --- going on ---


@pytest.mark.parametrize("done", [4, 9])
def test_a_run_goes_on_bit_for_bit(done: int, place: Place) -> None:
    """From within an epoch, and from the end of one, with dropout."""
    how = {"gradient_accumulation_steps": 1, "lr_scheduler_type": "constant", "save_steps": done, "weight_decay": 0.1}
    whole = place.run("whole", PLAIN, **how, max_steps=12)
    place.run("halves", PLAIN, **how, max_steps=done)
    manifest = json.loads((place.root / "halves" / "checkpoints" / f"checkpoint-{done}" / "manifest.json").read_text())
    assert manifest["engine"] == "plain"
    assert {"optimizer.pt", "trainer_state.json", "rng_state.pth", "model.safetensors"} <= manifest["files"].keys()
    halves = place.run("halves", PLAIN, **how, max_steps=12, resume_from_checkpoint=True)
    assert same(whole, halves)
    assert log(halves)[:-1] == log(whole)[:-1]
    assert log(halves)[-1]["train_loss"] == log(whole)[-1]["train_loss"]


def test_a_finished_run_that_lost_a_file_is_saved_again_without_a_step(place: Place) -> None:
    how = {"save_steps": 3, "resume_from_checkpoint": "auto"}
    folder = place.run("here", PLAIN, **how)
    before, model = (folder / "model.safetensors").read_bytes(), folder / "model.safetensors"
    model.unlink()
    steps: list[int] = []

    class Counting(Loop):
        def step(self, step: int, *others: Any) -> None:
            steps.append(step)
            super().step(step, *others)

    place.run("here", engine(Counting), **how)
    assert steps == []
    assert model.read_bytes() == before


class Kills(Loop):
    """One to which a signal comes in its third step."""

    def step(self, step: int, *others: Any) -> None:
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        super().step(step, *others)


def test_a_signal_saves_a_checkpoint_from_which_the_run_goes_on(place: Place) -> None:
    whole, before = place.run("whole", PLAIN), signal.getsignal(signal.SIGTERM)
    with pytest.raises(Interrupted, match="stopped by SIGTERM after step 3, with a checkpoint") as stop:
        place.run("killed", engine(Kills))
    assert stop.value.exit_code == 143
    assert signal.getsignal(signal.SIGTERM) is before
    assert same(whole, place.run("killed", PLAIN, resume_from_checkpoint=True))


def test_an_engine_that_cannot_go_on_makes_no_checkpoint(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    modest = engine(name="modest", resumes=False, arguments=())
    folder = place.run("here", modest, save_total_limit=None)
    told = capsys.readouterr().err
    assert "no checkpoints: the engine modest cannot go on from one" in told
    assert "the engine modest clips no gradients" in told
    assert "engine     modest" in told
    assert not (folder / "checkpoints").exists() or not list((folder / "checkpoints").iterdir())
    assert record(folder)["training"]["save_strategy"] == "no"
    assert record(folder)["training"]["max_grad_norm"] == 0
    with pytest.raises(InputError, match="--resume_from_checkpoint: the engine modest cannot go on from a checkpoint"):
        place.run("here", modest, resume_from_checkpoint=True, max_steps=9)
    with pytest.raises(Interrupted, match="stopped by SIGTERM, before the first checkpoint"):
        place.run("killed", engine(Kills, name="modest", resumes=False))
    again = place.run("killed", engine(name="modest", resumes=False), resume_from_checkpoint="auto")
    assert record(again)["status"] == "done"


def test_another_engine_does_not_go_on_with_a_run(place: Place) -> None:
    place.run("here", PLAIN, save_steps=3, max_steps=3)
    with pytest.raises(InputError, match="holds a finished run with other options: --engine plain there"):
        place.run("here", max_steps=6, resume_from_checkpoint=True)
    place.run("there", save_steps=3, max_steps=3)
    with pytest.raises(InputError, match="--engine not given there"):
        place.run("there", PLAIN, max_steps=6, resume_from_checkpoint=True)
    assert record(place.root / "there")["engine"] == "trainer"
    assert "engine" not in record(place.root / "there")["settings"], "runs of before engines go on"


# --- what goes wrong ---


def failing(error: Exception | type[BaseException]) -> Engine:
    class Fails(Loop):
        def step(self, step: int, *others: Any) -> None:
            if step == 2:
                raise error
            super().step(step, *others)

    return engine(Fails)


def test_failures_are_told_as_those_of_the_engine(place: Place) -> None:
    with pytest.raises(PluginError, match=r"engine 'plain' of .* failed in its train: ZeroDivisionError: by nothing"):
        place.run("fault", failing(ZeroDivisionError("by nothing")))
    with pytest.raises(RunError, match="out of memory"):
        place.run("memory", failing(MemoryError()))
    with pytest.raises(PluginError, match="engine 'plain' gives a NoneType, not what its course gave"):
        place.run("nothing", Engine(name="plain", summary="Nothing.", train=lambda training, options: None))


def test_a_loss_that_is_no_number_ends_the_run(place: Place) -> None:
    class Diverges(Loop):
        def shares(self, *arguments: Any) -> Any:
            return {name: share * math.nan for name, share in super().shares(*arguments).items()}

    with pytest.raises(RunError, match="training diverged: loss is nan at step 1"):
        place.run("here", engine(Diverges))


def test_an_engine_that_stops_too_soon_or_too_late_is_told(place: Place) -> None:
    class Short(Loop):
        def batches(self) -> Iterator[Any]:
            for number, batch in enumerate(super().batches()):
                if number == 4:
                    return
                yield batch

    class Long(Loop):
        def batches(self) -> Iterator[Any]:
            batches = list(super().batches())
            yield from (*batches, batches[0])

    with pytest.raises(RunError, match="training ended after 4 of 6 steps"):
        place.run("short", engine(Short))
    with pytest.raises(PluginError, match="a step after the last one: training ends where `step` says so"):
        place.run("long", engine(Long))


def test_what_an_engine_cannot_train_is_refused_before_anything_is_written(place: Place) -> None:
    seen: list[Any] = []

    def check(training: Any, options: Any) -> None:
        seen.append((training.steps, training.checkpoint, [batch.epoch for batch in training.global_batches()]))
        raise InputError("no such model here", "another one")

    with pytest.raises(InputError, match="no such model here"):
        place.run("here", engine(check=check))
    assert seen == [(6, None, [0] * 6)]
    assert not (place.root / "here").exists()


def test_a_check_leaves_no_trace(place: Place) -> None:
    def check(training: Any, options: Any) -> None:
        torch.rand(3)
        assert len(list(training.global_batches())) == training.steps
        assert training.rate(0) == 1e-3

    assert same(place.run("checked", engine(check=check)), place.run("plain", PLAIN))


def test_a_schedule_that_goes_by_figures_needs_the_trainer(place: Place) -> None:
    how = {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps", "eval_steps": 2}
    with pytest.raises(InputError, match="reduce_lr_on_plateau goes by evaluations, and the engine plain by steps"):
        place.run("here", PLAIN, **how)
    assert not (place.root / "here").exists()
    with pytest.raises(InputError, match="reduce_lr_on_plateau goes by figures of the evaluation, and so needs the"):
        place.run("here", engine(arguments=None), **how)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"label_smoothing_factor": 0.1}, "--label_smoothing_factor: the engine plain knows nothing of it"),
        ({"optim": "adafactor"}, "--optim: the engine plain knows nothing of it"),
        ({"bf16": True}, "--bf16: the engine plain knows nothing of it"),
        ({"torch_compile": True, "fp16": True}, "--torch_compile: the engine plain knows nothing of it"),
    ],
)
def test_an_argument_that_the_engine_does_not_know_is_refused(values: dict[str, Any], told: str, place: Place) -> None:
    with pytest.raises(InputError, match=told) as refusal:
        place.run("here", PLAIN, **values)
    assert "or --engine trainer does" in refusal.value.hint
    assert not (place.root / "here").exists()


def test_what_is_switched_off_needs_nobody_who_knows_it(place: Place) -> None:
    off = {"bf16": False, "torch_compile": False, "fp16": "false", "save_strategy": "no", "max_grad_norm": 0}
    place.run("here", engine(resumes=False, arguments=()), **off, max_steps=1)


@pytest.mark.parametrize("name", ["save_steps", "save_total_limit", "load_best_model_at_end"])
def test_what_is_about_checkpoints_needs_an_engine_that_makes_some(name: str, place: Place) -> None:
    with pytest.raises(InputError, match=f"--{name}: the engine plain makes no checkpoints"):
        place.run("here", engine(resumes=False), **{name: 1, "eval_strategy": "steps", "eval_steps": 1})


def test_an_engine_of_one_process_is_not_started_in_two(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="the engine plain trains in one process, and here are 2"):
        place.run("here", PLAIN)


# --- what is told ---


@dataclass(frozen=True, kw_only=True)
class Options:
    """Those of an engine."""

    device: str = option("near", help="where it computes", aliases=["plain_device"])
    large: bool = option(False, help="whether much is done")


OPTED = engine(options=Options)


def test_options_have_the_engines_name_and_whole_aliases(place: Place) -> None:
    seen: list[Any] = []

    def train(training: Any, options: Any) -> Any:
        seen.append(options)
        return Loop(training).train()

    opted = Engine(name="plain", summary="One with options.", train=train, options=Options)
    folder = place.run("a", opted, max_steps=1, plain_device="far")
    place.run("b", opted, max_steps=1, **{"plain.large": True})
    place.run("c", opted, max_steps=1)
    assert seen == [Options(device="far"), Options(large=True), Options()]
    kept = record(folder)
    assert (kept["engine"], kept["settings"]["engine"], kept["engine_options"]) == (
        "plain",
        "plain",
        {"plain.device": "far"},
    )
    assert "engine_options" not in record(place.root / "c")
    with pytest.raises(InputError, match=r"--plain\.device far there"):
        place.run("a", opted, max_steps=2, resume_from_checkpoint="auto")
    told = r"--plain\.device means nothing without --engine plain"
    with installed(engines=[opted]), pytest.raises(InputError, match=told):
        lmtasks.run("masked-lm", output_dir=place.root / "d", plain_device="far")


def test_card_and_report_name_the_engine(place: Place) -> None:
    folder = place.run("here", OPTED, max_steps=2, plain_device="far")
    card, page = ((folder / name).read_text() for name in ("README.md", "report.html"))
    assert "| Data and model | `engine` | plain |" in card
    assert "| Engine | `plain.device` | far |" in card
    assert "data and model: engine" in page
    assert "engine: plain.device" in page
    other = place.run("there", max_steps=2)
    assert "`engine`" not in (other / "README.md").read_text()


def test_a_name_or_an_alias_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="engine 'My Loop' must be lower case"):
        engine(name="My Loop")
    with pytest.raises(ValueError, match="engine 'other': the alias 'plain_device' must begin with 'other_'"):
        engine(name="other", options=Options)
    with pytest.raises(ValueError, match="must look like 'module:function'"):
        Engine(name="plain", summary="One.", train="nowhere")


def test_a_run_says_in_python_what_it_was_trained_by(place: Place) -> None:
    with installed(engines=[PLAIN]):
        plan = lmtasks.run(
            "masked-lm", model=str(place.models["bert"]), train_file=str(place.text), engine="plain", dry_run=True,
            block_size=16, output_dir=place.root / "here",
        )  # fmt: skip
    assert not isinstance(plan, Run)
    assert plan.engine == "plain"
    assert "  engine     plain" in repr(plan)
