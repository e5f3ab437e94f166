"""Facts about transformers' own model types that are neither read off nor measured.

A type that is not here needs nothing. Most that are, only say which numbers make a model of the type small.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from lmtasks import Architecture, hookimpl

MASKED, CAUSAL = "AutoModelForMaskedLM", "AutoModelForCausalLM"

TOWERS = (
    "*vision*", "*image_encoder*", "*audio*", "*multi_modal_projector*", "*connector*", "*patch_embed*",
    "*visual_projection*", "*img_temporal_embedding*", "*image_embed*",
)  # fmt: skip
"""Parts that images and sound go through."""

FAMILIES: tuple[tuple[dict[str, Any], tuple[str, ...]], ...] = (
    # They see both sides unless their configuration says that they are decoders.
    ({"causal": {"is_decoder": True}}, (
        "bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert",
        "reformer", "rembert", "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm-roberta",
        "xlm-roberta-xl", "xmod",
    )),
    # They have a summary of the text that no token is told from.
    ({"idle": {MASKED: ["*.pooler.*"], CAUSAL: ["*.pooler.*"]}}, ("big_bird", "fnet", "layoutlm", "squeezebert")),
    # Their decoder, alone, has no encoder to attend to.
    ({"idle": {CAUSAL: ["*.encoder_attn*"]}}, (
        "bart", "bigbird_pegasus", "blenderbot", "blenderbot-small", "marian", "mbart", "mvp", "pegasus", "plbart",
        "prophetnet", "trocr", "whisper",
    )),
    # They choose what to attend to by an indexer, which learns from a loss of its own.
    ({"idle": {CAUSAL: ["*.indexer.*"]}, "limits": "its indexer stays as it is"}, (
        "axk2", "deepseek_v32", "deepseek_v4", "dots3_note", "dots3_note_text", "glm_moe_dsa", "hy_v4", "qwen4_exp",
        "qwen4_exp_text",
    )),
    # They take images or sound as well.
    ({"idle": {MASKED: TOWERS, CAUSAL: TOWERS}, "limits": "text only; what images or sound go through stays"}, (
        "fuyu", "gemma3", "gemma4", "gemma4_unified", "git", "got_ocr2", "modernvbert", "moss_transcribe_diarize",
        "neomme", "phi4_multimodal", "ultravbert",
    )),
)  # fmt: skip
"""Facts about several types, and which types these are."""

REFUSED = {
    "cpmant": "it sees the whole text, and learns to continue it from prompts and masks of its own",
    "gemma3n": "its part for images needs the package timm; gemma3n_text is the part for text",
    "gemma4_assistant": "it drafts for a larger model, whose keys and values it is given",
    "gemma4_unified_assistant": "it drafts for a larger model, whose keys and values it is given",
    "musicgen": "its tokens are those of a sound codec, not of text",
    "musicgen_melody": "its tokens are those of a sound codec, not of text",
    "xlm": "its way of generating puts a mask in the place of the next token, which it would never learn",
    "xlnet": "it learns to predict tokens in any order, as the recipe permutation-lm has it",
}
"""Types whose causal models cannot continue a text by what causal-lm teaches, and why."""

SMALL_MAMBA = {"mamba_d_head": 16, "mamba_d_state": 16, "mamba_chunk_size": 16}

SMALL_INDEXER = {
    "indexer_n_heads": 2,
    "indexer_kv_heads": 1,
    "indexer_head_dim": 8,
    "indexer_budget": 8,
    "indexer_compress_ratio": 4,
}

SMALL_PER_LAYER = {"vocab_size_per_layer_input": 512, "hidden_size_per_layer_input": 8}

ROPE = {"rope_type": "default", "rope_theta": 10000.0}

TINY: dict[str, dict[str, Any]] = {
    "bailing_hybrid": {"num_expert_group": 2},
    "bamba": {**SMALL_MAMBA, "attn_layer_indices": [1]},
    "blt": {"encoder_hash_byte_group_vocab": 100},
    "cohere_compass_text": {
        # Where the sections must fill the heads, as in transformers 5.20, the usual ones are for larger heads.
        "rope_parameters": {
            key: {**ROPE, "mrope_section": [1, 1, 2]} for key in ("full_attention", "sliding_attention")
        }
    },
    "dbrx": {"attn_config": {"rope_theta": 10000.0, "clip_qkv": 8.0}},
    "deepseek_v2": {"topk_group": 1, "n_group": 1, "num_experts_per_tok": 2},
    "deepseek_v4": {"compress_rates": {"heavily_compressed_attention": 8}},
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "dots3_note": {"text_config": {"head_dim": 16}, "audio_config": {"adapter_input_size": 32}},
    "dots3_note_text": {"head_dim": 16},
    "esmc": {"num_key_value_heads": 4},
    "falcon_h1": {**SMALL_MAMBA, "mamba_d_ssm": 64},
    "gemma3n_text": {**SMALL_PER_LAYER, "num_kv_shared_layers": 0, "laurel_rank": 8, "intermediate_size": 64},
    "gemma4": {"text_config": SMALL_PER_LAYER},
    "gemma4_text": SMALL_PER_LAYER,
    "gemma4_unified": {"text_config": SMALL_PER_LAYER},
    "gemma4_unified_text": SMALL_PER_LAYER,
    "granitemoehybrid": {**SMALL_MAMBA, "layer_types": ["linear_attention", "full_attention"]},
    "helium": {"num_key_value_heads": 4},
    "hrm_text": {"num_layers_per_stack": 1, "num_hidden_layers": 8},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8, "num_experts": 4, "moe_topk": 2},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 2},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "luke": {"entity_vocab_size": 100},
    "mamba2": {"num_heads": 8, "n_groups": 2, "state_size": 16, "chunk_size": 16},
    "ministral": {"head_dim": 8},
    "mobilebert": {"embedding_size": 16, "intra_bottleneck_size": 32},
    "nemotron": {"num_key_value_heads": 2},
    "nemotron_h": {"mamba_head_dim": 16, "n_groups": 2, "ssm_state_size": 16},
    "neomme": {"num_key_value_heads": 4, "head_dim": 16},
    "perceiver": {"num_latents": 16, "d_latents": 32, "num_self_attends_per_block": 2, "max_position_embeddings": 64},
    "phi4_multimodal": {
        "audio_config": {
            "num_blocks": 1,
            "ext_pw_out_channel": 32,
            "depthwise_separable_out_channel": 32,
            "nemo_conv_channels": 32,
        }
    },
    "qwen4_exp": {"text_config": SMALL_INDEXER},
    "qwen4_exp_text": SMALL_INDEXER,
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 32},
    "reformer": {
        # Without chance, so that what it says can be compared.
        "hash_seed": 0,
        "hidden_dropout_prob": 0.0,
        "local_attention_probs_dropout_prob": 0.0,
        "axial_pos_shape": [4, 16],
        "axial_pos_embds_dim": [8, 24],
        "local_attn_chunk_length": 16,
        "lsh_attn_chunk_length": 16,
    },
    "xlstm": {"num_blocks": 2},
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
}
"""Numbers that the names of :mod:`lmtasks.models.tiny` do not cover, or that have to fit together."""


def axial_length(config: Any) -> int:
    """Reformer's positions are a table of rows and columns, and training fills it; without, chunks must be whole."""
    if config.axial_pos_embds:
        return math.prod(config.axial_pos_shape)
    return math.lcm(config.local_attn_chunk_length, config.lsh_attn_chunk_length)


ONES: dict[str, dict[str, Any]] = {
    "blt": {"fresh": {"use_cache": False}},  # what it generates with has no use for a cache
    "emu3_text_model": {"models": {CAUSAL: "transformers:Emu3ForCausalLM"}},  # under this name it is saved
    "esm": {"idle": {MASKED: ["esm.contact_head.*"]}},
    "funnel": {"empty_padding": True},
    "longformer": {"idle": {MASKED: ["*_global.*"]}, "limits": "no token attends to all others: attention is a window"},
    "luke": {"idle": {MASKED: ["*entity_*", "*.e2*_query.*", "*.w2e_query.*", "*.pooler.*"]}},
    "mllama_text_model": {"models": {CAUSAL: "transformers:MllamaForCausalLM"}},
    "perceiver": {
        "multiple": lambda config: int(config.max_position_embeddings),
        "limits": "every input is padded to the full length",
    },
    "prophetnet": {"fresh": {"use_cache": False}, "idle": {CAUSAL: ["*.cross_attn*"]}},
    "reformer": {
        "length": lambda config: math.prod(config.axial_pos_shape) if config.axial_pos_embds else None,
        "multiple": axial_length,
        "reversible": True,
        "idle": {MASKED: ["lm_head.bias"], CAUSAL: ["lm_head.bias"]},
        "limits": "every input is padded to the size of the position table; its hashes are drawn anew for each batch",
    },
    "rwkv": {"fresh": {"use_cache": False}},  # its cache is written in place, which gradients cannot take
    "xlstm": {"fresh": {"use_cache": False}},
    "xmod": {"fresh": {"default_language": "en_XX"}},
    "youtu": {"empty_padding": True},
}
"""Facts about one type only."""


def _declared() -> Iterator[Architecture]:
    """One declaration for each type that anything is known about."""
    known: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for facts, kinds in FAMILIES:
        for kind in kinds:
            known[kind] |= facts
    for kind, reason in REFUSED.items():
        known[kind]["refused"] = {CAUSAL: reason}
    for kind, numbers in TINY.items():
        known[kind]["tiny"] = numbers
    for kind, facts in ONES.items():
        known[kind] |= facts
    return (Architecture(model_type=kind, **facts) for kind, facts in sorted(known.items()))


ARCHITECTURES = tuple(_declared())


@hookimpl
def lmtasks_architectures() -> list[Architecture]:
    """The declarations of this module."""
    return [*ARCHITECTURES]
