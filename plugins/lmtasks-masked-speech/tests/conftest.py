"""What the tests share; no network."""

import os
import tempfile

os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="lmtasks-speech-")
os.environ["XDG_CACHE_HOME"] = os.environ["HF_HOME"]
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

from pathlib import Path

import pytest
import soundfile
import torch
import transformers
from small import RATE, chirp, config_of, extractor


@pytest.fixture(scope="session")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of ten recordings of different length, wav and flac."""
    folder = tmp_path_factory.mktemp("recordings")
    for number in range(10):
        name = folder / f"{number}.{'flac' if number % 3 == 0 else 'wav'}"
        soundfile.write(name, chirp(0.6 + 0.11 * number, number), RATE, subtype="PCM_16")
    return folder


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small saved model, with group normalisation and all its noise."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    config = config_of("group", layerdrop=0.2, hidden_dropout=0.1, feat_quantizer_dropout=0.1)
    transformers.AutoModelForPreTraining.from_config(config).save_pretrained(folder)
    extractor().save_pretrained(folder)
    return folder
