"""What the process does in which Keras runs: ``python -m lmtasks_keras.child STEPS BATCHES``, which are descriptors."""

from __future__ import annotations

import sys
from multiprocessing.connection import Connection

import cloudpickle

from lmtasks.errors import LmtasksError


def main() -> None:
    """Call the function that the run sends, with both connections; what is for users goes back by the first."""
    from lmtasks import register_architectures

    steps, batches = (Connection(int(descriptor)) for descriptor in sys.argv[1:])
    try:
        message = steps.recv_bytes()
        register_architectures()
        function, arguments = cloudpickle.loads(message)
        function(steps, batches, *arguments)
    except LmtasksError as error:
        steps.send(error)
    except (EOFError, BrokenPipeError):
        sys.exit(1)  # the run has ended before: nobody is there to be told


if __name__ == "__main__":
    main()
