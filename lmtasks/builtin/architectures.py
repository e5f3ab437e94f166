"""What there is to know about transformers' own model types, beyond what is read off or measured.

A type that is not here needs nothing. Most that are, only say which numbers make a model of the type small.
"""

from __future__ import annotations

import math
from typing import Any

from lmtasks import Architecture, hookimpl

CAUSAL = "AutoModelForCausalLM"

READS_LEFT_TO_RIGHT = {"is_decoder": True}

ENCODERS = (
    "bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert",
    "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm-roberta", "xlm-roberta-xl",
)  # fmt: skip
"""Types that see both sides unless their configuration says that they are decoders."""

SMALL_MAMBA = {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 16, "mamba_chunk_size": 16}

SMALL_INDEXER = {
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 8,
    "indexer_compress_ratio": 4,
}

TINY: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {"num_expert_group": 2, "topk_group": 1, "linear_head_dim": 8, "linear_num_heads": 4},
    "bamba": {**SMALL_MAMBA, "attn_layer_indices": [1]},
    "cohere_compass_text": {"rope_parameters": {
        kind: {"rope_type": "default", "rope_theta": 10000.0} for kind in ("full_attention", "sliding_attention")
    }},
    "dbrx": {"attn_config": {"kv_n_heads": 1, "rope_theta": 10000.0, "clip_qkv": 8.0}},
    "deepseek_v2": {"topk_group": 1, "n_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 64},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dots3_note_text": {"head_dim": 16},
    "dots3_note": {
        "text_config": {"head_dim": 16},
        "audio_config": {"adapter_input_size": 32, "adapter_out_dim": 32},
        "vision_config": {"adapter_in_dim": 32},
    },
    "esmc": {"num_key_value_heads": 4},
    "falcon_h1": {**SMALL_MAMBA, "mamba_d_ssm": 64},
    "gemma3n_text": {"num_kv_shared_layers": 0, "hidden_size_per_layer_input": 8, "laurel_rank": 8},
    "granitemoehybrid": {**SMALL_MAMBA, "layer_types": ["linear_attention", "full_attention"]},
    "helium": {"num_key_value_heads": 4},
    "hrm_text": {"num_layers_per_stack": 1, "num_hidden_layers": 8},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 2},
    "kimi_linear": {"linear_head_dim": 8, "linear_num_heads": 4},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "luke": {"entity_vocab_size": 100},
    "mamba2": {"num_heads": 8, "n_groups": 2, "state_size": 16, "chunk_size": 16},
    "ministral": {"head_dim": 8},
    "mobilebert": {"intra_bottleneck_size": 32, "true_hidden_size": 32},
    "neomme": {"num_key_value_heads": 4, "head_dim": 16},
    "nemotron": {"num_key_value_heads": 2},
    "nemotron_h": {"mamba_num_heads": 4, "mamba_head_dim": 16, "n_groups": 2, "ssm_state_size": 16},
    "perceiver": {"num_latents": 16, "d_latents": 32, "num_self_attends_per_block": 2, "max_position_embeddings": 64},
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 32},
    "qwen4_exp_text": SMALL_INDEXER,
    "qwen4_exp": {"text_config": SMALL_INDEXER},
    "zamba": {
        "num_hidden_layers": 5,
        "layers_block_type": ["linear_attention", "linear_attention", "hybrid", "linear_attention", "hybrid"],
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "mamba_dt_rank": 2,
    },
    "zamba2": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
        "hybrid_layer_ids": [1, 3],
        "attention_hidden_size": 64,
        "attention_head_dim": 16,
        "n_mamba_heads": 4,
        "mamba_headdim": 16,
        "mamba_d_state": 16,
        "num_query_groups": 4,
        "chunk_size": 16,
    },
}  # fmt: skip
"""Numbers that the names of :mod:`lmtasks.tiny` do not cover, or that have to fit together."""


def axial_length(config: Any) -> int:
    """Reformer's positions are a table of rows and columns, and training fills it; without, chunks must be whole."""
    if config.axial_pos_embds:
        return math.prod(config.axial_pos_shape)
    return math.lcm(config.local_attn_chunk_length, config.lsh_attn_chunk_length)


ARCHITECTURES = [
    Architecture(
        model_type="perceiver",
        multiple=lambda config: int(config.max_position_embeddings),
        limits="every input is padded to the full length",
        tiny=TINY.pop("perceiver"),
    ),
    Architecture(
        model_type="reformer",
        causal=READS_LEFT_TO_RIGHT,
        length=lambda config: math.prod(config.axial_pos_shape) if config.axial_pos_embds else None,
        multiple=axial_length,
        limits="every input is padded to the size of the position table",
        tiny={
            "axial_pos_shape": [4, 16],
            "axial_pos_embds_dim": [8, 24],
            "attn_layers": ["local", "lsh"],
            "local_attn_chunk_length": 16,
            "lsh_attn_chunk_length": 16,
        },
    ),
    Architecture(
        model_type="cpmant",
        refused={CAUSAL: "it sees the whole text, and learns to continue it from prompts and masks of its own"},
    ),
    # Their text configurations have names that transformers saves models under, and does not find again.
    Architecture(model_type="emu3_text_model", models={CAUSAL: "transformers:Emu3ForCausalLM"}),
    Architecture(model_type="mllama_text_model", models={CAUSAL: "transformers:MllamaForCausalLM"}),
    *(
        Architecture(model_type=kind, refused={CAUSAL: "its tokens are those of a sound codec, not of text"})
        for kind in ("musicgen", "musicgen_melody")
    ),
    Architecture(
        model_type="xlm",
        refused={
            CAUSAL: "its way of generating puts a mask in the place of the next token, which it would never learn"
        },
    ),
    Architecture(
        model_type="xlnet",
        refused={CAUSAL: "it learns to predict tokens in any order, as the recipe permutation-lm has it"},
        tiny={"d_head": 8},
    ),
    Architecture(
        model_type="youtu",
        refused={CAUSAL: "transformers empties the embedding of its padding token whenever it is loaded"},
    ),
    *(
        Architecture(
            model_type=kind, refused={CAUSAL: "it drafts for a larger model, whose keys and values it is given"}
        )
        for kind in ("gemma4_assistant", "gemma4_unified_assistant")
    ),
    # Their caches do not fit what generation feeds them.
    Architecture(model_type="prophetnet", fresh={"use_cache": False}),
    Architecture(model_type="blt", fresh={"use_cache": False}, tiny={"encoder_hash_byte_group_vocab": 100}),
    Architecture(model_type="xlstm", fresh={"use_cache": False}, tiny={"num_blocks": 2}),
    Architecture(model_type="xmod", fresh={"default_language": "en_XX"}, causal=READS_LEFT_TO_RIGHT),
    *(Architecture(model_type=kind, causal=READS_LEFT_TO_RIGHT) for kind in ENCODERS),
    *(Architecture(model_type=kind, tiny=numbers) for kind, numbers in TINY.items()),
]


@hookimpl
def lmtasks_architectures() -> list[Architecture]:
    """The declarations of this module."""
    return ARCHITECTURES
