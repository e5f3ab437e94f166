"""A recipe: the frozen declaration of a task that the runner can execute.

Everything heavy is named by string or happens inside functions, so that declaring a recipe costs
nothing. A variant of a recipe is ``dataclasses.replace(recipe, name=..., collator=...)``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lmtasks.api.frozen import Frozen
from lmtasks.api.losses import LossSums, Targets, TargetsByName
from lmtasks.api.options import option, options_of
from lmtasks.api.references import Reference, defer, require_reference
from lmtasks.api.version import API_VERSION

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel

    from lmtasks.api.blocks import Blocks
    from lmtasks.api.engine import Engine
    from lmtasks.api.extension import Extension
    from lmtasks.api.medium import Layout, Medium

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")

TOKENIZER = "transformers:AutoTokenizer"
"""The processing class of recipes about text."""

EVALUATION_SEED = 0
"""Evaluation draws from a seed of its own, so that its masks are the same in every run."""

Example = dict[str, Any]
"""An example as a collator gets it.

- ``seed``: (seed, epoch, example id), see :attr:`Recipe.collator`.

What else is in it says :meth:`lmtasks.api.medium.Examples.example`. For text it is:

- ``input_ids``: int32 array [length];
- ``scored``: bool array [length], which of ``input_ids`` may be targets; not there when all may;
- ``document_ids``: int64 array [length], numbers of the documents; there when they are isolated;
- ``word_starts``: bool array [length]; there when :attr:`lmtasks.Blocks.words` asks for it.
"""

Batch = dict[str, Any]
"""The arguments of forward, plus ``labels``, int64 [examples, ...], -100 where there is no target; all tensors.

``document_ids`` may be among them: the runner sees to it that the model gets a mask and positions instead.
``label_smoothing``, a number, is there in training when the user asked for it; see :func:`lmtasks.token_sums`.
"""

Collate = Callable[[list[Example]], Batch]
"""Examples to a batch."""


def _labels(batch: Batch) -> Any:
    """The labels that are targets."""
    return batch["labels"][batch["labels"] != -100]


@dataclass(frozen=True, kw_only=True)
class BlockOptions:
    """Options of every recipe that trains on blocks of text. Inherit to add your own."""

    block_size: int = option(
        128, help="tokens per training example, at most what the model can take", ge=2, aliases=["max_seq_length"]
    )
    line_by_line: bool = option(
        False, help="every line or document is an example of its own, padded to the longest of its batch"
    )
    isolate_documents: bool = option(False, help="documents in one block neither see each other nor share positions")

    def blocks(self, **frame: Any) -> Blocks:
        """The blocks that these options ask for, with the ids around blocks and documents."""
        from lmtasks.api.blocks import Blocks

        return Blocks(size=self.block_size, line_by_line=self.line_by_line, isolate=self.isolate_documents, **frame)


@dataclass(frozen=True, kw_only=True)
class TokenizerSpec:
    """The special tokens of a tokenizer trained for the recipe (``--train_tokenizer``).

    Args:
        special_tokens: transformers' role to token, ``{"mask_token": "<mask>"}``.
        template: what surrounds a text, as ``"<s> $A </s>"``; ``"$A"`` adds nothing.
    """

    special_tokens: Mapping[str, str]
    template: str = "$A"


@dataclass(frozen=True, kw_only=True)
class Starter:
    """The defaults of a run: a model small enough for the first minute.

    Args:
        sample: name of the embedded text (:mod:`lmtasks.data.sample`), used when no data is given; None: data must be.
        model: model settings, used when no model is given.
        training: recipe options and ``TrainingArguments``, defaults when no model is given.
        epochs: passes over the text at most, whatever its ``max_steps``: in more, a short one is learned by heart.
            None: no limit.
        texts: prompts that show what the model of the first minute has learned.
        predict: arguments of the pipeline for these prompts.
    """

    sample: str | None
    model: Mapping[str, Any]
    training: Mapping[str, Any] = field(default_factory=dict)
    epochs: float | None = None
    texts: Sequence[str] = ()
    predict: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A task: how text becomes examples, what is learned, how the result is used.

    Functions may be given as ``"module:function"``, so that nothing heavy has to be imported to declare them.

    Args:
        name: what people type; lower case, digits and hyphens.
        summary: one sentence for ``lmtasks list``.
        options: dataclass made with :func:`lmtasks.option`; flags, YAML keys and keyword arguments.
        preprocess: (processing class, options) to how documents become examples: :class:`lmtasks.Blocks` for
            text, for another medium a :class:`lmtasks.api.medium.Layout`.
        collator: (processing class, options, training) to a function from examples to a batch. It draws all
            randomness from ``numpy.random.default_rng(example["seed"])``, so that what happens to an
            example depends on seed, epoch and example alone. ``training`` is false for evaluation.
        loss: (model, batch) to sum of losses and number of targets, both scalar tensors, and never a
            mean: only the runner divides, over the whole global batch. A third item may name further
            sums that the metrics use (``{"correct": ...}``). In place of sum and number there may be several
            :class:`lmtasks.LossTerm` by name, each with a number and a weight of its own. A function that needs
            three arguments gets the options as the third.
        model_class: ``"module:Class"``, an Auto class or a model class.
        model_types: those of the Auto class that the recipe can train; all when there are none.
        medium: what the documents are; None: text.
        processor: ``"module:Class"`` of the processing class, with ``from_pretrained``. The ``tokenizer`` of
            these fields is the one for text.
        new_processor: (configuration of the model, options) to the processing class of a model from scratch;
            None: one has to be named.
        pipeline: task name of ``transformers.pipeline`` that uses the result, or ``"module:Class"`` of a
            ``transformers.Pipeline`` of the recipe's own.
        attention: what a position may see; the runner proves it before training. None: not checked.
        targets: batch to the ids of its targets, int [targets]; their number is the divisor, and has to be known
            before the first of several accumulated batches goes backwards: without the model. Where the loss has
            terms, ids or a number for each, by name; the first term is the one that perplexity is of. Or, by name, a
            function for each term.
        vocabulary: whether the model's logits are [examples, length, vocabulary]; if not, they are [examples, length],
            [examples, length, anything], or [examples, classes] with one label for each example.
        frozen: the checkpoints beside the model that do not learn, each by the name of the option that says which:
            text, folder or Hub id. The model has it as an attribute of that name before ``prepare_model`` is called.
        prepare_model: (model, options), called once the model is loaded and before the optimiser exists. It changes the
            model in place and returns nothing: it freezes, shares weights, or sets as attributes what stands beside
            the model, a generator or a teacher. That is trained with it, where its weights want gradients, and is no
            part of the model that is saved. What is not trained is made anew wherever the model is used, so it must
            follow from the options and from torch's generator, which begins alike each time, not from the weights.
        save: (model, folder) writes into a folder, beside the model's own files, what ``prepare_model`` added; None:
            each module with weights to train goes into a folder of its attribute's name.
        load: (model, folder) sets it to what ``save`` wrote; FileNotFoundError where nothing of it is there.
        before_step: (model, options, steps done), called before every optimiser step, for what changes in the
            model as training goes on. All it knows is the number of steps, so a resumed run goes on alike.
        views: (tokenizer, options) to further ways of cutting the evaluation text, by name. The same text is
            evaluated in each, and the figures are called after it: ``{"sliding": ...}`` makes
            ``sliding_perplexity``. They are of the text alone: what stands around documents is not scored.
            None unless an option asks for it, for they cost time.
        metrics: ``"module:Class"`` of ``evaluate.Metric`` classes. With ``greater_is_better`` a class says whether
            more is better: a bool, or a mapping from the names of its figures.
        perplexity_name: (options) to what the reported perplexity is, for people.
        required_tokens: roles that the tokenizer must fill, such as ``mask_token``.
        extra_tokens: special tokens that the tokenizer gets where it lacks them; the embeddings grow with it.
        tokenizer: special tokens for ``--train_tokenizer``.
        gap: what a person types in a prompt where something is missing, such as ``<mask>``; empty where prompts are
            beginnings of texts.
        prompt: (processing class, text) to what the pipeline gets for a text that a person typed.
        answers: one pipeline output to lines for people.
        starter: the run that needs no arguments. There is none where it leaves open which checkpoint a frozen companion
            is, as that of a recipe which this one was made of.
        api_version: version of this contract that the recipe was written for.

    Raises:
        ValueError: a name or class string of the wrong shape, only one of ``save`` and ``load``, or a frozen companion
            without an option.
        TypeError: options that are no dataclass of :func:`lmtasks.option` fields.
    """

    name: str
    summary: str
    options: type
    preprocess: Callable[[Any, Any], Blocks | Layout] | Reference
    collator: Callable[[Any, Any, bool], Collate] | Reference
    loss: Callable[..., LossSums] | Reference
    model_class: str
    pipeline: str
    model_types: Sequence[str] = ()
    medium: Medium | None = None
    processor: str = TOKENIZER
    new_processor: Callable[[PretrainedConfig, Any], Any] | Reference | None = None
    attention: Literal["causal", "bidirectional"] | None = None
    targets: Callable[[Batch], Targets] | Reference = _labels
    vocabulary: bool = True
    frozen: Mapping[str, Frozen] = field(default_factory=dict)
    prepare_model: Callable[[PreTrainedModel, Any], None] | Reference | None = None
    save: Callable[[PreTrainedModel, Path], None] | Reference | None = None
    load: Callable[[PreTrainedModel, Path], None] | Reference | None = None
    before_step: Callable[[torch.nn.Module, Any, int], None] | Reference | None = None
    views: Callable[[Any, Any], Mapping[str, Blocks]] | Reference = lambda processor, options: {}
    metrics: Sequence[str] = ("lmtasks.metrics:Perplexity",)
    perplexity_name: Callable[[Any], str] | Reference = lambda options: "perplexity"
    required_tokens: Sequence[str] = ()
    extra_tokens: Sequence[str] = ()
    tokenizer: TokenizerSpec | None = None
    gap: str = ""
    prompt: Callable[[Any, str], str] | Reference = lambda processor, text: text
    answers: Callable[[Any], list[str]] | Reference = lambda output: [str(output)]
    starter: Starter | None = None
    api_version: int = API_VERSION
    extensions: Sequence[Extension] = field(default=(), init=False, repr=False, compare=False)
    """Those that are installed. The catalog sets them; no author does."""
    engines: Mapping[str, Engine] = field(default_factory=dict, init=False, repr=False, compare=False)
    """The same of engines, by name; to ask it for another raises the InputError that says so."""

    def __repr__(self) -> str:
        return f"Recipe({self.name}: {self.summary})"

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise ValueError(f"recipe name {self.name!r} must be lower case letters, digits and hyphens")
        title = f"recipe '{self.name}'"
        if self.attention not in (None, "causal", "bidirectional"):
            raise ValueError(f"{title} has attention={self.attention!r}: it is 'causal', 'bidirectional' or None")
        own = [self.pipeline] if ":" in self.pipeline else []
        for reference in (self.model_class, self.processor, *own, *self.metrics):
            require_reference(title, reference)
        defer(self, title, "preprocess", "collator", "loss", "new_processor", "targets", "before_step")
        defer(self, title, "prepare_model", "save", "load", "views", "perplexity_name", "prompt", "answers")
        if isinstance(self.targets, Mapping):
            object.__setattr__(self, "targets", TargetsByName(self.targets))
        options = options_of(self.options)
        for name in self.frozen:
            if name not in options or options[name].type is not str:
                raise ValueError(f"{title} needs an option '{name}' of type str, to say which checkpoint that is")
            if self.starter and not (options[name].default or name in self.starter.training):
                object.__setattr__(self, "starter", None)
        if (self.save is None) != (self.load is None):
            raise ValueError(f"{title} has one of save and load, and needs both or none")

    @property
    def example(self) -> str:
        """Something to type after ``lmtasks predict RUN``."""
        if self.starter and self.starter.texts:
            return self.starter.texts[0]
        return f"FILE{self.medium.suffixes[0]}" if self.medium else "a text"
