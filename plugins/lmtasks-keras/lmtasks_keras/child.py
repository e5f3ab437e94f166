"""What the process does in which Keras runs: ``python -m lmtasks_keras.child STEPS BATCHES``, which are descriptors."""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection

import cloudpickle

from lmtasks.errors import LmtasksError


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


if __name__ == "__main__":
    main()
