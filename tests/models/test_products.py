"""Linear layers by oneDNN: the same numbers, and only where nobody asks for more than numbers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

from lmtasks.models import products
from lmtasks.models.cross_entropy import likelihoods
from lmtasks.models.products import cheap_forward, on_amd, plain_conv1d, plain_linear
from lmtasks.models.replaced import replaced

CPU = torch.device("cpu")

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="a torch without oneDNN")


@pytest.fixture(autouse=True)
def amd(monkeypatch: pytest.MonkeyPatch) -> None:
    """The maker of the processor is AMD, as far as anybody here is told."""
    monkeypatch.setattr(products, "on_amd", lambda: True)


def by_onednn(
    layer: Any, *given: Any, on: torch.device = CPU, blocks: bool = True, gradients: bool = False
) -> tuple[Any, int]:
    """What a layer makes of its input, and how many of its products oneDNN has made."""
    with (
        cheap_forward(on, blocks=blocks),
        torch.set_grad_enabled(gradients),
        profile(activities=[ProfilerActivity.CPU]) as seen,
    ):
        made = layer(*given)
    return made, sum(event.name == "mkldnn::_linear_pointwise" for event in seen.events())


def linear(*, bias: bool = True, size: int = 1024, dtype: torch.dtype = torch.float32) -> torch.nn.Linear:
    torch.manual_seed(0)
    return torch.nn.Linear(size, 600, bias=bias, dtype=dtype)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [(1,), (16,), (2, 3), (4, 1, 4), (256,), (4, 64), (8, 128), ()])
def test_few_rows_and_whole_blocks_are_multiplied_alike(rows: tuple[int, ...], bias: bool) -> None:
    layer, given = linear(bias=bias), torch.randn(*rows, 1024)
    made, count = by_onednn(layer, given)
    assert count == 1
    torch.testing.assert_close(made, layer(given).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [17, 128, 255, 384, 8192, 0])
def test_other_numbers_of_rows_are_left_to_torch(rows: int) -> None:
    layer, given = linear(), torch.randn(rows, 1024)
    made, count = by_onednn(layer, given)
    assert count == 0
    assert torch.equal(made, layer(given))


@pytest.mark.parametrize(("rows", "few"), [(16, True), (256, False), (1024, False)])
def test_only_few_rows_are_of_all_numbers(rows: int, few: bool) -> None:
    """oneDNN keeps memory for each large number of rows, and answers have any."""
    layer, given = linear(), torch.randn(rows, 1024)
    assert by_onednn(layer, given, blocks=False)[1] == few


def test_inputs_that_lie_otherwise_are_multiplied_alike() -> None:
    layer = linear()
    for given in (torch.randn(1024, 8).t(), torch.randn(1, 1024).expand(8, 1024), torch.randn(8, 2048)[:, ::2]):
        made, count = by_onednn(layer, given)
        assert count == 1
        torch.testing.assert_close(made, layer(given).detach(), rtol=1e-4, atol=1e-4)


def cases_of_torch() -> Iterator[Any]:
    given = torch.randn(8, 1024)
    yield pytest.param(linear(size=128), torch.randn(8, 128), {}, id="small")
    yield pytest.param(linear(), given, {"gradients": True}, id="gradients")
    yield pytest.param(linear(dtype=torch.bfloat16), given.bfloat16(), {}, id="bfloat16")
    yield pytest.param(linear(dtype=torch.float64), given.double(), {}, id="float64")
    yield pytest.param(linear(), given, {"on": torch.device("cuda")}, id="for-a-gpu")
    yield pytest.param(linear(), given.as_subclass(type("Own", (torch.Tensor,), {})), {}, id="own-tensor")


@pytest.mark.parametrize(("layer", "given", "how"), [*cases_of_torch()])
def test_all_else_is_left_to_torch(layer: torch.nn.Linear, given: torch.Tensor, how: dict[str, Any]) -> None:
    made, count = by_onednn(layer, given, **how)
    assert count == 0
    assert torch.equal(made, layer(given))


def test_under_autocast_products_are_torchs() -> None:
    layer, given = linear(), torch.randn(8, 1024)
    with torch.autocast("cpu", torch.bfloat16):
        made, count = by_onednn(layer, given)
    assert count == 0
    assert made.dtype == torch.bfloat16


def test_a_wrong_width_is_told_as_torch_tells_it() -> None:
    with cheap_forward(CPU), torch.no_grad(), pytest.raises(RuntimeError, match="mat1 and mat2 shapes"):
        linear()(torch.randn(8, 1000))


def test_a_bias_for_all_outputs_is_widened_as_by_torch() -> None:
    layer, given = linear(), torch.randn(8, 1024)
    layer.bias = torch.nn.Parameter(torch.ones(1))
    made, count = by_onednn(layer, given)
    assert count == 0
    assert torch.equal(made, layer(given))


def test_likelihoods_are_by_it_too() -> None:
    torch.manual_seed(0)
    features, labels, weight = torch.randn(150, 512), torch.randint(17_000, (150,)), torch.randn(17_000, 512) / 16
    expected = (features.double() @ weight.double().t()).log_softmax(1).gather(1, labels[:, None])[:, 0]
    (told, _), count = by_onednn(likelihoods, features, labels, weight, None)
    assert count == 4  # of 4,096 words each, and the rest by MKL
    torch.testing.assert_close(told.double(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_model_says_the_same(kind: str) -> None:
    sizes: dict[str, Any] = {"vocab_size": 3000, "num_hidden_layers": 1, "hidden_size": 768, "num_attention_heads": 12}
    torch.manual_seed(0)
    model = (
        GPT2LMHeadModel(GPT2Config(**sizes))
        if kind == "gpt2"
        else LlamaForCausalLM(LlamaConfig(**sizes, intermediate_size=2048))
    ).eval()
    ids = torch.randint(3000, (2, 5))
    made, count = by_onednn(lambda: model(ids).logits)
    assert count == {"gpt2": 5, "llama": 8}[kind]  # every layer, and the head
    with torch.no_grad():
        torch.testing.assert_close(made, model(ids).logits, rtol=1e-3, atol=1e-4)
    assert (functional.linear, Conv1D.forward) == (plain_linear, plain_conv1d)


@pytest.mark.parametrize(
    ("text", "is_it"), [("vendor_id\t: AuthenticAMD\n", True), ("vendor_id\t: GenuineIntel\n", False)]
)
def test_the_maker_of_the_processor(text: str, is_it: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    monkeypatch.setattr(products, "CPU_INFO", path)
    on_amd.cache_clear()
    assert on_amd() == is_it
    on_amd.cache_clear()
    path.unlink()
    assert not on_amd()
    on_amd.cache_clear()


def test_processors_of_others_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "on_amd", lambda: False)
    with cheap_forward(CPU):
        assert functional.linear is plain_linear


def test_threads_may_end_in_any_order() -> None:
    """The name means what it meant before the first as soon as the last has ended, and not earlier."""

    class Owner:
        @staticmethod
        def said() -> str:
            return "plain"

    begun, ended = threading.Event(), threading.Event()

    def first() -> None:
        with replaced((Owner, "said", lambda: "ours")):
            begun.set()
            ended.wait()

    thread = threading.Thread(target=first)
    thread.start()
    begun.wait()
    with replaced((Owner, "said", lambda: "ours")):
        ended.set()
        thread.join()
        assert Owner.said() == "ours"
    assert Owner.said() == "plain"
