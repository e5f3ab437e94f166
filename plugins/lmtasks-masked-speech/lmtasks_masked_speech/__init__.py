"""masked-speech: hide stretches of a recording, learn to tell what was there (Baevski et al. 2020, wav2vec 2.0)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lmtasks import InputError, Medium, Recipe, Starter, hookimpl, option


@dataclass(frozen=True, kw_only=True)
class MaskedSpeechOptions:
    """Options of masked-speech; the defaults are the paper's."""

    mask_time_prob: float = option(
        0.65,
        help="hidden spans times their length, as a share of all steps; less is hidden, for they overlap",
        gt=0,
        le=1,
    )
    mask_time_length: int = option(10, help="steps that are hidden in a row", ge=1)
    num_negatives: int = option(100, help="other hidden steps that each is told apart from", ge=1)
    max_seconds: float = option(
        15.6, help="longer recordings are cut into equal pieces", gt=0, aliases=["max_duration_in_seconds"]
    )
    min_seconds: float = option(2.0, help="shorter recordings are left out", ge=0, aliases=["min_duration_in_seconds"])
    diversity_loss_weight: float | None = option(
        None, help="weight of the use of all codes; the model's own, 0.1 in the paper, when not given", ge=0
    )
    feature_penalty: float | None = option(
        None, help="weight of the encoder's squared output; 10 with group normalisation, else 0, when not given", ge=0
    )
    max_gumbel_temperature: float = option(2.0, help="temperature of the choice of codes at the start", gt=0)
    min_gumbel_temperature: float = option(0.5, help="where it stops falling", gt=0)
    gumbel_temperature_decay: float = option(0.999995, help="factor by which it falls at every step", gt=0, le=1)


def preprocess(processor: Any, options: MaskedSpeechOptions) -> Any:
    """Recordings in pieces."""
    from lmtasks_masked_speech.pieces import Pieces

    if getattr(processor, "model_input_names", [""])[0] != "input_values" or processor.feature_size != 1:
        raise InputError(
            f"masked-speech needs waves, and {type(processor).__name__} makes something else of sound",
            "name a wav2vec2 feature extractor with --processor_name",
        )
    if 2 * options.min_seconds > options.max_seconds:
        raise InputError(
            f"--min_seconds {options.min_seconds:g} is more than half of --max_seconds {options.max_seconds:g},"
            " so halves of long recordings would be left out",
            "lower --min_seconds, or raise --max_seconds",
        )
    if options.min_gumbel_temperature > options.max_gumbel_temperature:
        raise InputError("--min_gumbel_temperature is above --max_gumbel_temperature", "exchange them")
    return Pieces(options.max_seconds, options.min_seconds, options.mask_time_length)


def new_processor(config: Any, options: MaskedSpeechOptions) -> Any:
    """The feature extractor of a model from scratch: 16 kHz, each recording normalised by itself."""
    from transformers import Wav2Vec2FeatureExtractor

    # As in the published checkpoints of either kind.
    return Wav2Vec2FeatureExtractor(return_attention_mask=config.feat_extract_norm == "layer")


def cool(model: Any, options: MaskedSpeechOptions, steps: int) -> None:
    """Lower the temperature of the Gumbel softmax (section 4.2)."""
    falling = options.max_gumbel_temperature * options.gumbel_temperature_decay**steps
    model.set_gumbel_temperature(max(falling, options.min_gumbel_temperature))


def answers(output: Any) -> list[str]:
    """Figures in a line, codes in another."""
    steps = ["-".join(map(str, step)) for step in output["codes"]]
    shown = " ".join(steps[:12]) + (" ..." if len(steps) > 12 else "")
    return [
        f"{output['seconds']:g} seconds, {len(steps):,} steps;"
        f" contrastive accuracy {output['contrastive_accuracy']:.1%}, loss {output['contrastive_loss']:.3f},"
        f" codebook perplexity {output['codebook_perplexity']:.1f}",
        f"codes {shown}",
    ]


AUDIO = Medium(
    name="audio",
    suffixes=(".wav", ".flac", ".ogg", ".opus", ".mp3", ".aiff", ".aif", ".au"),
    files="lmtasks_masked_speech.audio:files",
    items="lmtasks_masked_speech.audio:items",
    select="lmtasks_masked_speech.audio:select",
    filled="lmtasks_masked_speech.audio:filled",
    duplicates="lmtasks_masked_speech.audio:duplicates",
)

MASKED_SPEECH = Recipe(
    name="masked-speech",
    summary="Tell what was hidden of a recording (wav2vec 2.0).",
    options=MaskedSpeechOptions,
    preprocess=preprocess,
    collator="lmtasks_masked_speech.masking:collator",
    loss="lmtasks_masked_speech.loss:loss",
    model_class="transformers:AutoModelForPreTraining",
    # The Auto class has models of text and images as well, and speech models whose forward pass has no such loss.
    model_types=("wav2vec2", "wav2vec2-conformer"),
    medium=AUDIO,
    processor="transformers:AutoFeatureExtractor",
    new_processor=new_processor,
    before_step=cool,
    pipeline="lmtasks_masked_speech.pipeline:SpeechPipeline",
    metrics=("lmtasks.metrics:Accuracy", "lmtasks_masked_speech.metrics:CodebookPerplexity"),
    answers=answers,
    starter=Starter(
        sample=None,
        model={
            "model_type": "wav2vec2",
            "config_overrides": "conv_dim=[64,64,64,64,64,64,64],hidden_size=128,num_hidden_layers=2,"
            "num_attention_heads=4,intermediate_size=256,num_conv_pos_embeddings=32,num_codevectors_per_group=64,"
            "codevector_dim=64,proj_codevector_dim=64,layerdrop=0",
        },
        training={"learning_rate": 5e-4, "max_steps": 400, "warmup_steps": 0.1, "max_seconds": 5.0, "min_seconds": 1.0},
    ),
)


@hookimpl
def lmtasks_recipes() -> list[Recipe]:
    """The recipe of this package."""
    return [MASKED_SPEECH]
