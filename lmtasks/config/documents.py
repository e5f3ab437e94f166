"""The settings of data that say which documents there are, where whole documents are looked at and nobody trains."""

from __future__ import annotations

from lmtasks.api import options_of
from lmtasks.config.settings import DataSettings

_OTHERWISE = (
    *("chat", "data", "train_file", "train_dataset", "max_train_samples", "max_eval_samples"),
    *("overwrite_cache", "preprocessing_num_workers", "split_special_tokens"),
    *("prepared", "prepared_window", "prepared_lanes", "prepared_cache"),
)

READING = {name: option for name, option in options_of(DataSettings).items() if name not in _OTHERWISE}
"""By name; what is left out is about training, about blocks, or about one tokenizer."""
