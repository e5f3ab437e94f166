"""Keys and values of rows that come and go, against tensors put together by hand."""

from __future__ import annotations

import torch

from lmtasks.inference.kept import SPARE, Kept


def states(rows: int, tokens: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys and values of other sizes, as some models have them."""
    return torch.randn(rows, 2, tokens, 4), torch.randn(rows, 2, tokens, 3)


def test_it_holds_what_it_was_given_and_is_not_copied_for_each_token() -> None:
    torch.manual_seed(0)
    layer, given = Kept(), [states(3, 5)]
    layer.update(*given[0])
    places = set()
    for _ in range(2 * SPARE):
        given.append(states(3, 1))
        found = layer.update(*given[-1])
        for one, parts in zip(found, zip(*given, strict=True), strict=True):
            assert torch.equal(one, torch.cat(parts, dim=2))
        places.add(layer.keys.data_ptr())
    assert layer.get_seq_length() == 5 + 2 * SPARE
    assert len(places) == 2


def test_rows_leave_and_others_come() -> None:
    torch.manual_seed(0)
    (keys, values), (more, others), (newest, new_values) = states(3, 5), states(1, 2), states(3, 1)
    layer, other = Kept(), Kept()
    layer.update(keys, values)
    layer.update(*states(3, 1))
    before = layer.keys.clone()
    other.update(more, others)
    layer.select(torch.tensor([True, False, True]), padding=1)
    assert torch.equal(layer.keys, before[[0, 2], :, 1:])
    layer.join(other)
    assert torch.equal(layer.keys[2], torch.cat([torch.zeros(2, 3, 4), more[0]], dim=1))
    found, found_values = layer.update(newest, new_values)
    assert found.shape == (3, 2, 6, 4)
    assert torch.equal(found[:2, :, :5], before[[0, 2], :, 1:])
    assert torch.equal(found[:, :, 5:], newest) and torch.equal(found_values[:, :, 5:], new_values)
