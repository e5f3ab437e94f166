"""Models of KerasHub as models of transformers, where the conversion is exact.

KerasHub writes transformers folders of some of its causal models. Whether what it wrote computes the same is not taken
on trust: the logits of both are compared, and the tokens. Of what it does not write, or not alike, the reason is told.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lmtasks import InputError
from lmtasks.errors import first_line
from lmtasks.progress import quietly
from lmtasks_keras.model_of import TransformersModel, model

NEAR = 1e-4
"""By what share of the largest logit those of both may differ: sums in another order, in float32."""

LENGTH, LONGEST = 48, 4096
"""Tokens that both models are asked about; more where a window is longer, within reason."""

TEXT = "The default value is None, or 12 bytes; it doesn't matter."
"""What both tokenizers are asked about."""

_NO_HEAD = "its head of masked language modelling goes into no folder of transformers, nor comes from one"

_POSITIONS = "it has no token-type embeddings, and counts positions from 2 whatever token is padding"

_REASONS = {
    "RobertaBackbone": _POSITIONS,
    "XLMRobertaBackbone": _POSITIONS,
    "AlbertBackbone": _NO_HEAD,
    "BertBackbone": _NO_HEAD,
    "DistilBertBackbone": _NO_HEAD,
}
"""What is known of backbones that KerasHub does not write as transformers' models."""


@quietly()
def from_keras_hub(preset_or_model: Any, *, batch_size: int | None = None, **values: Any) -> TransformersModel:
    """A compiled ``keras.Model`` of transformers' own model, with the weights and the tokenizer of one of KerasHub.

    It is trained, saved and published like any of :func:`lmtasks_keras.model`.

    Args:
        preset_or_model: a ``keras_hub.models.CausalLM`` with its preprocessor, or the name or folder of its preset.
        batch_size, values: as for :func:`lmtasks_keras.model`; ``tokenizer_name`` names another tokenizer than its own.

    Raises:
        InputError: no model of KerasHub, or one that it does not convert, or not exactly; the reason is in it.
        ImportError: KerasHub is not installed.
    """
    causal = _causal(preset_or_model)
    with tempfile.TemporaryDirectory() as folder:
        export(causal, folder)
        require_same_logits(causal, folder)
        if "tokenizer_name" not in values:
            _require_same_tokens(causal, folder)
        return model(folder, "causal-lm", batch_size=batch_size, **values)


def _causal(given: Any) -> Any:
    """A causal model of KerasHub with its preprocessor."""
    from keras_hub.models import Backbone, CausalLM, Task

    if isinstance(given, str | Path):
        given = _of_preset(str(given))
    if isinstance(given, CausalLM):
        if given.preprocessor is None:
            raise InputError(f"the {type(given).__name__} has no preprocessor, and so no tokenizer", "give it one")
        return given
    if not isinstance(given, Backbone | Task):
        raise InputError(
            f"a {type(given).__name__} is no model of KerasHub", "give a keras_hub.models.CausalLM, or a preset"
        )
    raise _refusal(given if isinstance(given, Backbone) else given.backbone, "it is no causal language model")


def _of_preset(preset: str) -> Any:
    """The model of a preset; where that is no causal one, its backbone without weights, which has the reason."""
    from keras_hub.models import Backbone, CausalLM

    try:
        return CausalLM.from_preset(preset)
    except (ValueError, OSError) as error:  # whose first line says what the preset is, or that there is none
        try:
            return Backbone.from_preset(preset, load_weights=False)
        except (ValueError, KeyError, OSError):
            raise InputError(
                f"KerasHub has no causal model in '{preset}': {first_line(error)}", "name a preset"
            ) from error


def _refusal(backbone: Any, otherwise: str) -> InputError:
    kind = type(backbone).__name__
    name = kind.removesuffix("Backbone")
    return InputError(
        f"KerasHub's {name} does not become a model of transformers: {_REASONS.get(kind, otherwise)}",
        "take the model of the same name in transformers: lmtasks_keras.model(ID)",
    )


def export(causal: Any, folder: str) -> None:
    """Let KerasHub write its model as transformers'."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            causal.export_to_transformers(folder)
    except ValueError as error:
        raise _refusal(causal.backbone, first_line(error)) from error


def require_same_logits(causal: Any, folder: str) -> None:
    """Refuse a conversion that computes something else."""
    backbone = causal.backbone
    window = getattr(backbone, "sliding_window", None) or 0
    most = getattr(backbone, "max_sequence_length", None) or LONGEST
    length = min(max(LENGTH, window + window // 2), most, LONGEST)
    ids = np.random.default_rng(0).integers(0, backbone.vocabulary_size, (2, length)).astype("int32")
    ours = keras.ops.convert_to_numpy(causal({"token_ids": ids, "padding_mask": np.ones_like(ids)}, training=False))
    converted, report = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, output_loading_info=True, ignore_mismatched_sizes=True, trust_remote_code=False
    )
    with torch.no_grad():
        theirs = converted.eval()(input_ids=torch.from_numpy(ids).long()).logits.numpy()
    lost = sorted(
        [*report["missing_keys"], *report["unexpected_keys"], *(key for key, *_ in report["mismatched_keys"])]
    )
    apart = float(np.abs(ours - theirs).max() / np.abs(ours).max())
    if lost or not apart <= NEAR:
        said = (
            f"its conversion has no {lost[0]} that fits" if lost else f"the logits differ by {apart:.2g} of the largest"
        )
        raise _refusal(backbone, said)


def _require_same_tokens(causal: Any, folder: str) -> None:
    """Refuse a tokenizer whose converted form reads a plain text as other tokens."""
    own = causal.preprocessor.tokenizer
    ours = np.asarray(keras.ops.convert_to_numpy(own(TEXT))).tolist()
    theirs = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)(TEXT, add_special_tokens=False)["input_ids"]
    if ours != theirs:
        raise InputError(
            f"the {type(own).__name__} of KerasHub reads a text as other tokens than what it becomes in transformers",
            "tokenizer_name=ID names the tokenizer that the model was trained with",
        )
