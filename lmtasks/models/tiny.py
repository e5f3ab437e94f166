"""Models small enough to try everything on: any configuration, with each number of size cut down.

Configurations of one family call the same thing by the same name, so that a table of names does for nearly
all; what it cannot know is in :attr:`lmtasks.Architecture.tiny`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig

from lmtasks.models.architectures import architecture_of

SIZES = {
    "head_dim|attention_head_size|d_head|d_kv|kv_channels|qk_nope_head_dim|qk_rope_head_dim|v_head_dim|dim_head": 8,
    "rotary_dim": 4,
    "intermediate_size|ffn_dim|n_inner|d_inner|dim_ff|d_ff|hidden_dim|ffn_hidden_size|feed_forward_size|dff": 64,
    "hidden_size|d_model|dim|n_embd|emb_dim|embedding_size|embed_dim|embedding_dim|hidden_size_global": 32,
    "num_hidden_layers|n_layers?|num_layers|encoder_layers|decoder_layers|depth": 2,
    "num_attention_heads|n_heads?|num_heads|attention_heads": 4,
    "num_key_value_heads|num_kv_heads|n_head_kv|num_query_groups": 2,
    "num_experts|n_routed_experts|num_local_experts|moe_num_experts": 4,
    "num_experts_per_tok|num_experts_per_token|moe_topk|moe_top_k|moe_k|top_k_experts": 2,
    "n_group|topk_group|num_expert_group|first_k_dense_replace": 1,
    "max_position_embeddings|n_positions|max_sequence_length|max_seq_len|seq_length|n_ctx": 128,
    "q_lora_rank|kv_lora_rank|o_lora_rank": 16,
}
"""Names of numbers, whatever stands before them, and how large these are at most; the first that fits counts."""

LAYERS = ("num_hidden_layers", "n_layers", "n_layer", "num_layers")


def shrunk(config: PretrainedConfig) -> PretrainedConfig:
    """A configuration like this one, with tens of thousands of parameters.

    Its class may raise whatever it says to numbers that do not fit together.
    """
    values = config.to_dict()
    for name in ("transformers_version", "architectures", "model_type", "dtype", "id2label", "label2id"):
        values.pop(name, None)
    return type(config)(**_merged(_shrunk(values), architecture_of(config).tiny))


def _merged(values: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for name, value in own.items():
        inner = merged.get(name)
        merged[name] = _merged(inner, value) if isinstance(inner, dict) and isinstance(value, Mapping) else value
    return merged


def _shrunk(values: dict[str, Any]) -> dict[str, Any]:
    """The values with smaller numbers, also in configurations within."""
    small = {name: _small(name, value) for name, value in values.items()}
    if "kv_lora_rank" in small and small.get("num_key_value_heads"):
        # Latent attention has keys and values of its own for each head.
        small["num_key_value_heads"] = small.get("num_attention_heads", 4)
    if "qk_rope_head_dim" in small and small.get("qk_head_dim"):
        small["qk_head_dim"] = small["qk_nope_head_dim"] + small["qk_rope_head_dim"]
    return small | _layers(values)


def _small(name: str, value: Any) -> Any:
    if isinstance(value, dict):
        return _shrunk(value) if name.endswith("_config") and name != "per_layer_config" else value
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    for names, most in SIZES.items():
        if re.fullmatch(f"(.*_)?({names})", name):
            return min(most, value)
    return value


def _layers(values: dict[str, Any]) -> dict[str, Any]:
    """The values that are told layer by layer, for one layer of each kind; for two where there is only one kind."""
    counted = next((name for name in LAYERS if isinstance(values.get(name), int)), None)
    number = values[counted] if counted else 0
    lists = {
        name: value for name, value in values.items() if isinstance(value, list) and len(value) == number and number > 2
    }
    if not counted or not lists:
        return {}
    kinds = list(zip(*(map(repr, value) for value in lists.values()), strict=True))
    first = sorted(kinds.index(kind) for kind in set(kinds))
    kept = first if len(first) > 1 else [0, 1]
    small: dict[str, Any] = {name: [value[place] for place in kept] for name, value in lists.items()}
    small[counted] = len(kept)
    if values.get("per_layer_config"):  # what single layers have otherwise, under their numbers
        own = {int(layer): _shrunk(dict(part)) for layer, part in values["per_layer_config"].items()}
        small["per_layer_config"] = {new: own[old] for new, old in enumerate(kept) if old in own}
    return small
