"""Connections that are not kept for a request that never comes, or comes a byte at a time."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol


def punctual(seconds: float) -> type[H11Protocol]:
    """HTTP in which the head of a request has to be complete so many seconds after a connection is open for it.

    uvicorn itself waits for ever, so that clients who never end a line could hold every connection that there is.
    """

    class Punctual(H11Protocol):
        _end: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is None or self.cycle.response_complete:
                self._wait()
            else:
                self._wait_no_more()

        def connection_lost(self, exc: Exception | None) -> None:
            self._wait_no_more()
            super().connection_lost(exc)

        def _wait(self) -> None:
            # Not from the last byte on: one at a time would do for ever.
            self._end = self._end or self.loop.call_later(seconds, self.transport.close)

        def _wait_no_more(self) -> None:
            if self._end is not None:
                self._end.cancel()
                self._end = None

    return Punctual
