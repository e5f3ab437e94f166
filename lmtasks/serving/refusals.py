"""What a client is told when there is no answer: a status, one sentence, and never more of the inside."""

from __future__ import annotations

import re
from collections.abc import Mapping

from lmtasks.errors import LmtasksError, in_one_line


class Refusal(Exception):  # noqa: N818  (mostly it is the client's)
    """No answer, and why.

    Args:
        status: of HTTP.
        kind: in the words of text-generation-inference, which clients know: validation, overloaded, generation.
        message: for the person who asked.
        headers: beside it.
    """

    def __init__(self, status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.headers = status, kind, message, dict(headers or {})


def invalid(message: str, status: int = 422) -> Refusal:
    """A request that cannot be answered as it is."""
    return Refusal(status, "validation", message)


def overloaded(message: str) -> Refusal:
    """A request that came when there were too many, and may come again in a second."""
    return Refusal(503, "overloaded", message, {"Retry-After": "1"})


FLAG = re.compile(r"(?<![\w'\"-])--(?=[a-z])")


def refused(error: LmtasksError) -> Refusal:
    """A user's mistake as told to a client, who has fields and no flags."""
    return invalid(in_one_line(FLAG.sub("", str(error))))
