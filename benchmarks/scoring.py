"""Scores of texts, beside those of minicons (masked models) and of lm-evaluation-harness (causal ones).

    python benchmarks/scoring.py [--texts 20]

Both libraries get the same models, tokenizers and texts, and each score of theirs is compared with that of
``lmtasks.score``: the table has the largest difference of a text, in nats, as it is and for each token. Exit 1 where it
is more than 1e-5 for a token. Models are tiny, with weights so large that every token of the context matters.

The libraries are no dependencies: ``pip install minicons lm-eval``. What is not there is left out and said.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from measuring import print_table
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer

import lmtasks
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.builtin.masked_lm import MASKED_LM
from lmtasks.data.sample import sample_documents
from lmtasks.models.tokenizer import train_tokenizer

SHAPE = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}
POSITIONS, TOKENS = 256, 800
MOST = 1e-5
"""Nats that a token may be off by: both add up in float32."""

Row = tuple[str, str, int, list[float], list[lmtasks.Score]]
"""Model, what is compared, number of texts, the scores of the other library, and ours."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=20)
    wanted = parser.parse_args().texts
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    missing = [name for name, module in (("minicons", "minicons"), ("lm-eval", "lm_eval")) if not _is_there(module)]
    if missing:
        print(f"left out, since it is not installed: pip install {' '.join(missing)}", file=sys.stderr)
    documents = sample_documents("python")
    sentences = [line for text in documents for line in text.splitlines() if 20 < len(line) < 200][:wanted]
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
    sys.exit(worst > MOST)


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
