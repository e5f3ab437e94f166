"""Keras against the Trainer: the losses of twelve steps, and the evaluation after them.

    python benchmarks/equality.py [--types ...] [--backends ...]

Tiny models, from scratch with one seed, without dropout; accumulation of two batches, of which the last of an epoch is
short, a cosine schedule with warm-up, weight decay and clipping. Exit 1 where a loss differs by more than 1e-4, or the
evaluation by more than 1e-5.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

LOSSES, EVALUATION = 1e-4, 1e-5
"""How far off a loss of a step, and that of the evaluation, may be, in nats."""

TYPES = {"roberta": "masked-lm", "gpt2": "causal-lm", "modernbert": "masked-lm", "llama": "causal-lm"}

DROPOUT = {
    "roberta": ",hidden_dropout_prob=0,attention_probs_dropout_prob=0",
    "gpt2": ",resid_pdrop=0,embd_pdrop=0,attn_pdrop=0",
}
"""What turns off the dropout of types that have it."""

# 21 blocks in batches of 4, two to a step: of an epoch's three steps the last has a batch of one, and a whole one.
TRAINING: dict[str, Any] = {
    "block_size": 32,
    "max_train_samples": 21,
    "num_train_epochs": 4,
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 3,
    "weight_decay": 0.01,
    "max_grad_norm": 1.0,
    "logging_steps": 1,
}


def trained(kind: str, folder: Path, **how: Any) -> tuple[list[float], float]:
    """The loss of each step, and that of the evaluation, of one run."""
    import lmtasks
    from lmtasks.testing.specimens import corpus

    text = folder / "text.txt"
    text.write_text("\n\n".join(corpus(60)), encoding="utf-8")
    place = folder / "-".join([kind, *map(str, how.values())])
    shape = f"num_hidden_layers=2,hidden_size=32,num_attention_heads=2{DROPOUT.get(kind, '')}"
    shape += ",intermediate_size=64" if kind != "gpt2" else ""
    model = {"model_type": kind, "config_overrides": shape, "train_tokenizer": 300}
    run = lmtasks.run(
        TYPES[kind], train_file=str(text), sample_by="paragraph", output_dir=str(place), **model, **TRAINING, **how
    )
    lines = [json.loads(line) for line in (place / "log.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines if "loss" in line], run.metrics["eval_loss"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--types", nargs="+", default=[*TYPES], choices=TYPES)
    parser.add_argument("--backends", nargs="+", default=["jax", "tensorflow", "torch"])
    chosen = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        for kind in chosen.types:
            losses, evaluation = trained(kind, Path(folder))
            print(f"{kind:<12} {'trainer':<11} {len(losses)} steps, evaluation {evaluation:.7f}", flush=True)
            for backend in chosen.backends:
                others, other = trained(kind, Path(folder), engine="keras", **{"keras.backend": backend})
                apart = max(abs(one - two) for one, two in zip(losses, others, strict=True))
                print(
                    f"{kind:<12} {backend:<11} losses within {apart:.1e}, evaluation {other:.7f}, off by"
                    f" {abs(other - evaluation):.1e}",
                    flush=True,
                )
                failed |= apart > LOSSES or abs(other - evaluation) > EVALUATION
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
