"""The numbers that a checkpoint's weights are held in, and how its attention is computed: what loading is told of both.

Weights in 8 or 4 bits are bitsandbytes' work. They do not learn: an adapter on them does.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from transformers import BitsAndBytesConfig, PretrainedConfig, PreTrainedModel
from transformers.utils.quantization_config import QuantizationMethod

from lmtasks.config.settings import ModelSettings
from lmtasks.errors import InputError, first_line
from lmtasks.models.adapters import has_adapter

_BYTES = {8: 1.0, 4: 0.5 + 4 / 64}
"""Bytes of a weight by its bits; of four bits, each 64 have a scale of their own."""

_NUMBERS = {"F64", "F32", "F16", "BF16"}
"""Kinds of numbers, in words of safetensors, that a weight can be by itself; all others take a scale beside them."""


def loading(settings: ModelSettings) -> dict[str, Any]:
    """The arguments of ``from_pretrained`` about numbers and attention.

    Raises:
        InputError: bitsandbytes is wanted and not there.
    """
    told: dict[str, Any] = {"dtype": "auto" if settings.dtype == "auto" else getattr(torch, settings.dtype)}
    if settings.attn_implementation:
        told["attn_implementation"] = settings.attn_implementation
    if settings.bits:
        told["quantization_config"] = _quantisation(settings)
    return told


def _quantisation(settings: ModelSettings) -> BitsAndBytesConfig:
    flag = f"--load_in_{settings.bits}bit"
    # It tells of every cast that it was made for, and of kernels that it would have fetched.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        import bitsandbytes  # noqa: F401
    except Exception as error:  # its compiled parts fail in ways of their own
        reason = "needs the package bitsandbytes" if isinstance(error, ImportError) else first_line(error)
        raise InputError(f"{flag} {reason}", "pip install lmtasks[quantised], or leave it out") from error
    if settings.bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    compute = torch.bfloat16 if settings.dtype == "bfloat16" else torch.float32
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute)


def is_quantised(model: torch.nn.Module) -> bool:
    """Whether some weights of a model are held in so few bits that they do not learn."""
    return getattr(model, "quantization_method", None) is not None


def require_meant(model: PreTrainedModel, name: str, kinds: Mapping[str, str]) -> None:
    """Refuse a checkpoint whose files and configuration disagree on whether it is quantised.

    transformers takes integers and floats of 8 bits for the weights themselves where the configuration says nothing,
    and whatever there is for bitsandbytes' integers where it says so.

    Args:
        kinds: of the numbers in its files, see :func:`lmtasks.models.weight_files.saved_kinds`.

    Raises:
        InputError: names a weight, or what the configuration says.
    """
    few = {key: kind for key, kind in kinds.items() if kind not in _NUMBERS}
    if not is_quantised(model):
        weights = [key for key, _ in model.named_parameters()]
        for key, kind in sorted(few.items()):
            # Checkpoints of a base model lack the prefix of their names, or have one that the model lacks.
            if any(f".{own}".endswith(f".{key}") or f".{key}".endswith(f".{own}") for own in weights):
                raise InputError(
                    f"{key} in '{name}' is quantised ({kind}), and its config.json does not say how",
                    "take a checkpoint whose config.json has its quantization_config, or one in float32 or bfloat16",
                )
    elif not few and model.quantization_method == QuantizationMethod.BITS_AND_BYTES:
        raise InputError(
            f"the config.json of '{name}' says that bitsandbytes has quantised it, and its weights are not quantised",
            "take quantization_config out of it; --load_in_8bit and --load_in_4bit quantise as a run loads it",
        )


def size_of(settings: ModelSettings, config: PretrainedConfig) -> float:
    """Bytes of one of the model's numbers; where its files have to be asked, as the configuration says.

    Of quantised models it is that of most: embeddings, norms and the head stay whole.
    """
    if settings.bits:
        return _BYTES[settings.bits]
    saved = getattr(config, "dtype", None)
    kind = saved if settings.dtype == "auto" else getattr(torch, settings.dtype)
    return kind.itemsize if isinstance(kind, torch.dtype) else 4


def keep_gradients(model: PreTrainedModel) -> None:
    """Keep the 4-bit layers of a model in the form that has gradients.

    On processors that know bfloat16, bitsandbytes 0.50 turns them into another form as soon as the model is evaluated,
    and never back: from then on nothing reaches the adapters below them, and only a warning of torch says so.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def require_can_learn(model: PreTrainedModel, settings: ModelSettings) -> None:
    """Refuse to train what cannot be trained in the numbers that its weights are in.

    Raises:
        InputError: float16, or quantised without an adapter.
    """
    if is_quantised(model) and not has_adapter(model):
        what = f"--load_in_{settings.bits}bit" if settings.bits else f"'{settings.model_name_or_path}' is quantised"
        raise InputError(f"{what}: such weights do not learn", "add --use_peft: an adapter on them does")
    if model.dtype == torch.float16 and not is_quantised(model):
        raise InputError(
            f"the weights of '{settings.model_name_or_path}' are float16, in which small gradients are nothing",
            "--dtype bfloat16, or leave --dtype out for float32",
        )
