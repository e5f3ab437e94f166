"""The plugin: names the classes by string, so that loading it imports neither torch nor transformers."""

from lmtasks import Architecture, hookimpl

MRA = Architecture(
    model_type="mra",
    models={"AutoModelForMaskedLM": "lmtasks_mra.model:MraForMaskedLM"},
    limits="documents of one block cannot be isolated from each other",
    tiny={"block_per_row": 2},
)


@hookimpl
def lmtasks_architectures() -> list[Architecture]:
    """The architecture of this package."""
    return [MRA]
