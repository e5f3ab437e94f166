"""``lmtasks merge``: make one model of an adapter and the model that it is for."""

from __future__ import annotations

from lmtasks.cli.answers import tell
from lmtasks.cli.parser import Parser
from lmtasks.progress import quiet


def command(words: list[str]) -> int:
    """Merge, and print the folder."""
    parser = Parser(prog="lmtasks merge", description="Make one model of an adapter and the model that it is for.")
    parser.add_argument("adapter", metavar="RUN", help="folder of a run with an adapter, or Hub id of an adapter")
    parser.add_argument("output_dir", metavar="OUT", help="new folder for the model")
    parser.add_argument("--recipe", metavar="NAME", help="recipe that it is a model of; found out when not given")
    parser.add_argument("--revision", metavar="NAME", help="branch, tag or commit of an adapter on the Hub")
    typed = parser.read_all(words)
    as_json = typed.pop("json", False)
    quiet()
    from lmtasks.runs.merging import merge

    folder = merge(**typed)
    return tell({"output_dir": str(folder)}, [str(folder)], as_json=as_json)
