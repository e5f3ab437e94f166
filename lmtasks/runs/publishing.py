"""Publication of a finished run, where that was asked for."""

from __future__ import annotations

from pathlib import Path

from lmtasks.artifacts.publish import push
from lmtasks.config.request import Request


def publish(request: Request, folder: Path) -> str | None:
    """Publish a finished run if that was asked for; where it is now."""
    if not request.output.push_to_hub:
        return None
    return push(folder, request.output.hub_model_id or folder.name, private=request.output.hub_private_repo)
