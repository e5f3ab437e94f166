"""python -m lmtasks_distillation TEACHER FOLDER: a student that begins as some of its teacher's layers."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import transformers

from lmtasks import LmtasksError, from_pretrained


def shortened(teacher: Any, layers: int) -> Any:
    """The model itself, in place, with so many of its layers: the first, the last, and others evenly between.

    Raises:
        ValueError: it has fewer, or keeps them otherwise than in a list.
    """
    config = teacher.config
    count = config.num_hidden_layers
    stacks = [
        path for path, part in teacher.named_modules() if isinstance(part, torch.nn.ModuleList) and len(part) == count
    ]
    if not stacks or not 0 < layers <= count:
        raise ValueError(f"a {config.model_type} of {count} layers cannot become one of {layers}")
    kept = [round(place * (count - 1) / max(1, layers - 1)) for place in range(layers)]
    for path in stacks:
        parent, _, name = path.rpartition(".")
        stack = teacher.get_submodule(path)
        setattr(teacher.get_submodule(parent), name, torch.nn.ModuleList([stack[place] for place in kept]))
    config.num_hidden_layers = layers
    if getattr(config, "layer_types", None):
        config.layer_types = [config.layer_types[place] for place in kept]
    return teacher


def main() -> int:
    """Make the student's folder."""
    parser = argparse.ArgumentParser(prog="python -m lmtasks_distillation", description=__doc__)
    parser.add_argument("teacher", help="folder or Hub id")
    parser.add_argument("folder", help="where the student goes")
    parser.add_argument("--layers", type=int, help="how many of the teacher's it gets; half of them if not said")
    asked = parser.parse_args()
    if Path(asked.folder).exists():
        parser.error(f"{asked.folder} is there already")
    try:
        config = transformers.AutoConfig.from_pretrained(asked.teacher, trust_remote_code=False)
        # Many a masked model can be made a causal one, and none the other way.
        kind = "MaskedLM" if type(config) in transformers.MODEL_FOR_MASKED_LM_MAPPING else "CausalLM"
        teacher = from_pretrained(f"transformers:AutoModelFor{kind}", asked.teacher)
        student = shortened(teacher, asked.layers or max(1, teacher.config.num_hidden_layers // 2))
        tokenizer = transformers.AutoTokenizer.from_pretrained(asked.teacher, trust_remote_code=False)
    except LmtasksError as error:
        parser.error(f"{error.message}; {error.hint}")
    except (OSError, ValueError) as error:
        parser.error(str(error).splitlines()[0])
    student.save_pretrained(asked.folder)
    tokenizer.save_pretrained(asked.folder)
    print(f"{asked.folder}: {student.config.num_hidden_layers} layers, {student.num_parameters():,} weights")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
