"""Small recordings and small models, made here."""

from typing import Any

import numpy as np
import torch
import transformers

RATE = 16_000
SHAPE = {
    "conv_dim": [16, 16, 16, 16, 16, 16, 16],
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "num_codevectors_per_group": 24,
    "codevector_dim": 16,
    "proj_codevector_dim": 16,
    "conv_depthwise_kernel_size": 7,
}
KINDS: dict[str, dict[str, Any]] = {
    "group": {"model_type": "wav2vec2", "feat_extract_norm": "group"},
    "layer": {"model_type": "wav2vec2", "feat_extract_norm": "layer", "do_stable_layer_norm": True},
    "conformer": {"model_type": "wav2vec2-conformer", "feat_extract_norm": "layer"},
}
SILENT = (
    "hidden_dropout",
    "activation_dropout",
    "attention_dropout",
    "feat_proj_dropout",
    "layerdrop",
    "final_dropout",
)


def chirp(seconds: float, seed: int = 0, rate: int = RATE) -> np.ndarray:
    """A tone that changes ten times a second, and a little noise."""
    draw = np.random.default_rng(seed)
    length = int(seconds * rate)
    tones = draw.uniform(100, 2000, size=length * 10 // rate + 1).repeat(rate // 10)[:length]
    wave = 0.3 * np.sin(2 * np.pi * np.cumsum(tones) / rate) + 0.02 * draw.standard_normal(length)
    return wave.astype(np.float32)


def config_of(kind: str, **changes: Any) -> Any:
    values = {**SHAPE, **KINDS[kind], **dict.fromkeys(SILENT, 0.0), "conformer_conv_dropout": 0.0, **changes}
    return transformers.AutoConfig.for_model(values.pop("model_type"), **values)


def model_of(kind: str, **changes: Any) -> Any:
    torch.manual_seed(0)
    model = transformers.AutoModelForPreTraining.from_config(config_of(kind, **changes))
    with torch.no_grad():
        # A fresh model is nearly the same everywhere; one that hears differences shows where they are lost.
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "weight" in name:
                weight.mul_(2)
    return model.eval()


def extractor(**changes: Any) -> Any:
    return transformers.Wav2Vec2FeatureExtractor(sampling_rate=RATE, **changes)
