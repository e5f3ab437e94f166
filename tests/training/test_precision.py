"""bfloat16 where the hardware has it and the model gains by it, unless somebody says otherwise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForMaskedLM, RobertaConfig

from lmtasks import run
from lmtasks.training import precision
from lmtasks.training.precision import NARROW, NARROW_WITHOUT_AMX, with_precision


def model_of(width: int) -> Any:
    with torch.device("meta"):
        return AutoModelForMaskedLM.from_config(
            RobertaConfig(hidden_size=width, num_attention_heads=1, num_hidden_layers=1, vocab_size=100)
        )


@pytest.fixture(params=[(), ("avx512_bf16",), ("avx512_bf16", "amx_bf16")], ids=["not native", "AVX512", "AMX"])
def native(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """The instructions for bfloat16 that a processor has; one of three has none."""
    names = {name: name in request.param for name in ("avx512_bf16", "amx_bf16")} | {"avx2": True}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: names)
    return tuple(request.param)


@pytest.mark.parametrize("width", [NARROW_WITHOUT_AMX // 2, NARROW_WITHOUT_AMX, NARROW, 3 * NARROW])
def test_hardware_and_width_decide_when_nobody_does(width: int, native: tuple[str, ...]) -> None:
    chosen = with_precision({"bf16": None, "use_cpu": True}, model_of(width))
    narrow = NARROW if "amx_bf16" in native else NARROW_WITHOUT_AMX
    assert chosen["bf16"] is (bool(native) and width >= narrow)


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize("width", [NARROW // 2, 3 * NARROW])
@pytest.mark.usefixtures("native")
def test_what_was_asked_for_is_done(asked: bool, width: int) -> None:
    chosen = with_precision({"bf16": asked, "learning_rate": 1.0}, model_of(width))
    assert (chosen["bf16"], chosen["learning_rate"]) == (asked, 1.0)


@pytest.mark.usefixtures("native")
def test_float16_is_an_answer_too() -> None:
    assert with_precision({"bf16": None, "fp16": True, "use_cpu": True}, model_of(3 * NARROW))["bf16"] is False


def test_a_torch_that_cannot_be_asked_means_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert precision.with_precision({"use_cpu": True}, model_of(3 * NARROW))["bf16"] is False


@pytest.mark.skipif(torch.accelerator.is_available(), reason="for machines without an accelerator")
def test_asking_is_enough_on_a_cpu(text_file: Path, model_folders: dict[str, Path], tmp_path: Path) -> None:
    more = {"model": str(model_folders["bert"]), "train_file": str(text_file), "block_size": 16, "max_steps": 2}
    result = run("masked-lm", output_dir=str(tmp_path / "out"), bf16=True, **more)
    assert result.plan.precision == "bfloat16 where safe"
    assert run("masked-lm", output_dir=str(tmp_path / "two"), **more).plan.precision == "float32"
