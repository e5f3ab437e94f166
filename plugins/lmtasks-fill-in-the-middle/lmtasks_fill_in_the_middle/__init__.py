"""fill-in-the-middle: a causal model that also fills a gap (Bavarian et al. 2022).

Some blocks are told in another order: what comes before the gap, what comes after it, and only then
the gap itself. The model stays a causal one; what it sees first is a matter of how it is told.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lmtasks import Recipe, Starter, TokenizerSpec, hookimpl, option
from lmtasks.builtin.causal_lm import CAUSAL_LM, CausalLMOptions

PREFIX, SUFFIX, MIDDLE = FIM_TOKENS = ("<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>")


@dataclass(frozen=True, kw_only=True)
class FillInTheMiddleOptions(CausalLMOptions):
    """Options of fill-in-the-middle."""

    fim_rate: float = option(
        0.5, help="share of blocks that are told with their middle last", ge=0, le=1, training_only=True
    )
    spm_rate: float = option(0.5, help="share of these that begin with the suffix", ge=0, le=1, training_only=True)


def preprocess(tokenizer, options):
    """As causal-lm, with room in each block for the three tokens."""
    blocks = CAUSAL_LM.preprocess(tokenizer, options)
    return replace(blocks, size=blocks.size - len(FIM_TOKENS))


def collator(tokenizer, options, training):
    """Causal batches of texts in their own order or with the middle last; evaluation is in their own order."""
    plain = CAUSAL_LM.collator(tokenizer, options, training)
    marks = tokenizer.convert_tokens_to_ids(list(FIM_TOKENS))
    if not training:
        return plain
    return lambda examples: plain([retold(example, options, marks, tokenizer.eos_token_id) for example in examples])


def retold(example, options, marks, end):
    """The example with the middle of one of its documents last, if its own chance says so."""
    import numpy as np

    draw = np.random.default_rng(example["seed"])
    if "document_ids" in example or draw.random() >= options.fim_rate:
        return example
    ids = np.asarray(example["input_ids"])
    # One document of the block, a longer one more often; parting it at two places gives three parts.
    place = int(draw.integers(len(ids)))
    ends = np.flatnonzero(ids == end)
    start = int(max((one + 1 for one in ends if one < place), default=0))
    stop = int(min((one for one in ends if one >= place), default=len(ids)))
    first, second = sorted(start + int(cut) for cut in draw.integers(0, stop - start + 1, 2))
    prefix, middle, suffix = ids[start:first], ids[first:second], ids[second:stop]
    before, after, between = ([mark] for mark in marks)
    if draw.random() < options.spm_rate:
        told = [before, after, suffix, between, prefix, middle]
    else:
        told = [before, prefix, after, suffix, between, middle]
    return {**example, "input_ids": np.concatenate([ids[:start], *told, ids[stop:]]).astype(ids.dtype)}


def prompt(tokenizer, text):
    """A text with ``<fill>`` where something is missing, as the model was told; others as they are."""
    prefix, gap, suffix = text.partition("<fill>")
    return f"{PREFIX}{prefix}{SUFFIX}{suffix}{MIDDLE}" if gap else text


def answers(output):
    """What fills the gap, or the text with its continuation."""
    return [line for choice in output for line in choice["generated_text"].rpartition(MIDDLE)[2].splitlines()]


FILL_IN_THE_MIDDLE: Recipe = replace(
    CAUSAL_LM,
    name="fill-in-the-middle",
    summary="Continue a text, or fill a gap in it.",
    options=FillInTheMiddleOptions,
    preprocess=preprocess,
    collator=collator,
    extra_tokens=FIM_TOKENS,
    tokenizer=TokenizerSpec(
        special_tokens={"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|padding|>"}
    ),
    gap="<fill>",
    prompt=prompt,
    answers=answers,
    starter=Starter(
        sample="python",
        model=CAUSAL_LM.starter.model,
        training={**CAUSAL_LM.starter.training, "max_steps": 1500},
        epochs=CAUSAL_LM.starter.epochs,
        texts=("if value is <fill> None:",),
        predict={"max_new_tokens": 8, "do_sample": False},
    ),
)


@hookimpl
def lmtasks_recipes():
    """The recipe of this package."""
    return [FILL_IN_THE_MIDDLE]
