"""How a new model learns when nobody says.

The defaults of ``TrainingArguments`` are those of fine-tuning. At 5e-5 a model from scratch ends its first thousand
steps above the loss of guessing by word frequency.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from transformers import PreTrainedModel

RATE_TIMES_WIDTH = 0.45
"""Adam's best rate falls as a model gets wider (Yang et al. 2022, muP). This constant fits the table of GPT-3 (Brown et
al. 2020) from 768 to 12,288, and was tried at 64 and 128 with both built-in recipes."""

HIGHEST = 1e-2
"""Rate at which the narrowest models still learn."""

WARMUP = 0.1
"""Share of the steps; what Adam knows of the first gradients is little."""

BETA2 = 0.95
"""Of Adam: short runs have no use for a memory of a thousand steps."""

CHOSEN = ("learning_rate", "warmup_steps", "adam_beta2")
"""Training arguments that are chosen here."""


def rate_of_width(width: int) -> float:
    """The peak learning rate of Adam for a new model, to two digits."""
    return min(HIGHEST, float(f"{RATE_TIMES_WIDTH / width:.1e}"))


def width_of(model: PreTrainedModel) -> int | None:
    """The size of the hidden states, as the configuration has it; None where it says none."""
    width = getattr(model.config.get_text_config(), "hidden_size", None)
    return width if isinstance(width, int) and width > 0 else None


def is_open(training: Mapping[str, Any], given: Collection[str]) -> bool:
    """Whether it is left to lmtasks how a new model learns: nobody set a rate, or named another optimiser than Adam."""
    return "learning_rate" not in given and str(training.get("optim", "adamw")).startswith("adamw")


def learning_from_scratch(
    training: Mapping[str, Any], given: Collection[str], model: PreTrainedModel
) -> tuple[dict[str, Any], list[str]]:
    """The training arguments of a new model, by name, and notes on what was chosen for the user.

    Args:
        given: names of what the user set, which wins. Who sets the rate has a schedule in mind, and gets the
            plain one: at a guide's rate, a guide's loss.

    Returns:
        the arguments as they are and no notes, where nothing is left to choose: the rate was set, or another
        optimiser than Adam named, which has rates of its own, or the model's configuration tells no width.
    """
    width = width_of(model)
    if width is None or not is_open(training, given):
        return dict(training), []
    warms = {"warmup_steps", "warmup_ratio"} & set(given)
    wanted: dict[str, Any] = {"learning_rate": rate_of_width(width), "adam_beta2": BETA2}
    wanted |= {} if warms else {"warmup_steps": WARMUP}
    chosen = {name: value for name, value in wanted.items() if name not in given}
    words = {
        "learning_rate": f"learning rate {wanted['learning_rate']:g}: {RATE_TIMES_WIDTH:g} / width {width}, at most"
        f" {HIGHEST:g}",
        "warmup_steps": f"warm-up over {WARMUP:.0%} of the steps, then {training['lr_scheduler_type']}",
        "adam_beta2": f"adam_beta2 {BETA2:g}",
    }
    return {**training, **chosen}, [f"from scratch: {text}" for name, text in words.items() if name in chosen]
