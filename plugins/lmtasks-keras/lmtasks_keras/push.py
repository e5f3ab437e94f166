"""A Keras callback that publishes the model while it is trained: what ``PushToHubCallback`` was."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import keras

from lmtasks import InputError, RunError, push
from lmtasks.artifacts.publish import check_can_push
from lmtasks.progress import say
from lmtasks_keras.model_of import TransformersModel
from lmtasks_keras.saving import require_place, save


class PushToHub(keras.callbacks.Callback):
    """Saves the model into a folder, and publishes what :func:`lmtasks.push` lets go from there.

    The model, its tokenizer, the record and the card are published, and nothing else that lies in the folder. An epoch
    whose model cannot be published is told of, and training goes on; at the end that is an error.

    Args:
        output_dir: the folder, as :func:`lmtasks_keras.save` takes it.
        hub_model_id: the repository, ``NAMESPACE/NAME``; named like the folder when not given.
        save_strategy: ``"epoch"``: after each epoch and at the end; ``"no"``: at the end alone.
        private: make a new repository private.

    Raises:
        InputError: another strategy; as ``fit`` begins, no token, a bad id, or a folder that holds something else.
        RunError: as ``fit`` ends, the Hub refused or did not answer; the model is in the folder.
    """

    def __init__(
        self,
        output_dir: str | Path,
        hub_model_id: str | None = None,
        *,
        save_strategy: Literal["epoch", "no"] = "epoch",
        private: bool = False,
    ) -> None:
        super().__init__()
        if save_strategy not in ("epoch", "no"):
            raise InputError(f"save_strategy cannot be '{save_strategy}'", '"epoch", or "no" for the end alone')
        self.folder, self.repository = Path(output_dir), hub_model_id or Path(output_dir).name
        self.every_epoch, self.private = save_strategy == "epoch", private
        self.url: str | None = None

    def on_train_begin(self, logs: Any = None) -> None:
        """Find out now what would fail in hours."""
        if not isinstance(self.model, TransformersModel):
            raise InputError("PushToHub publishes models of lmtasks_keras", "lmtasks_keras.model(FOLDER) makes one")
        check_can_push(self.repository)
        require_place(self.folder)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Publish the model as it is now."""
        if self.every_epoch and epoch + 1 < self.params["epochs"]:
            save(self.model, self.folder, measure=False)
            try:
                self._push(f"Training in progress, epoch {epoch + 1}")
            except RunError as error:
                say(f"epoch {epoch + 1} is not published: {error.message}")

    def on_train_end(self, logs: Any = None) -> None:
        """Publish the trained model, with its figures."""
        save(self.model, self.folder)
        self._push("End of training")

    def _push(self, message: str) -> None:
        self.url = push(self.folder, self.repository, private=self.private, commit_message=message)
