"""The process in which Keras runs, seen from the run: torch's accelerator and random state here stay as they are."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from typing import Any

import cloudpickle

from lmtasks import RunError

PATIENCE = 60
"""Seconds that the process has to end in, once all is done."""

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "2"}
"""Variables without which TensorFlow tells at length what it is."""

SHARING = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}
"""Variables without which JAX and TensorFlow take a GPU's memory at once: the run evaluates there, too."""


class KerasProcess:
    """A Python process with a backend of Keras, in which functions are called; to be entered, and ended by that.

    It has the place to import from that this process has, and a session of its own: a Ctrl-C is for the run, which lets
    a step end and saves. When the run ends, however, so does it.

    Args:
        backend: of Keras.
    """

    def __init__(self, backend: str) -> None:
        pairs = [socket.socketpair() for _ in range(2)]
        far = [there for _, there in pairs]
        # What it says to stderr is mostly noise of libraries, and its last line the reason where it fails.
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the process)
        path = os.pathsep.join(filter(None, sys.path))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "lmtasks_keras.child", *(str(there.fileno()) for there in far)],
            env={**QUIET, **SHARING, **os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": path},
            pass_fds=[there.fileno() for there in far],
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        for there in far:
            there.close()
        self.steps, self.batches = (Connection(here.detach()) for here, _ in pairs)
        # What callbacks print is for people to see, and not for who reads the run's stdout.
        telling = threading.Thread(target=_tell, args=(self._process.stdout,), daemon=True)
        telling.start()
        # Also where nobody enters it, because the run was only planned.
        self._end = weakref.finalize(self, _end, self._process, self.steps, self.batches, telling, self._errors)

    def __enter__(self) -> KerasProcess:
        return self

    def __exit__(self, kind: Any, *problem: Any) -> None:
        if kind is not None:
            self._process.kill()
        self._end()

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Let it call a function with both its connections to here, those of :attr:`steps` and :attr:`batches`.

        Args:
            arguments: further ones, which cloudpickle can send.
        """
        self._attempt(self.steps.send_bytes, cloudpickle.dumps((function, arguments)))

    def send(self, *message: Any) -> None:
        """Tell it something about the steps.

        Raises:
            RunError: it has died.
        """
        self._attempt(self.steps.send, message)

    def receive(self) -> Any:
        """What it has to tell next of the steps; an error that it raised is raised here.

        Raises:
            RunError: it has died, and with what last words.
        """
        message = self._attempt(self.steps.recv)
        if isinstance(message, BaseException):
            raise message
        return message

    def heard(self, batches: Iterator[Any]) -> Iterator[Any]:
        """All that it tells of the steps, one after the other; meanwhile it is given the batches that it asks for."""
        while True:
            ready = wait([self.steps, self.batches])
            if self.steps in ready:
                yield self.receive()
            elif self._attempt(self.batches.recv) is None:
                self._attempt(self.batches.send, next(batches, ()))

    def _attempt(self, action: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return action(*arguments)
        except (EOFError, OSError) as error:
            raise self._died() from error

    def _died(self) -> RunError:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").splitlines()
        last = next((line.strip() for line in reversed(lines) if line.strip()), f"exit code {code}")
        if code < 0:
            last = f"killed by signal {-code}"
        return RunError(
            f"the process in which Keras ran has ended: {last}",
            "see whether memory was short; --engine trainer needs less",
        )


def _tell(lines: Any) -> None:
    for line in lines:
        sys.stderr.write(line.decode(errors="replace"))


def _end(process: subprocess.Popen[bytes], *open_files: Any) -> None:
    """Let a process end, which it does when nobody listens, and close what was open to it."""
    steps, batches, telling, errors = open_files
    steps.close()
    batches.close()
    try:
        process.wait(PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    telling.join()
    assert process.stdout is not None
    process.stdout.close()
    errors.close()
