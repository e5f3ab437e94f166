"""``lmtasks push``: publish a finished run."""

from __future__ import annotations

from lmtasks.cli.answers import tell
from lmtasks.cli.parser import Parser


def command(words: list[str]) -> int:
    """Publish, and print the address."""
    parser = Parser(prog="lmtasks push", description="Publish a finished run on the Hub.")
    parser.add_argument("run_dir", metavar="RUN", help="run folder")
    parser.add_argument("repo_id", metavar="REPO_ID", help="USER/NAME")
    parser.add_argument("--private", action="store_true", help="make the repository private")
    parser.add_argument("--create_pr", action="store_true", help="as a pull request")
    parser.add_argument("--revision", metavar="NAME", help="branch to publish to")
    parser.add_argument("--commit_message", metavar="TEXT", help="summary of the commit")
    parser.add_argument("--space", metavar="NAME", help="also a Space of this name, to try it on")
    typed = parser.read_all(words, plugins=False)
    as_json = typed.pop("json", False)
    if "space" in typed:
        from lmtasks.artifacts.space import push_with_space

        url, space = push_with_space(**typed)
        return tell({"url": url, "space": space}, [url, space], as_json=as_json)
    from lmtasks.artifacts.publish import push

    url = push(**typed)
    return tell({"url": url}, [url], as_json=as_json)
