"""causal-lm: learn to tell the next token from those before it.

Follows the task guide "Causal language modeling"; what differs is written in docs/recipes.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lmtasks import (
    BlockOptions,
    Blocks,
    InputError,
    Recipe,
    Starter,
    TokenizerSpec,
    hookimpl,
    option,
    stack,
    template_tokens,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from lmtasks.api import Batch, Example


@dataclass(frozen=True, kw_only=True)
class CausalLMOptions(BlockOptions):
    """Options of causal-lm."""

    stride: int | None = option(
        None, help="evaluate in a sliding window too: blocks that begin every so many tokens", ge=1
    )


def preprocess(tokenizer: PreTrainedTokenizerBase, options: BlockOptions) -> Blocks:
    """Running text in blocks; a document starts as the tokenizer starts one and ends with its end token."""
    start, end = template_tokens(tokenizer)
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in end:
        end = (*end, tokenizer.eos_token_id)
    return options.blocks(document_start=start, document_end=end, context=1)


def views(tokenizer: PreTrainedTokenizerBase, options: BlockOptions) -> dict[str, Blocks]:
    """A sliding window gives every token but the first ones at least ``block_size - stride`` before it.

    Where the tokenizer puts nothing before a text, its first token is told from the token that begins texts, or else
    from the one that ends them: the one before every other text. An isolated document has nothing before it.
    """
    if not isinstance(options, CausalLMOptions) or options.stride is None:
        return {}
    if options.stride >= options.block_size:
        raise InputError(
            f"--stride {options.stride} would skip text: of each block of {options.block_size} tokens"
            f" {options.block_size - 1} are told, and the first is given",
            f"--stride {options.block_size - 1} or less",
        )
    blocks = preprocess(tokenizer, options)
    marks = (tokenizer.bos_token_id, tokenizer.eos_token_id)
    apart = blocks.isolate and not blocks.line_by_line
    before = () if blocks.document_start or apart else tuple(mark for mark in marks if mark is not None)[:1]
    return {"sliding": replace(blocks, stride=options.stride, prefix=before)}


def collator(
    tokenizer: PreTrainedTokenizerBase, options: CausalLMOptions, training: bool
) -> Callable[[list[Example]], Batch]:
    """Batches whose labels are the tokens themselves; the loss looks one ahead.

    Labels follow the attention mask, not the padding id: where padding and end of document share
    a token, the end of a document is learned all the same. The first token of a block, or of an
    isolated document, has nothing before it and is no target.
    """
    import torch

    def collate(examples: list[Example]) -> Batch:
        batch = stack(examples, tokenizer)
        labels = batch["input_ids"].clone()
        if "attention_mask" in batch:
            labels[batch["attention_mask"] == 0] = -100
        for row, example in zip(labels, examples, strict=True):
            if "scored" in example:
                row[: len(example["scored"])][torch.from_numpy(~example["scored"])] = -100
        labels[:, 0] = -100
        if "document_ids" in batch:
            labels[:, 1:][batch["document_ids"].diff() != 0] = -100
        return {**batch, "labels": labels}

    return collate


def answers(output: Any) -> list[str]:
    """The text with its continuation."""
    return [line for choice in output for line in choice["generated_text"].splitlines()]


CAUSAL_LM = Recipe(
    name="causal-lm",
    summary="Continue a text, one token after the other.",
    options=CausalLMOptions,
    preprocess=preprocess,
    collator=collator,
    loss="lmtasks:causal_loss",
    model_class="transformers:AutoModelForCausalLM",
    pipeline="text-generation",
    attention="causal",
    views=views,
    metrics=("lmtasks.metrics:Perplexity", "lmtasks.metrics:Accuracy"),
    tokenizer=TokenizerSpec(
        special_tokens={
            "bos_token": "<|endoftext|>",
            "eos_token": "<|endoftext|>",
            "unk_token": "<|endoftext|>",
            "pad_token": "<|padding|>",
        }
    ),
    answers=answers,
    starter=Starter(
        sample="python",
        # Small, with short blocks and few tokens: in a minute, steps count for more than size. A convolution over three
        # tokens has its neighbours from the first step; a Llama has to learn to look at them (docs/benchmarks.md).
        # One head of keys and values fits any number of heads that somebody asks for.
        model={
            "model_type": "lfm2",
            "config_overrides": "num_hidden_layers=2,full_attn_idxs=[1],hidden_size=128,num_attention_heads=4,"
            "num_key_value_heads=1,intermediate_size=352,block_auto_adjust_ff_dim=false,max_position_embeddings=512",
            "train_tokenizer": 2000,
        },
        training={
            "block_size": 64,
            "learning_rate": 4e-3,
            "max_steps": 2000,
            "warmup_steps": 0.1,
            "weight_decay": 0.1,
            "per_device_train_batch_size": 8,
            "adam_beta2": 0.95,
        },
        epochs=6,
        texts=("def read(self, size", "if value is None", "raise ValueError"),
        predict={"max_new_tokens": 14, "do_sample": False, "repetition_penalty": 1.2},
    ),
)


@hookimpl
def lmtasks_recipes() -> list[Recipe]:
    """The recipe of this module."""
    return [CAUSAL_LM]
