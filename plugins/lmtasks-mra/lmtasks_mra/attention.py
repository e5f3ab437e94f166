"""Attention in two resolutions (Zeng et al. 2022, "Multi Resolution Analysis (MRA) for Approximate Self-Attention").

The scores of all queries with all keys are a picture, cut into squares of 32 × 32. A coarse look at it
has one score for each square, that of the mean query with the mean key. The squares where it is highest
are then looked at in full; of the others the coarse score is all there is, or nothing.
"""

from dataclasses import dataclass

import torch
from torch.nn.functional import pad, scaled_dot_product_attention

SIDE = 32
"""Queries, and keys, of a square."""

PRIOR = 5e3
"""What its place adds to the rank of a square: more than scores ever differ."""


@dataclass(frozen=True, kw_only=True)
class Resolution:
    """Where to look in full.

    Args:
        squares: how many of them each head looks at in full.
        coarse: whether the others count, by their coarse score. If not, a query finds zeros where none of
            its squares is looked at in full.
        first: so many rows and columns of squares come before others.
        diagonal: squares within half of it from the diagonal come before others.
    """

    squares: int
    coarse: bool = True
    first: int = 0
    diagonal: int = 0


def multiresolution_attention(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    seen: torch.Tensor,
    scale: float,
    resolution: Resolution,
) -> torch.Tensor:
    """What the queries find, [batch, heads, length, size]; at padding, something finite without a meaning.

    Args:
        queries, keys, values: [batch, heads, length, size], of any length.
        seen: bool [batch, length], false at padding. How much of that there is makes no difference.
        scale: of the scores.
        resolution: where to look in full.
    """
    batch, heads, length, _ = queries.shape
    if resolution.squares >= (-(-length // SIDE)) ** 2:  # ordinary attention, for which there is faster code
        return scaled_dot_product_attention(queries, keys, values, seen[:, None, None], scale=scale)
    with torch.autocast(queries.device.type, enabled=False):
        # Small differences of large scores decide what is seen.
        wide = torch.promote_types(queries.dtype, torch.float32)
        states = (one.flatten(0, 1).to(wide) for one in (queries, keys, values))
        found = by_squares(*states, seen.repeat_interleave(heads, dim=0), scale, resolution)
    return found.unflatten(0, (batch, heads)).to(values.dtype)


def by_squares(
    queries: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    seen: torch.Tensor,
    scale: float,
    resolution: Resolution,
) -> torch.Tensor:
    """The same for [heads, length, size] and ``seen`` [heads, length], with at most as many squares as there are."""
    heads, length, _ = queries.shape
    rows = -(-length // SIDE)
    missing = rows * SIDE - length
    # A column of ones: what becomes of it is the sum of the weights.
    values = torch.cat([values, torch.ones_like(values[..., :1])], dim=-1)
    queries, keys, values = (
        pad(one * seen[..., None], (0, 0, 0, missing)).unflatten(1, (rows, SIDE))
        for one in (queries * scale, keys, values)
    )
    seen = pad(seen, (0, missing)).unflatten(1, (rows, SIDE))

    scores = coarse_scores(queries, keys, seen)
    squares = highest(scores.detach(), resolution)
    lowest = torch.finfo(scores.dtype).min
    rest = scores.flatten(1).scatter(1, squares, -torch.inf).view_as(scores)
    rest_top = rest.detach().amax(-1).clamp(min=lowest)  # where nothing is left, too

    # From here on the blocks of all heads are in a line, and a square is a pair of places there.
    start = rows * torch.arange(heads, device=squares.device)[:, None]
    row, column = (squares // rows + start).flatten(), (squares % rows + start).flatten()
    queries, keys, values, seen = (one.flatten(0, 1) for one in (queries, keys, values, seen))
    fine = queries[row] @ keys[column].transpose(1, 2)
    fine = fine.masked_fill(~seen[column][:, None], -torch.inf)

    # Exponentials are of what is below the highest score that a query counts.
    top = torch.full_like(seen, lowest, dtype=scores.dtype)
    if resolution.coarse:
        top = rest_top.flatten()[:, None].expand_as(top).clone()
    top = top.scatter_reduce(0, row[:, None].expand(-1, SIDE), fine.detach().amax(-1), "amax")
    found = torch.zeros_like(values).index_add(0, row, (fine - top[row][..., None]).exp() @ values[column])
    if resolution.coarse:
        # All keys of a square have its score.
        sums = (rest - rest_top[..., None]).exp() @ values.sum(1).unflatten(0, (heads, rows))
        found = found + (rest_top.flatten()[:, None] - top).exp()[..., None] * sums.flatten(0, 1)[:, None]
    # The highest score alone makes the weights sum to 1; where they do not, there was none.
    found = found[..., :-1] / found[..., -1:].clamp(min=0.5)
    return found.unflatten(0, (heads, rows)).flatten(1, 2)[:, :length]


def coarse_scores(queries: torch.Tensor, keys: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """The score of each square, [heads, rows, rows], which is -inf where it has nothing but padding.

    Args:
        queries, keys: [heads, rows, 32, size], zero at padding.
        seen: bool [heads, rows, 32].
    """
    count = seen.sum(-1)
    mean_queries, mean_keys = (one.sum(2) / count.clamp(min=1)[..., None] for one in (queries, keys))
    empty = count == 0
    return (mean_queries @ mean_keys.transpose(1, 2)).masked_fill(empty[:, :, None] | empty[:, None], -torch.inf)


def highest(scores: torch.Tensor, resolution: Resolution) -> torch.Tensor:
    """The squares to look at in full, int64 [heads, squares]: row × rows + column.

    They are the highest of all rows together, each score being taken relative to the highest of its row.

    Args:
        scores: see :func:`coarse_scores`.
    """
    place = torch.arange(scores.shape[-1], device=scores.device)
    ranks = (scores - scores.amax(-1, keepdim=True)).nan_to_num(nan=-torch.inf, neginf=-torch.inf)
    if resolution.diagonal:
        ranks = ranks + PRIOR * ((place[:, None] - place).abs() <= resolution.diagonal // 2)
    if resolution.first:
        early = (place < resolution.first).to(ranks.dtype)
        ranks = ranks + PRIOR * (early[:, None] + early)
    return ranks.flatten(1).topk(resolution.squares, sorted=False).indices
