"""The plugin: names the classes by string, so that loading it imports neither torch nor transformers."""

from lmtasks import Architecture, hookimpl

LSTM = Architecture(
    model_type="lstm",
    config="lmtasks_lstm.model:LSTMConfig",
    models={"AutoModelForCausalLM": "lmtasks_lstm.model:LSTMForCausalLM"},
    tiny={"hidden_size": 32, "num_hidden_layers": 2},
)


@hookimpl
def lmtasks_architectures() -> list[Architecture]:
    """The architecture of this package."""
    return [LSTM]
