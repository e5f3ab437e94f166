"""A new model that begins with the frequencies of its targets, the first that it would learn (Meister et al. 2023).

A model from scratch spends its first hundreds of steps on how frequent words are. A layer that ends in the vocabulary
and has a bias can have that from the beginning, as the logarithms.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from transformers import PreTrainedModel

from lmtasks.api import Examples, target_ids
from lmtasks.config.request import Request
from lmtasks.data.dataset import ExampleDataset
from lmtasks.errors import InputError
from lmtasks.training.from_scratch import is_open

EXAMPLES = 1 << 12
"""Examples of the training data that are looked at, at most."""

TOGETHER = 64
"""Examples that are collated at once."""

UNSEEN = 0.1
"""What each word of the vocabulary is counted for beside its occurrences."""


def set_unigram_bias(request: Request, model: PreTrainedModel, processor: object, train: Examples) -> Iterator[str]:
    """Give a new model that bias, unless that is not wanted; notes on what was chosen for the user.

    Where nobody says, a model gets it that has such a bias and whose rate is chosen for it, too: at a guide's rate
    it shall learn what it learns by the guide.

    Raises:
        InputError: the user asks, and the output layer has no bias.
    """
    asked = request.model.unigram_bias
    chosen = asked is None and not request.starts_small and is_open(request.training, {*request.given, *request.preset})
    if not (asked or chosen):
        return
    bias = getattr(model.get_output_embeddings(), "bias", None)
    if not isinstance(bias, torch.nn.Parameter):
        without = f"the output layer of {model.config.model_type} has no bias"
        if "unigram_bias" in request.given:
            raise InputError(f"--unigram_bias: {without}", "leave --unigram_bias out")
        if asked:
            yield f"no unigram_bias: {without}"
        return
    counts = torch.full((len(bias),), UNSEEN, dtype=torch.float64)
    for ids in _targets(request, processor, train):
        counts += torch.bincount(ids[ids < len(bias)].cpu(), minlength=len(bias))
    with torch.no_grad():
        bias.copy_((counts / counts.sum()).log())
    if chosen:
        yield "from scratch: the bias of the output layer begins with the frequencies of its targets"


def _targets(request: Request, processor: object, train: Examples) -> Iterator[torch.Tensor]:
    """Ids of targets, as the first epoch has them; of examples from everywhere, but where these lie in shards."""
    dataset = ExampleDataset(train, request.seed, training=True)
    collate = request.recipe.collator(processor, request.options, True)
    step = 1 if request.data.prepared else -(-len(train) // EXAMPLES)
    numbers = range(0, len(train), max(1, step))[:EXAMPLES]
    for first in range(0, len(numbers), TOGETHER):
        ids = target_ids(request.recipe.targets(collate([dataset[one] for one in numbers[first : first + TOGETHER]])))
        if ids is not None:
            yield ids.flatten()
