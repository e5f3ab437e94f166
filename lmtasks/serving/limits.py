"""How much a server takes, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

from lmtasks.errors import InputError


@dataclass(frozen=True)
class Limits:
    """What a server takes from its clients.

    Args:
        batch_size: texts that are answered at once.
        queue: texts that may wait; whoever comes then is asked to come again.
        texts: of one request; in text generation times the number of answers to each.
        new_tokens: of one continuation.
        guesses: for one mask, and targets to guess among.
        body: bytes of a request.
        timeout: seconds from a request to the end of its answer.
    """

    batch_size: int = 16
    queue: int = 256
    texts: int = 64
    new_tokens: int = 1024
    guesses: int = 1000
    body: int = 1 << 20
    timeout: float = 60.0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not value > 0:
                raise InputError(f"--{name} {value} leaves nothing to be answered", "more than 0")
