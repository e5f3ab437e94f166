"""The loss is on average what a text costs in any order, which is written out here; the sampler fills every mask."""

import itertools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from hub_server import HubServer
from lmtasks_masked_diffusion import LEAST, MASKED_DIFFUSION, UNIT
from transformers import AutoModelForMaskedLM, AutoTokenizer

import lmtasks
from lmtasks.cli.app import main
from lmtasks.testing import check_recipe
from lmtasks.testing.specimens import tokenizer_for

TEXT = "the quick brown fox jumps over the lazy dog. " * 200
WORDS, LENGTH = 3, 4
MASK = WORDS


def by_hand(model, batch):
    """Sum and count, token by token."""
    total, count = 0.0, 0
    mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
    logits = model(input_ids=batch["input_ids"], attention_mask=mask).logits
    for row, (words, share) in enumerate(batch["labels"].tolist()):
        for place, (word, part) in enumerate(zip(words, share, strict=True)):
            count += word != -100
            if part != -100:
                total = total - logits[row, place].log_softmax(0)[word] / (part / UNIT)
    return total, torch.tensor(count)


def test_it_keeps_the_contract_of_a_recipe() -> None:
    check_recipe(MASKED_DIFFUSION, oracle=by_hand)


# --- the bound, on a vocabulary of three words ---


class Told(torch.nn.Module):
    """A model that says of each position what ``say(ids, place)`` gives, logarithms of probabilities of the words."""

    def __init__(self, say: Callable[[tuple[int, ...], int], torch.Tensor]) -> None:
        super().__init__()
        self.say = say

    def forward(self, input_ids):
        rows = [torch.stack([self.say(tuple(ids), place) for place in range(LENGTH)]) for ids in input_ids.tolist()]
        return type("Output", (), {"logits": torch.stack(rows)})


def expected(model: Told, text: tuple[int, ...]) -> float:
    """The mean of the recipe's loss over all t and all masks: exactly, by Gauss-Legendre and by counting."""
    points, parts = np.polynomial.legendre.leggauss(LENGTH)
    total = 0.0
    for share, part in zip((points + 1) / 2, parts / 2, strict=True):
        for hidden in itertools.product((False, True), repeat=LENGTH):
            chance = math.prod(share if one else 1 - share for one in hidden)
            told = torch.where(torch.tensor(hidden), round(share * UNIT), -100)
            ids = torch.where(torch.tensor(hidden), MASK, torch.tensor(text))
            batch = {"input_ids": ids[None], "labels": torch.stack([torch.tensor(text), told])[None]}
            loss, count = MASKED_DIFFUSION.loss(model, batch)
            assert int(count) == len(MASKED_DIFFUSION.targets(batch)) == LENGTH
            total += part * chance * float(loss)
    return total


def in_all_orders(model: Told, text: tuple[int, ...]) -> list[float]:
    """What the text costs in each order, told one token at a time."""
    costs = []
    for order in itertools.permutations(range(LENGTH)):
        ids, cost = [MASK] * LENGTH, 0.0
        for place in order:
            cost -= float(model.say(tuple(ids), place).log_softmax(0)[text[place]])
            ids[place] = text[place]
        costs.append(cost)
    return costs


def test_on_average_the_loss_is_what_the_text_costs_in_any_order_and_so_a_bound() -> None:
    chance = torch.Generator().manual_seed(0)
    table = {
        (ids, place): 2 * torch.randn(WORDS, generator=chance, dtype=torch.float64)
        for ids in itertools.product(range(WORDS + 1), repeat=LENGTH)
        for place in range(LENGTH)
    }
    model, text = Told(lambda ids, place: table[ids, place]), (2, 0, 1, 1)
    costs = in_all_orders(model, text)
    with torch.no_grad():
        bound = expected(model, text)
    assert bound == pytest.approx(sum(costs) / len(costs), rel=1e-6)
    # The text's probability is the mean over the orders in which it may be written; the bound is above its logarithm.
    exact = -math.log(sum(math.exp(-cost) for cost in costs) / len(costs))
    assert bound > exact + 0.1


def test_where_the_model_knows_all_that_can_be_known_the_bound_is_the_cost_itself() -> None:
    """The conditionals of a distribution over all texts give, in every order, the probability of the text."""
    chances = torch.rand((WORDS,) * LENGTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.01
    chances /= chances.sum()

    def conditional(ids, place):
        if ids[place] != MASK:
            return torch.zeros(WORDS)
        fitting = chances[tuple(slice(None) if one == MASK else slice(one, one + 1) for one in ids)]
        return fitting.transpose(0, place).flatten(1).sum(1).log()

    model = Told(conditional)
    for text in ((0, 1, 2, 0), (2, 2, 1, 0)):
        with torch.no_grad():
            assert expected(model, text) == pytest.approx(-math.log(chances[text]), rel=1e-6)


def test_equal_chances_cost_the_logarithm_of_their_number_for_each_token() -> None:
    with torch.no_grad():
        cost = expected(Told(lambda ids, place: torch.zeros(WORDS)), (0, 1, 2, 0))
    assert cost == pytest.approx(LENGTH * math.log(WORDS), rel=1e-6)


# --- what is hidden ---


def collated(training: bool, *seeds: tuple[int, int, int], size: int = 400):
    tokenizer = tokenizer_for(MASKED_DIFFUSION)
    body = np.random.default_rng(0).integers(10, len(tokenizer), size)
    ids = np.array([tokenizer.bos_token_id, *body, tokenizer.eos_token_id])
    collate = MASKED_DIFFUSION.collator(tokenizer, lmtasks.BlockOptions(), training)
    return tokenizer, ids, collate([{"input_ids": ids, "seed": seed} for seed in seeds])


def test_each_token_is_hidden_with_the_examples_own_probability_and_no_special_one_is() -> None:
    tokenizer, ids, batch = collated(True, *((0, 0, number) for number in range(300)))
    words, share = batch["labels"].unbind(1)
    hidden = batch["input_ids"] == tokenizer.mask_token_id
    assert torch.equal(hidden, share != -100) and not hidden[:, [0, -1]].any()
    assert torch.equal(words[:, 1:-1], torch.from_numpy(ids[1:-1]).expand(300, -1))
    assert torch.equal(batch["input_ids"][~hidden], torch.from_numpy(ids).expand(300, -1)[~hidden])
    drawn = share.max(1).values.double() / UNIT
    told = drawn > 0
    apart = hidden[told, 1:-1].double().mean(1) - drawn[told]
    assert float((apart / (drawn[told] * (1 - drawn[told]) / 400).sqrt()).square().mean()) == pytest.approx(1, abs=0.3)
    assert drawn[told].min() >= LEAST and drawn.max() <= 1
    assert np.histogram(drawn[told], 4, (0, 1))[0] == pytest.approx([75] * 4, abs=20), "t is drawn evenly"


def test_another_seed_epoch_or_example_hides_others_and_the_same_hides_the_same() -> None:
    seeds = [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1)]
    for training in (True, False):
        rows = collated(training, *seeds)[2]["input_ids"].tolist()
        assert len({tuple(row) for row in rows}) == 4
        assert collated(training, seeds[2])[2]["input_ids"].tolist() == [rows[2]]


def test_in_evaluation_the_shares_lie_evenly_whatever_the_seed() -> None:
    for count in (10, 37, 100):
        shares = []
        for seed in (0, 7):
            _, _, batch = collated(False, *((seed, 0, number) for number in range(count)), size=2000)
            shares.append((batch["labels"][:, 1].max(1).values / UNIT).tolist())
        assert shares[0] == shares[1]
        places = sorted(shares[0])
        assert max(np.diff([0, *places, 1])) < 2.7 / count, "chance leaves gaps of ln(n)/n and more"


# --- a whole run ---


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trained from the command line."""
    folder = tmp_path_factory.mktemp("diffusion")
    for name in ("train", "held"):
        (folder / f"{name}.txt").write_text(TEXT)
    words = [
        "run", "masked-diffusion", "--model_type", "modernbert", "--train_tokenizer", 320,
        "--config_overrides", "num_hidden_layers=2,hidden_size=64,num_attention_heads=4,intermediate_size=128",
        "--train_file", folder / "train.txt", "--validation_file", folder / "held.txt", "--block_size", 32,
        "--learning_rate", 5e-3, "--max_steps", 200, "--warmup_steps", 0.1, "--save_strategy", "no",
        "--output_dir", folder / "out",
    ]  # fmt: skip
    assert main([str(word) for word in words]) == 0
    return folder / "out"


@pytest.fixture
def typed(capfd: pytest.CaptureFixture[str]):
    """What a command does."""

    def call(*words: object) -> Outcome:
        capfd.readouterr()
        code = main([str(word) for word in words])
        return Outcome(code, *capfd.readouterr())

    return call


def test_it_learns_and_is_evaluated_again_to_the_same_bound(run: Path, typed) -> None:
    record = json.loads((run / "run.json").read_text())
    metrics = record["metrics"]
    assert metrics["eval_loss"] < 0.7 * metrics["unigram_loss"]
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["eval_loss"]))
    again = typed("evaluate", run, "--json")
    assert again.code == 0, again.err
    assert json.loads(again.out)["eval_loss"] == pytest.approx(metrics["eval_loss"], rel=1e-6)
    assert "Upper bound on the perplexity, mask seed 0" in (run / "README.md").read_text()


def test_every_mask_is_filled_and_the_prompt_kept(run: Path, typed) -> None:
    tokenizer = AutoTokenizer.from_pretrained(run)
    prompt = "the quick brown"
    given = tokenizer(prompt, add_special_tokens=False)["input_ids"]
    ids = json.loads(typed("predict", run, prompt, "--length", 12, "--json").out)[0]["ids"]
    assert ids[1 : 1 + len(given)] == given and len(ids) == len(given) + 14
    new = ids[1 + len(given) : -1]
    assert not set(new) & set(tokenizer.all_special_ids)
    assert len(json.loads(typed("predict", run, prompt, "--json").out)[0]["ids"]) == len(given) + 18
    said = typed("predict", run, "the quick <mask> fox jumps <mask> the lazy dog.").out
    assert said.startswith("the quick") and "fox jumps" in said and "<mask>" not in said


def test_a_seed_draws_the_same_again_and_another_draws_otherwise(run: Path, typed) -> None:
    for drawing in (("--temperature", 1.5), ("--order", "random", "--temperature", 1.0)):
        one, same, *others = (
            typed("predict", run, "the", "--length", 20, *drawing, "--seed", seed).out for seed in (1, 1, 2, 3, 4)
        )
        assert one == same
        assert set(others) - {one}  # a model that is certain may say the same by some of them
    refused = typed("predict", run, "the", "--seed", 1)
    assert refused.code == 2 and "--seed 1 changes nothing" in refused.err


@pytest.mark.parametrize(
    "wrong", [("--steps", 0), ("--length", -1), ("--temperature", -0.5), ("--order", "backwards"), ("--lenght", 3)]
)
def test_what_makes_no_sense_is_refused_in_two_lines(wrong, run: Path, typed) -> None:
    refused = typed("predict", run, "the", *wrong)
    error, hint = refused.err.splitlines()[-2:]
    assert (refused.code, error[:7], hint[:6]) == (2, "error: ", "hint: ")


@pytest.mark.parametrize("steps", [1, 3, 12, 40])
def test_each_step_fills_its_share_and_first_what_the_model_is_surest_of(steps: int, run: Path) -> None:
    from lmtasks_masked_diffusion.pipeline import UnmaskingPipeline

    model, tokenizer = AutoModelForMaskedLM.from_pretrained(run), AutoTokenizer.from_pretrained(run)
    seen = []
    model.register_forward_hook(
        lambda module, _, inputs, output: seen.append((inputs["input_ids"][0].clone(), output.logits[0].clone())),
        with_kwargs=True,
    )
    pipeline = UnmaskingPipeline(model=model, tokenizer=tokenizer)
    last = torch.tensor(pipeline("the quick", length=12, steps=steps)["ids"])
    assert len(seen) == steps
    for number, (ids, logits) in enumerate(seen):
        after = seen[number + 1][0] if number + 1 < steps else last
        hidden, filled = ids == tokenizer.mask_token_id, ids != after
        assert not (filled & ~hidden).any(), "what stands stays"
        assert int((after == tokenizer.mask_token_id).sum()) == 12 * (steps - 1 - number) // steps
        logits[:, tokenizer.all_special_ids] = -torch.inf
        chances, words = logits.softmax(-1).max(-1)
        assert torch.equal(after[filled], words[filled])
        if filled.any() and (hidden & ~filled).any():
            assert chances[filled].min() >= chances[hidden & ~filled].max()


def test_it_is_published_and_used_from_there(run: Path, typed, tmp_path: Path, monkeypatch) -> None:
    with HubServer() as hub:
        hub.use(monkeypatch, tmp_path / "home")
        pushed = typed("push", run, "someone/diffusion")
        assert pushed.code == 0, pushed.err
        assert {"model.safetensors", "tokenizer.json", "README.md"} <= set(hub.files("someone/diffusion"))
        hub.assert_no_secret_travelled()
        told = typed("predict", "someone/diffusion", "the quick", "--recipe", "masked-diffusion")
        assert told.code == 0, told.err
    assert told.out == typed("predict", run, "the quick").out
