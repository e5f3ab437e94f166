"""Prediction: a run's model behind the pipeline of its recipe.

The pipeline stays what answers; many texts are only fed to it well. They are tokenised first, so that one
that cannot be answered fails before any is, and so that texts of similar length can share a batch. Continuations
leave a batch and enter it one by one (:mod:`lmtasks.inference.continuous_batching`).
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import Subset
from transformers import FillMaskPipeline
from transformers.pipelines.base import ChunkPipeline, PipelineException

from lmtasks.api import Batch, Recipe
from lmtasks.artifacts.failures import machine_failures
from lmtasks.artifacts.run_folder import read_whole
from lmtasks.errors import InputError, first_line
from lmtasks.inference.arguments import completed, refused
from lmtasks.inference.continuous_batching import continuously_answered
from lmtasks.inference.fitting_recipe import installed_recipe
from lmtasks.inference.load import load_pipeline, own_pipeline
from lmtasks.inference.pipelines import MasksOnly, asking, disturbed_by_padding, keep_first_space, take_prepared
from lmtasks.models.architectures import adapted
from lmtasks.models.config import most_positions, unknown_tokens
from lmtasks.progress import quietly, say, stage


@machine_failures()
@quietly("transformers")
def predict(
    run_or_model: str | Path,
    texts: str | list[str],
    *,
    recipe: str | None = None,
    revision: str = "main",
    seed: int | None = None,
    **arguments: Any,
) -> Any:
    """The answers of the recipe's pipeline.

    Args:
        run_or_model: run folder, model folder or Hub id.
        texts: one text, or several.
        recipe: name of the recipe; that of the run, or the one that fits the model, when not given.
        revision: branch, tag or commit of a model on the Hub.
        seed: of what is drawn: the same one gives the same answers to the same texts, and where a model continues
            them in transformers' own way also whatever ``batch_size``; from torch's own generator, as it stands, when
            not given.
        arguments: of the pipeline, such as ``top_k`` or ``max_new_tokens``; ``batch_size`` texts at once.

    Returns:
        the pipeline's own structure for one text; a list of these, in the order of the texts, for a list.

    Raises:
        InputError: no such model, no recipe for it, an argument that is unknown, out of range or without effect, a
            text without a mask or longer than the model can take.
    """
    name = str(run_or_model)
    if revision != "main" and os.path.isdir(name):
        raise InputError(f"--revision {revision}: the folder '{name}' has no revisions", "leave --revision out")
    return Predictor(name, installed_recipe(name, recipe, revision), revision).predict(texts, seed=seed, **arguments)


class Predictor:
    """A model that answers: that of a run folder, a model folder or a Hub id, in the way of the recipe's pipeline."""

    one_by_one: bool | None = None
    """Whether several texts are answered one by one, because padding would change the answers; None: not known yet."""

    def __init__(self, name: str, recipe: Recipe, revision: str = "main") -> None:
        self.recipe = recipe
        with read_whole(name):
            self.pipeline = load_pipeline(name, recipe, revision)
        adapted(self.pipeline.model, recipe)
        self.tokenizer = self.pipeline.tokenizer  # None where the inputs are no text
        # Not whether its model could: BART fills masks as well, and counts its positions from the left.
        self.generates = bool(self.pipeline._pipeline_calls_generate)
        if self.generates:
            # Where the texts of a batch differ in length, padding must not come between prompt and continuation.
            self.tokenizer.padding_side = "left"
            keep_first_space(self.tokenizer)
        if self.tokenizer is not None and self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token
        take_prepared(self.pipeline)
        if isinstance(self.pipeline, FillMaskPipeline):
            MasksOnly(self.pipeline)

    def predict(
        self, texts: str | list[str], *, batch_size: int = 16, seed: int | None = None, **arguments: Any
    ) -> Any:
        """See :func:`predict`."""
        prompts = self.prompts([texts] if isinstance(texts, str) else texts)
        for name, value, least, what in (
            ("batch_size", batch_size, 1, "it is the number of texts at once, 1 or more"),
            ("seed", seed, 0, "it is a number from 0 to 4294967295"),
        ):
            if value is not None and (not isinstance(value, int) or not least <= value < 2**32):
                raise InputError(f"{name} is {value!r}", what)
        given = completed(self.pipeline, self.recipe.pipeline, arguments, seed)
        with self.answering(given, seed):
            answers = self._answers(prompts, batch_size, given, seed)
        return answers[0] if isinstance(texts, str) else answers

    def prompts(self, texts: list[str]) -> list[str]:
        """What the pipeline gets for each text.

        Raises:
            InputError: something among them is no text, or empty.
        """
        _require_texts(texts)
        processor = self.tokenizer or self.pipeline.feature_extractor
        prompts = [self.recipe.prompt(processor, text) for text in texts]
        if not all(prompt.strip() for prompt in prompts):
            raise InputError("there is an empty text", "give a text in quotes")
        return prompts

    @contextmanager
    def answering(self, given: dict[str, Any], seed: int | None) -> Iterator[None]:
        """The state in which the pipeline is asked: chance begins at the seed, and what it trips over is explained.

        Raises:
            InputError: the pipeline does not take the texts, or the arguments.
        """
        try:
            with asking(seed, self.pipeline.device):
                yield
        except (torch.OutOfMemoryError, MemoryError, InputError):
            raise
        except Exception as error:
            if not given and not isinstance(error, ValueError | TypeError | IndexError | PipelineException):
                with own_pipeline(self.recipe):
                    raise
            raise self._explained(error, given) from error

    def _answers(self, prompts: list[str], batch_size: int, given: dict[str, Any], seed: int | None) -> list[Any]:
        """The pipeline's answers to one prompt or several, in their order."""
        if isinstance(self.pipeline, ChunkPipeline):  # it makes several inputs of one text
            return list(self.pipeline(prompts, batch_size=min(batch_size, len(prompts)), **given))
        prepared = self.prepared(prompts, given)
        if not prepared:
            return []
        main = self.pipeline.model.main_input_name
        # In tokens, or what else the model takes; 0 where the pipeline calls them otherwise.
        lengths = [value.shape[-1] if torch.is_tensor(value := inputs.get(main)) else 0 for inputs in prepared]
        if self.tokenizer is not None:
            given = self._within_positions(lengths, given)
        # One text alone goes in as such: some pipelines unwrap a list of one, others do not.
        return (
            [self.pipeline(prompts[0], **given)]
            if len(prompts) == 1
            else self._many(prepared, lengths, batch_size, given, seed)
        )

    def _many(
        self,
        prepared: list[Batch],
        lengths: Sequence[int],
        batch_size: int,
        arguments: dict[str, Any],
        seed: int | None,
    ) -> list[Any]:
        """The pipeline's answers to several prompts, in their order."""
        if batch_size > 1 and self.one_at_a_time(prepared, lengths):
            batch_size = 1
        # A prompt that comes in later is filled up: only where that was found to change nothing.
        if self.one_by_one is False and batch_size > 1:
            found = continuously_answered(self.pipeline, prepared, batch_size, arguments, seed)
            if found is not None:
                return found
        order = _order(lengths, min(batch_size, len(prepared)))
        answers: list[Any] = [None] * len(prepared)
        # A dataset, unlike a list, is answered text by text, so that it can be told how far it is.
        texts: Subset[Batch] = Subset(prepared, order)  # type: ignore[arg-type]
        answered = self.pipeline(texts, batch_size=batch_size, **arguments)
        with stage("predicting", len(prepared), "texts") as progress:
            for done, (number, answer) in enumerate(zip(order, answered, strict=True), 1):
                answers[number] = answer
                progress.update(done)
        return answers

    def prepared(self, prompts: list[str], arguments: dict[str, Any]) -> list[Batch]:
        """The model's inputs that the pipeline makes of each prompt."""
        parameters = {**self.pipeline._preprocess_params, **self.pipeline._sanitize_parameters(**arguments)[0]}
        prepared = []
        with stage("tokenising" if self.tokenizer else "reading", len(prompts), "texts") as progress:
            for done, prompt in enumerate(prompts, 1):
                # As a plain dictionary, because a tokenizer's own keeps several times as much.
                prepared.append(dict(self.pipeline.preprocess(prompt, **parameters)))
                progress.update(done)
        return prepared

    def one_at_a_time(self, prepared: Sequence[Batch], lengths: Sequence[int]) -> bool:
        """Whether texts of these lengths may not share a batch; measured once."""
        known = set(lengths) - {0}
        if len(known) > 1 and self.one_by_one is None:
            shortest, longest = (prepared[lengths.index(length)] for length in (min(known), max(known)))
            self.one_by_one = disturbed_by_padding(self.pipeline, shortest, longest)
            if self.one_by_one:
                say("padding would change the answers: the texts are answered one by one")
        return len(known) > 1 and bool(self.one_by_one)

    def _within_positions(self, lengths: Sequence[int], given: dict[str, Any]) -> dict[str, Any]:
        """The arguments, with no more new tokens than the model has positions for, where nobody said how many.

        Raises:
            InputError: a text is longer than the model can take, or is with as many new tokens as were asked for.
        """
        config = self.pipeline.model.config
        most = None if config.is_encoder_decoder else most_positions(config, self.pipeline.model)
        longest = max(lengths)
        if most is None or not longest:
            return given
        task, which = self.recipe.pipeline, "the text" if len(lengths) == 1 else f"text {lengths.index(longest) + 1}"
        if longest > most:
            raise InputError(
                f"{task}: {which} is longer than the model can take: {longest} tokens, and it takes {most}",
                "shorten the text",
            )
        if not self.generates:
            return given
        # The last new token needs no position: nothing comes after it.
        room, own = most - longest + 1, self.pipeline.model.generation_config
        asked = max((given.get(name) or 0) for name in ("max_new_tokens", "min_new_tokens"))
        total = max((given.get(name) or 0) for name in ("max_length", "min_length"))
        if max(asked, total - longest) > room:
            flag = next(
                f"--{name} {count}" for name in LENGTHS if (count := given.get(name)) in (asked, total) and count
            )
            raise InputError(
                f"{task}: {which} has {longest} tokens, and with {flag} it is longer than the model can take: {most}",
                f"--max_new_tokens {room} or less",
            )
        if asked or total:
            return given
        usual = getattr(self.pipeline, "_default_generation_config", None)
        kept = own.max_new_tokens or (own.max_length or 0) - longest
        if (kept if kept > 0 else getattr(usual, "max_new_tokens", None) or 0) <= room:
            return given
        say(f"at most {room} new tokens: {which} has {longest}, and the model takes {most}")
        return {**given, "max_new_tokens": room}

    def _explained(self, error: Exception, given: dict[str, Any]) -> InputError:
        """What the pipeline tripped over, in two lines."""
        task = self.recipe.pipeline
        if (foreign := unknown_tokens(self.pipeline.model, self.tokenizer, error)) is not None:
            return foreign
        # Beyond its last position a model of learned positions looks up what is not there; where these are known,
        # what is too long was refused before.
        config = self.pipeline.model.config
        unknown = config.is_encoder_decoder or most_positions(config, self.pipeline.model) is None
        if isinstance(error, IndexError) and self.tokenizer is not None and not given and unknown:
            return InputError(f"{task}: longer than the model can take", "shorten the text")
        if isinstance(error, PipelineException):
            example = f"for example: lmtasks predict OUT '{self.recipe.example}'"
            return InputError(f"{task}: {first_line(error)}", example)
        return refused(task, error, given)


LENGTHS = ("max_new_tokens", "min_new_tokens", "max_length", "min_length")
"""Arguments of generation that say how long an answer may be, or must."""


def _require_texts(texts: Any) -> None:
    if not isinstance(texts, list | tuple):
        raise InputError(f"texts cannot be a {type(texts).__name__}", "give a text, or a list of texts")
    for number, text in enumerate(texts, start=1):
        if not isinstance(text, str):
            raise InputError(f"text {number} is no text but {type(text).__name__}", "give strings")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(f"text {number} is no Unicode text: {error.reason}", "convert it to UTF-8") from error


def _order(lengths: Sequence[int], batch_size: int) -> list[int]:
    """Numbers of the texts, so that every ``batch_size`` of them in a row are of similar length.

    The longest come first, so that what does not fit into memory fails at once. The other batches come in
    an order of chance, always the same: the time that is left can then be told from the time that has passed.
    """
    by_length = sorted(range(len(lengths)), key=lambda number: -lengths[number])
    first, *middle = [by_length[start : start + batch_size] for start in range(0, len(lengths), batch_size)]
    # The last may have fewer texts, and would shift the batches after it.
    last = middle.pop() if middle else []
    random.Random(0).shuffle(middle)
    return [number for batch in (first, *middle, last) for number in batch]
