"""The scripts of training and memory run, and print the tables that the pages are made of."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForMaskedLM

from lmtasks import target_sums
from lmtasks.models.last_layer import ROWS
from lmtasks.models.lm_head import separate_head

FOLDER = Path(__file__).parents[2] / "benchmarks"
CONTESTANTS = {"guide", "guide, bf16", "lmtasks", "lmtasks, float32"}

Table = list[list[str]]


def tables(script: str, *words: str) -> dict[str, Table]:
    """What the script prints: cells by the beginning of the title, without the header."""
    command = [sys.executable, str(FOLDER / f"{script}.py"), "--quick", "--device", "cpu", *words]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    found: dict[str, Table] = {}
    for part in done.stdout.split("### ")[1:]:
        title, _, *lines = part.strip().splitlines()
        header, _, *rows = [line.strip("|").split("|") for line in lines if line.startswith("|")]
        assert rows, part
        assert all(len(row) == len(header) for row in rows), part
        found[title] = [[cell.strip() for cell in row] for row in rows]
    return found


def starting(printed: dict[str, Table], begin: str) -> Table:
    (title,) = (title for title in printed if title.startswith(begin))
    return printed[title]


def test_training_step() -> None:
    printed = tables("training_step")
    steps = starting(printed, "An optimiser step")
    by_model = {name: {row[1] for row in steps if row[0] == name} for name in {row[0] for row in steps}}
    assert set(by_model) == {"masked-lm, 2 × 32", "masked-lm, 1 × 32", "causal-lm, 2 × 32"}
    for names in by_model.values():
        assert {name for name in names if not name.startswith("limit, at")} == {*CONTESTANTS, "bare loop"}
    assert all(float(row[3].replace(",", "")) > 0 for row in steps)
    for name, untrained, ours, plain, _ in starting(printed, "Evaluation loss after"):
        assert name in by_model
        assert float(ours) == pytest.approx(float(plain), rel=0.01)
        assert float(ours) < float(untrained)
    figures = [row[0] for row in starting(printed, "Figures")]
    assert {name.rpartition(": ")[2] for name in figures} == {
        "× the guide's tokens/s",
        "of the limit, float32",
        "the Trainer's overhead",
        "evaluation loss, difference",
    }
    assert all(row[2:] == ["not measured"] * 2 for row in starting(printed, "GPU"))


def test_step_profile() -> None:
    (kinds,) = tables("step_profile", "--only", "masked-lm, 4").values()
    *parts, whole = [(name, float(took.split()[0])) for name, took in kinds]
    assert whole[0] == "whole step"
    assert sum(took for _, took in parts) == pytest.approx(whole[1], abs=0.1 * len(parts))
    assert {"products of the head, backward", "draws of dropout", "attention", "optimiser"} < {
        name for name, _ in parts
    }


def test_step_memory() -> None:
    printed = tables("step_memory", "--only", "masked-lm, 4")
    memory = starting(printed, "Memory of 3 steps")
    assert [row[1] for row in memory] == ["guide", "guide, bf16", "lmtasks", "lmtasks, float32"]
    for _, _, whole, share, above, _ in memory:
        assert float(whole.replace(",", "")) > 100  # torch alone has more
        assert float(above.replace(",", "")) >= 0
        assert float(share) > 0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_loss_memory() -> None:
    printed = tables("loss_memory")
    rows = starting(printed, "The loss of a causal step")
    assert {row[1] for row in rows} == {*CONTESTANTS, "lmtasks, cut by tokens", "limit"}
    # Whoever measures nothing sees less than the gradients, which must be there at the end.
    least = min(float(row[3]) for row in rows if row[1] == "limit")
    assert all(float(row[3]) > least for row in rows if row[1] in CONTESTANTS)
    assert [row[0] for row in starting(printed, "Figures")] == [
        "8 × 32: peak, × guide",
        "8 × 32: peak without what stays, × guide",
    ]
    assert starting(printed, "GPU") == [["peak, × guide", "not measured"]]


def test_whole_run() -> None:
    printed = tables("whole_run")
    rows = starting(printed, "A whole run of masked-lm")
    assert [row[0] for row in rows] == [
        "ready to train",
        "first step done",
        "trained",
        "whole",
        "blocks learned from",
        "blocks held out",
        "steps",
        "evaluation loss, nats",
    ]
    for column in (1, 2):
        ends = [float(row[column]) for row in rows[:4]]
        assert ends == sorted(ends)
        assert 0 < float(rows[-1][column]) < 10
    assert [row[0] for row in starting(printed, "Stages of the guide's script")][:4] == [
        "start and imports",
        "load",
        "tokenise",
        "group into blocks",
    ]
    assert [row[0] for row in starting(printed, "Figures")] == ["whole run, × guide"]


@pytest.fixture(scope="module")
def measuring() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measuring", FOLDER / "measuring.py")
    assert spec and spec.loader
    sys.modules["measuring"] = module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_contestants_take_turns(measuring: ModuleType) -> None:
    turns: list[str] = []

    def contestant(name: str) -> Any:
        return lambda: turns.append(name) or len(turns)

    figures = measuring.alternated({name: contestant(name) for name in "ab"}, 3)
    assert turns == list("ababab")
    assert figures == {"a": [1, 3, 5], "b": [2, 4, 6]}
    assert measuring.medians(figures) == {"a": 3, "b": 4}


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("kind", "targets"), [("roberta", 48), ("roberta", 7), ("gpt2", 48)])
def test_the_products_of_the_limit_are_those_that_a_model_makes(
    kind: str, targets: int, training: bool, measuring: ModuleType
) -> None:
    batch, length, layers, hidden, vocabulary = 2, 24, 2, 32, 100
    shape = {"hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": 2, "vocab_size": vocabulary}
    roles = {f"{role}_token_id": 0 for role in ("bos", "eos", "pad")}
    more = {} if kind == "gpt2" else {"intermediate_size": 4 * hidden}
    # Eager attention makes all products one by one, those with nothing to see included.
    config = AutoConfig.for_model(kind, **shape, **roles, **more, attn_implementation="eager")
    model = (AutoModelForCausalLM if kind == "gpt2" else AutoModelForMaskedLM).from_config(config)
    ids = torch.randint(1, vocabulary, (batch, length))
    assert separate_head(model, {"input_ids": ids[:1]}) is None
    labels = torch.where(torch.arange(batch * length).view_as(ids) < targets, ids, -100)
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(training):
        total = target_sums(model, {"input_ids": ids}, labels)[0]
        if training:
            total.backward()
    expected = measuring.Shape(layers, hidden, vocabulary, dense=kind == "roberta", causal=False)
    of_bias = 2 * targets * vocabulary if training and kind == "roberta" else 0  # its gradient is a product with ones
    # An evaluation's head fills the targets up with columns of nothing, which the limit does not count.
    of_nothing = 0 if training else 2 * (-targets % ROWS) * hidden * vocabulary
    assert counter.get_total_flops() == expected.products(batch, length, targets, training) + of_bias + of_nothing
    half = measuring.Shape(layers, hidden, vocabulary, dense=kind == "roberta", causal=True)
    pairs = expected.products(batch, length, 0, training) - half.products(batch, length, 0, training)
    assert pairs == (3 if training else 1) * 2 * batch * length**2 * hidden * layers


def test_the_peak_rate_is_a_rate(measuring: ModuleType) -> None:
    assert measuring.peak_rate(torch.device("cpu"), torch.float32, (64,)) > 1e6


def test_evaluation() -> None:
    command = [sys.executable, str(FOLDER / "evaluation.py"), "--quick", "--only", "causal-lm", "--blocks", "8"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if "|" in line][2:]
    assert [row[1] for row in rows] == ["guide", "lmtasks", "bare loop"]
    assert all(float(row[2].replace(",", "")) > 0 and float(row[3]) > 0 for row in rows)


def test_startup() -> None:
    command = [sys.executable, str(FOLDER / "startup.py"), "--rounds", "1"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip(" `") for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines() if "|" in line]
    figures = {name: cells for name, *cells in rows if cells[0].isdigit()}
    assert {"lmtasks list", "lmtasks list, 8 broken plugins", "lmtasks run masked-lm, first step"} <= figures.keys()
    assert all(float(cell.removesuffix(", missed")) > 0 for cells in figures.values() for cell in cells)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_adapters() -> None:
    command = [sys.executable, str(FOLDER / "adapters.py"), "--quick", "--steps", "5"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    lines = [line.strip("|").split("|") for line in done.stdout.splitlines() if line.startswith("|")]
    header, _, *cells = [[cell.strip() for cell in line] for line in lines]
    rows = {row[0]: dict(zip(header, row, strict=True)) for row in cells}
    assert rows.keys() == {"weights trained", "checkpoint", "memory", "step"}
    whole, adapter, peft = (
        float(rows["weights trained"][who].rstrip("%")) for who in ("whole model", "adapter", "Trainer with peft")
    )
    assert (whole, adapter) == (100.0, peft), "both put the same adapter on the same layers"
    assert 0 < float(rows["checkpoint"]["adapter's share"]) < 1
    assert float(rows["step"]["whole model"].split()[0]) > 0
