"""The Hub on the loopback interface that the tests publish to."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

_SOURCE = Path(__file__).parents[2] / "tests" / "hub_server.py"


def hub_server() -> Any:
    """A server, not yet started: a context manager; see ``tests/hub_server.py``."""
    if (module := sys.modules.get("hub_server")) is None:
        spec = importlib.util.spec_from_file_location("hub_server", _SOURCE)
        assert spec and spec.loader
        sys.modules["hub_server"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return module.HubServer()
