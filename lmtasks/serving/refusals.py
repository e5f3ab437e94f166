"""What a client is told when there is no answer: a status, one sentence, and never more of the inside."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping

import msgspec
import torch
from transformers.pipelines.base import PipelineException

from lmtasks.errors import InputError, in_one_line

logger = logging.getLogger(__name__)


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
"""What stands before the name of a flag; clients have fields."""

CLIENTS = (ValueError, TypeError, IndexError, PipelineException, type(None))
"""Causes of a refusal by the pipeline that are in what it was asked; with arguments, it takes any error for one."""

FAILED = "it failed here; the server's log says why"


def refusal_of(error: Exception) -> Refusal:
    """What a client hears of an error; what is no client's mistake is told here in full."""
    if isinstance(error, Refusal):
        return error
    if isinstance(error, InputError) and isinstance(error.__cause__, CLIENTS):
        return invalid(in_one_line(FLAG.sub("", str(error))))
    if isinstance(error, msgspec.DecodeError | UnicodeDecodeError | RecursionError):
        return invalid("the body cannot be read: " + str(error).splitlines()[0])
    logger.error("a request failed", exc_info=error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return Refusal(503, "overloaded", "out of memory", {"Retry-After": "1"})
    return Refusal(500, "generation", FAILED)
