"""What an author of a package writes, in lines, against what it should take.

    python benchmarks/author_lines.py           the table; exit 1 where a package takes more than it should

A line counts unless it is blank, a comment, or part of a docstring: what is said to people is no burden. It is counted
as ruff formats it, at 120 columns, so that none is bought by crowding.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from pathlib import Path

PLUGINS = Path(__file__).parents[1] / "plugins"

WANTED = {
    "replaced-token-detection": ("lmtasks_replaced_token_detection", 90),
    "masked-diffusion": ("lmtasks_masked_diffusion", 80),
    "distillation": ("lmtasks_distillation", 50),
    "gated-recurrence, beside its model": ("lmtasks_gated_recurrence/__init__.py", 25),
}
"""By what is counted: a module or a file of a package, and the most lines that it should take."""

NO_CODE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


def author_lines(text: str) -> int:
    """How many lines of a module are code."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    code = {line for token in tokens if token.type not in NO_CODE for line in range(token.start[0], token.end[0] + 1)}
    return len(code - docstring_lines(text))


def docstring_lines(text: str) -> set[int]:
    """The lines of all strings that stand alone as a statement: docstrings, and those behind a name."""
    alone = [node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Expr)]
    said = [one for one in alone if isinstance(one, ast.Constant) and isinstance(one.value, str)]
    return {line for one in said for line in range(one.lineno, (one.end_lineno or one.lineno) + 1)}


def counted(where: str, plugins: Path = PLUGINS) -> int:
    """The lines of a file of a package, or of all files of one."""
    package = where.partition("/")[0]
    path = plugins / package.replace("_", "-") / where
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
    return sum(author_lines(file.read_text(encoding="utf-8")) for file in files)


def main() -> int:
    """Print the table."""
    wrong = 0
    for what, (where, most) in WANTED.items():
        count = counted(where)
        wrong += count > most
        print(f"{what:<36} {count:>4}   at most {most}{'   MISSED' * (count > most)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
