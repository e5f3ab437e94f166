"""What torchax makes of torch's operators, in processes of their own: ``tox run -e keras``."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import pytest

pytestmark = pytest.mark.keras


def found(script):
    """What a script leaves in ``told``, run in a fresh interpreter."""
    head = "import json, torch, numpy as np, jax\nfrom lmtasks_keras.tracing import environment, traced\ntold = {}\n"
    whole = head + textwrap.dedent(script) + "\nprint(json.dumps(told))"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", whole], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_function_keeps_the_derivative_that_it_defines():
    told = found("""
        class Odd(torch.autograd.Function):
            @staticmethod
            def forward(ctx, x, number, scale):
                ctx.save_for_backward(x)
                ctx.scale = scale
                return x * x

            @staticmethod
            def backward(ctx, upstream):
                (x,) = ctx.saved_tensors
                return upstream * x * ctx.scale, None, None

        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.tensor([2.0, 3.0]))

            def forward(self, batch):
                return Odd.apply(self.weight, batch["ids"], 10.0).sum()

        apply = torch.autograd.Function.__dict__["apply"]
        model = Model()
        parameters, function = traced(model)
        batch = {"ids": jax.numpy.arange(2)}
        value, gradients = jax.value_and_grad(lambda p: function(p, batch, None, False))(parameters)
        told["value"], told["gradient"] = float(value), gradients["weight"].tolist()
        model({"ids": torch.arange(2)}).backward()
        told["torch"] = model.weight.grad.tolist()
        told["restored"] = torch.autograd.Function.__dict__["apply"] is apply
    """)
    assert told["value"] == 13
    assert told["gradient"] == told["torch"] == [20, 30]
    assert told["restored"]


def test_a_gradient_goes_through_the_hooks_of_its_parameter():
    told = found("""
        model = torch.nn.Linear(2, 2, bias=False)
        row = torch.tensor([1])
        model.weight.register_hook(lambda gradient: gradient.index_fill(0, row.to(gradient.device), 0.0))
        model.weight.register_hook(lambda gradient: None)
        parameters, function = traced(model)
        x = jax.numpy.asarray([[3.0, 5.0]])
        gradients = jax.jit(jax.grad(lambda p: function(p, x, None, False).sum()))(parameters)
        told["jax"] = gradients["weight"].tolist()
        model(torch.tensor([[3.0, 5.0]])).sum().backward()
        told["torch"] = model.weight.grad.tolist()
    """)
    assert told["jax"] == told["torch"] == [[3, 5], [0, 0]]


def test_no_gradient_goes_where_torch_lets_none_go():
    told = found("""
        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.tensor([2.0, 3.0]))

            def forward(self, batch):
                with torch.no_grad():
                    fixed = self.weight * 5
                return (self.weight * self.weight.detach() + self.weight * fixed + fixed).sum()

        model = Model()
        parameters, function = traced(model)
        batch = jax.numpy.arange(2)
        told["jax"] = jax.jit(jax.grad(lambda p: function(p, batch, None, False)))(parameters)["weight"].tolist()
        model(torch.arange(2)).backward()
        told["torch"] = model.weight.grad.tolist()
    """)
    assert told["jax"] == told["torch"] == [12, 18]


def test_experts_have_their_rows():
    told = found("""
        class Model(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = torch.nn.Parameter(torch.randn(3, 16, 8))

            def forward(self, batch):
                return torch.nn.functional.grouped_mm(batch["rows"], self.weight, offs=batch["ends"]).square().sum()

        model = Model()
        rows, ends = torch.randn(12, 16), torch.tensor([4, 4, 12], dtype=torch.int32)
        total = model({"rows": rows, "ends": ends})
        total.backward()
        parameters, function = traced(model)
        batch = {"rows": jax.numpy.asarray(rows.numpy()), "ends": jax.numpy.asarray(ends.numpy())}
        value, gradients = jax.value_and_grad(lambda p: function(p, batch, None, False))(parameters)
        told["off"] = abs(float(value) / float(total.detach()) - 1)
        told["far"] = float(np.abs(np.asarray(gradients["weight"]) - model.weight.grad.numpy()).max())
    """)
    assert told["off"] < 1e-5
    assert told["far"] < 1e-3


def test_dropout_goes_by_the_key_and_evaluation_has_none():
    told = found("""
        model = torch.nn.Sequential(torch.nn.Linear(4, 64), torch.nn.Dropout(0.5))
        parameters, function = traced(model)
        x = jax.numpy.ones((1, 4))
        draw = lambda key, training: np.asarray(function(parameters, x, key, training)).tolist()
        one, other = jax.random.key(1), jax.random.key(2)
        told["same"] = draw(one, True) == draw(one, True)
        told["others"] = draw(one, True) == draw(other, True)
        told["none"] = draw(None, False) == draw(None, False) and 0.0 not in draw(None, False)[0]
    """)
    assert told == {"same": True, "others": False, "none": True}


def test_torch_has_no_other_accelerator_than_before():
    told = found("""
        import transformers
        before = torch.accelerator.is_available()
        environment()
        told["same"] = torch.accelerator.is_available() == before
        state = torch.random.get_rng_state()
        with torch.random.fork_rng():
            torch.manual_seed(1)
        told["forks"] = torch.equal(state, torch.random.get_rng_state())
    """)
    assert told == {"same": True, "forks": True}
