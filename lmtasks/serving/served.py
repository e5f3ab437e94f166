"""A model with its worker: what it can be asked, and how jobs of each kind are answered."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Literal

import msgspec
from transformers import FillMaskPipeline

from lmtasks.errors import InputError
from lmtasks.inference.continuing import continued, continues
from lmtasks.inference.predictor import LENGTHS, Predictor
from lmtasks.serving.limits import Limits
from lmtasks.serving.refusals import invalid
from lmtasks.serving.worker import Job, Listener, Worker

Kind = Literal["masks", "continuations", "other"]

SIDEWAYS = 16
"""Beams, or answers to one text, that a pipeline of a recipe's own may be asked for."""

SPREAD = 8
"""Tokens by which the texts of a batch may differ where padding costs as much as text: a core is busy with few texts.

More of them would wait for less padding; on a GPU, and where answers grow token by token, company is worth more.
"""

BEGINNING = 4096
"""Characters of a text that are looked at to tell how long it is."""


class Served:
    """A model that is asked by many.

    Args:
        predictor: nobody else may use it while this is open.
        name: as clients call the model.
    """

    def __init__(self, predictor: Predictor, name: str, limits: Limits) -> None:
        if predictor.recipe.medium is not None or predictor.tokenizer is None:
            raise InputError(
                f"{predictor.recipe.name} is not about text, and what it is asked with are files of the one who asks",
                "lmtasks predict RUN_OR_MODEL FILE",
            )
        self.predictor, self.name, self.limits = predictor, name, limits
        pipeline = predictor.pipeline
        self.kind: Kind = (
            "masks" if isinstance(pipeline, FillMaskPipeline) else "continuations" if continues(pipeline) else "other"
        )
        answer: Callable[[list[Job]], list[Any]] = self._continue if self.kind == "continuations" else self._predict
        padded = self.kind != "continuations" and predictor.pipeline.device.type == "cpu"
        self.worker = Worker(
            answer,
            batch_size=limits.batch_size,
            queue=limits.queue,
            lengths=self._lengths,
            spread=SPREAD if padded else math.inf,
        )

    def job(self, texts: list[str], arguments: Mapping[str, Any], listener: Listener | None = None) -> Job:
        """A job that is within the limits; it is not in line yet.

        Args:
            arguments: of the pipeline, or of :func:`lmtasks.inference.continuing.continued`, and ``seed``.

        Raises:
            Refusal: it asks for too much.
        """
        self._require_within(len(texts), arguments)
        given = {name: value for name, value in arguments.items() if value is not None}
        alike = None if "seed" in given else msgspec.json.encode(given, order="sorted")
        return Job(texts, given, alike, listener)

    def close(self) -> None:
        """Answer what is in line, and end."""
        self.worker.close()

    def _require_within(self, texts: int, arguments: Mapping[str, Any]) -> None:
        limits = self.limits
        if not 0 < texts <= limits.texts:
            raise invalid(f"{texts} texts: a request has 1 to {limits.texts}", 413 if texts else 422)
        counts = {
            **dict.fromkeys(("new_tokens", *LENGTHS), (limits.new_tokens, "new tokens")),
            **dict.fromkeys(("num_beams", "num_return_sequences"), (SIDEWAYS, "beams or answers to a text")),
            **({"top_k": (limits.guesses, "guesses")} if self.kind == "masks" else {}),
        }
        for name, (most, what) in counts.items():
            if isinstance(value := arguments.get(name), int | float) and value > most:
                raise invalid(f"{value} {what}: {most} is the most here")
        targets = arguments.get("targets")
        if isinstance(targets, list) and len(targets) > limits.guesses:
            raise invalid(f"{len(targets)} targets: {limits.guesses} is the most here")

    def _lengths(self, texts: list[str]) -> list[int]:
        """Tokens of each text, of which a batch is made; of a long one, those of its beginning."""
        beginnings = [text[:BEGINNING] for text in texts]
        try:
            return [len(ids) for ids in self.predictor.tokenizer(beginnings, verbose=False)["input_ids"]]
        except Exception:  # what is wrong with one of them is told where it is answered
            return [*map(len, beginnings)]

    def _predict(self, jobs: list[Job]) -> list[Any]:
        texts = [text for job in jobs for text in job.texts]
        answers: list[Any] = self.predictor.predict(texts, batch_size=self.limits.batch_size, **jobs[0].arguments)
        return answers

    def _continue(self, jobs: list[Job]) -> list[Any]:
        rows = [(number, text, job) for job in jobs for number, text in enumerate(job.texts)]
        return continued(
            self.predictor,
            [text for _, text, _ in rows],
            [job.listener and partial(job.listener, number) for number, _, job in rows],
            [partial(getattr, job, "wanted") for _, _, job in rows],
            **jobs[0].arguments,
        )
