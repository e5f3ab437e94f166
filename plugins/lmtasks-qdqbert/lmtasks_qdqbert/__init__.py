"""The plugin: names the classes by string, so that loading it imports neither torch nor transformers."""

from lmtasks import Architecture, hookimpl

QDQBERT = Architecture(
    model_type="qdqbert",
    config="lmtasks_qdqbert.model:QDQBertConfig",
    models={
        "AutoModelForMaskedLM": "lmtasks_qdqbert.model:QDQBertForMaskedLM",
        "AutoModelForCausalLM": "lmtasks_qdqbert.model:QDQBertLMHeadModel",
    },
    causal={"is_decoder": True},
    tiny={
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "calibration_batches": 2,
    },
)


@hookimpl
def lmtasks_architectures() -> list[Architecture]:
    """The architecture of this package."""
    return [QDQBERT]
