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
from lmtasks.api import EVALUATION_SEED, Architecture, Batch, BlockOptions, Collate, Example, Recipe, options_of
from lmtasks.config.request import Request, configure
from lmtasks.data.corpus import load_corpus
from lmtasks.data.dataset import ExampleDataset
from lmtasks.data.examples import EncodedCorpus, encode_corpus, one_example
from lmtasks.data.text.packing import Packed
from lmtasks.errors import InputError
from lmtasks.models.architectures import architecture_of
from lmtasks.runs.runner import Run
from lmtasks.testing.proof import Inapplicable, Oracle, once
from lmtasks.testing.specimens import corpus

BLOCK = 32
"""Tokens of a block in all checks, where the recipe has blocks."""

SEED = 42


@dataclass(frozen=True)
class Case:
    """The subject of checks.

    Args:
        title: what is examined, for people.
        configured: gives the configuration of a tiny model, fitted to the tokenizer.
        tokenizer: gives a tiny one.
        make: gives the model with its first weights; the same object every time.
        values: options of the recipe, by name.
        architecture: what is examined together with the recipe, if it is an architecture.
        usual: the same with a model of a type that its class usually has, where nobody but the starter has chosen one.

    All others are as for :func:`lmtasks.testing.check_recipe`.
    """

    title: str
    recipe: Recipe
    configured: Callable[[], PretrainedConfig]
    tokenizer: Callable[[], PreTrainedTokenizerBase]
    folder: Path
    make: Callable[[], PreTrainedModel]
    values: Mapping[str, Any] = field(default_factory=dict)
    architecture: Architecture | None = None
    oracle: Oracle | None = None
    unmoved: Sequence[str] = ()
    text: str = ""
    predict: Mapping[str, Any] = field(default_factory=dict)
    module: str = ""
    usual: Callable[[], contextlib.AbstractContextManager[Case]] | None = None

    # --- text ---

    @cached_property
    def request(self) -> Request:
        """The request of a run."""
        return configure(self.recipe, self.request_values)

    @property
    def bound(self) -> Recipe:
        """The recipe, whose loss is called with model and batch."""
        return self.request.bound

    @property
    def request_values(self) -> dict[str, Any]:
        """Model, tokenizer, data and the recipe's options, as :func:`lmtasks.run` takes them."""
        start, data = str(self.folder / "start"), {"train_dataset": corpus(60), "eval_dataset": corpus(12, seed=1)}
        return {"config_name": start, "tokenizer_name": start, **data, **self.values}

    @cached_property
    def texts(self) -> Callable[[], EncodedCorpus]:
        """Gives the corpus as the recipe wants it."""
        return once(
            lambda: encode_corpus(self.request, load_corpus(self.request.data), self.tokenizer(), self.configured())
        )

    def packed(self, training: bool) -> Packed:
        """A split of it."""
        packed = self.texts().train if training else self.texts().evaluation
        assert isinstance(packed, Packed)  # only recipes about text become cases
        return packed

    def dataset(self, training: bool) -> ExampleDataset:
        """A split as the Trainer gets it."""
        return ExampleDataset(self.packed(training), SEED if training else EVALUATION_SEED)

    def examples(self, count: int = 4, *, training: bool = True) -> list[Example]:
        """The first examples of a split."""
        dataset = self.dataset(training)
        return [dataset[number] for number in range(min(count, len(dataset)))]

    def collate(self, training: bool = True) -> Collate:
        """A collator of the recipe, newly made."""
        return self.recipe.collator(self.tokenizer(), self.request.options, training)

    def batch(self, *, training: bool = True) -> Batch:
        """The first examples of a split as one batch."""
        return self.collate(training)(self.examples(training=training))

    def splits(self, count: int = 4) -> Iterator[tuple[Collate, list[Example]]]:
        """Training and evaluation: a new collator and the first examples of each."""
        for training in (True, False):
            yield self.collate(training), self.examples(count, training=training)

    def example(self) -> Batch:
        """One whole block with a target, as the runner's own probes get it."""
        return one_example(self.request, self.tokenizer(), self.texts().evaluation, "tiny")

    def having(self, **values: Any) -> Case:
        """The same with other options.

        Raises:
            Inapplicable: the recipe does not have them, or refuses them.
        """
        if not values.keys() <= options_of(self.recipe.options).keys():
            raise Inapplicable(f"the recipe has no option {' or '.join(values)}")
        other = replace(self, values={**self.values, **values})
        try:
            other.texts()
        except InputError as refusal:
            raise Inapplicable(f"the recipe refuses {', '.join(values)}: {refusal.message}") from refusal
        return other

    def numbers(self) -> list[str]:
        """The names of the recipe's own options that are numbers which can be halved."""
        inherited = options_of(BlockOptions) if issubclass(self.recipe.options, BlockOptions) else {}
        own = {name: option for name, option in options_of(self.recipe.options).items() if name not in inherited}
        return [name for name, one in own.items() if float in one.alternatives and one.default]

    def ragged(self) -> Case:
        """The same with examples of all lengths.

        Raises:
            Inapplicable: the recipe has blocks of one length only, so nothing is ever padded.
        """
        return self if getattr(self.request.options, "line_by_line", False) else self.having(line_by_line=True)

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

    def trained(self, folder: Path, **values: Any) -> Run:
        """A finished run in a folder; a very short one of this case, where the values say nothing else."""
        self.make()  # what is wrong with the model is told where it is made
        short = {"max_steps": 3, "per_device_train_batch_size": 4, "learning_rate": 1e-3}
        values = {"output_dir": str(folder), "use_cpu": True, "bf16": False, **short, **values}
        done = lmtasks.run(self.recipe, **{**self.request_values, **values})
        assert isinstance(done, Run)  # a plan is for dry runs
        return done


def inputs_of(batch: Batch) -> Batch:
    """A batch as the model itself gets it."""
    return {name: value for name, value in batch.items() if name != "labels"}
