"""A frozen companion: a checkpoint that a recipe asks while its model learns, and that never learns itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lmtasks.api.references import require_reference


@dataclass(frozen=True)
class Frozen:
    """A checkpoint beside the model: a teacher, a reference, a judge of rewards. An option says which.

    Args:
        model_class: ``"module:Class"`` of it, an Auto class or a model class.
        alike: (options) to the names of what its configuration must have in common with the model's.

    Raises:
        ValueError: a class string of the wrong shape.
    """

    model_class: str
    alike: Callable[[Any], Sequence[str]] = lambda options: ("vocab_size",)

    def __post_init__(self) -> None:
        require_reference("a frozen companion", self.model_class)
