"""The trackers of transformers behind ``--report_to``: they hear of the whole run, not of its training alone.

The Trainer would close them when training ends, before the figures of the finished model are there, and what comes
later would open some of them again, as another run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout, suppress
from importlib import import_module
from typing import Any

from transformers import TrainerCallback, TrainerState
from transformers.integrations import INTEGRATION_TO_CALLBACK

from lmtasks.errors import LmtasksError, RunError, first_line

OURS = "lmtasks"
"""Under which the options of a run stand among what trackers keep of its configuration."""


class Tracker(TrainerCallback):
    """A tracker of transformers that is told what the run is, and stays open until it is closed.

    What it prints goes to stderr, for stdout has the results; and what it trips over is told in two lines.

    Args:
        name: as behind ``--report_to``.
        options: of the run, without secrets and paths of this machine.
    """

    def __init__(self, name: str, options: Mapping[str, Any]) -> None:
        self.name, self.options = name, options
        self.inner: TrainerCallback = INTEGRATION_TO_CALLBACK[name]()
        self._begun: tuple[tuple[Any, ...], dict[str, Any]] | None = None
        self._owns_run = False

    def on_train_begin(self, *arguments: Any, **named: Any) -> None:
        """Open it, and say what the run is."""
        with self._told():
            self._owns_run = self.name == "wandb" and import_module("wandb").run is None
            self.inner.on_train_begin(*arguments, **named)
            self._begun = arguments, named
            state: TrainerState = arguments[1]
            if state.is_world_process_zero and self.name in _DESCRIBING:
                _DESCRIBING[self.name](self.inner, self.options)

    def on_train_end(self, *arguments: Any, **named: Any) -> None:
        """Keep it open: what matters most is still to come."""

    def tell(self, figures: Mapping[str, float]) -> None:
        """Log the figures of the finished model, beside those of evaluations during training."""
        if self._begun is None:
            return
        named = {name if name.startswith("eval_") else f"eval_{name}": value for name, value in figures.items()}
        arguments, others = self._begun
        with self._told():
            self.inner.on_log(*arguments, **{**others, "logs": named})

    def close(self, code: int = 0) -> None:
        """Close it, with the exit code of the run."""
        if self._begun is None:
            return
        arguments, others = self._begun
        self._begun = None
        with self._told():
            if code and self.name == "mlflow":
                import_module("mlflow").end_run("FAILED" if code < 128 else "KILLED")
            if not code or self.name != "wandb":  # which might send the model of a run that failed
                self.inner.on_train_end(*arguments, **others)
            if self._owns_run:  # else the next run of this process would go on in this one
                import_module("wandb").finish(exit_code=code)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            with redirect_stdout(sys.stderr):
                yield
        except LmtasksError:
            raise
        except Exception as error:  # of a library that talks to somebody else's server
            raise RunError(
                f"--report_to {self.name}: {first_line(error)}", f"set {self.name} up, or leave it out of --report_to"
            ) from error


def _passed_on(event: str) -> Callable[..., Any]:
    def on_event(self: Tracker, *arguments: Any, **named: Any) -> None:
        with self._told():
            getattr(self.inner, event)(*arguments, **named)

    return on_event


for _event in (name for name in dir(TrainerCallback) if name.startswith("on_") and name not in vars(Tracker)):
    setattr(Tracker, _event, _passed_on(_event))


@contextmanager
def open_until_done(callbacks: Iterable[TrainerCallback]) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """While this is open, so are the trackers among callbacks; gives what tells all of them the last figures."""
    trackers = [callback for callback in callbacks if isinstance(callback, Tracker)]

    def tell(figures: Mapping[str, float]) -> None:
        for tracker in trackers:
            tracker.tell(figures)

    try:
        yield tell
    except BaseException as error:
        for tracker in trackers:
            with suppress(LmtasksError):  # what ended the run is to be told, not what comes of it
                tracker.close(getattr(error, "exit_code", 1))
        raise
    for tracker in trackers:
        tracker.close()


def _as_text(tracker: Any, options: Mapping[str, Any]) -> None:
    tracker.tb_writer.add_text(OURS, f"```json\n{json.dumps(options, indent=2, default=str)}\n```")


def _as_config(module: str) -> Callable[[Any, Mapping[str, Any]], None]:
    def describe(tracker: Any, options: Mapping[str, Any]) -> None:
        import_module(module).config.update({OURS: json.loads(json.dumps(options, default=str))}, allow_val_change=True)

    return describe


def _as_params(tracker: Any, options: Mapping[str, Any]) -> None:
    mlflow = import_module("mlflow")
    most = mlflow.utils.validation.MAX_PARAM_VAL_LENGTH
    flat = {
        f"{OURS}/{group}/{name}" if name else f"{OURS}/{group}": str(value)[:most]
        for group, values in options.items()
        for name, value in (values.items() if isinstance(values, Mapping) else [("", values)])
    }
    mlflow.log_params(flat)


_DESCRIBING: dict[str, Callable[[Any, Mapping[str, Any]], None]] = {
    "tensorboard": _as_text,
    "wandb": _as_config("wandb"),
    "trackio": _as_config("trackio"),
    "mlflow": _as_params,
}
"""How a tracker is told the options of a run; others have those of the Trainer alone."""
