"""What the process does in which Keras runs: ``python -m lmtasks_keras.child STEPS BATCHES``, which are descriptors."""

from __future__ import annotations

import re
import sys
import traceback
from multiprocessing.connection import Connection

import cloudpickle

from lmtasks.errors import LmtasksError, RunError, first_line

LIBRARIES = re.compile(r"[/\\](site-packages|lmtasks_keras|python3\.\d+)[/\\]")
"""What is in the path of code that no user has written."""


def main() -> None:
    """Call the functions that the run sends, with both connections; what is for users goes back by the first."""
    from lmtasks import register_architectures

    steps, batches = (Connection(int(descriptor)) for descriptor in sys.argv[1:])
    register_architectures()
    while True:
        try:
            function, arguments = cloudpickle.loads(steps.recv_bytes())
            function(steps, batches, *arguments)
        except LmtasksError as error:
            steps.send(error)
        except (EOFError, BrokenPipeError):
            return  # the run has ended, or has no more to ask
        except Exception as error:  # of Keras, of its backend, or of what users brought along
            steps.send(_failure(error))


def _failure(error: Exception) -> BaseException:
    """An error as the run tells it: what it is, and the line of code outside of libraries that was reached last."""
    told = f"{type(error).__name__}: {first_line(error)}"
    if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):
        return MemoryError(told)
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not LIBRARIES.search(frame.filename)]
    where = f"see {own[-1].filename}, line {own[-1].lineno}" if own else "--engine trainer, or another --keras.backend"
    failure = RunError(f"Keras has failed: {told}", where)
    failure.add_note("".join(traceback.format_exception(error)))
    return failure


if __name__ == "__main__":
    main()
