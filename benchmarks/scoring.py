"""Scores of texts beside those of minicons (masked models) and lm-evaluation-harness (causal ones), and their speed.

    python benchmarks/scoring.py [--texts 20] [--only agreement|speed] [--rounds 3] [--quick]

Both libraries get the same models, tokenizers and texts, and each score of theirs is compared with that of
``lmtasks.score``: the table has the largest difference of a text, in nats, as it is and for each token. Exit 1 where it
is more than 1e-5 for a token. Models are tiny, with weights so large that every token of the context matters.

The second table has the pseudo-log-likelihoods of a masked model of six layers of 768 with random weights, beside a
plain loop that hides one token at a time and gives the model one row. Both read the same texts with the same weights.
They alternate, and the figures are medians; exit 1 where a token is off by more than 1e-6. ``--quick`` makes the model
tiny.

The libraries are no dependencies: ``pip install minicons lm-eval``. What is not there is left out and said.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from measuring import alternated, medians, print_table
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

import lmtasks
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.data.sample import sample_documents
from lmtasks.models.tokenizer import train_tokenizer
from lmtasks.progress import quiet

SHAPE = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
POSITIONS, TOKENS = 256, 800
FASTER = 5.0
"""Times a plain loop's tokens per second that is wanted."""

MOST = 1e-5
"""Nats that a token may be off by: both add up in float32."""

CLOSE = 1e-6
"""The same, where both are computed by the same library."""

Row = tuple[str, str, int, list[float], list[lmtasks.Score]]
"""Model, what is compared, number of texts, the scores of the other library, and ours."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=20)
    parser.add_argument("--only", choices=("agreement", "speed"), help="one of the two tables")
    parser.add_argument("--rounds", type=int, default=3, help="of the second table")
    parser.add_argument("--quick", action="store_true", help="a tiny model in the second table")
    given = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    exact = given.only == "speed" or agree(given.texts)
    if given.only != "agreement":
        exact &= compare_speed(given.texts, given.rounds, given.quick)
    sys.exit(not exact)


def agree(wanted: int) -> bool:
    """Whether the scores are those of the libraries; prints the first table."""
    missing = [name for name, module in (("minicons", "minicons"), ("lm-eval", "lm_eval")) if not _is_there(module)]
    if missing:
        print(f"left out, since it is not installed: pip install {' '.join(missing)}", file=sys.stderr)
    documents = sample_documents("python")
    sentences = _sentences(documents, wanted)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as folder:
        if "minicons" not in missing:
            rows += _masked(Path(folder), documents, sentences)
        if "lm-eval" not in missing:
            rows += _causal(Path(folder), documents, [text[:3000] for text in documents[:wanted]])
    worst = 0.0
    cells = []
    for model, what, count, theirs, ours in rows:
        off = [abs(other - one.value) for other, one in zip(theirs, ours, strict=True)]
        each = max(one / score.tokens for one, score in zip(off, ours, strict=True))
        worst = max(worst, each)
        tokens = sum(one.tokens for one in ours)
        cells.append((model, what, str(count), f"{tokens:,}", f"{max(off):.1e}", f"{each:.1e}"))
    print_table("Scores", ("model", "beside", "texts", "tokens", "off by, of a text", "of a token"), cells)
    return worst <= MOST


def _sentences(documents: Sequence[str], wanted: int) -> list[str]:
    return [line for text in documents for line in text.splitlines() if 20 < len(line) < 200][:wanted]


def compare_speed(wanted: int, rounds: int, quick: bool) -> bool:
    """Whether the pseudo-log-likelihoods are those of a plain loop; prints the second table."""
    quiet()
    # Here, because some of what is installed talks when it is imported, unless it was told not to.
    from prediction import FULL, QUICK, new_model

    from lmtasks.runs.scoring import Scorer

    documents = sample_documents("python")
    texts = _sentences(documents, wanted)
    with tempfile.TemporaryDirectory() as folder:
        name = new_model(Path(folder), MASKED_LM, "roberta", QUICK if quick else FULL, documents)
        scorer = Scorer(name)
        model = AutoModelForMaskedLM.from_pretrained(name).to(scorer.model.device).eval()
    told: dict[str, list[float]] = {}

    def plain() -> float:
        began = time.perf_counter()
        told["plain loop"] = [_one_by_one(model, scorer.tokenizer, text) for text in texts]
        return time.perf_counter() - began

    def ours() -> float:
        began = time.perf_counter()
        with contextlib.redirect_stderr(io.StringIO()):
            told["lmtasks.score"] = [one.value for one in scorer.score(texts)]
        return time.perf_counter() - began

    contestants = {"plain loop": plain, "lmtasks.score": ours}
    alternated(contestants, 1)  # once for the caches
    seconds = medians(alternated(contestants, rounds))
    counts = [len(ids) for ids in scorer.tokenizer(texts, add_special_tokens=False)["input_ids"]]
    off = max(abs(one - other) / count for one, other, count in zip(*told.values(), counts, strict=True))
    tokens = sum(counts)
    ratio = seconds["plain loop"] / seconds["lmtasks.score"]
    verdict = "" if ratio >= FASTER else f", {FASTER:g} wanted: missed"
    print_table(
        f"Pseudo-log-likelihoods of {len(texts)} texts, {tokens:,} tokens",
        ("what", f"tokens/s, median of {rounds}", "× the plain loop", "off by, of a token"),
        [
            ("plain loop", f"{tokens / seconds['plain loop']:.1f}", "1.00", ""),
            ("lmtasks.score", f"{tokens / seconds['lmtasks.score']:.1f}", f"{ratio:.2f}{verdict}", f"{off:.1e}"),
        ],
    )
    return off <= CLOSE


@torch.inference_mode()
def _one_by_one(model: Any, tokenizer: Any, text: str) -> float:
    ids = tokenizer(text, return_tensors="pt", return_special_tokens_mask=True)
    special, read = ids["special_tokens_mask"][0], ids["input_ids"].to(model.device)
    total = 0.0
    for place in (special == 0).nonzero()[:, 0].tolist():
        hidden = read.clone()
        hidden[0, place] = tokenizer.mask_token_id
        total += float(model(input_ids=hidden).logits[0, place].double().log_softmax(-1)[read[0, place]])
    return total


def _is_there(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _masked(root: Path, documents: Sequence[str], texts: list[str]) -> Iterator[Row]:
    from minicons.scorer import MaskedLMScorer

    tokenizer = train_tokenizer([list(documents)], TOKENS, MASKED_LM.tokenizer)
    pieces = train_tokenizer([list(documents)], TOKENS, MASKED_LM.tokenizer, "wordpiece")
    for kind, own in (("roberta", tokenizer), ("bert", pieces), ("modernbert", tokenizer)):
        folder = _saved(root / kind, kind, own, AutoModelForMaskedLM.from_config)
        model = AutoModelForMaskedLM.from_pretrained(folder).eval()
        scorer = MaskedLMScorer(model, "cpu", tokenizer=AutoTokenizer.from_pretrained(folder))
        for metric in ("original", "within_word_l2r"):
            # Its own way of calling a tokenizer is one that transformers 5 no longer has.
            encoded = own(texts, padding=True)
            theirs = scorer.sequence_score(encoded, reduction=lambda one: one.double().sum().item(), PLL_metric=metric)
            yield kind, f"minicons, {metric}", len(texts), theirs, _ours(folder, texts, pll_metric=metric)


def _causal(root: Path, documents: Sequence[str], texts: list[str]) -> Iterator[Row]:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    tokenizer = train_tokenizer([list(documents)], TOKENS, CAUSAL_LM.tokenizer)
    for kind in ("gpt2", "llama"):
        folder = _saved(root / kind, kind, tokenizer, AutoModelForCausalLM.from_config)
        for most in (63, POSITIONS):
            harness = HFLM(
                pretrained=str(folder),
                device="cpu",
                dtype="float32",
                max_length=most,
                add_bos_token=False,
                batch_size=4,
            )
            asked = [Instance("loglikelihood_rolling", {}, (text,), number) for number, text in enumerate(texts)]
            with contextlib.redirect_stderr(io.StringIO()):
                theirs = harness.loglikelihood_rolling(asked, disable_tqdm=True)
            ours = _ours(folder, texts, max_length=most)
            yield kind, f"lm-eval, max_length={most}", len(texts), list(map(float, theirs)), ours


def _ours(folder: Path, texts: list[str], **asked: Any) -> list[lmtasks.Score]:
    with contextlib.redirect_stderr(io.StringIO()):
        scores: list[lmtasks.Score] = lmtasks.score(folder, texts, **asked)
    return scores


def _saved(folder: Path, kind: str, tokenizer: Any, make: Callable[[Any], Any]) -> Path:
    """A tiny model with its tokenizer."""
    torch.manual_seed(0)
    places = POSITIONS + 2 * (kind == "roberta")  # whose padding takes two
    shape = {**SHAPE, "max_position_embeddings": places, "vocab_size": len(tokenizer)}
    ids = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id", None) for role in ("pad", "bos", "eos", "cls")}
    model = make(AutoConfig.for_model(kind, **shape, **{name: one for name, one in ids.items() if one is not None}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= 8 if parameter.ndim == 2 else 1
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
