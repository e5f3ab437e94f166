"""The server: an address, uvicorn behind it, and an end that leaves nobody without an answer."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable

import uvicorn

from lmtasks.errors import InputError
from lmtasks.serving.app import HERE, new_app
from lmtasks.serving.punctual import punctual
from lmtasks.serving.served import Served

BACKLOG = 2048
"""Connections that may wait to be accepted."""


def listener(host: str, port: int) -> socket.socket:
    """A socket at the address.

    Args:
        port: 0 for any that is free.

    Raises:
        InputError: it cannot be had.
    """
    if not 0 <= port < 2**16:  # some systems take the rest of the division
        raise InputError(f"--port {port} is no port", "a number below 65536, or 0 for any that is free")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        made = socket.socket(family, kind, protocol)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(address)
    except OSError as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot listen on {host}, port {port}: {reason}", "another --port, or --port 0") from error
    return made


def address_of(listening: socket.socket, host: str) -> str:
    """The URL at which a socket is asked."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"


def server(served: Served, listening: socket.socket, host: str, ready: Callable[[], None]) -> uvicorn.Server:
    """A server that runs with ``run(sockets=[listening])``.

    On SIGINT or SIGTERM it takes no more requests, answers those that it has, and then lets the signal do what it
    would have done.

    Args:
        ready: called when requests are taken.
    """

    def taking() -> None:
        listening.listen(BACKLOG)  # uvicorn does so only after it has let us say that we are ready
        ready()

    config = uvicorn.Config(
        new_app(served, local=host in HERE, ready=taking),
        http=punctual(served.limits.timeout),
        backlog=BACKLOG,
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        timeout_graceful_shutdown=int(served.limits.timeout) + 1,
    )
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    return uvicorn.Server(config)
