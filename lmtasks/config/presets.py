"""Presets: settings that go together, by one name. What somebody sets wins; what a recipe has not is left out."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Choice:
    """A value that a preset has for a setting.

    Args:
        why: for people, after the value.
        new: for new models alone, where true; for checkpoints alone, where false.
    """

    value: Any
    why: str
    new: bool | None = None


Preset = Mapping[str, Choice]

PRESETS: Mapping[str, Preset] = {
    "fast": {
        "learning_rate": Choice(1e-4, "five times the guides' (Gururangan et al. 2020)", new=False),
        "warmup_steps": Choice(0.1, "a larger rate needs a beginning"),
        "mlm_probability": Choice(0.3, "twice as many targets in a step (Wettig et al. 2023)"),
        "unigram_bias": Choice(True, "word frequencies need not be learned (Meister et al. 2023)", new=True),
    }
}
"""What each preset chooses, and why; ``benchmarks/time_to_quality.py`` measures what comes of it."""


def chosen_by(preset: object, known: Collection[str], given: Collection[str], *, new: bool) -> Preset:
    """The choices of a preset that apply; none where it has no such name.

    Args:
        known: settings that there are.
        given: names that somebody set.
        new: whether the model begins from scratch.
    """
    return {
        name: choice
        for name, choice in PRESETS.get(str(preset), {}).items()
        if name in known and name not in given and choice.new in (None, new)
    }


def notes_on_preset(name: str | None, chosen: Preset) -> Iterator[str]:
    """What a preset chose, and why."""
    for setting, choice in chosen.items():
        value = f"{choice.value:g}" if isinstance(choice.value, float) else str(choice.value).lower()
        yield f"preset {name}: {setting} {value}: {choice.why}"
