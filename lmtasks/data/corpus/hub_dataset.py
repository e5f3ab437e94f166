"""Data with a name: datasets of the Hub, and folders that take their place."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import datasets
import pyarrow as pa
import yaml
from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError
from datasets.packaged_modules.arrow.arrow import Arrow
from datasets.packaged_modules.csv.csv import Csv
from datasets.packaged_modules.json.json import Json
from datasets.packaged_modules.parquet.parquet import Parquet
from datasets.packaged_modules.text.text import Text
from huggingface_hub import DatasetCard
from huggingface_hub.errors import HfHubHTTPError, HFValidationError

from lmtasks.config.settings import DataSettings
from lmtasks.data.corpus.dataset_folder import load_splits
from lmtasks.data.corpus.find import is_saved
from lmtasks.errors import InputError, first_line, nearest_path

_TABLES = (Arrow, Csv, Json, Parquet)
"""Builders whose rows have the columns that a file has."""

_CARDS = (datasets.config.REPOCARD_FILENAME, datasets.config.REPOYAML_FILENAME)
"""Files in which a dataset may say which of its files are what."""


def load_named(data: DataSettings, *, medium: str = "text") -> tuple[dict[str, datasets.Dataset], bool]:
    """All splits of ``--dataset_name``, and whether their rows are documents.

    A folder made by ``save_to_disk``, a folder of data files, or a dataset of the Hub, tried in this order.

    Raises:
        InputError: no such folder, dataset, configuration or revision; unreadable; or the Hub is out of reach.
    """
    name = str(data.dataset_name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return _load_folder(folder, data, medium)
    _check_id(name, folder)
    return _prepared(name, _builder(name, data), data)


def _load_folder(folder: Path, data: DataSettings, medium: str) -> tuple[dict[str, datasets.Dataset], bool]:
    if data.dataset_revision is not None:
        raise InputError(f"--dataset_revision is for the Hub, and {folder} is a folder", "leave --dataset_revision out")
    if not is_saved(folder):
        # The absolute path: a folder called "text" or "json" is not the builder of that name.
        place = str(folder.resolve())
        if medium != "text":
            builder = _builder(place, data)
            if not isinstance(builder, _TABLES):
                raise InputError(f"datasets does not take the files in {folder} for {medium}", f"--train_file {folder}")
            return _prepared(place, builder, data)
        return load_splits(folder, _described(folder, data), data)
    if data.dataset_config_name is not None:
        raise InputError(
            f"{folder} was made by save_to_disk and has no configurations", "leave --dataset_config_name out"
        )
    try:
        saved = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, TypeError, KeyError, AttributeError, pa.ArrowException) as error:
        raise InputError(f"the dataset folder {folder} is damaged: {first_line(error)}", "save it again") from error
    return (dict(saved) if isinstance(saved, datasets.DatasetDict) else {"train": saved}), True


def _check_id(name: str, folder: Path) -> None:
    if folder.exists():
        raise InputError(f"--dataset_name {name} is a file", f"--train_file {name}")
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise InputError(f"no such dataset folder: {name}", "check the path; ids of the Hub look like OWNER/NAME")
    # load_dataset("text") would read every text file of the current folder.
    if "/" not in name and name.isidentifier() and importlib.util.find_spec(f"datasets.packaged_modules.{name}"):
        raise InputError(f"'{name}' is a file format, not a dataset", "--train_file FILE")


def _described(folder: Path, data: DataSettings) -> datasets.DatasetBuilder | None:
    """The builder of a folder whose card says which files are what; None where it says nothing of that."""
    wanted = data.dataset_config_name is not None or _has_configs(folder)
    return _builder(str(folder.resolve()), data) if wanted else None


def _has_configs(folder: Path) -> bool:
    readme, standalone = (folder / name for name in _CARDS)
    said = DatasetCard.load(readme).data.to_dict() if readme.is_file() else {}
    said |= (yaml.safe_load(standalone.read_text(encoding="utf-8")) or {}) if standalone.is_file() else {}
    return "configs" in said


def _prepared(
    name: str, builder: datasets.DatasetBuilder, data: DataSettings
) -> tuple[dict[str, datasets.Dataset], bool]:
    try:
        builder.download_and_prepare()
        splits = builder.as_dataset()
    # Subclasses of ValueError and OSError apart, nothing broader: a bug must keep its traceback.
    except (FileNotFoundError, ConnectionError, HfHubHTTPError, HFValidationError) as error:
        raise unavailable(name, error) from error
    except (DatasetGenerationError, UnicodeDecodeError, pa.ArrowException) as error:
        cause = error.__cause__ or error
        if isinstance(cause, ImportError):
            what, hint = f"the dataset '{name}'", "install that package, or name files with --train_file"
        elif isinstance(cause, (ValueError, pa.ArrowException)):
            what, hint = f"the files of the dataset '{name}'", "name the good ones with --train_file"
        else:
            raise
        raise InputError(f"{what} cannot be read: {first_line(cause)}", hint) from error
    return dict(splits), not (isinstance(builder, Text) and data.sample_by == "line")


def _builder(name: str, data: DataSettings) -> datasets.DatasetBuilder:
    def build(**options: object) -> datasets.DatasetBuilder:
        return datasets.load_dataset_builder(name, data.dataset_config_name, revision=data.dataset_revision, **options)

    try:
        builder = build()
    except (FileNotFoundError, ConnectionError, HfHubHTTPError, HFValidationError) as error:
        raise unavailable(name, error) from error
    except (ValueError, RuntimeError) as error:
        if not str(error).startswith(("BuilderConfig ", "Config name is missing", "Dataset scripts are no longer")):
            raise
        script = isinstance(error, RuntimeError)
        raise InputError(
            f"cannot load the dataset '{name}': {' '.join(str(error).split())}",
            "--dataset_revision refs/convert/parquet" if script else "--dataset_config_name NAME",
        ) from error
    if isinstance(builder, Text) and not Path(name).is_dir():
        # Only now is it known that the data are text files, which are read the way --train_file reads them.
        return build(keep_linebreaks=True, sample_by=data.sample_by, encoding="utf-8-sig")
    return builder


def unavailable(name: str, error: Exception) -> InputError:
    """The error of a dataset that the Hub, or the disk, did not give."""
    if Path(name).is_dir():
        return InputError(f"no data files in the folder {name}", f"--train_file {name}")
    if isinstance(error, ConnectionError) and datasets.config.HF_HUB_OFFLINE:
        hint = "HF_HUB_OFFLINE is set and the dataset is not in the cache: unset it, or give text with --train_file"
    elif isinstance(error, DatasetNotFoundError):
        hint = "check the name; if the dataset is private or gated: hf auth login"
    else:
        hint = f"check the network and {os.environ.get('HF_ENDPOINT', 'https://huggingface.co')}, or give --train_file"
    return InputError(f"cannot load the dataset '{name}': {first_line(error)}{nearest_path(name)}", hint)
