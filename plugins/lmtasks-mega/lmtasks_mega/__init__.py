"""The plugin: names the classes by string, so that loading it imports neither torch nor transformers."""

from lmtasks import Architecture, hookimpl

MEGA = Architecture(
    model_type="mega",
    config="lmtasks_mega.config:MegaConfig",
    models={
        "AutoModel": "lmtasks_mega.model:MegaModel",
        "AutoModelForMaskedLM": "lmtasks_mega.model:MegaForMaskedLM",
        "AutoModelForCausalLM": "lmtasks_mega.model:MegaForCausalLM",
    },
    causal={"is_decoder": True, "bidirectional": False},
    tiny={
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "intermediate_size": 64,
        "nffn_hidden_size": 64,
        "ema_projection_size": 4,
        "shared_representation_size": 16,
    },
)


@hookimpl
def lmtasks_architectures() -> list[Architecture]:
    """The architecture of this package."""
    return [MEGA]
