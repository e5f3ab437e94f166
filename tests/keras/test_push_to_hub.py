"""The callback of lmtasks-keras that publishes, on a Hub of this machine; `tox run -e keras` has what it needs."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from hub_server import HubServer

pytest.importorskip("lmtasks_keras", reason="tox run -e keras")
os.environ.setdefault("KERAS_BACKEND", "jax")
keras = pytest.importorskip("keras", reason="tox run -e keras")

import lmtasks_keras  # noqa: E402

import lmtasks  # noqa: E402
from lmtasks import InputError, RunError  # noqa: E402
from lmtasks.artifacts.publish import PUBLISHED  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # Keras' variables, to NumPy 2
    pytest.mark.filterwarnings("ignore:Explicitly requested dtype:UserWarning"),  # JAX, of torch's int64
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # huggingface_hub's own
]

FILES = {"README.md", "run.json", "config.json", "generation_config.json", "model.safetensors"}
"""What is published of any model, beside its tokenizer, figures and learning curve."""


@pytest.fixture(scope="module")
def fitting(model_folders: dict[str, Path], documents: list[str]) -> Any:
    """A model with what it is trained and evaluated on."""
    model = lmtasks_keras.model(model_folders["gpt2"], batch_size=4, block_size=32)
    train = lmtasks_keras.dataset(documents[:3], model)
    held_out = lmtasks_keras.dataset(documents[3:5], model, training=False)
    return model, {"x": train, "validation_data": held_out, "verbose": 0, "steps_per_epoch": 2}


def test_every_epoch_is_published_and_at_the_end_the_figures(
    fitting: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, how = fitting
    with HubServer() as hub:
        hub.use(monkeypatch, tmp_path / "home")
        callback = lmtasks_keras.PushToHub(tmp_path / "my-model", "someone/my-model")
        thesis = "what nobody else shall read"

        class Beside(keras.callbacks.Callback):
            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                (tmp_path / "my-model" / "thesis.txt").write_text(thesis)

        model.fit(**how, epochs=2, callbacks=[callback, Beside()])
        said = list(hub.repos["someone/my-model"].messages.values())
        assert said == ["initial commit", "Training in progress, epoch 1", "End of training"]
        assert callback.url.startswith(hub.endpoint)
        files = hub.files("someone/my-model")
        assert set(files) >= FILES
        assert "thesis.txt" not in files
        assert PUBLISHED
        hub.assert_no_secret_travelled(thesis, str(tmp_path))
        record = json.loads(files["run.json"])
        assert str(record["metrics"]["perplexity"]) in files["README.md"].decode()
        loaded = transformers.AutoModelForCausalLM.from_pretrained("someone/my-model")
    ours = model.pretrained().state_dict()
    assert all(ours[name].equal(value) for name, value in loaded.state_dict().items())
    assert lmtasks.load_run(tmp_path / "my-model").metrics == record["metrics"]


def test_an_epoch_that_cannot_be_published_is_told_of_and_the_end_is_an_error(
    fitting: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, how = fitting
    with HubServer() as hub:
        hub.use(monkeypatch, tmp_path / "home")
        hub.fail_next("POST /api/models/someone/my-model/commit", 403, times=1)
        callback = lmtasks_keras.PushToHub(tmp_path / "my-model", "someone/my-model")
        model.fit(**how, epochs=2, callbacks=[callback])
        assert "epoch 1 is not published: the Hub does not let this token write here" in capsys.readouterr().err
        assert "End of training" in hub.repos["someone/my-model"].messages.values()
        hub.fail_next("POST /api/models/someone/my-model/commit", 403, times=1)
        last = lmtasks_keras.PushToHub(tmp_path / "my-model", "someone/my-model", save_strategy="no")
        with pytest.raises(RunError, match="does not let this token write here"):
            model.fit(**how, epochs=1, callbacks=[last])
    assert lmtasks.load_run(tmp_path / "my-model").metrics["eval_loss"] > 0, "the model is safe"


def test_what_would_fail_in_hours_fails_at_once(fitting: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, how = fitting
    before = model.apart.epochs
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="cannot publish offline"):
        model.fit(**how, callbacks=[lmtasks_keras.PushToHub(tmp_path / "my-model")])
    with HubServer() as hub:
        hub.use(monkeypatch, tmp_path / "home")
        with pytest.raises(InputError, match="holds something else"):
            model.fit(**how, callbacks=[lmtasks_keras.PushToHub(tmp_path / "other")])
        with pytest.raises(InputError, match="cannot be the id of a repository"):
            model.fit(**how, callbacks=[lmtasks_keras.PushToHub(tmp_path / "my-model", "no/such/id")])
    with pytest.raises(InputError, match="save_strategy cannot be 'steps'"):
        lmtasks_keras.PushToHub(tmp_path / "my-model", save_strategy="steps")
    stranger = keras.Sequential([keras.layers.Dense(1)])
    stranger.compile(optimizer="sgd", loss="mse")
    with pytest.raises(InputError, match="publishes models of lmtasks_keras"):
        stranger.fit(np.ones((1, 1)), np.ones(1), callbacks=[lmtasks_keras.PushToHub(tmp_path / "my-model")], verbose=0)
    assert model.apart.epochs == before
    assert not (tmp_path / "my-model").exists()
