"""Checks of the frozen companions of a recipe: they are asked, and stay as they are."""

from __future__ import annotations

import torch

from lmtasks.testing.case import Case
from lmtasks.testing.proof import Fault, Inapplicable, check
from lmtasks.testing.terms import added, terms


@check("recipe", of="loss")
def frozen_companions_are_asked(case: Case) -> str:
    """With other weights of a frozen companion, the loss is another."""
    model, batch = case.stirred(), case.batch()
    with torch.no_grad():
        before = float(added(terms(case, model, batch)[0]))
        for name in _names(case):
            one = model.get_submodule(name)
            kept = _weights(model, name)
            for parameter in one.parameters():
                parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
            if float(added(terms(case, model, batch)[0])) == before:
                raise Fault(
                    f"the loss is {before:.4f} with any '{name}'",
                    f"ask lmtasks.unwrapped(model).{name} in the loss, or leave it out of frozen",
                )
            one.load_state_dict(kept)
    return f"asked: {', '.join(case.recipe.frozen)}"


@check("recipe", of="loss")
def frozen_companions_stay(case: Case) -> None:
    """A step forwards and backwards leaves no gradient in a frozen companion, no other weight, and no other mode."""
    names, model = _names(case), case.model().train()
    before = {name: _weights(model, name) for name in names}
    total = added(terms(case, model, case.batch())[0])
    if total.requires_grad:
        total.backward()  # type: ignore[no-untyped-call]
    for name in names:
        one = model.get_submodule(name)
        learns = any(parameter.requires_grad or parameter.grad is not None for parameter in one.parameters())
        moved = [key for key, value in one.state_dict().items() if not torch.equal(value, before[name][key])]
        if learns or moved or one.training:
            wrong = "wants gradients" if learns else f"has another {moved[0]}" if moved else "is in training mode"
            raise Fault(
                f"'{name}' {wrong} after a step, and it is declared as frozen",
                "leave it as it is; what is trained beside the model is made in prepare_model, and is saved",
            )


def _weights(model: torch.nn.Module, name: str) -> dict[str, torch.Tensor]:
    """Copies of the weights of a companion."""
    return {key: value.clone() for key, value in model.get_submodule(name).state_dict().items()}


def _names(case: Case) -> list[str]:
    if not case.recipe.frozen:
        raise Inapplicable("the recipe has no frozen companion")
    return [*case.recipe.frozen]
