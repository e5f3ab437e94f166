"""Answers in pieces, as server-sent events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import msgspec

from lmtasks.inference.continuing import Continuation, Token
from lmtasks.serving.refusals import Refusal, refusal_of
from lmtasks.serving.served import Served


class Stream:
    """Tokens of a job as they come, within the time that a request has."""

    answers: list[Continuation]
    """Those of the job, when all tokens have come."""

    def __init__(self, served: Served, texts: list[str], arguments: Mapping[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        self._come: asyncio.Queue[tuple[int, Token] | None] = asyncio.Queue()
        self._deadline = loop.time() + served.limits.timeout
        self._seconds = served.limits.timeout

        def hear(number: int, token: Token) -> None:
            loop.call_soon_threadsafe(self._come.put_nowait, (number, token))

        self.job = served.job(texts, arguments, hear)
        self._done = asyncio.wrap_future(served.worker.submit(self.job))
        self._done.add_done_callback(self._all_told)
        self._first: tuple[int, Token] | None = None

    @classmethod
    async def begun(cls, served: Served, texts: list[str], arguments: Mapping[str, Any]) -> Stream:
        """A stream whose first token is there, so that whatever is wrong with the request has been found.

        Raises:
            Refusal: there is no room in line, or no time left.
        """
        stream = cls(served, texts, arguments)
        stream._first = await stream._next()
        return stream

    async def tokens(self) -> AsyncIterator[tuple[int, Token]]:
        """Each token, with the number of its text."""
        token = self._first
        while token is not None:
            yield token
            token = await self._next()

    def _all_told(self, done: asyncio.Future[list[Continuation]]) -> None:
        self._come.put_nowait(None)
        if not done.cancelled():
            done.exception()  # asyncio is not to complain where the client has left

    async def _next(self) -> tuple[int, Token] | None:
        """The next token; None when all have come."""
        try:
            async with asyncio.timeout_at(self._deadline):
                token = await self._come.get()
                if token is None:
                    self.answers = await self._done
        except TimeoutError:
            self.job.wanted = False
            raise Refusal(504, "generation", f"no answer within {self._seconds:g} s") from None
        return token


async def events(pieces: AsyncIterator[Any], stream: Stream, told: Callable[[Refusal], Any]) -> AsyncIterator[bytes]:
    """The pieces as events; when the client leaves, nobody wants the rest.

    Args:
        told: the last piece, where something went wrong on the way.
    """
    try:
        async for piece in pieces:
            yield _event(piece)
    except Exception as error:
        yield _event(told(refusal_of(error)))
    finally:
        stream.job.wanted = False


def _event(piece: Any) -> bytes:
    text = piece.encode() if isinstance(piece, str) else msgspec.json.encode(piece)
    return b"data: " + text + b"\n\n"
