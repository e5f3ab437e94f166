"""``lmtasks completion``: what a shell needs to complete a command line."""

from __future__ import annotations

from lmtasks.cli.answers import tell
from lmtasks.cli.parser import Parser
from lmtasks.errors import InputError, nearest

SHELLS = ("bash", "zsh", "fish")


def command(words: list[str]) -> int:
    """Print the lines that teach a shell."""
    parser = Parser(prog="lmtasks completion", description="What a shell reads to complete the words of lmtasks.")
    parser.add_argument("shell", metavar="SHELL", help=", ".join(SHELLS))
    typed = parser.read_all(words, plugins=False)
    shell = typed["shell"]
    if shell not in SHELLS:
        raise InputError(f"no completion for '{shell}'{nearest(shell, SHELLS)}", f"one of {', '.join(SHELLS)}")
    from argcomplete.shell_integration import shellcode

    lines = shellcode(["lmtasks"], shell=shell)
    return tell({"shell": shell, "lines": lines}, [lines], as_json=typed.get("json", False))
