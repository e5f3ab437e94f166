"""Prediction: a run's model behind the pipeline of its recipe.

The pipeline stays what answers; many texts are only fed to it well. They are tokenised first, so that one
that cannot be answered fails before any is, and so that texts of similar length can share a batch.
"""

from __future__ import annotations

import inspect
import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.data import Subset
from transformers import AutoConfig, FillMaskPipeline, GenerationConfig, Pipeline, PreTrainedTokenizerBase
from transformers.pipelines.base import ChunkPipeline, PipelineException

from lmtasks.api import Batch, Recipe, resolve
from lmtasks.artifacts.failures import machine_failures
from lmtasks.artifacts.run_folder import not_finished, read_record, read_whole, require_intact
from lmtasks.errors import InputError, first_line, nearest
from lmtasks.inference.pipelines import MasksOnly, disturbed_by_padding, keep_first_space, take_prepared
from lmtasks.models.architectures import adapted, register_architectures, takes
from lmtasks.models.checkpoint import require_safetensors
from lmtasks.models.config import usable_length
from lmtasks.models.load_errors import found_or_explained
from lmtasks.progress import say, stage
from lmtasks.registry.catalog import Catalog, load_catalog, recorded_recipe


@machine_failures()
def predict(
    run_or_model: str | Path,
    texts: str | list[str],
    *,
    recipe: str | None = None,
    revision: str = "main",
    **arguments: Any,
) -> Any:
    """The answers of the recipe's pipeline.

    Args:
        run_or_model: run folder, model folder or Hub id.
        texts: one text, or several.
        recipe: name of the recipe; that of the run, or the one that fits the model, when not given.
        revision: branch, tag or commit of a model on the Hub.
        arguments: of the pipeline, such as ``top_k`` or ``max_new_tokens``; ``batch_size`` texts at once.

    Returns:
        the pipeline's own structure for one text; a list of these, in the order of the texts, for a list.

    Raises:
        InputError: no such model, no recipe for it, an unknown argument, a text without a mask or
            longer than the model can take.
    """
    catalog = load_catalog()
    register_architectures(catalog)
    name = str(run_or_model)
    return Predictor(name, recipe_of(name, catalog, recipe, revision), revision).predict(texts, **arguments)


def recipe_of(name: str, catalog: Catalog, wanted: str | None = None, revision: str = "main") -> Recipe:
    """The recipe of a run, or the one whose models the configuration's class belongs to.

    Raises:
        InputError: no such model, or no recipe takes it.
    """
    if wanted:
        return catalog.recipe(wanted)
    if record := read_record(name):
        if record.get("status") != "done":
            raise not_finished(name)
        return recorded_recipe(record, catalog)
    with found_or_explained("model", name):
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    for recipe in catalog.recipes.values():
        mapping = getattr(resolve(recipe.model_class), "_model_mapping", None) or {}
        known = takes(recipe, type(config)) and type(config) in mapping
        if known and mapping[type(config)].__name__ in (config.architectures or ()):
            return recipe
    raise InputError(
        f"no recipe fits '{name}' ({', '.join(config.architectures or [config.model_type])})",
        f"name one with --recipe: {', '.join(catalog.recipes)}",
    )


class Predictor:
    """A model that answers: that of a run folder, a model folder or a Hub id, in the way of the recipe's pipeline."""

    one_by_one: bool | None = None
    """Whether several texts are answered one by one, because padding would change the answers; None: not known yet."""

    def __init__(self, name: str, recipe: Recipe, revision: str = "main") -> None:
        self.recipe = recipe
        with read_whole(name), found_or_explained("model", name):
            require_safetensors(name)
            require_intact(name)
            self.pipeline = _pipeline(name, recipe, revision)
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

    def predict(self, texts: str | list[str], *, batch_size: int = 8, **arguments: Any) -> Any:
        """See :func:`predict`."""
        self._check(arguments)
        processor = self.tokenizer or self.pipeline.feature_extractor
        prompts = [self.recipe.prompt(processor, text) for text in ([texts] if isinstance(texts, str) else texts)]
        if not all(prompt.strip() for prompt in prompts):
            raise InputError("there is an empty text", "give a text in quotes")
        if batch_size < 1:
            raise InputError(f"batch_size is {batch_size}", "it is the number of texts at once, 1 or more")
        try:
            if len(prompts) > 1:
                return self._many(prompts, batch_size, arguments)
            # One text alone goes in as such: some pipelines unwrap a list of one, others do not.
            answers = [self.pipeline(prompt, **arguments) for prompt in prompts]
            return answers[0] if isinstance(texts, str) else answers
        except (IndexError, RuntimeError) as error:
            if not self._too_long(prompts, error):
                raise
            raise InputError(
                f"{self.recipe.pipeline}: longer than the model can take",
                "shorten the text; when generating, lower --max_new_tokens",
            ) from error
        except (PipelineException, ValueError, TypeError) as error:
            example = f"for example: lmtasks predict OUT '{self.recipe.example}'"
            raise InputError(f"{self.recipe.pipeline}: {first_line(error)}", example) from error

    def _many(self, prompts: list[str], batch_size: int, arguments: dict[str, Any]) -> list[Any]:
        """The pipeline's answers to several prompts, in their order."""
        if isinstance(self.pipeline, ChunkPipeline):  # it makes several inputs of one text
            return list(self.pipeline(prompts, batch_size=batch_size, **arguments))
        prepared = self._prepared(prompts, arguments)
        main = self.pipeline.model.main_input_name
        # In tokens, or what else the model takes; 0 where the pipeline calls them otherwise.
        lengths = [value.shape[-1] if torch.is_tensor(value := inputs.get(main)) else 0 for inputs in prepared]
        if batch_size > 1 and self._disturbed_by_padding(prepared, lengths):
            batch_size = 1
        order = _order(lengths, batch_size)
        answers: list[Any] = [None] * len(prompts)
        # A dataset, unlike a list, is answered text by text, so that it can be told how far it is.
        texts: Subset[Batch] = Subset(prepared, order)  # type: ignore[arg-type]
        answered = self.pipeline(texts, batch_size=batch_size, **arguments)
        with stage("predicting", len(prompts), "texts") as progress:
            for done, (number, answer) in enumerate(zip(order, answered, strict=True), 1):
                answers[number] = answer
                progress.update(done)
        return answers

    def _prepared(self, prompts: list[str], arguments: dict[str, Any]) -> list[Batch]:
        """The model's inputs that the pipeline makes of each prompt."""
        parameters = {**self.pipeline._preprocess_params, **self.pipeline._sanitize_parameters(**arguments)[0]}
        prepared = []
        with stage("tokenising" if self.tokenizer else "reading", len(prompts), "texts") as progress:
            for done, prompt in enumerate(prompts, 1):
                # As a plain dictionary, because a tokenizer's own keeps several times as much.
                prepared.append(dict(self.pipeline.preprocess(prompt, **parameters)))
                progress.update(done)
        return prepared

    def _disturbed_by_padding(self, prepared: Sequence[Batch], lengths: Sequence[int]) -> bool:
        """Whether texts of these lengths may not share a batch; measured once."""
        known = set(lengths) - {0}
        if len(known) > 1 and self.one_by_one is None:
            shortest, longest = (prepared[lengths.index(length)] for length in (min(known), max(known)))
            self.one_by_one = disturbed_by_padding(self.pipeline, shortest, longest)
            if self.one_by_one:
                say("padding would change the answers: the texts are answered one by one")
        return len(known) > 1 and bool(self.one_by_one)

    def _too_long(self, prompts: list[str], error: Exception) -> bool:
        """Whether a text was too long for the model, which failed with an error of its own."""
        # Beyond its last position a model of learned positions looks up what is not there.
        if self.tokenizer is None or isinstance(error, IndexError):
            return self.tokenizer is not None
        # Token types by position, which BERT's family has, fail otherwise on the way there.
        usable = usable_length(self.pipeline.model.config, self.recipe, self.tokenizer)
        return usable is not None and any(len(self.tokenizer(prompt)["input_ids"]) > usable for prompt in prompts)

    def _check(self, arguments: Iterable[str]) -> None:
        """Refuse what is no parameter of the pipeline or, if it generates, of generation."""
        parameters = inspect.signature(self.pipeline._sanitize_parameters).parameters.values()
        known = {parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD}
        if self.generates:
            known |= GenerationConfig().to_dict().keys()
        for name in arguments:
            if name not in known:
                raise InputError(
                    f"{self.recipe.pipeline} takes no '{name}'{nearest(name, known)}",
                    "it takes the pipeline's arguments",
                )


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


def _pipeline(name: str, recipe: Recipe, revision: str) -> Pipeline:
    """The pipeline that the recipe names, with the model and its processing class."""
    source: dict[str, Any] = {"revision": revision, "trust_remote_code": False}
    weights = {"use_safetensors": True}
    if ":" not in recipe.pipeline:
        return transformers.pipeline(recipe.pipeline, model=name, **source, model_kwargs=weights)
    model = resolve(recipe.model_class).from_pretrained(name, **source, **weights)
    processor = resolve(recipe.processor).from_pretrained(name, **source)
    kinds = {"tokenizer": PreTrainedTokenizerBase, "feature_extractor": transformers.FeatureExtractionMixin}
    role = next((role for role, kind in kinds.items() if isinstance(processor, kind)), "processor")
    own: Pipeline = resolve(recipe.pipeline)(model=model, **{role: processor})
    return own
