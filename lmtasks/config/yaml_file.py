"""YAML files that people write: values by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lmtasks.errors import InputError


def read_mapping(path: str | Path, flag: str, example: str) -> dict[str, Any]:
    """The values in the YAML file that a flag names.

    Args:
        example: what may stand in it, for the hint.

    Raises:
        InputError: no such file, not YAML, or not a mapping.
    """
    import yaml

    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read --{flag} '{path}': {error.strerror}", "give an existing YAML file") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        problem = " ".join(str(error).split())
        raise InputError(f"--{flag} '{path}' is not YAML: {problem}", "write one 'name: value' a line") from error
    if not isinstance(content, dict) or not all(isinstance(name, str) for name in content):
        raise InputError(f"--{flag} '{path}' must hold 'name: value' lines", f"for example: {example}")
    return content
