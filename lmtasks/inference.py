"""Prediction: a run's model behind the pipeline of its recipe."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import transformers
from transformers import AutoConfig, GenerationConfig, PreTrainedTokenizerBase
from transformers.pipelines.base import PipelineException

from lmtasks.catalog import Catalog, load_catalog
from lmtasks.errors import InputError, first_line, nearest
from lmtasks.folder import read_record
from lmtasks.hub import found_or_explained
from lmtasks.models import register_architectures, require_safetensors
from lmtasks.recipe import Recipe
from lmtasks.references import resolve


def predict(
    run_or_model: str | Path,
    texts: str | list[str],
    *,
    recipe: str | None = None,
    revision: str = "main",
    **arguments: Any,
) -> Any:
    """What the recipe's pipeline answers.

    Args:
        run_or_model: run folder, model folder or Hub id.
        texts: one text, or several.
        recipe: name of the recipe; that of the run, or the one that fits the model, when not given.
        revision: branch, tag or commit of a model on the Hub.
        arguments: of the pipeline, such as ``top_k`` or ``max_new_tokens``; ``batch_size`` texts at once.

    Returns:
        the pipeline's own structure for one text; a list of these for a list.

    Raises:
        InputError: no such model, no recipe for it, an unknown argument, a text without a mask.
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
    record = read_record(name)
    if record:
        if record.get("status") != "done":
            raise InputError(f"the run in '{name}' is not finished", "finish it with --resume_from_checkpoint true")
        return catalog.recipe(record["recipe"])
    with found_or_explained("model", name):
        config = AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    for recipe in catalog.recipes.values():
        mapping = getattr(resolve(recipe.model_class), "_model_mapping", None) or {}
        if type(config) in mapping and mapping[type(config)].__name__ in (config.architectures or ()):
            return recipe
    raise InputError(
        f"no recipe fits '{name}' ({', '.join(config.architectures or [config.model_type])})",
        f"name one with --recipe: {', '.join(catalog.recipes)}",
    )


class Predictor:
    """A model that answers.

    Args:
        name: run folder, model folder or Hub id.
        recipe: gives pipeline and prompts.
        revision: branch, tag or commit of a model on the Hub.
    """

    def __init__(self, name: str, recipe: Recipe, revision: str = "main") -> None:
        self.recipe = recipe
        require_safetensors(name)
        with found_or_explained("model", name):
            self.pipeline = transformers.pipeline(
                recipe.pipeline,
                model=name,
                revision=revision,
                trust_remote_code=False,
                model_kwargs={"use_safetensors": True},
            )
        self.tokenizer = self.pipeline.tokenizer
        if self.pipeline.model.can_generate():
            # Where the texts of a batch differ in length, padding must not come between prompt and continuation.
            self.tokenizer.padding_side = "left"
            _keep_first_space(self.tokenizer)
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def predict(self, texts: str | list[str], *, batch_size: int = 8, **arguments: Any) -> Any:
        """See :func:`predict`."""
        self._check(arguments)
        prompts = [self.recipe.prompt(self.tokenizer, text) for text in ([texts] if isinstance(texts, str) else texts)]
        for prompt in prompts:
            if not prompt.strip():
                raise InputError("there is an empty text", "give a text in quotes")
        try:
            # One text alone goes in as such: some pipelines unwrap a list of one, others do not.
            outputs = self.pipeline(prompts if len(prompts) > 1 else prompts[0], batch_size=batch_size, **arguments)
        except IndexError as error:
            # Beyond its last position a model of learned positions looks up what is not there.
            raise InputError(
                f"{self.recipe.pipeline}: longer than the model can take",
                "shorten the text; when generating, lower --max_new_tokens",
            ) from error
        except (PipelineException, ValueError, TypeError) as error:
            raise InputError(f"{self.recipe.pipeline}: {first_line(error)}", self._hint()) from error
        return [outputs] if len(prompts) == 1 and not isinstance(texts, str) else outputs

    def _hint(self) -> str:
        example = self.recipe.starter.texts[0] if self.recipe.starter and self.recipe.starter.texts else "a text"
        return f"for example: lmtasks predict OUT '{example}'"

    def _check(self, arguments: Iterable[str]) -> None:
        known = self._known()
        for name in arguments:
            if name not in known:
                raise InputError(
                    f"{self.recipe.pipeline} takes no '{name}'{nearest(name, known)}",
                    "it takes the pipeline's arguments",
                )

    def _known(self) -> set[str]:
        """What the pipeline takes: its own parameters and, if it generates, those of generation."""
        parameters = inspect.signature(self.pipeline._sanitize_parameters).parameters.values()
        named = {parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD}
        generates = self.pipeline.model.can_generate()
        return named | set(GenerationConfig().to_dict()) if generates else named


def _keep_first_space(tokenizer: PreTrainedTokenizerBase) -> None:
    """Let the tokenizer decode a continuation with the space that it begins with.

    SentencePiece's way of decoding drops the first space, which is right for a text and wrong for
    what the text-generation pipeline decodes: the new tokens alone ("The cat" + "sat" = "The catsat").
    """
    decode = tokenizer.decode

    def decoded(ids: Sequence[int], *arguments: Any, **options: Any) -> Any:
        text = decode(ids, *arguments, **options)
        # A model may have more rows than its tokenizer has tokens; such an id has no word.
        first = (tokenizer.convert_ids_to_tokens(int(ids[0])) if len(ids) else None) or ""
        return f" {text}" if first.startswith("\u2581") and not text.startswith(" ") else text

    tokenizer.decode = decoded
