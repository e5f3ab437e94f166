"""Functions of other libraries that mean ours for a while, as models call them by name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Replacement = tuple[Any, str, Callable[..., Any]]
"""A module or class, the name of a function in it, and what the name shall mean."""

_lock = threading.Lock()
_plain: dict[tuple[Any, str], tuple[Callable[..., Any], int]] = {}
"""What a name meant before, and how many have it replaced: threads may at once, and end in any order."""


@contextmanager
def replaced(*functions: Replacement) -> Iterator[None]:
    """While this is open the names mean what is given; once the last has closed it, what they meant at first."""
    with _lock:
        for owner, name, ours in functions:
            plain, users = _plain.get((owner, name), (getattr(owner, name), 0))
            _plain[owner, name] = plain, users + 1
            setattr(owner, name, ours)
    try:
        yield
    finally:
        with _lock:
            for owner, name, _ in functions:
                plain, users = _plain.pop((owner, name))
                if users > 1:
                    _plain[owner, name] = plain, users - 1
                else:
                    setattr(owner, name, plain)
