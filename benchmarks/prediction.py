"""How many texts a second are answered, against the guides' steps and against the bare model.

    python benchmarks/prediction.py [--only masks] [--texts 64] [--masked MODEL] [--causal MODEL] [--quick]

One table for filling in masks and two for continuing texts, of mixed lengths, on a GPU if there is one: by as many
tokens each, and until they end, which each does elsewhere.
Every row answers the same texts with the same model, loaded before; the rows alternate, so that a busy moment
hits them all, and each figure is the median of its rounds. The guides give a list to ``pipeline(...)``; people
then add ``batch_size``. The bare model gets the same number of tokens in rows of one length: nothing is
padded, tokenised or read. It is a limit only where it does no more than it must, so it has a row with its
logits everywhere, as any forward pass makes them, and one with those of the masks alone.

Without a model, one of six layers of 768 with random weights is made on the spot; ``--quick`` makes a tiny one,
to see that it runs. A GPU wants more to do: ``--texts 2048 --batch_size 64``.
"""

from __future__ import annotations

import argparse
import itertools
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, PreTrainedModel

from lmtasks.api import Recipe
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.data.sample import sample_documents
from lmtasks.inference.predictor import Predictor
from lmtasks.models.lm_head import separate_head
from lmtasks.models.tokenizer import train_tokenizer

POSITIONS = 512
"""Tokens that the models take; room for the new ones included."""

LONGEST = 3
"""Times as many new tokens as usual that a text may get until it ends."""


@dataclass(frozen=True)
class Size:
    """How much is measured, and on what when no model is named."""

    texts: int
    rounds: int
    new_tokens: int
    batch_size: int
    tokens: int
    vocabulary: int
    shape: dict[str, int]


FULL_SHAPE = {"num_hidden_layers": 6, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
TINY_SHAPE = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
FULL = Size(64, 5, 16, 16, tokens=8000, vocabulary=50_265, shape=FULL_SHAPE)
QUICK = Size(16, 1, 4, 4, tokens=400, vocabulary=400, shape=TINY_SHAPE)

Way = Callable[[], Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masked", metavar="MODEL", help="folder or Hub id of a model that fills in masks")
    parser.add_argument("--causal", metavar="MODEL", help="folder or Hub id of a model that continues texts")
    parser.add_argument("--only", choices=("masks", "continuations"), help="one kind of tables")
    parser.add_argument("--quick", action="store_true", help="tiny models and few texts")
    for name in ("texts", "rounds", "new_tokens", "batch_size"):
        parser.add_argument(f"--{name}", type=int, help=f"default: {getattr(FULL, name)}")
    given = {name: value for name, value in vars(parser.parse_args()).items() if value is not None}
    size = Size(**vars(QUICK if given.pop("quick") else FULL) | {k: v for k, v in given.items() if hasattr(FULL, k)})
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    documents = sample_documents("python")
    with tempfile.TemporaryDirectory() as folder:
        if given.get("only") != "continuations":
            masked = given.get("masked") or new_model(Path(folder, "masked"), MASKED_LM, "roberta", size, documents)
            fill_masks(masked, size, documents)
        if given.get("only") != "masks":
            causal = given.get("causal") or new_model(Path(folder, "causal"), CAUSAL_LM, "gpt2", size, documents)
            continue_texts(causal, size, documents)


def new_model(folder: Path, recipe: Recipe, kind: str, size: Size, documents: list[str]) -> str:
    """A saved model with random weights and a tokenizer that knows the texts."""
    tokenizer = train_tokenizer([documents], size.tokens, recipe.tokenizer)
    # With larger weights than usual a fresh model does not say the same token for ever.
    more = {"initializer_range": 0.1} if kind == "gpt2" else {}
    # RoBERTa's positions begin behind its padding token.
    room = POSITIONS + (tokenizer.pad_token_id + 1 if kind == "roberta" else 0)
    ids = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("pad", "bos", "eos")}
    config = AutoConfig.for_model(
        kind, **size.shape, **ids, **more, max_position_embeddings=room, vocab_size=max(size.vocabulary, len(tokenizer))
    )
    torch.manual_seed(0)
    model_class = AutoModelForMaskedLM if recipe is MASKED_LM else AutoModelForCausalLM
    model_class.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def new_texts(tokenizer: Any, size: Size, documents: list[str], masks: bool) -> list[str]:
    """Stretches of documents, half of them shorter than some 30 words, in no order."""
    draw = random.Random(0)
    words = list(itertools.chain.from_iterable(document.split() for document in documents))
    texts: list[str] = []
    while len(texts) < size.texts:
        length = 2 + int(draw.lognormvariate(3.0, 0.8))
        start = draw.randrange(len(words) - length)
        text = words[start : start + length]
        for place in draw.sample(range(length), 1 + (len(texts) % 5 == 0)) if masks else ():
            text[place] = tokenizer.mask_token
        if len(tokenizer(" ".join(text))["input_ids"]) + LONGEST * size.new_tokens <= POSITIONS:
            texts.append(" ".join(text))
    return texts


# --- filling in masks ---


def fill_masks(name: str, size: Size, documents: list[str]) -> None:
    predictor, guide = Predictor(name, MASKED_LM), transformers.pipeline("fill-mask", model=name)
    texts = new_texts(guide.tokenizer, size, documents, masks=True)
    model = guide.model.requires_grad_(False)
    packed = rows_of_one_length(guide, texts)
    ways: dict[str, Way] = {
        "lmtasks.predict": lambda: predictor.predict(texts, batch_size=size.batch_size),
        "guide: pipeline on a list": lambda: guide(texts),
        f"guide: pipeline, batch_size={size.batch_size}": lambda: guide(texts, batch_size=size.batch_size),
        "bare model, packed": lambda: forward(model, packed, size.batch_size),
    }
    # On a model of its own: what makes a head run alone stays in the model, and the guide has no such thing.
    bare = AutoModelForMaskedLM.from_pretrained(name).to(model.device).eval().requires_grad_(False)
    if not separate_head(bare, {"input_ids": packed[:2, :16]}):
        masks = sum(text.count(guide.tokenizer.mask_token) for text in texts)
        ways["bare model, packed, logits of the masks"] = lambda: at_masks(bare, packed, size.batch_size, masks)
    report("Filling in masks", ways, texts, guide, size.rounds, first_guesses)


def first_guesses(output: list[Any]) -> list[int]:
    """The likeliest token of each mask of a text."""
    masks = output if isinstance(output[0], list) else [output]
    return [mask[0]["token"] for mask in masks]


def forward(model: PreTrainedModel, packed: torch.Tensor, batch_size: int) -> None:
    with torch.no_grad():
        for ids in packed.split(batch_size):
            model(input_ids=ids)


def at_masks(model: PreTrainedModel, packed: torch.Tensor, batch_size: int, masks: int) -> None:
    """The body on every token, the head on as many as there are masks, spread over the batches."""
    batches = packed.split(batch_size)
    with torch.no_grad():
        for number, ids in enumerate(batches):
            states = model.lmtasks_head.hidden({"input_ids": ids}).flatten(0, 1)
            share = masks * (number + 1) // len(batches) - masks * number // len(batches)
            model.lmtasks_head.logits(states[:share], {"input_ids": ids})


# --- continuing texts ---


def continue_texts(name: str, size: Size, documents: list[str]) -> None:
    predictor, guide = Predictor(name, CAUSAL_LM), transformers.pipeline("text-generation", model=name)
    texts = new_texts(guide.tokenizer, size, documents, masks=False)
    packed = rows_of_one_length(guide, texts)
    if guide.tokenizer.pad_token is None:
        guide.tokenizer.pad_token = guide.tokenizer.eos_token
    # As many tokens for every text, or the rows would not do the same work.
    asked = {"max_new_tokens": size.new_tokens, "min_new_tokens": size.new_tokens, "do_sample": False}
    ways = continuing(predictor, guide, texts, size, asked)
    ways["bare model, packed"] = lambda: steps(guide.model, packed, size.batch_size, size.new_tokens)
    report(f"Continuing texts by {size.new_tokens} tokens", ways, texts, guide, size.rounds, same)
    # So many tokens end a text that few answers are of one length.
    most, ends = LONGEST * size.new_tokens, list(range(0, guide.model.config.vocab_size, size.new_tokens))
    asked = {"max_new_tokens": most, "eos_token_id": ends, "do_sample": False}
    title = f"Continuing texts until they end, by {most} tokens at most"
    report(title, continuing(predictor, guide, texts, size, asked), texts, guide, size.rounds, same)


def continuing(predictor: Predictor, guide: Any, texts: list[str], size: Size, asked: dict[str, Any]) -> dict[str, Way]:
    return {
        "lmtasks.predict": lambda: predictor.predict(texts, batch_size=size.batch_size, **asked),
        "guide: pipeline on a list": lambda: guide(texts, **asked),
        f"guide: pipeline, batch_size={size.batch_size}": lambda: guide(texts, batch_size=size.batch_size, **asked),
    }


def same(output: Any) -> Any:
    return output


def steps(model: PreTrainedModel, packed: torch.Tensor, batch_size: int, new_tokens: int) -> None:
    """The likeliest next token, so many times, with nothing computed twice."""
    with torch.no_grad():
        for ids in packed.split(batch_size):
            past = None
            for _ in range(new_tokens):
                output = model(input_ids=ids, past_key_values=past, use_cache=True, logits_to_keep=1)
                past, ids = output.past_key_values, output.logits.argmax(-1)


# --- measuring ---


def rows_of_one_length(pipeline: Any, texts: list[str]) -> torch.Tensor:
    """The tokens of all texts one after another, cut into as many rows as there are texts, on the model's device."""
    ids = list(itertools.chain.from_iterable(pipeline.tokenizer(texts)["input_ids"]))
    length = -(-len(ids) // len(texts))
    ids += ids[: length * len(texts) - len(ids)]
    return torch.tensor(ids, device=pipeline.device).view(len(texts), length)


def report(
    title: str, ways: dict[str, Way], texts: list[str], guide: Any, rounds: int, essence: Callable[[Any], Any]
) -> None:
    """Measure the ways and print their table.

    Args:
        ways: what is measured, by name; those that give answers are compared with the guide's.
        essence: what of an answer must be the same.
    """
    answers = {name: way() for name, way in ways.items()}  # once for the caches
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            times[name].append(seconds(way))
    rates = {name: len(texts) / statistics.median(values) for name, values in times.items()}
    tokens = sorted(map(len, guide.tokenizer(texts)["input_ids"]))
    print(
        f"\n{title}: {len(texts)} texts of {tokens[0]} to {tokens[-1]} tokens, median {tokens[len(tokens) // 2]}, "
        f"on {guide.device.type}, {str(guide.model.dtype).removeprefix('torch.')}\n"
    )
    print(f"| way | texts/s, median of {rounds} | × the guide's list | answers as the guide's list |")
    print("|---|---|---|---|")
    plain = "guide: pipeline on a list"
    for name, rate in rates.items():
        same = "–"
        if answers[name] is not None:
            pairs = zip(answers[name], answers[plain], strict=True)
            same = f"{sum(essence(one) == essence(other) for one, other in pairs) / len(texts):.1%}"
        print(f"| {name} | {rate:.1f} | {rate / rates[plain]:.2f} | {same} |", flush=True)


def seconds(way: Way) -> float:
    began = time.perf_counter()
    way()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
