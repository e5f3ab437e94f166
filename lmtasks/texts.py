"""The texts of a run as examples, with what is worth knowing about them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from lmtasks.blocks import Blocks
from lmtasks.configure import Request
from lmtasks.corpus import Corpus, count_duplicates
from lmtasks.encoding import encode, unknown_share
from lmtasks.errors import InputError
from lmtasks.examples import Examples
from lmtasks.packing import Packed
from lmtasks.recipe import EVALUATION_SEED, Batch, BlockOptions


@dataclass(frozen=True)
class Texts:
    """What a run trains and evaluates on.

    Args:
        source: short words for people.
        duplicates: how many held-out rows are in the training text, too.
        empty: how many documents were left out because they hold nothing.
    """

    source: str
    train: Packed
    evaluation: Packed
    duplicates: int
    empty: int

    def notes(self) -> Iterator[str]:
        """What a person should know before training on them."""
        for name, packed in (("training", self.train), ("held-out", self.evaluation)):
            share = unknown_share(packed)
            if share > 0.001:
                yield f"{share:.1%} of the {name} tokens are unknown to the tokenizer"
        if self.duplicates:
            stream = self.evaluation.stream
            yield f"{self.duplicates:,} of {stream.rows:,} held-out {stream.unit} are in the training text, too"
        if self.empty:
            yield f"documents without text left out: {self.empty:,}"


def encode_corpus(request: Request, corpus: Corpus, tokenizer: PreTrainedTokenizerBase) -> Texts:
    """Both splits as the recipe wants them.

    Raises:
        InputError: the recipe has nothing to predict in the training text, or it cannot be encoded.
    """
    assert corpus.train is not None and corpus.evaluation is not None  # a run has both
    request.recipe.views(tokenizer, request.options)  # their options are checked now, used at the end
    blocks, how, data = blocks_of(request, tokenizer), how_to_encode(request), request.data
    train = encode("training", corpus.train, tokenizer, blocks, **how).head(data.max_train_samples)
    evaluation = encode("held-out", corpus.evaluation, tokenizer, blocks, **how).head(data.max_eval_samples)
    one_example(request, tokenizer, train, "training")
    duplicates = count_duplicates(corpus.train, corpus.evaluation)
    return Texts(corpus.source, train, evaluation, duplicates, corpus.train.blank + corpus.evaluation.blank)


def how_to_encode(request: Request) -> dict[str, Any]:
    """What was said about tokenising that changes no token."""
    return {"fresh": request.data.overwrite_cache, "workers": request.data.preprocessing_num_workers}


def blocks_of(request: Request, tokenizer: PreTrainedTokenizerBase) -> Blocks:
    """How the recipe wants its text.

    Raises:
        InputError: an option of all recipes that this one takes no notice of.
    """
    options = request.options
    blocks = request.recipe.preprocess(tokenizer, options)
    if isinstance(options, BlockOptions):
        for name, heeded in (("line_by_line", blocks.line_by_line), ("isolate_documents", blocks.isolate)):
            if getattr(options, name) != heeded:
                raise InputError(f"{request.recipe.name} takes no notice of --{name}", f"leave --{name} out")
    return blocks


def one_example(request: Request, tokenizer: PreTrainedTokenizerBase, packed: Packed, name: str) -> Batch:
    """A batch of the longest example that has a target, as the recipe collates it for evaluation.

    Args:
        name: what to call the text, "training".

    Raises:
        InputError: no example has one.
    """
    collate = request.recipe.collator(tokenizer, request.options, False)
    examples = Examples(packed, EVALUATION_SEED)
    for number in packed.longest_first():
        batch = collate([examples[number]])
        if request.recipe.targets(batch).numel():
            return batch
    raise InputError(
        f"the {name} text has nothing to predict in its {packed.tokens:,} tokens",
        "give more text, or another --tokenizer_name",
    )
