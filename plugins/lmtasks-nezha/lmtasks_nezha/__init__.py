"""The plugin: names the classes by string, so that loading it imports neither torch nor transformers."""

from lmtasks import Architecture, hookimpl

NEZHA = Architecture(
    model_type="nezha",
    config="lmtasks_nezha.model:NezhaConfig",
    models={"AutoModelForMaskedLM": "lmtasks_nezha.model:NezhaForMaskedLM"},
    tiny={
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 48,
        "max_relative_position": 8,
    },
)


@hookimpl
def lmtasks_architectures() -> list[Architecture]:
    """The architecture of this package."""
    return [NEZHA]
