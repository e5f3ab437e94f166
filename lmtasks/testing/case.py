"""A case: a recipe, or an architecture with it, beside all that is needed to try it out."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

import lmtasks
from lmtasks.api import EVALUATION_SEED, Architecture, Batch, Collate, Example, Examples, Recipe, options_of
from lmtasks.config.request import Request, configure
from lmtasks.data.corpus import Corpus, load_corpus
from lmtasks.data.dataset import ExampleDataset
from lmtasks.data.examples import EncodedCorpus, encode_corpus
from lmtasks.data.text.packing import Packed
from lmtasks.errors import InputError
from lmtasks.models.architectures import architecture_of
from lmtasks.runs.runner import Run
from lmtasks.testing.proof import Inapplicable, once
from lmtasks.testing.specimens import corpus

BLOCK = 32
"""Tokens of a block in all checks, where the recipe has blocks."""

SEED = 42

Oracle = Callable[[torch.nn.Module, Batch], tuple[torch.Tensor, int]]


@dataclass(frozen=True)
class Case:
    """What checks get.

    Args:
        title: what is examined, for people.
        recipe: the recipe.
        configured: gives the configuration of a tiny model, fitted to the tokenizer.
        tokenized: gives a tiny tokenizer.
        folder: for whatever has to be written.
        make: gives the model with its first weights; the same object every time.
        values: options of the recipe, by name.
        architecture: what is examined together with the recipe, if it is an architecture.
        oracle: (model, batch) to sum and number of the losses as they should be; None for cross-entropy.
        unmoved: patterns of parameters that training may leave where they are.
        text: what the pipeline is asked.
        predict: arguments of the pipeline.
        module: where the recipe is declared.
    """

    title: str
    recipe: Recipe
    configured: Callable[[], PretrainedConfig]
    tokenized: Callable[[], PreTrainedTokenizerBase]
    folder: Path
    make: Callable[[], PreTrainedModel]
    values: Mapping[str, Any] = field(default_factory=dict)
    architecture: Architecture | None = None
    oracle: Oracle | None = None
    unmoved: Sequence[str] = ()
    text: str = ""
    predict: Mapping[str, Any] = field(default_factory=dict)
    module: str = ""

    # --- text ---

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tiny tokenizer."""
        return self.tokenized()

    @cached_property
    def data(self) -> dict[str, Any]:
        """The corpus, as :func:`lmtasks.run` takes it."""
        return {"train_dataset": corpus(60), "eval_dataset": corpus(12, seed=1)}

    @cached_property
    def request(self) -> Request:
        """What a run would be asked for."""
        return configure(self.recipe, self.request_values)

    @property
    def request_values(self) -> dict[str, Any]:
        """What a run would be told: model, tokenizer, data, and the recipe's options."""
        start = str(self.folder / "start")
        return {"config_name": start, "tokenizer_name": start, **self.data, **self.values}

    @cached_property
    def corpus(self) -> Corpus:
        """The corpus, loaded."""
        return load_corpus(self.request.data)

    @property
    def options(self) -> Any:
        """The recipe's options."""
        return self.request.options

    @property
    def texts(self) -> EncodedCorpus:
        """The corpus as the recipe wants it."""
        return self._texts()

    @cached_property
    def _texts(self) -> Callable[[], EncodedCorpus]:
        return once(lambda: encode_corpus(self.request, self.corpus, self.tokenizer, self.configured()))

    def packed(self, training: bool) -> Packed:
        """A split of it."""
        packed = self.texts.train if training else self.texts.evaluation
        assert isinstance(packed, Packed)  # only recipes about text become cases
        return packed

    def examples(self, count: int = 4, *, training: bool = True, seed: int = SEED, epoch: int = 0) -> list[Example]:
        """The first examples of a split."""
        return examples_of(self.packed(training), count, seed if training else EVALUATION_SEED, epoch)

    def collate(self, training: bool = True) -> Collate:
        """A collator of the recipe, newly made."""
        return self.recipe.collator(self.tokenizer, self.options, training)

    def dataset(self, training: bool) -> ExampleDataset:
        """A split as the Trainer gets it."""
        return ExampleDataset(self.packed(training), SEED if training else EVALUATION_SEED)

    def batch(self, count: int = 4, *, training: bool = True) -> Batch:
        """The first examples of a split as one batch."""
        return self.collate(training)(self.examples(count, training=training))

    def having(self, **values: Any) -> Case:
        """The same with other options.

        Raises:
            Inapplicable: the recipe does not have them, or refuses them.
        """
        if not values.keys() <= options_of(self.recipe.options).keys():
            raise Inapplicable(f"the recipe has no option {' or '.join(values)}")
        other = replace(self, values={**self.values, **values})
        try:
            _ = other.texts
        except InputError as refusal:
            raise Inapplicable(f"the recipe refuses {', '.join(values)}: {refusal.message}") from refusal
        return other

    def ragged(self) -> Case:
        """The same with examples of all lengths.

        Raises:
            Inapplicable: the recipe has blocks of one length only, so nothing is ever padded.
        """
        return self if getattr(self.options, "line_by_line", False) else self.having(line_by_line=True)

    def lengths(self) -> Iterator[Case]:
        """The case, and the same with examples of all lengths if the recipe has these."""
        yield self
        with contextlib.suppress(Inapplicable):
            yield self.ragged()

    # --- model ---

    def model(self) -> PreTrainedModel:
        """A copy of the model with its first weights, in evaluation mode if it has gradients there."""
        model = copy.deepcopy(self.make())
        return model.train(architecture_of(model.config).reversible)

    def stirred(self) -> PreTrainedModel:
        """Another copy, whose weights are large enough for everything that a position sees to move its logits."""
        model = self.model()
        chance = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=chance)
            if architecture_of(model.config).empty_padding:
                model.get_input_embeddings().weight[model.config.pad_token_id] = 0
        return model

    @property
    def run(self) -> Run:
        """A short run of it all, by :func:`lmtasks.run`."""
        return self._run()

    @cached_property
    def _run(self) -> Callable[[], Run]:
        return once(lambda: self.trained({"output_dir": str(self.folder / "run")}))

    def trained(self, values: Mapping[str, Any]) -> Run:
        """A finished run; a very short one of this case, where the values say nothing else."""
        self.make()  # what is wrong with the model is told where it is made
        short = {
            "max_steps": 3,
            "per_device_train_batch_size": 4,
            "learning_rate": 1e-3,
            "use_cpu": True,
            "bf16": False,
        }
        done = lmtasks.run(self.recipe, **{**self.request_values, **short, **values})
        assert isinstance(done, Run)  # a plan is for dry runs
        return done


def examples_of(examples: Examples, count: int, seed: int, epoch: int = 0) -> list[Example]:
    """The first examples of a text, for an epoch."""
    dataset = ExampleDataset(examples, seed)
    dataset.start_epoch(epoch)
    return [dataset[number] for number in range(min(count, len(examples)))]
