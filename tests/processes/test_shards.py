"""A model of which each process holds a part is trained, measured and saved as a whole one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from launched import distance, free_port, lines_of
from transformers import AutoTokenizer, LlamaForCausalLM

from lmtasks.artifacts.checkpoints import newest_first, step_of
from lmtasks.runs.runner import run

SPEED = "train_tokens_per_second"
"""The one figure of the log that is another each time."""

FSDP_ON_CPUS = """
import sys

import accelerate.state
from accelerate.utils import DistributedType

made = accelerate.state.AcceleratorState.__init__


def make(self, *arguments, **named):
    made(self, *arguments, **named)
    if named.get("fsdp_plugin") is not None and self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type, self.fsdp_plugin = DistributedType.FSDP, named["fsdp_plugin"]
        accelerate.state.PartialState._shared_state["distributed_type"] = DistributedType.FSDP


accelerate.state.AcceleratorState.__init__ = make

from lmtasks.cli import main

sys.exit(main())
"""
"""accelerate divides models among GPUs only; everything but that question is the same on CPUs."""


def test_a_model_in_shards_is_trained_measured_and_saved_whole(
    model_folders: dict[str, Path], text_file: Path, tmp_path: Path
) -> None:
    odd, script = tmp_path / "odd", tmp_path / "fsdp.py"
    model = LlamaForCausalLM.from_pretrained(model_folders["llama"])
    torch.manual_seed(0)
    model.resize_token_embeddings(401)  # which two processes cannot halve
    for part in (model, AutoTokenizer.from_pretrained(model_folders["llama"])):
        part.save_pretrained(odd)
    script.write_text(FSDP_ON_CPUS)
    asked: dict[str, Any] = {
        "model": str(odd), "train_file": str(text_file), "block_size": 16, "line_by_line": True,
        "max_train_samples": 13, "max_eval_samples": 7, "per_device_eval_batch_size": 2, "num_train_epochs": 2,
        "train_batch_size": 8, "eval_strategy": "epoch", "save_steps": 2, "logging_steps": 1, "learning_rate": 1e-3,
        "use_cpu": True,
    }  # fmt: skip
    words = ["run", "causal-lm", *(word for name, value in asked.items() for word in (f"--{name}", str(value)))]
    one, two = tmp_path / "one", tmp_path / "two"
    run("causal-lm", **asked, output_dir=str(one))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", f"--master_port={free_port()}"]
    done = subprocess.run(
        [*launcher, str(script), *words, "--fsdp", "true", "--output_dir", str(two)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "note       the head runs on every position: --fsdp takes the model apart itself" in done.stderr
    logs = [[line for line in lines_of(folder / "log.jsonl") if "train_loss" not in line] for folder in (one, two)]
    for here, there in zip(*logs, strict=True):
        assert there == pytest.approx(here | {name: there[name] for name in there if name == SPEED}, rel=1e-5)
    assert distance(one, two) < 1e-4
    (checkpoint,) = (path for path in newest_first(two) if step_of(path) == 4)
    assert distance(checkpoint, two) == 0
    results = [json.loads((folder / "eval_results.json").read_text()) for folder in (one, two)]
    assert results[0] == pytest.approx(results[1], rel=1e-5)
