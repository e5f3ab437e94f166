"""Tiny runs to be disturbed: their settings, what an undisturbed one comes to, and what can be seen from outside."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reliability.processes import TICK, Running, start
from reliability.state import State, differences, state_of

OUT = "out"
"""The run's folder, within the working directory of its process: so all runs of a kind have the same request."""

GO_ON = ("--resume_from_checkpoint", "auto")
"""What makes a command right for a run that has not begun, is unfinished, or is finished."""

_BERT = "num_hidden_layers=2,hidden_size=32,num_attention_heads=2,intermediate_size=64"
_GPT2 = "n_layer=2,n_embd=32,n_head=2"
_LLAMA = f"{_BERT},num_key_value_heads=1"
_STEPS = ("--max_steps", "12", "--save_steps", "3", "--eval_strategy", "steps", "--eval_steps", "3")

KINDS: Mapping[str, tuple[str, ...]] = {
    "masked-lm, constant rate": (
        "masked-lm", "--model_type", "bert", "--config_overrides", _BERT, *_STEPS,
        "--lr_scheduler_type", "constant", "--learning_rate", "1e-2",
    ),
    "causal-lm, linear rate": (
        "causal-lm", "--model_type", "gpt2", "--config_overrides", _GPT2, *_STEPS,
        "--lr_scheduler_type", "linear", "--warmup_steps", "3", "--gradient_accumulation_steps", "2",
    ),
    "causal-lm, constant rate, epochs": (
        "causal-lm", "--model_type", "llama", "--config_overrides", _LLAMA, "--max_train_samples", "18",
        "--num_train_epochs", "3", "--save_strategy", "epoch", "--eval_strategy", "epoch",
        "--lr_scheduler_type", "constant", "--learning_rate", "1e-2",
    ),
    "masked-lm, best of two checkpoints": (
        "masked-lm", "--model_type", "roberta", "--config_overrides", f"{_BERT},max_position_embeddings=66", *_STEPS,
        "--load_best_model_at_end", "--metric_for_best_model", "perplexity", "--save_total_limit", "2",
    ),
}  # fmt: skip
"""Words of the command by name: both recipes, with dropout or without, by steps and by epochs."""

PUSHED = "someone/tiny"

_COMMON = ("--block_size", "32", "--per_device_train_batch_size", "4", "--logging_steps", "1")
_ALWAYS = (*_COMMON, "--max_eval_samples", "48", "--use_cpu", "--output_dir", OUT)


@dataclass(frozen=True)
class Place:
    """A folder with a text, tokenizers and caches, in which runs are made."""

    folder: Path

    def words(self, kind: str, *more: str) -> list[str]:
        """The words of the command that trains."""
        recipe, *rest = KINDS[kind]
        tokenizer = ("--tokenizer_name", str(self.folder / f"{recipe}-tokenizer"))
        return ["run", recipe, *rest, *_ALWAYS, "--train_file", str(self.folder / "text.txt"), *tokenizer, *more]

    def environment(self, cache: Path | None = None) -> dict[str, str]:
        """Variables of a process: offline, one thread, and with a cache of its own if one is given."""
        from lmtasks import __file__ as package

        return {
            "XDG_CACHE_HOME": str(cache or self.folder / "cache"),
            "HF_HOME": str(self.folder / "hf_home"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": os.pathsep.join([str(Path(package).parents[1]), os.environ.get("PYTHONPATH", "")]),
        }

    def start(
        self,
        words: Sequence[str] | Callable[[], int],
        where: Path,
        *,
        cold: bool = False,
        more: Mapping[str, str] | None = None,
        **how: Any,
    ) -> Running:
        """Start a command in a working directory.

        Args:
            cold: with caches of its own, which begin empty.
            more: variables.
            how: see :func:`reliability.processes.start`.
        """
        where.mkdir(parents=True, exist_ok=True)
        return start(words, where, {**self.environment(where / "cache" if cold else None), **(more or {})}, **how)


def furnished(folder: Path) -> Place:
    """A place that has what runs need. Made in a process of its own, since this one must not compute."""
    place = Place(folder)
    if place.start(lambda: _furnish(place), folder / "furnishing").wait() != 0:
        raise RuntimeError((folder / "furnishing.err").read_text(encoding="utf-8"))
    return place


def _furnish(place: Place) -> int:
    from lmtasks.builtin.causal_lm import CAUSAL_LM
    from lmtasks.builtin.masked_lm import MASKED_LM
    from lmtasks.data.sample import sample_documents
    from lmtasks.models.tokenizer import train_tokenizer

    documents = [document[:1500] for document in sample_documents("python")[:60]]
    (place.folder / "text.txt").write_text("\n".join(documents), encoding="utf-8")
    for recipe in (MASKED_LM, CAUSAL_LM):
        train_tokenizer([documents], 400, recipe.tokenizer).save_pretrained(place.folder / f"{recipe.name}-tokenizer")
    return 0


class Watch:
    """What a run comes to, from what it leaves in its folder: ``events()`` gives what is new.

    ``begun``: run.json is there; ``step``: another loss in the log; ``evaluation``: a loss after which evaluation
    comes; ``checkpoint``: one is being written, or removed; ``saving``: the final model is being written;
    ``results``: they are there; ``done``: run.json says so.
    """

    def __init__(self, folder: Path, evaluated: frozenset[int] = frozenset()) -> None:
        self.folder, self.evaluated = folder, evaluated
        self._stamps = self._now()
        self._log = self._logged()

    def _now(self) -> dict[str, int]:
        """Times of change of what there is; ``.begun`` is there while a checkpoint is written or removed."""
        paths = {name: self.folder / name for name in ("run.json", ".saving", "all_results.json", "log.jsonl")}
        with contextlib.suppress(FileNotFoundError):
            folders = list(os.scandir(self.folder / "checkpoints"))
            paths |= {
                entry.name: Path(entry.path, ".begun") for entry in folders if entry.name.startswith("checkpoint-")
            }
        stamps = {}
        for name, path in paths.items():
            with contextlib.suppress(OSError):
                stamps[name] = path.stat().st_mtime_ns
        return stamps

    def _logged(self) -> bytes:
        try:
            return (self.folder / "log.jsonl").read_bytes()
        except FileNotFoundError:
            return b""

    def events(self) -> Iterator[str]:
        """What is new since the last call, as far as it can be told."""
        before, self._stamps = self._stamps, self._now()
        for name, stamp in self._stamps.items():
            if before.get(name) == stamp:
                continue
            if name == "log.jsonl":
                yield from self._steps()
            elif name == "run.json":
                yield "done" if self.done() else "begun"
            elif name == ".saving" and name not in before:
                yield "saving"
            elif name == "all_results.json":
                yield "results"
            elif name.startswith("checkpoint-"):
                yield "checkpoint"

    def _steps(self) -> Iterator[str]:
        before, self._log = self._log, self._logged()
        new = self._log.removeprefix(before) if self._log.startswith(before) else b""
        for line in new.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                self._log = self._log.removesuffix(line)
                continue
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if "loss" in entry:
                yield "step"
            if "train_loss" in entry or ("loss" in entry and entry["step"] in self.evaluated):
                yield "evaluation"

    def done(self) -> bool:
        """Whether the run says so."""
        return status(self.folder) == "done"


def status(folder: Path) -> str | None:
    """What ``run.json`` says of the run; None where there is none."""
    try:
        return str(json.loads((folder / "run.json").read_text(encoding="utf-8")).get("status"))
    except (OSError, ValueError):
        return None


@dataclass(frozen=True)
class Reference:
    """What an undisturbed run comes to.

    Args:
        state: of its folder, see :func:`reliability.state.state_of`.
        moments: seconds from the start to the first event of each name, and to the ``end``.
        counts: events by name.
        evaluated: steps after which it evaluated.
        imports: seconds that a fresh process takes until it has imported everything.
    """

    state: State
    moments: Mapping[str, float]
    counts: Mapping[str, int]
    evaluated: frozenset[int]
    imports: float = 0.0


def undisturbed(place: Place, kind: str, where: Path, *, processes: int = 1, fresh: bool = True) -> Reference:
    """Two undisturbed runs with cold caches, in a fresh process and in a forked one, which must come to the same.

    Args:
        fresh: have the first; without it nobody knows after which steps a run evaluates.

    Raises:
        RuntimeError: they fail or differ, and nothing can be measured.
    """
    begun, state, evaluated = 0.0, State(), frozenset[int]()
    for first in (True, False) if fresh else (False,):
        shutil.rmtree(where, ignore_errors=True)
        run = place.start(place.words(kind), where, cold=True, processes=processes, fresh=first)
        watch, moments, counts = Watch(where / OUT, evaluated), dict[str, float](), Counter[str]()
        while not run.ended():
            for event in watch.events():
                moments.setdefault(event, run.age)
                counts[event] += 1
            time.sleep(TICK)
        moments["end"] = run.age
        if run.wait() != 0:
            raise RuntimeError(f"an undisturbed run of {kind} fails: {run.err}")
        if first:
            begun, state, evaluated = moments["begun"], state_of(where / OUT), _evaluated(where / OUT / "log.jsonl")
    last = state_of(where / OUT)
    if fresh and (different := differences(state, last)):
        raise RuntimeError(f"two undisturbed runs of {kind} differ: {different}")
    return Reference(last, moments, counts, evaluated, max(0.0, begun - moments["begun"]))


def _evaluated(log: Path) -> frozenset[int]:
    """The steps after which a run evaluated."""
    entries = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return frozenset(entry["step"] for entry in entries if "eval_loss" in entry)


@dataclass(frozen=True)
class Aim:
    """When to disturb a run: so many seconds after the n-th event of a name, counted from 0."""

    stage: str
    event: str
    number: int
    delay: float

    def __str__(self) -> str:
        return f"{self.stage} ({self.delay * 1000:.1f} ms after {self.event} {self.number})"


STAGES = ("imports", "preparation", "training", "evaluation", "checkpoint", "last evaluation", "final save")
"""The stages of a run, in the order in which they come first."""


def aimed(stage: str, reference: Reference, generator: random.Random) -> Aim:
    """A random instant of a stage."""
    counts, moments = reference.counts, reference.moments
    step = (moments["saving"] - moments["begun"]) / counts["step"]
    last = counts["evaluation"] - 1
    event, numbers, longest = {
        "imports": ("start", range(1), reference.imports),
        "preparation": ("start", range(1), moments["begun"]),
        "training": ("step", range(counts["step"]), step),
        "evaluation": ("evaluation", range(last), step),
        "checkpoint": ("checkpoint", range(counts["checkpoint"]), 0.05),
        "last evaluation": ("evaluation", range(last, last + 1), step),
        "final save": ("saving", range(1), moments["end"] - moments["saving"]),
    }[stage]
    return Aim(stage, event, generator.choice(numbers), generator.uniform(0, longest))


def reached(run: Running, watch: Watch, aim: Aim) -> bool:
    """Wait for the instant; False if the run has ended before."""
    instant, seen = run.began + aim.delay, int(aim.event == "start")
    while seen <= aim.number or time.monotonic() < instant:
        if run.ended():
            return False
        if seen <= aim.number:
            seen += sum(event == aim.event for event in watch.events())
            instant = time.monotonic() + aim.delay
        time.sleep(TICK)
    return not run.ended()
