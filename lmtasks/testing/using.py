"""Checks of what comes after training: figures, the saved model, and answers."""

from __future__ import annotations

import math
from typing import Any

import torch
import transformers
from transformers.pipelines import SUPPORTED_TASKS

from lmtasks.artifacts.run_folder import save_into
from lmtasks.config.settings import ModelSettings
from lmtasks.errors import InputError, first_line
from lmtasks.inference.predictor import Predictor
from lmtasks.models.checkpoint import load_model
from lmtasks.models.companions import Whole, load_companions, prepare, trained_companions
from lmtasks.testing.case import SEED, Case
from lmtasks.testing.proof import Fault, blamed, check
from lmtasks.testing.sums import plain_logits
from lmtasks.testing.terms import same
from lmtasks.training.evaluation import evaluate_model

STATE = (
    "keep everything that the logits depend on: what is learned or drawn as parameters or persistent buffers, sizes and"
    " switches in the configuration; other buffers must follow from the configuration alone"
)
KEPT = "let save write all that prepare_model added and that is trained, and load read it; or leave both out"
TIES = "name weights that are one in _tied_weights_keys, and set tie_word_embeddings in the configuration"


@check("recipe", "architecture")
def evaluation_batches_do_not_matter(case: Case) -> None:
    """The figures of an evaluation are finite, and the same in batches of one, of three, and a second time."""
    try:
        texts = case.ragged()
    except Exception:
        texts = case
    examples, collate, model = (texts.dataset(False), texts.collate(False), case.stirred())
    one, three, again = (evaluate_model(model, case.bound, examples, collate, size) for size in (1, 3, 3))
    for name, value in three.items():
        if not math.isfinite(value):
            raise Fault(f"{name} is {value}", "see that the loss of an untrained model is a number")
        if again.get(name) != value:
            raise Fault(
                f"{name} is {value} at first and {again.get(name)} the second time",
                "draw nothing in evaluation but from example['seed'], and keep no state",
            )
        if not same(one.get(name, math.nan), value):
            raise Fault(
                f"{name} is {one.get(name)} in batches of one example, {value} in batches of three",
                "let sums be sums, and masks keep the examples of a batch apart",
            )


@check("recipe", "architecture")
def saved_is_what_was_trained(case: Case) -> None:
    """After its weights have moved, a saved and loaded model gives the same logits, and shares what was shared."""
    model, batch = case.stirred(), case.batch(training=False)
    folder = case.folder / "saved"
    with blamed("the model cannot be saved: ", TIES):
        save_into(folder, Whole(model, case.recipe), case.tokenizer())
    with blamed("the saved model cannot be loaded and used: ", f"{STATE}; {TIES}"), torch.no_grad():
        config = transformers.AutoConfig.from_pretrained(folder)
        settings = ModelSettings(model_name_or_path=str(folder))
        # Another seed: what is not loaded must not come out right by chance.
        loaded = load_model(settings, case.recipe, config, case.tokenizer(), seed=1).model.eval()
        prepare(loaded, case.recipe, case.request.options, SEED)
        if not load_companions(loaded, case.recipe, str(folder)):
            raise Fault("what stands beside the model was not saved, or is not found again", KEPT)
        ours, theirs = plain_logits(model, batch), plain_logits(loaded, batch)
    if not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(ours.std())):
        apart = float((ours - theirs).abs().max())
        raise Fault(f"the loaded model gives other logits than the one that was saved, by up to {apart:.3g}", STATE)
    for name, one in trained_companions(model).items():
        again = loaded.get_submodule(name).state_dict()
        if moved := [key for key, value in one.state_dict().items() if not torch.equal(value, again[key])]:
            raise Fault(f"{name}.{moved[0]}, which is trained beside the model, is another after loading", KEPT)
    if lost := _shared(model) - _shared(loaded):
        raise Fault(f"{' and '.join(sorted(next(iter(lost))))} were one weight, and are two after loading", TIES)


def _shared(model: torch.nn.Module) -> set[frozenset[str]]:
    """Names of parameters that are one."""
    names: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name)
    return {frozenset(same_one) for same_one in names.values() if len(same_one) > 1}


@check("recipe")
def run_works(case: Case) -> str:
    """``lmtasks.run`` takes the recipe through: prepare, train, evaluate, save, compare what was saved."""
    metrics = case.trained(case.folder / "run").metrics
    if wrong := [name for name, value in metrics.items() if isinstance(value, float) and not math.isfinite(value)]:
        raise Fault(f"the run ends with {wrong[0]} = {metrics[wrong[0]]}", "see that loss and metrics stay finite")
    name = case.recipe.perplexity_name(case.request.options)
    if not isinstance(name, str) or not name:
        raise Fault(f"perplexity_name gives {name!r}", "give words for people, such as 'perplexity'")
    return f"loss {metrics['eval_loss']:.2f} nats after three steps"


@check("recipe", "architecture")
def pipeline_answers(case: Case) -> None:
    """The pipeline is one for this class of models, and answers a text."""
    task = case.recipe.pipeline
    made_for = [one.__name__ for one in SUPPORTED_TASKS.get(task, {}).get("pt", ())]
    name = case.recipe.model_class.partition(":")[2]
    if ":" not in task and name.startswith("Auto") and name not in made_for:
        others = [other for other, about in SUPPORTED_TASKS.items() if name in [one.__name__ for one in about["pt"]]]
        raise Fault(
            f"the pipeline '{task}' is not for models of {name}" if made_for else f"there is no pipeline '{task}'",
            f"name another: {', '.join(others) or 'one of your own, module:Class'}",
        )
    _answered(case, 1)


@check("recipe", "architecture")
def batched_answers_are_the_same(case: Case) -> None:
    """A text is answered alike alone and among several."""
    _, (alone, both) = _answered(case, 1, 2)
    if not isinstance(both, list) or len(both) != 2:
        raise Fault(f"the pipeline gives {both!r:.200} for two texts", "let it answer each text")
    one, other = case.recipe.answers(alone), case.recipe.answers(both[0])
    if one != other:
        raise Fault(
            f"alone, the answer begins {one[:1]}, in a batch {other[:1]}",
            "let the model draw nothing and heed attention_mask; a pipeline of your own has to pad, and take apart,"
            " what it answers together",
        )


@check(
    "recipe",
    "architecture",
    advice="let the model heed attention_mask and count positions from it, with padding on either side",
)
def texts_share_a_batch(case: Case) -> None:
    """Texts of different length are answered in one batch: padding does not change the logits behind the answers."""
    predictor, _ = _answered(case, 2)
    if predictor.one_by_one:
        raise Fault("padding changes the answers, so texts are answered one by one")


@check("recipe", of="answers")
def prompt_and_answers_are_text(case: Case) -> None:
    """``prompt`` makes a text of a text, and ``answers`` makes lines of what the pipeline gives."""
    prompt = case.recipe.prompt(case.tokenizer(), _text(case))
    if not isinstance(prompt, str) or not prompt.strip():
        raise Fault(f"prompt gives {prompt!r} for {_text(case)!r}", "give the text that the pipeline gets")
    _, (output,) = _answered(case, 1)
    lines = case.recipe.answers(output)
    if not isinstance(lines, list) or not all(isinstance(line, str) for line in lines):
        raise Fault(f"answers gives {lines!r:.200}", "give a list of lines, each a str")


def _text(case: Case) -> str:
    texts = case.recipe.starter.texts if case.recipe.starter else ()
    return case.text or (texts[0] if texts else "the old fox <mask> over the quick dog")


def _answered(case: Case, *copies: int) -> tuple[Predictor, list[Any]]:
    """A predictor with moved weights, and its answers: to the text, or for 2 to the text and two of it in a row."""
    folder = case.folder / "answering"
    if not folder.exists():
        save_into(folder, Whole(case.stirred(), case.recipe), case.tokenizer())
    text = _text(case)
    try:
        predictor = Predictor(str(folder), case.recipe)
        arguments = {**(case.recipe.starter.predict if case.recipe.starter else {}), **case.predict}
        if predictor.generates:
            arguments |= {"do_sample": False, "max_new_tokens": min(arguments.get("max_new_tokens", 4), 8)}
        asked = [text if one == 1 else [text, " ".join([text] * one)] for one in copies]
        return predictor, [predictor.predict(one, **arguments) for one in asked]
    except Exception as error:
        advice = "see that model_class, pipeline and prompt belong together; text=... and predict={...} say what to ask"
        ours = isinstance(error, InputError) and not isinstance(error.__cause__, AttributeError)
        if not ours and not case.make().can_generate():
            advice += "; a model for a pipeline that generates inherits from transformers.GenerationMixin"
        told = f"{type(error).__name__}: {first_line(error)}"
        raise Fault(f"the pipeline '{case.recipe.pipeline}' does not answer {text!r}: {told}", advice) from error
