"""The plugin: names the classes by string, so that loading it imports neither torch nor transformers."""

from lmtasks import Architecture, hookimpl

GATED_RECURRENCE = Architecture(
    model_type="gated-recurrence",
    config="lmtasks_gated_recurrence.model:GatedRecurrenceConfig",
    models={
        "AutoModel": "lmtasks_gated_recurrence.model:GatedRecurrenceModel",
        "AutoModelForCausalLM": "lmtasks_gated_recurrence.model:GatedRecurrenceForCausalLM",
    },
    tiny={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2},
)


@hookimpl
def lmtasks_architectures() -> list[Architecture]:
    """The architecture of this package."""
    return [GATED_RECURRENCE]
