"""Optimisers and callbacks that people bring to a run: what would train otherwise than the run says is refused."""

from pathlib import Path

import pytest

from lmtasks import InputError

pytestmark = pytest.mark.keras
keras = pytest.importorskip("keras", reason="tox run -e keras")


@pytest.fixture(autouse=True)
def here(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1]))


def made(name, **settings):
    from lmtasks_keras.optimizer import optimizer

    return optimizer(f"keras_callbacks:{name}", [], **{"learning_rate": 0.1, "weight_decay": 0.0, **settings})


def test_what_a_factory_leaves_open_is_the_runs():
    one = made("sgd", weight_decay=0.01, global_clipnorm=1.0, gradient_accumulation_steps=2)
    assert (one.weight_decay, one.global_clipnorm, one.gradient_accumulation_steps) == (0.01, 1.0, 2)
    assert made("decaying", weight_decay=0.25).weight_decay == 0.25


@pytest.mark.parametrize(
    ("name", "told", "hint"),
    [
        ("fixed", "takes no learning_rate, which is the run's", "let it take learning_rate"),
        ("averaging", "averages weights, of which evaluations and checkpoints would not know", "without use_ema"),
        ("scaled", "scales losses, and training is in float32", "let it return the optimizer within"),
        ("decaying", "has weight_decay=0.25, and the run 0.0", "--weight_decay 0.25, or let it take weight_decay"),
        ("accumulating", "has gradient_accumulation_steps=4, and the run None", "--gradient_accumulation_steps 4"),
    ],
)
def test_an_optimizer_that_is_set_otherwise_than_the_run_is_refused(name, told, hint):
    with pytest.raises(InputError) as refused:
        made(name)
    assert refused.value.message == f"--keras.optimizer keras_callbacks:{name} {told}"
    assert refused.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("name", "evaluates", "told"),
    [
        ("patient", False, " watches val_loss, and training is not evaluated"),
        ("patient", True, ""),
        ("best", False, " watches val_loss, and training is not evaluated"),
        ("last", False, ""),
        ("stopping", False, ""),
        ("exact", True, " watches val_accuracy, which is not there"),
        ("whole", True, ": Keras' own format holds no transformers model"),
        ("backup", True, ": a run makes checkpoints of its own"),
        ("swapping", True, ": no optimizer of a run averages weights"),
        ("slower", True, ": the learning rate of each step is the run's"),
    ],
)
def test_a_callback_that_would_do_nothing_or_fail_late_is_refused(name, evaluates, told):
    import keras_callbacks
    from lmtasks_keras.fitting import require_useful

    callback = getattr(keras_callbacks, name)()
    if not told:
        require_useful(f"keras_callbacks:{name}", callback, evaluates)
        return
    with pytest.raises(InputError) as refused:
        require_useful(f"keras_callbacks:{name}", callback, evaluates)
    assert refused.value.message == f"--keras.callback keras_callbacks:{name}{told}"
    assert refused.value.hint
