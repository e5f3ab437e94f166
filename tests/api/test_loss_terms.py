"""Losses: which functions get the options, and what the terms of a batch come to."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import two_terms

from lmtasks import InputError, LossTerm, Recipe, masked_loss
from lmtasks.api import has_targets, knowing, loss_terms, target_counts, target_ids, weighted_mean, weighted_sum
from lmtasks.api.references import Deferred


def named(model: Any, batch: Any, options: Any) -> Any:
    return model, batch, options


def defaulted(model: Any, batch: Any, scale: float = 2.0, **more: Any) -> Any:
    return model, batch, scale, more


class Called:
    def __call__(self, model: Any, batch: Any, options: Any) -> Any:
        return model, batch, options


@pytest.mark.parametrize("loss", [named, Called(), Deferred("test_loss_terms:named"), partial(named)])
def test_a_loss_that_needs_three_arguments_gets_the_options(loss: Any) -> None:
    bound = knowing(loss, "options")
    assert bound("model", "batch") == bound("model", "batch") == ("model", "batch", "options")


@pytest.mark.parametrize("loss", [defaulted, Deferred("test_loss_terms:defaulted"), partial(defaulted, scale=2.0)])
def test_a_loss_that_can_do_with_two_gets_two(loss: Any) -> None:
    assert knowing(loss, "options")("model", "batch") == ("model", "batch", 2.0, {})


def test_a_partly_applied_loss_is_asked_what_it_still_needs() -> None:
    assert knowing(partial(named, options="own"), "options")("model", "batch") == ("model", "batch", "own")


def test_the_losses_of_lmtasks_and_a_function_in_c_take_two() -> None:
    batch = {"input_ids": torch.tensor([[1, 2]]), "labels": torch.tensor([[-100, -100]])}

    class Model(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor) -> Any:
            return type("Output", (), {"logits": torch.zeros(*input_ids.shape, 3)})

    assert knowing(masked_loss, None)(Model(), batch)[1] == 0
    assert knowing(max, None)(1, 2) == 2


def test_sums_and_means_are_weighed() -> None:
    said = {
        "one": LossTerm(torch.tensor(6.0), torch.tensor(3)),
        "two": LossTerm(torch.tensor(8.0), torch.tensor(2), 0.5),
    }
    assert weighted_sum(said).item() == weighted_sum((said, {})).item() == 10
    assert weighted_mean(said) == 4
    assert weighted_mean((torch.tensor(6.0), torch.tensor(3))) == 2
    assert weighted_mean({"none": LossTerm(torch.tensor(0.0), torch.tensor(0))}) == 0
    total = torch.tensor(1.5)
    assert weighted_sum((total, torch.tensor(3), {})) is total, "the pair is left as it is"


def test_targets_are_ids_or_counts() -> None:
    ids = torch.tensor([4, 5])
    assert target_counts(ids) == {"": 2}
    assert target_counts({"a": ids, "b": torch.tensor(7), "c": 3}) == {"a": 2, "b": 7, "c": 3}
    assert target_ids({"a": ids, "b": 3}) is target_ids(ids) is ids
    assert target_ids({"b": 3, "a": ids}) is target_ids({"b": torch.tensor(3)}) is None
    assert [has_targets(some) for some in (ids, ids[:0], {"a": 0, "b": 1}, {"a": 0, "b": ids[:0]})] == [
        *(True, False, True, False)
    ]


@pytest.mark.parametrize("name", ["", "Hidden", "two words", "1st", "unigram", "train", "eval", 3])
def test_a_term_without_a_usable_name_is_refused(name: Any) -> None:
    with pytest.raises(InputError, match="a term of a loss cannot be called"):
        loss_terms({name: LossTerm(torch.tensor(0.0), torch.tensor(1))})


def test_further_sums_stand_beside_terms_as_beside_a_pair() -> None:
    term = LossTerm(torch.tensor(0.0), torch.tensor(1))
    assert loss_terms({"a": term}) == ({"a": term}, {})
    assert loss_terms(({"a": term}, {"right": 2})) == ({"a": term}, {"right": 2})
    terms, further = loss_terms((term.sum, term.count, {"right": 2}))
    assert (terms[""].sum, terms[""].count, terms[""].weight, further) == (term.sum, term.count, 1.0, {"right": 2})


def test_the_weight_of_a_term_comes_from_the_options_of_a_request() -> None:
    from lmtasks.config.request import configure

    request = configure(two_terms.TWO_TERMS, {"size_weight": 3, "max_steps": 1})
    assert isinstance(request.bound, Recipe)
    assert request.bound.name == "two-terms"
    batch = {"input_ids": torch.tensor([[1, 2]]), "labels": torch.tensor([[-100, 2]])}

    class Model(torch.nn.Module):
        def forward(self, input_ids: torch.Tensor) -> Any:
            return type("Output", (), {"logits": torch.zeros(*input_ids.shape, 3)})

    terms, _ = loss_terms(request.bound.loss(Model(), batch))
    assert (terms["size"].weight, int(terms["size"].count), int(terms["hidden"].count)) == (3.0, 2, 1)
