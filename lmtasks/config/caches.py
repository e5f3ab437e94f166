"""The folders of the user's cache: lmtasks' own, and that of the libraries of the Hub."""

from __future__ import annotations

import os


def own() -> str:
    """lmtasks' folder in the user's cache."""
    return os.path.join(_home(), "lmtasks")


def libraries() -> str:
    """The folder where huggingface_hub and datasets keep what they have read, found without importing them."""
    return os.path.expanduser(os.environ.get("HF_HOME") or os.path.join(_home(), "huggingface"))


def _home() -> str:
    return os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or os.path.join("~", ".cache"))
