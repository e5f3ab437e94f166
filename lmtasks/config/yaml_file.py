"""YAML files that people write: values by name."""

from __future__ import annotations

import re
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any

from lmtasks.api.options import Quoted
from lmtasks.errors import InputError, nearest_path

_AS_WRITTEN = re.compile(r"[-+]?(0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)")
"""Whole numbers that YAML reads as people do; it takes 010 for 8 and 1:30 for 90."""

MOST_PARTS = 100_000
"""Values in a file, with those that are named in several places counted in each."""


def read_mapping(path: str | Path, flag: str, example: str) -> dict[str, Any]:
    """The values in the YAML file that a flag names.

    Args:
        example: what may stand in it, for the hint.

    Raises:
        InputError: no such file, not YAML, not a mapping, a name that is there twice, or a number that YAML does
            not read as it is written.
    """
    import yaml

    if not isinstance(path, str | PathLike):
        raise InputError(f"--{flag} cannot be a {type(path).__name__}: it must be the name of a file", f"{flag}=FILE")
    try:
        text = Path(path).read_text(encoding="utf-8")
        root, title = yaml.compose(text, Loader=yaml.SafeLoader), f"--{flag} '{path}'"
        if _parts(root, title, {}) > MOST_PARTS:
            raise InputError(f"{title} unfolds to more than {MOST_PARTS:,} values", "write out what is meant")
        _refuse_doubtful(root, title)
        content = yaml.load(text, Loader=_loader())
    except OSError as error:
        told = f"cannot read --{flag} '{path}': {error.strerror}{nearest_path(path)}"
        raise InputError(told, "give an existing YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, AttributeError) as error:  # the last two of tags: !!int x
        problem = " ".join(str(error).split())
        raise InputError(f"--{flag} '{path}' is not YAML: {problem}", "write one 'name: value' a line") from error
    except RecursionError as error:
        raise InputError(f"--{flag} '{path}' is nested too deeply", "write one 'name: value' a line") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise InputError(f"--{flag} '{path}' must hold 'name: value' lines", f"for example: {example}")
    return content


@cache
def _loader() -> Any:
    """YAML's safe loader, with what stands in quotes marked as text."""
    import yaml

    class Loader(yaml.SafeLoader):
        """Values only: names are what they are, in quotes or not."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            mapping = super().construct_mapping(node, deep)
            return {str(name) if isinstance(name, Quoted) else name: value for name, value in mapping.items()}

    def text(loader: Any, node: Any) -> str:
        value: str = loader.construct_scalar(node)
        return Quoted(value) if node.style else value

    Loader.add_constructor("tag:yaml.org,2002:str", text)
    return Loader


def _parts(node: Any, title: str, known: dict[int, int]) -> int:
    """How many parts a value has, whose parts may be named in many places, but not within themselves."""
    if id(node) not in known:
        known[id(node)] = 0
        children = node.value if isinstance(getattr(node, "value", None), list) else []
        parts = [part for child in children for part in (child if isinstance(child, tuple) else (child,))]
        known[id(node)] = 1 + sum(_parts(part, title, known) for part in parts)
    elif not known[id(node)]:
        raise InputError(f"{title}, line {node.start_mark.line + 1}: this is a part of itself", "write it out")
    return known[id(node)]


def _refuse_doubtful(root: Any, title: str) -> None:
    """Refuse what YAML takes without a word, and nobody means."""
    import yaml

    waiting, seen = [root], set()
    while waiting:
        node = waiting.pop()
        if node is None or id(node) in seen:  # an alias
            continue
        seen.add(id(node))
        if isinstance(node, yaml.ScalarNode):
            _refuse_misread(node, title)
        elif isinstance(node, yaml.SequenceNode):
            waiting += node.value
        else:
            lines: dict[Any, int] = {}
            for key, value in node.value:
                waiting += [key, value]
                line = key.start_mark.line + 1
                if isinstance(key, yaml.ScalarNode) and lines.setdefault(key.value, line) != line:
                    raise InputError(
                        f"{title}: '{key.value}' is there twice, in lines {lines[key.value]} and {line}", "keep one"
                    )


def _refuse_misread(node: Any, title: str) -> None:
    import yaml

    kind, value = node.tag.rpartition(":")[2], node.value
    if (kind == "int" and not _AS_WRITTEN.fullmatch(value)) or (kind == "float" and ":" in value):
        raise InputError(
            f"{title}, line {node.start_mark.line + 1}: YAML does not read {value} as it is written, but as"
            f" {yaml.safe_load(value)}",
            "write a decimal number without zeros before it, or text in quotes",
        )
