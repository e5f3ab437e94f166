"""Training arguments that cannot be carried out as they are."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmtasks.config.training_arguments import training_arguments
from lmtasks.errors import InputError


def test_shards_are_refused_where_there_would_be_none() -> None:
    with pytest.raises(InputError, match="--fsdp divides a model among processes, and here is one"):
        training_arguments({"fsdp": "true", "use_cpu": True}, Path(), 0)
    with pytest.raises(InputError, match="--deepspeed: it is not installed") as caught:
        training_arguments({"deepspeed": "zero.json", "use_cpu": True}, Path(), 0)
    assert caught.value.hint == "pip install deepspeed, or --fsdp"
    assert not training_arguments({"fsdp": "false", "use_cpu": True}, Path(), 0).fsdp
