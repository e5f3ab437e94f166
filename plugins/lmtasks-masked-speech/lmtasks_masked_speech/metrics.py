"""How many codes are in use."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate
import numpy as np


class CodebookPerplexity(evaluate.Metric):
    """Exponential of the entropy of the codes at hidden steps, summed over the groups; at most groups times codes."""

    def _info(self) -> evaluate.MetricInfo:
        table = datasets.Sequence(datasets.Sequence(datasets.Value("int64")))
        return evaluate.MetricInfo(
            description="how many codes are in use, in all groups together",
            citation="Baevski et al. 2020, wav2vec 2.0",
            inputs_description="codes: how often each code was used in each batch, [groups, codes]",
            features=datasets.Features({"codes": table}),
        )

    def _compute(self, codes: list[list[list[int]]]) -> dict[str, Any]:
        counts = np.sum(codes, axis=0, dtype=np.float64)
        shares = counts / counts.sum(axis=1, keepdims=True)
        logs = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
        return {"codebook_perplexity": float(np.exp(-(shares * logs).sum(axis=1)).sum())}
