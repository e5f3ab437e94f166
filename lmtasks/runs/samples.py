"""Predictions while a model trains: a few held-out prompts, answered every so many steps.

Training does not notice: its bits are the same with and without.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerState

from lmtasks.artifacts.log import sample_lines
from lmtasks.artifacts.run_folder import LOG
from lmtasks.config.request import Request
from lmtasks.config.world import World
from lmtasks.errors import InputError
from lmtasks.inference.sampler import Sample, Sampler
from lmtasks.progress import say
from lmtasks.runs.excerpts import held_out_prompts
from lmtasks.runs.place import Place
from lmtasks.runs.prepare import prepare
from lmtasks.runs.prepared import Prepared

PROMPTS = 3


def prepare_with_samples(request: Request, place: Place) -> Prepared:
    """As :func:`lmtasks.runs.prepare.prepare`, with a callback that answers prompts where that was asked for.

    They are answered once here, to see that they can be.

    Raises:
        InputError: the recipe is not about text, no process has the whole model, or its pipeline cannot answer.
    """
    prepared = prepare(request, place)
    request = prepared.request
    every = request.output.samples_every
    if every is None:
        return prepared
    if request.recipe.medium or not isinstance(prepared.processor, PreTrainedTokenizerBase):
        raise InputError(
            f"--samples_every is about text, and {request.recipe.name} is not", "leave --samples_every out"
        )
    if prepared.arguments.fsdp:
        raise InputError("--samples_every needs the whole model, and --fsdp divides it", "leave one of the two out")
    if not World.current().is_main:
        return prepared
    prompts = held_out_prompts(prepared.data, PROMPTS)
    if not prompts:
        raise InputError("--samples_every: the held-out text has no words for a prompt", "leave --samples_every out")
    samples = Samples(
        every, prepared.folder / LOG, Sampler(request.recipe, prepared.model, prepared.processor, prompts)
    )
    return replace(prepared, callbacks=(*prepared.callbacks, samples))


class Samples(TrainerCallback):
    """Answers prompts before the first step and every so many steps, and after the last one.

    Args:
        log: where the answers are kept, beside the figures of the step.
    """

    def __init__(self, every: int, log: Path, sampler: Sampler) -> None:
        self.every, self.log, self.sampler = every, log, sampler

    def on_train_begin(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        """Tell what the model says before it has learned anything here."""
        if not state.global_step:
            self._tell(0, self.sampler.before)

    def looks(self, state: TrainerState) -> bool:
        """Whether it looks at the model at the end of this step: the engine has to write its weights there before."""
        return bool(state.global_step % self.every == 0 or state.global_step == state.max_steps)

    def on_step_end(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:
        """Answer, where it is time."""
        step = state.global_step
        if not self.looks(state):
            return
        try:
            found = self.sampler.samples()
        except InputError as error:  # it could before; that it no longer can is no reason to end a training
            say(f"no samples at step {step}: {error.message}")
            return
        self._tell(step, found)

    def _tell(self, step: int, samples: Sequence[Sample]) -> None:
        with self.log.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, "samples": samples}, ensure_ascii=False) + "\n")
        for line in (f"samples at step {step:,}", *sample_lines(samples)):
            say(line)
