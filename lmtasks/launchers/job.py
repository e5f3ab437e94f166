"""The job that a command is, for whoever starts its processes."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmtasks.api import Job
from lmtasks.config.engines import require_processes
from lmtasks.config.request import Request
from lmtasks.registry.enabled_plugins import current, file_of
from lmtasks.runs.apart import what_is_read

_MEANT = re.compile(
    r"(LMTASKS|HF|TRANSFORMERS|TOKENIZERS|HUGGING\w*|OMP|MKL|NCCL|GLOO|TORCH\w*|PYTORCH|CUDA|XDG|WANDB|MLFLOW|COMET"
    r"|TRACKIO|CLEARML|AIM|TENSORBOARD|PYTHONPATH|PYTHONHASHSEED|NO_COLOR)(_\w+)?"
)
"""Variables that mean something to a run, to its libraries and trackers, or to Python itself."""

_LOCAL = re.compile(r"LMTASKS_JOB|TORCHELASTIC_\w+|CUDA_VISIBLE_DEVICES|TORCH_NCCL_ASYNC_ERROR_HANDLING")
"""Those that are about the process that has them, and set anew in each that a launcher starts."""

_SECRET = re.compile(r"\w*(TOKEN|KEY|SECRET|PASSWORD|CREDENTIALS?)")


def job_of(
    command: Sequence[str],
    request: Request,
    *,
    processes: int,
    nodes: int,
    restarts: bool,
    values: Mapping[str, Any],
    config: str | None = None,
) -> Job:
    """The job of a command.

    Args:
        command: the words behind ``lmtasks``.
        request: what they ask for.
        processes: of each node.
        restarts: whether another attempt goes on with what an earlier one left.
        values: what was given, by name.
        config: the file in which more of it was given.

    Raises:
        InputError: the engine that it asks for trains in one process only.
    """
    if request.engine:
        require_processes(request.engine, processes * nodes)
    names = sorted(name for name in os.environ if _MEANT.fullmatch(name) and not _LOCAL.fullmatch(name))
    folder = request.output.output_dir
    return Job(
        command=tuple(command),
        cwd=Path.cwd(),
        processes=processes,
        nodes=nodes,
        folder=Path(folder).absolute() if folder and restarts and "://" not in folder else None,
        files=tuple(sorted({path.absolute() for path in _files(request, config)})),
        variables=tuple(name for name in names if not _SECRET.fullmatch(name)),
        secrets=tuple(name for name in names if _SECRET.fullmatch(name)),
        values=values,
        restarts=restarts,
        mark=secrets.token_hex(8),
    )


def _files(request: Request, config: str | None) -> Iterator[Path]:
    """What is there of the files and folders that a command names: data, models, its config, recipes."""
    yield from (path for _, path in what_is_read(request))
    yield from (Path(name) for name in current().named if file_of(name))
    if config:
        yield Path(config)
