"""The versions of what a run is made with."""

from __future__ import annotations

from importlib import metadata


def versions() -> dict[str, str]:
    """The installed versions, by name of the package."""
    return {name: metadata.version(name) for name in ("lmtasks", "transformers", "torch", "datasets")}
