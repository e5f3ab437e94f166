"""MRA against its definition, against transformers' own code, and in use."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lmtasks_mra.attention import SIDE, Resolution, by_squares, multiresolution_attention
from lmtasks_mra.model import MraForMaskedLM
from transformers import AutoModelForMaskedLM, MraConfig
from transformers.models.mra import modeling_mra

import lmtasks
from lmtasks.models.lm_head import separate_head
from lmtasks.testing.specimens import tiny_config

TEXT = "the quick brown fox jumps over the lazy dog. " * 200
# Two blocks, of whose four squares only two are looked at in full.
SHAPE = (
    "hidden_size=64,num_hidden_layers=2,num_attention_heads=4,intermediate_size=128,max_position_embeddings=64,"
    "block_per_row=1,hidden_dropout_prob=0.0,initializer_range=0.1"
)


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    lmtasks.register_architectures()


def states(length: int, seed: int = 0, size: int = 5, spread: float = 1.0) -> list[torch.Tensor]:
    """Queries, keys and values of two heads each of two texts, float64 [2, 2, length, size]."""
    draw = torch.Generator().manual_seed(seed)
    return [spread * torch.randn(2, 2, length, size, generator=draw, dtype=torch.float64) for _ in range(3)]


def padding(length: int, *ends: int) -> torch.Tensor:
    """bool [texts, length]: each text has so many tokens."""
    return torch.arange(length) < torch.tensor(ends)[:, None]


# Against the definition


def selected(queries: torch.Tensor, keys: torch.Tensor, resolution: Resolution) -> set[tuple[int, int]]:
    """The squares of one head in full resolution, for the queries and keys of each block."""
    blocks = [block for block in range(len(queries)) if len(queries[block])]
    coarse = {(a, b): float(queries[a].mean(0) @ keys[b].mean(0)) for a in blocks for b in blocks}
    best = {a: max(coarse[a, b] for b in blocks) for a in blocks}

    def rank(square: tuple[int, int]) -> tuple[int, float]:
        a, b = square
        priors = (a < resolution.first) + (b < resolution.first)
        if resolution.diagonal:
            priors += abs(a - b) <= resolution.diagonal // 2
        return priors, coarse[square] - best[a]

    return set(sorted(coarse, key=rank, reverse=True)[: resolution.squares])


def defined(
    queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, seen: torch.Tensor, resolution: Resolution
) -> torch.Tensor:
    """Attention by the definition, one query at a time; zeros at padding."""
    result = torch.zeros_like(values)
    for text, head in [(text, head) for text in range(len(seen)) for head in range(queries.shape[1])]:
        places = torch.arange(seen.shape[1])[seen[text]]
        inside = [places[places // SIDE == block] for block in range(math.ceil(seen.shape[1] / SIDE))]
        q, k = ([one[text, head, block] for block in inside] for one in (queries, keys))
        full = selected(q, k, resolution)
        for a, block in enumerate(inside):
            for i in block:
                scores = torch.full((seen.shape[1],), -torch.inf, dtype=torch.float64)
                for b, others in enumerate(inside):
                    if (a, b) in full:
                        scores[others] = keys[text, head, others] @ queries[text, head, i]
                    elif resolution.coarse and len(others):
                        scores[others] = q[a].mean(0) @ k[b].mean(0)
                if scores.isfinite().any():
                    result[text, head, i] = scores.softmax(0) @ values[text, head]
    return result


@pytest.mark.parametrize("coarse", [True, False])
@pytest.mark.parametrize(
    ("length", "ends", "resolution"),
    [
        (96, (96, 96), {"squares": 3}),  # in each row, one
        (96, (96, 96), {"squares": 4}),
        (96, (96, 96), {"squares": 8}),
        (96, (96, 70), {"squares": 4}),
        (128, (128, 33), {"squares": 6}),  # of the second text's squares, four have any tokens
        (100, (100, 64), {"squares": 5}),
        (70, (70, 1), {"squares": 3}),
        (33, (33, 32), {"squares": 2}),
        (128, (128, 100), {"squares": 4, "diagonal": 1}),
        (160, (160, 70), {"squares": 9, "diagonal": 2}),
        (160, (160, 160), {"squares": 18, "diagonal": 3}),
        (128, (128, 90), {"squares": 11, "first": 1}),
        (160, (160, 40), {"squares": 9, "first": 2}),
        (160, (160, 130), {"squares": 12, "first": 1, "diagonal": 1}),
    ],
    ids=str,
)
def test_attention_is_that_of_the_definition(
    length: int, ends: tuple[int, int], resolution: dict[str, int], coarse: bool
) -> None:
    inputs, seen, where = states(length), padding(length, *ends), Resolution(**resolution, coarse=coarse)
    found = multiresolution_attention(*inputs, seen, 1.0, where) * seen[:, None, :, None]
    torch.testing.assert_close(found, defined(*inputs, seen, where))


def test_tokens_hidden_in_the_middle_are_no_different() -> None:
    inputs, seen, where = states(96), torch.ones(2, 96, dtype=torch.bool), Resolution(squares=4)
    seen[0, 10:50] = seen[1, 32:64] = False
    found = multiresolution_attention(*inputs, seen, 1.0, where) * seen[:, None, :, None]
    torch.testing.assert_close(found, defined(*inputs, seen, where))


@pytest.mark.parametrize("squares", [9, 100])
@pytest.mark.parametrize("coarse", [True, False])
def test_with_all_squares_it_is_ordinary_attention(coarse: bool, squares: int) -> None:
    queries, keys, values = states(90)
    seen, where = padding(90, 90, 40), Resolution(squares=squares, coarse=coarse)
    scores = (0.3 * queries @ keys.mT).masked_fill(~seen[:, None, None], -torch.inf)
    expected = scores.softmax(-1) @ values
    torch.testing.assert_close(multiresolution_attention(queries, keys, values, seen, 0.3, where), expected)


@pytest.mark.parametrize("coarse", [True, False])
def test_square_by_square_all_squares_are_ordinary_attention_as_well(coarse: bool) -> None:
    queries, keys, values = (one[0] for one in states(90))
    everything = torch.ones(2, 90, dtype=torch.bool)
    found = by_squares(queries, keys, values, everything, 0.3, Resolution(squares=9, coarse=coarse))
    torch.testing.assert_close(found, (0.3 * queries @ keys.mT).softmax(-1) @ values)


def test_what_is_alike_within_blocks_needs_no_second_look() -> None:
    queries, keys, values = states(96)
    queries, keys = (one[:, :, ::SIDE].repeat_interleave(SIDE, 2) for one in (queries, keys))
    found = multiresolution_attention(
        queries, keys, values, torch.ones(2, 96, dtype=torch.bool), 1.0, Resolution(squares=1)
    )
    torch.testing.assert_close(found, (queries @ keys.mT).softmax(-1) @ values)


@pytest.mark.parametrize("coarse", [True, False])
def test_gradients_are_those_of_finite_differences(coarse: bool) -> None:
    inputs = [one[:1, :1].requires_grad_() for one in states(70, size=2)]
    seen, where = padding(70, 67), Resolution(squares=4, coarse=coarse)
    hidden = ~seen[:, None, :, None]
    assert torch.autograd.gradcheck(
        lambda *inputs: multiresolution_attention(*inputs, seen, 1.0, where).masked_fill(hidden, 0.0), inputs
    )


@pytest.mark.parametrize("spread", [-1.0, 1.0])
@pytest.mark.parametrize("coarse", [True, False])
def test_large_scores_overflow_nothing(coarse: bool, spread: float) -> None:
    queries, keys, values = states(96)
    queries, keys = 30 * spread * queries.abs(), 30 * keys.abs()  # scores of thousands, all of one sign
    seen, where = padding(96, 96, 40), Resolution(squares=4, coarse=coarse)
    inputs = [one.float().requires_grad_() for one in (queries, keys, values)]
    found = multiresolution_attention(*inputs, seen, 0.1, where)
    assert found.isfinite().all()
    assert all(one.isfinite().all() for one in torch.autograd.grad(found.sum(), inputs))
    expected = defined(*(one.detach().double() for one in (0.1 * inputs[0], *inputs[1:])), seen, where)
    torch.testing.assert_close((found * seen[:, None, :, None]).double(), expected, atol=1e-3, rtol=1e-3)


def test_mixed_precision_computes_scores_in_full() -> None:
    inputs = [one.to(torch.bfloat16) for one in states(96)]
    seen, where = padding(96, 96, 70), Resolution(squares=4)
    with torch.autocast("cpu", torch.bfloat16):
        found = multiresolution_attention(*inputs, seen, 1.0, where)
    assert found.dtype == torch.bfloat16
    wide = multiresolution_attention(*(one.float() for one in inputs), seen, 1.0, where)
    assert torch.equal(found, wide.to(torch.bfloat16))


# Against transformers


def made(model_class: type = MraForMaskedLM, **fields: Any) -> Any:
    """A small random model that would show a mistake: no weight is near zero."""
    torch.manual_seed(0)
    shape = {"vocab_size": 50, "hidden_size": 24, "num_attention_heads": 3, "intermediate_size": 20}
    config = MraConfig(
        **{**shape, "num_hidden_layers": 2, "max_position_embeddings": 128, "block_per_row": 1, **fields}
    )
    model = model_class(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model


def tokens(length: int, *ends: int) -> dict[str, torch.Tensor]:
    """Texts, each with so many tokens before the padding."""
    ids = torch.randint(2, 50, (len(ends), length), generator=torch.Generator().manual_seed(1))
    seen = padding(length, *ends)
    return {"input_ids": ids.masked_fill(~seen, 1), "attention_mask": seen.long()}


def kernels() -> SimpleNamespace:
    """What transformers fetches: products of blocks [.., size, 32] and squares [.., key, query]."""

    def blocks(squares: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        each = torch.arange(len(squares))[:, None]
        return each, squares.long() // number, squares.long() % number

    def mm_to_sparse(queries: torch.Tensor, keys: torch.Tensor, squares: torch.Tensor) -> torch.Tensor:
        each, row, column = blocks(squares, keys.shape[1])
        return torch.einsum("nsdi,nsdj->nsji", queries[each, row], keys[each, column])

    def sparse_dense_mm(weights: torch.Tensor, squares: torch.Tensor, values: torch.Tensor, rows: int) -> torch.Tensor:
        each, row, column = blocks(squares, values.shape[1])
        products = torch.einsum("nsji,nsdj->nsdi", weights, values[each, column])
        return torch.zeros(len(values), rows, *values.shape[2:]).index_put((each, row), products, accumulate=True)

    def index_max(
        highest: torch.Tensor, squares: torch.Tensor, rows: int, columns: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        each, row, _ = blocks(squares, columns)
        of_rows = torch.full((len(squares), rows, 32), -1e5)
        for text, square in torch.cartesian_prod(torch.arange(len(squares)), torch.arange(squares.shape[1])).tolist():
            place = text, int(row[text, square])
            of_rows[place] = torch.maximum(of_rows[place], highest[text, :, square].detach())
        return of_rows.flatten(1), of_rows[each, row].mT

    return SimpleNamespace(mm_to_sparse=mm_to_sparse, sparse_dense_mm=sparse_dense_mm, index_max=index_max)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"block_per_row": 3},
        {"block_per_row": 4},  # all squares
        {"approx_mode": "sparse"},
        {"approx_mode": "sparse", "initial_prior_diagonal_n_blocks": 3, "block_per_row": 3},
        {"initial_prior_first_n_blocks": 1, "block_per_row": 3},
        {
            "initial_prior_diagonal_n_blocks": 1,
            "initial_prior_first_n_blocks": 1,
            "max_position_embeddings": 160,
            "block_per_row": 4,
        },
        {"hidden_size": 80, "num_attention_heads": 2},  # heads larger than 32
        {"chunk_size_feed_forward": 32, "hidden_act": "relu", "tie_word_embeddings": False},
    ],
    ids=str,
)
def test_logits_loss_and_gradients_are_those_of_transformers(
    fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modeling_mra, "mra_cuda_kernel", kernels())
    length = fields.get("max_position_embeddings", 128)
    inputs = tokens(length, length)
    inputs["labels"] = inputs["input_ids"].masked_fill(torch.arange(length) % 3 > 0, -100)
    both = []
    for kind in (modeling_mra.MraForMaskedLM, MraForMaskedLM):
        model = made(kind, **fields)
        outputs = model(**inputs, output_hidden_states=True)
        # A second name of the bias has none where the weights are not tied.
        gradients = torch.autograd.grad(outputs.loss, [*model.parameters()], materialize_grads=True)
        both.append([outputs.loss, outputs.logits, *outputs.hidden_states, *gradients])
    for theirs, ours in zip(*both, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


def test_padding_within_a_block_is_treated_as_by_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(modeling_mra, "mra_cuda_kernel", kernels())
    inputs = tokens(128, 105)
    theirs, ours = (made(kind)(**inputs).logits[:, :105] for kind in (modeling_mra.MraForMaskedLM, MraForMaskedLM))
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("tied", [True, False])
def test_weights_go_to_and_from_transformers_own_model(tied: bool, tmp_path: Path) -> None:
    theirs = made(modeling_mra.MraForMaskedLM, tie_word_embeddings=tied)
    theirs.save_pretrained(tmp_path / "theirs")
    ours, report = AutoModelForMaskedLM.from_pretrained(tmp_path / "theirs", output_loading_info=True)
    assert type(ours) is MraForMaskedLM
    assert not report["missing_keys"] and not report["unexpected_keys"]
    ours.save_pretrained(tmp_path / "ours")
    back, report = modeling_mra.MraForMaskedLM.from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not report["missing_keys"] and not report["unexpected_keys"]
    assert back.config.architectures == ["MraForMaskedLM"]
    weights = back.state_dict()
    assert weights.keys() == theirs.state_dict().keys()
    assert all(torch.equal(weights[name], weight) for name, weight in theirs.state_dict().items())


def test_no_kernels_are_fetched_where_transformers_would(monkeypatch: pytest.MonkeyPatch) -> None:
    fetched = []
    for condition in ("is_torch_cuda_available", "is_cuda_platform", "is_ninja_available"):
        monkeypatch.setattr(modeling_mra, condition, lambda: True)
    monkeypatch.setattr(modeling_mra, "load_cuda_kernels", lambda: fetched.append(True))
    made(modeling_mra.MraForMaskedLM)
    assert fetched  # this is how it asks
    fetched.clear()
    made()
    assert not fetched


# The model


@pytest.mark.parametrize("fields", [{}, {"approx_mode": "sparse"}, {"initial_prior_first_n_blocks": 1}], ids=str)
def test_padding_and_company_change_nothing(fields: dict[str, Any]) -> None:
    model, ends = made(**fields), (120, 77, 40, 3)
    inputs = tokens(120, *ends)
    together = model(**inputs).logits
    for text, end in enumerate(ends):
        alone = model(inputs["input_ids"][text : text + 1, :end]).logits
        torch.testing.assert_close(together[text : text + 1, :end], alone, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("position", "token"), [(0, 119), (119, 0), (50, 51), (51, 50)])
def test_a_position_sees_both_sides(position: int, token: int) -> None:
    model = made()
    embedded = model.get_input_embeddings()(tokens(120, 120)["input_ids"]).detach().requires_grad_()
    logits = model(inputs_embeds=embedded).logits
    (slope,) = torch.autograd.grad(logits[0, position].square().sum(), embedded)
    assert slope[0, token].any()


@pytest.mark.filterwarnings("ignore:.gradient_checkpointing_enable:FutureWarning")  # its new name is not in 5.20
def test_recomputing_layers_gives_the_same_gradients() -> None:
    def gradients(model: MraForMaskedLM) -> list[torch.Tensor]:
        return torch.autograd.grad(model(**tokens(100, 100)).logits.square().sum(), list(model.parameters()))

    model = made(hidden_dropout_prob=0.0).train()
    plain = gradients(model)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    calls: list[bool] = []
    model.mra.encoder.layer[0].attention.register_forward_hook(lambda *_: calls.append(True))
    for one, other in zip(plain, gradients(model), strict=True):
        torch.testing.assert_close(one, other)
    assert len(calls) == 2


def test_a_table_shorter_than_a_block_is_one_block() -> None:
    short, long = made(max_position_embeddings=20), made(max_position_embeddings=32)
    table = "mra.embeddings.position_embeddings.weight"
    weights = {**short.state_dict(), "mra.embeddings.position_ids": long.mra.embeddings.position_ids}
    weights[table] = torch.cat([weights[table], torch.zeros(12, 24)])
    long.load_state_dict(weights)
    torch.testing.assert_close(short(**tokens(20, 20)).logits, long(**tokens(20, 20)).logits)


def test_its_head_runs_on_its_own() -> None:
    assert separate_head(made(), tokens(100, 100, 70)) is None


# In use


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> lmtasks.Run:
    folder = tmp_path_factory.mktemp("mra")
    return lmtasks.run(
        "masked-lm",
        model_type="mra",
        config_overrides=SHAPE,
        train_tokenizer=300,
        train_dataset=[TEXT] * 4,
        test_size=0.25,
        block_size=36,  # no multiple of 32
        mlm_probability=0.25,
        learning_rate=3e-3,
        num_train_epochs=16,
        per_device_train_batch_size=8,
        output_dir=str(folder / "out"),
    )


def test_the_plugin_is_in_the_catalog() -> None:
    catalog = lmtasks.load_catalog()
    assert not [plugin for plugin in catalog.plugins if plugin.name == "mra" and plugin.broken]
    tiny = MraForMaskedLM(tiny_config("mra", catalog.recipe("masked-lm")))
    assert sum(parameter.numel() for parameter in tiny.parameters()) < 2_000_000
    assert (
        tiny.mra.encoder.layer[0].attention.self.resolution.squares < (tiny.config.max_position_embeddings // 32) ** 2
    )


def test_it_learns(run: lmtasks.Run) -> None:
    assert run.metrics["eval_loss"] < 0.5 * run.metrics["unigram_loss"]


def test_the_saved_model_gives_the_same_figures(run: lmtasks.Run) -> None:
    figures = lmtasks.evaluate(run.output_dir, eval_dataset=[TEXT])
    assert figures["eval_loss"] == pytest.approx(run.metrics["eval_loss"], rel=1e-5)


def test_it_fills_in_a_word(run: lmtasks.Run) -> None:
    guesses = run.predict("the quick brown<mask> jumps over the lazy dog. the quick brown fox", top_k=1)
    assert "fox" in guesses[0]["token_str"]


def in_vain(folder: Path, **fields: Any) -> Callable[[], object]:
    """A run that must be refused."""
    return lambda: lmtasks.run(
        "masked-lm",
        **{"model_type": "mra", "config_overrides": SHAPE, "train_tokenizer": 300, **fields},
        train_dataset=[TEXT] * 4,
        test_size=0.25,
        block_size=36,
        output_dir=str(folder / "out"),
    )


def test_documents_of_a_block_cannot_be_isolated(tmp_path: Path) -> None:
    with pytest.raises(lmtasks.InputError, match=r"isolate.*MRA can hide padding only"):
        in_vain(tmp_path, isolate_documents=True)()


@pytest.mark.parametrize(
    ("field", "says"),
    [
        ("approx_mode=fast", "approx_mode must be full or sparse, not fast"),
        ("block_per_row=0", "block_per_row must be at least 1"),
        ("num_attention_heads=3", r"multiple of num_attention_heads \(3\)"),
    ],
)
def test_a_configuration_without_sense_is_refused(field: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(lmtasks.InputError, match=says):
        in_vain(tmp_path, config_overrides=f"{SHAPE},{field}")()
    assert not (tmp_path / "out").exists()
