"""The memory of a model is known before it is taken, and what fits is not refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.config.request import configure
from lmtasks.config.settings import ModelSettings
from lmtasks.errors import InputError
from lmtasks.models import memory
from lmtasks.models.memory import copies_of, count_parameters, free_memory, require_memory
from lmtasks.models.numbers import size_of

CAUSAL = transformers.AutoModelForCausalLM


def gpt2(**sizes: int) -> transformers.PretrainedConfig:
    return transformers.GPT2Config(**{"n_layer": 2, "n_embd": 32, "n_head": 2, "vocab_size": 100, **sizes})


def test_parameters_are_those_of_the_model_that_is_made() -> None:
    made = CAUSAL.from_config(gpt2())
    assert count_parameters(CAUSAL, gpt2()) == sum(parameter.numel() for parameter in made.parameters())


def test_a_hundred_billion_are_counted_without_taking_memory() -> None:
    config = gpt2(n_layer=55, n_embd=12288, n_head=96)
    block = 12 * 12288**2 + 13 * 12288  # attention, feed-forward, their biases and two layer norms
    assert count_parameters(CAUSAL, config) == 55 * block + (100 + 1024 + 2) * 12288


def test_a_configuration_that_does_not_add_up_is_not_counted() -> None:
    assert count_parameters(CAUSAL, gpt2(n_head=3)) is None


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the system says of its memory, written file by file."""
    monkeypatch.setattr(memory, "_ROOT", tmp_path)
    monkeypatch.setattr(memory, "_of_address_space", lambda: None)

    def write(**files: str) -> None:
        for name, content in files.items():
            path = tmp_path / name.replace("__", "/").replace("_DOT_", ".")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    write(proc__meminfo="MemTotal: 9000 kB\nMemAvailable:  4000 kB\nSwapTotal: 0 kB\nSwapFree: 1000 kB\n")
    return write


def test_free_is_what_the_machine_has_available_with_swap(system: Any) -> None:
    assert free_memory() == 5000 * 1024


def test_the_tightest_control_group_counts(system: Any) -> None:
    system(proc__self__cgroup="0::/a/b\n")
    for group, limit in (("a", 900_000), ("a__b", 2_000_000)):
        place = f"sys__fs__cgroup__{group}__memory_DOT_"
        system(
            **{
                f"{place}max": f"{limit}\n",
                f"{place}current": "500000\n",
                f"{place}stat": "anon 1\ninactive_file 70000\n",
            }
        )
    assert free_memory() == 900_000 - 500_000 + 70_000
    system(sys__fs__cgroup__a__memory_DOT_max="max\n")
    assert free_memory() == 2_000_000 - 500_000 + 70_000
    system(sys__fs__cgroup__a__b__memory_DOT_max="max\n")
    assert free_memory() == 5000 * 1024


def test_control_groups_of_the_first_version_within_a_container(system: Any) -> None:
    system(proc__self__cgroup="5:cpu:/x\n4:memory:/host/name\n0::/\n")
    place = "sys__fs__cgroup__memory__memory_DOT_"
    system(
        **{
            f"{place}limit_in_bytes": "800000\n",
            f"{place}usage_in_bytes": "900000\n",
            f"{place}stat": "total_inactive_file 0\n",
        }
    )
    assert free_memory() == 0


def test_where_the_system_says_nothing_nothing_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_ROOT", tmp_path)
    monkeypatch.setattr(memory, "_of_address_space", lambda: None)
    assert free_memory() is None
    require_memory(CAUSAL, gpt2(), 4, ModelSettings())


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_the_limit_of_the_address_space_counts() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (64 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, before[1]))
    try:
        free = free_memory()
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert free is not None and (32 << 20) < free <= (64 << 20)


@pytest.mark.parametrize(
    ("copies", "held"), [(1, "weights take"), (2, "weights, gradients take"), (4, "weights, gradients, two moments")]
)
def test_what_fits_exactly_is_not_refused_and_a_byte_more_is(
    copies: int, held: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = count_parameters(CAUSAL, gpt2())
    assert count is not None
    monkeypatch.setattr(memory, "free_memory", lambda: 4 * copies * count)
    require_memory(CAUSAL, gpt2(), copies, ModelSettings())
    monkeypatch.setattr(memory, "free_memory", lambda: 4 * copies * count - 1)
    with pytest.raises(InputError, match=f"a gpt2 model of {count:,} parameters does not fit into memory: {held}"):
        require_memory(CAUSAL, gpt2(), copies, ModelSettings())


@pytest.mark.parametrize(
    ("values", "copies"),
    [
        ({}, 4),
        ({"optim": "adamw_torch_fused"}, 4),
        ({"optim": "adamw_torch_8bit"}, 2),
        ({"optim": "sgd"}, 2),
        ({"optim": "adafactor"}, 2),
        ({"fsdp": "full_shard"}, 1),
    ],
)
def test_what_is_held_at_once_while_training_on_a_cpu(
    values: dict[str, Any], copies: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    request = configure(CAUSAL_LM, values)
    assert copies_of(request, training=True) == copies
    assert copies_of(request, training=False) == 1


def test_on_an_accelerator_only_the_weights_pass_through_the_memory_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    assert copies_of(configure(CAUSAL_LM, {}), training=True) == 1
    assert copies_of(configure(CAUSAL_LM, {"use_cpu": True}), training=True) == 4


def test_a_model_of_a_hundred_billion_parameters_is_refused_before_anything_is_built(
    lmtasks: Any, text_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    huge = "--model_type gpt2 --config_overrides n_layer=60,n_embd=12288,n_head=96 --train_tokenizer 400"
    refused = lmtasks("run", "causal-lm", *huge.split(), "--train_file", text_file, "--output_dir", "out")
    assert refused.code == 2
    assert "error: a gpt2 model of 108," in refused.err
    assert "parameters does not fit into memory: weights" in refused.err
    assert refused.err.splitlines()[-1] == "hint: take a smaller model, or a machine with more memory"
    assert list(tmp_path.iterdir()) == []


def test_half_as_large_numbers_take_half_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    config = gpt2()
    assert [size_of(ModelSettings(dtype=kind), config) for kind in ("float32", "bfloat16", "auto")] == [4, 2, 4]
    config.dtype = torch.bfloat16
    assert size_of(ModelSettings(dtype="auto"), config) == 2
    count = count_parameters(CAUSAL, config)
    assert count is not None
    monkeypatch.setattr(memory, "free_memory", lambda: 2 * count)
    require_memory(CAUSAL, config, 1, ModelSettings(dtype="bfloat16"))
    with pytest.raises(InputError, match="does not fit into memory"):
        require_memory(CAUSAL, config, 1, ModelSettings())


def test_an_adapter_holds_the_weights_only_once() -> None:
    values = {"model_name_or_path": "some/model", "use_peft": True, "use_cpu": True}
    assert copies_of(configure(CAUSAL_LM, values), training=True) == 1
