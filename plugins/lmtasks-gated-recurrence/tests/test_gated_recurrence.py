"""The recurrence is that of a loop over the tokens; what is kept of a text stands for it; lmtasks does all it does."""

import json
import warnings
from pathlib import Path

import pytest
import torch
from lmtasks_gated_recurrence import GATED_RECURRENCE
from lmtasks_gated_recurrence.model import GatedRecurrenceConfig, GatedRecurrenceForCausalLM, Recurrence, scan
from safetensors.torch import load_file
from transformers import AutoModel

import lmtasks
from lmtasks.builtin.causal_lm import CAUSAL_LM
from lmtasks.models.lm_head import separate_head
from lmtasks.testing import check_architecture

TEXT = "the quick brown fox jumps over the lazy dog. " * 200
CONFIG = GatedRecurrenceConfig(
    vocab_size=50, hidden_size=16, intermediate_size=24, num_hidden_layers=3, initializer_range=0.3
)


@pytest.fixture
def model() -> GatedRecurrenceForCausalLM:
    torch.manual_seed(0)
    return GatedRecurrenceForCausalLM(CONFIG).double().eval()


def ids_of(examples: int, length: int) -> torch.Tensor:
    return torch.randint(0, 50, (examples, length), generator=torch.Generator().manual_seed(1))


def test_it_does_all_that_causal_lm_needs() -> None:
    (proof,) = check_architecture(GATED_RECURRENCE, CAUSAL_LM)
    assert proof.checks["fast-head-is-the-plain-head"].reason == "", "the head runs where there are targets only"


# --- against loops, in float64 ---


@pytest.mark.parametrize("length", [1, 2, 3, 7, 8, 33])
def test_all_places_at_once_are_those_of_a_loop(length: int) -> None:
    chance = torch.Generator().manual_seed(length)
    gates, inputs = (torch.rand(2, length, 5, generator=chance, dtype=torch.float64) for _ in range(2))
    gates.requires_grad_()
    inputs.requires_grad_()
    h, loop = torch.zeros(2, 5, dtype=torch.float64), []
    for place in range(length):
        h = gates[:, place] * h + inputs[:, place]
        loop.append(h)
    ours, theirs = scan(gates, inputs), torch.stack(loop, dim=1)
    assert torch.allclose(ours, theirs, rtol=1e-12)
    weights = torch.rand(ours.shape, generator=chance, dtype=torch.float64)
    for wanted in (gates, inputs):
        (one,), (other,) = (
            torch.autograd.grad((made * weights).sum(), wanted, retain_graph=True, materialize_grads=True)
            for made in (ours, theirs)
        )
        assert torch.allclose(one, other, rtol=1e-10, atol=1e-12)


def test_the_recurrence_is_the_formula() -> None:
    """h = a·h + (1 - a)·x, token by token; the first goes on from what was kept."""
    torch.manual_seed(0)
    part = Recurrence(CONFIG).double()
    states, kept = torch.randn(2, 9, 16, dtype=torch.float64), torch.randn(2, 16, dtype=torch.float64)
    everywhere = torch.ones(2, 9, 1, dtype=torch.bool)
    outputs, last = part(states, everywhere, everywhere, kept)
    h = kept
    for place in range(9):
        a = torch.sigmoid(part.gate(states[:, place]))
        h = a * h + (1 - a) * part.input(states[:, place])
        right = part.output(h * torch.nn.functional.gelu(part.shutter(states[:, place])))
        assert torch.allclose(outputs[:, place], right, rtol=1e-10, atol=1e-14)
    assert torch.allclose(last, h, rtol=1e-12)


def test_a_text_read_token_by_token_has_the_same_logits(model: GatedRecurrenceForCausalLM) -> None:
    ids = ids_of(2, 20)
    with torch.no_grad():
        whole = model(ids).logits
        state, steps = None, []
        for place in range(20):
            read = model(ids[:, place : place + 1], state=state, use_cache=True)
            state = read.state
            steps.append(read.logits)
    assert torch.allclose(torch.cat(steps, dim=1), whole, atol=1e-12)
    assert state.shape == (3, 2, 16)


@pytest.mark.parametrize("left", [True, False])
def test_padding_on_either_side_changes_nothing(left: bool, model: GatedRecurrenceForCausalLM) -> None:
    ids, padding = ids_of(1, 11), torch.full((1, 6), 3)
    parts, marks = [padding, ids], [torch.zeros(1, 6), torch.ones(1, 11)]
    order = slice(None) if left else slice(None, None, -1)
    mask = torch.cat(marks[order], dim=1).long()
    with torch.no_grad():
        padded = model(torch.cat(parts[order], dim=1), attention_mask=mask, use_cache=True)
        alone = model(ids, use_cache=True)
    assert torch.allclose(padded.logits[:, mask[0] == 1], alone.logits, atol=1e-12)
    assert torch.allclose(padded.state, alone.state, atol=1e-12), "what is kept is that of the text"


@pytest.mark.parametrize("kind", ["yes and no", "scores"])
def test_documents_of_one_block_are_as_each_is_alone(kind: str, model: GatedRecurrenceForCausalLM) -> None:
    ids, documents = ids_of(1, 12), torch.tensor([0] * 5 + [1] + [2] * 6)
    sees = (documents[:, None] == documents[None]) & torch.ones(12, 12, dtype=torch.bool).tril()
    mask = sees if kind == "yes and no" else torch.zeros(12, 12).masked_fill(~sees, torch.finfo(torch.float32).min)
    with torch.no_grad():
        together = model(ids, attention_mask=mask[None, None]).logits
        alone = [model(ids[:, documents == number]).logits for number in range(3)]
    assert torch.allclose(together, torch.cat(alone, dim=1), atol=1e-12)


# --- in transformers' clothes ---


@pytest.mark.parametrize(
    "how", [{}, {"num_beams": 3}, {"num_beams": 2, "num_return_sequences": 2}, {"repetition_penalty": 1.3}]
)
def test_what_is_kept_continues_a_text_as_the_whole_text_does(how, model: GatedRecurrenceForCausalLM) -> None:
    ids = torch.cat([torch.full((2, 3), 0), ids_of(2, 5)], dim=1)
    mask = (torch.arange(8) >= torch.tensor([[3], [0]])).long()
    asked = {"attention_mask": mask, "do_sample": False, "max_new_tokens": 10, "pad_token_id": 0, **how}
    read = []
    model.model.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0].shape[1]))
    kept = model.generate(ids, use_cache=True, **asked)
    assert read == [8] + [1] * 9
    assert torch.equal(kept, model.generate(ids, use_cache=False, **asked))
    assert read[10:] == [*range(8, 18)]


def test_the_head_is_separate_without_a_warning_and_tied(model: GatedRecurrenceForCausalLM, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        loaded, report = GatedRecurrenceForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
        assert separate_head(loaded, {"input_ids": ids_of(1, 12)}) is None
        body = AutoModel.from_pretrained(tmp_path)
    assert told == [] and not any(report.values())
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    assert loaded.lmtasks_head.last is loaded.lm_head, "whose logits are never all held at once"
    ids = ids_of(1, 12)
    with torch.no_grad():
        assert torch.equal(loaded(ids).logits, loaded.lm_head(body(ids).last_hidden_state))


def test_labels_make_a_loss_and_states_are_given_when_asked_for(model: GatedRecurrenceForCausalLM) -> None:
    ids = ids_of(2, 9)
    outputs = model(ids, labels=ids, output_hidden_states=True)
    right = torch.nn.functional.cross_entropy(outputs.logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())
    assert outputs.loss.item() == pytest.approx(right.item(), rel=1e-6)
    assert len(outputs.hidden_states) == 4
    assert torch.equal(model.lm_head(outputs.hidden_states[-1]), outputs.logits)


def test_gradient_checkpointing_changes_no_gradient(model: GatedRecurrenceForCausalLM) -> None:
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            # Versions of transformers call it one or the other.
            model.train()
            getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)()
        model.zero_grad()
        model(ids_of(2, 9), labels=ids_of(2, 9)).loss.backward()
        gradients.append(torch.cat([one.grad.flatten() for one in model.parameters()]))
    assert torch.allclose(*gradients, rtol=1e-9)


# --- a run ---


def test_a_run_learns_and_what_it_saves_goes_on_with_the_text(tmp_path: Path) -> None:
    run = lmtasks.run(
        "causal-lm",
        model_type="gated-recurrence",
        config_overrides="hidden_size=64,intermediate_size=128,num_hidden_layers=2",
        train_tokenizer=300,
        train_dataset=[TEXT] * 4,
        test_size=0.25,
        block_size=64,
        isolate_documents=True,  # the runner measures that the model can
        learning_rate=1e-2,
        num_train_epochs=4,
        per_device_train_batch_size=4,
        save_strategy="no",
        output_dir=str(tmp_path / "out"),
    )
    record = json.loads((tmp_path / "out/run.json").read_text())
    assert (record["recipe"], record["model_type"]) == ("causal-lm", "gated-recurrence")
    assert run.metrics["eval_loss"] < 0.5 * run.metrics["unigram_loss"]
    assert "fox" in run.predict("the quick brown", max_new_tokens=8, do_sample=False)[0]["generated_text"]
    texts = ["the quick", "the quick brown fox jumps over"]
    batched = run.predict(texts, max_new_tokens=8, do_sample=False, batch_size=2)
    assert batched == [run.predict(text, max_new_tokens=8, do_sample=False) for text in texts]
