"""An engine in plain torch: what the Trainer's loop does, in thirty lines; the specimen of the tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from lmtasks import Engine, Trained, Training
from lmtasks.api import loss_terms, weigh

ADAM = ("weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "max_grad_norm")


def train(training: Training, options: Any = None) -> Trained:
    """Adam, by hand."""
    model, arguments = training.model, training.arguments
    named = [(name, weights) for name, weights in model.named_parameters() if weights.requires_grad]
    groups = [
        {"params": [one for name, one in named if name not in training.undecayed]},
        {"params": [one for name, one in named if name in training.undecayed], "weight_decay": 0.0},
    ]
    betas = arguments.adam_beta1, arguments.adam_beta2
    optimizer = torch.optim.AdamW(groups, betas=betas, eps=arguments.adam_epsilon, weight_decay=arguments.weight_decay)
    if training.checkpoint:
        optimizer.load_state_dict(torch.load(training.checkpoint / "optimizer.pt", weights_only=True))

    def save(folder: Path) -> None:
        torch.save(optimizer.state_dict(), folder / "optimizer.pt")

    with training.course(lambda: None, save) as course:
        for step, batch in enumerate(training.global_batches(), training.done):
            model.train()
            total = torch.zeros(())
            for part in batch.batches:
                terms, _ = loss_terms(training.recipe.loss(model, part))
                loss = weigh(terms, {name: term.sum / batch.counts[name] for name, term in terms.items()})
                loss.backward()
                total += loss.detach()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), arguments.max_grad_norm)
            for group in optimizer.param_groups:
                group["lr"] = training.rate(step)
            optimizer.step()
            optimizer.zero_grad()
            if course.step(total, grad_norm=norm):
                break
        return course.done()


PLAIN = Engine(name="plain", summary="Adam, by hand.", train=train, arguments=ADAM, resumes=True)
