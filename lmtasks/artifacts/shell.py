"""Texts in commands that people copy."""

from __future__ import annotations

import re
import shlex


def shell_quoted(text: str) -> str:
    """The text as one word of a command, whichever shell it is for."""
    # Double quotes work in every shell, as long as nothing in between means something to one.
    return shlex.quote(text) if re.search(r'["$`\\!%]', text) else f'"{text}"'
