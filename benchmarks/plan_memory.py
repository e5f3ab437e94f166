"""The memory that a plan foresees, against what the training then takes.

    python benchmarks/plan_memory.py [--only "gpt2, 6 × 768"] [--quick]

Six shapes, each trained in float32, with an adapter, and in bfloat16, for a few steps, in a process of its own.
Measured is the most resident memory between the first step's beginning and the last one's end, above what there was
before the run: anonymous, and that of files, since the weights under an adapter stay in theirs, which is mapped. By
then a tiny model has been trained, so that all is imported that will be, and a checkpoint is made in a process of its
own. The exit code is 1 where a plan is off by more than the share that is allowed.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import transformers.models.gpt2.modeling_gpt2
import transformers.models.llama.modeling_llama
import transformers.models.modernbert.modeling_modernbert
import transformers.models.roberta.modeling_roberta  # noqa: F401
from measuring import print_table
from peft import LoraConfig  # noqa: F401
from training_step import tokenizer_of
from transformers import AutoConfig, TrainerCallback

import lmtasks
from lmtasks.api import Recipe, resolve
from lmtasks.data.sample import sample_documents
from lmtasks.progress import quietly

ALLOWED = 0.15
"""Share by which a plan may be off."""

STEPS = 5
WAYS = ("float32", "adapter", "bfloat16")


@dataclass(frozen=True)
class Shape:
    """A model and its batches.

    Args:
        sizes: of its configuration.
        batch, length: examples of a step, and tokens of each.
    """

    recipe: str
    model_type: str
    sizes: dict[str, int]
    batch: int = 8
    length: int = 128

    @property
    def name(self) -> str:
        """For people."""
        layers = self.sizes.get("num_hidden_layers", self.sizes.get("n_layer"))
        width = self.sizes.get("hidden_size", self.sizes.get("n_embd"))
        return f"{self.model_type}, {layers} × {width}, {self.batch} × {self.length} tokens"


def _usual(layers: int, width: int, vocabulary: int) -> dict[str, int]:
    """Sizes of a model with heads of 64."""
    return {
        "num_hidden_layers": layers,
        "hidden_size": width,
        "num_attention_heads": width // 64,
        "intermediate_size": 4 * width,
        "vocab_size": vocabulary,
    }


def tiny(shape: Shape) -> Shape:
    """The shape in small, to see that everything works."""
    small = {"n_layer": 1, "n_embd": 64, "n_head": 1} if "n_layer" in shape.sizes else _usual(1, 64, 4_096)
    more = {"num_key_value_heads": 1} if "num_key_value_heads" in shape.sizes else {}
    return replace(shape, sizes={**small, **more, "vocab_size": 4_096}, batch=2, length=16)


SHAPES = (
    Shape("masked-lm", "roberta", _usual(4, 256, 8_192)),
    Shape("masked-lm", "roberta", _usual(6, 768, 50_265)),
    Shape("masked-lm", "modernbert", _usual(6, 512, 32_000), length=256),
    Shape("causal-lm", "gpt2", {"n_layer": 4, "n_embd": 256, "n_head": 4, "vocab_size": 8_192}, length=256),
    Shape("causal-lm", "gpt2", {"n_layer": 6, "n_embd": 768, "n_head": 12, "vocab_size": 50_257}),
    Shape("causal-lm", "llama", {**_usual(6, 512, 32_000), "num_key_value_heads": 4}, batch=4, length=512),
)


class Peak(TrainerCallback):
    """The most resident memory while a model trains, in bytes; looked at every 2 ms."""

    def __init__(self) -> None:
        self.most, self.training = 0, False
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while True:
            if self.training:
                self.most = max(self.most, resident())
            time.sleep(0.002)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """From the first step on."""
        self.training = True

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """To the last one."""
        self.training = False


def resident() -> int:
    """Bytes of this process that are in memory, those of mapped files included."""
    return psutil.Process().memory_info().rss


def measured(shape: Shape, way: str, place: Path) -> dict[str, float]:
    """Bytes that the plan of a run foresees, and that its training took, in this process."""
    trained(tiny(shape), way, place / "tiny", Peak())
    before = resident()
    peak = Peak()
    foreseen = trained(shape, way, place / "whole", peak)
    return {"foreseen": foreseen, "measured": peak.most - before}


def trained(shape: Shape, way: str, place: Path, peak: Peak) -> int:
    """Train the shape; the bytes that the plan foresees."""
    texts = sample_documents("python")
    tokenizer = tokenizer_of(recipe_of(shape), texts, shape.sizes["vocab_size"])
    overrides = ",".join(f"{name}={value}" for name, value in shape.sizes.items() if name != "vocab_size")
    model: dict[str, Any] = {"model_type": shape.model_type, "config_overrides": overrides}
    if way == "adapter":
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            model = {"model_name_or_path": process.submit(base_of, shape, place).result(), "use_peft": True}
    with quietly():
        run = lmtasks.run(
            shape.recipe,
            **model,
            tokenizer=tokenizer,
            train_dataset=texts,
            block_size=shape.length,
            per_device_train_batch_size=shape.batch,
            max_steps=STEPS,
            bf16=way == "bfloat16",
            save_strategy="no",
            max_eval_samples=8,
            output_dir=str(place / "run"),
            callbacks=[peak],
        )
    return int(run.plan.peak_memory)


def recipe_of(shape: Shape) -> Recipe:
    """The recipe that trains the shape."""
    return lmtasks.load_catalog().recipe(shape.recipe)


def base_of(shape: Shape, place: Path) -> str:
    """A checkpoint of the shape."""
    recipe = recipe_of(shape)
    tokenizer = tokenizer_of(recipe, sample_documents("python"), shape.sizes["vocab_size"])
    roles = {f"{role}_token_id": getattr(tokenizer, f"{role}_token_id") for role in ("bos", "eos", "pad")}
    config = AutoConfig.for_model(shape.model_type, **shape.sizes, **roles)
    resolve(recipe.model_class).from_config(config).save_pretrained(place / "base")
    tokenizer.save_pretrained(place / "base")
    return str(place / "base")


def elsewhere(number: int, way: str, words: list[str]) -> dict[str, float]:
    """The figures of one training, in a process of its own."""
    command = [sys.executable, __file__, *words, "--measure", f"{number}:{way}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument(
        "--only", default="", help="rows with this in their names: 'gpt2, 6 × 768' or 'tokens, adapter'"
    )
    parser.add_argument("--quick", action="store_true", help="tiny models, to see that it works")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    typed = parser.parse_args()
    shapes = [tiny(shape) if typed.quick else shape for shape in SHAPES]
    if typed.measure:
        number, _, way = typed.measure.partition(":")
        with tempfile.TemporaryDirectory() as place:
            print(json.dumps(measured(shapes[int(number)], way, Path(place))))
        return 0
    words, wrong, count = ["--quick"] if typed.quick else [], 0, 0
    rows = []
    for number, shape in enumerate(shapes):
        for way in (one for one in WAYS if typed.only in f"{shape.name}, {one}"):
            figures = elsewhere(number, way, words)
            off = figures["foreseen"] / figures["measured"] - 1
            wrong, count = wrong + (abs(off) > ALLOWED), count + 1
            mib = [f"{figures[name] / 2**20:,.0f}" for name in ("foreseen", "measured")]
            rows.append([shape.name, way, *mib, f"{off:+.0%}"])
            print(*rows[-1], file=sys.stderr, flush=True)
    print_table("Memory of a training", ("model", "how", "plan, MiB", "measured, MiB", "off by"), rows)
    print(f"\n{count - wrong} of {count} plans are within {ALLOWED:.0%}.")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
