"""``lmtasks push``: publish a finished run."""

from __future__ import annotations

from lmtasks.cli.argv import asks_help
from lmtasks.cli.parser import Parser
from lmtasks.cli.report import print_json


def command(words: list[str]) -> int:
    """Publish, and print the address."""
    parser = Parser(prog="lmtasks push", description="Publish a finished run on the Hub.")
    parser.add_argument("run", metavar="RUN", help="run folder")
    parser.add_argument("repo_id", metavar="REPO_ID", help="USER/NAME")
    parser.add_argument("--private", action="store_true", help="make the repository private")
    parser.add_argument("--create_pr", action="store_true", help="as a pull request")
    parser.add_argument("--revision", metavar="NAME", help="branch to publish to")
    parser.add_argument("--commit_message", metavar="TEXT", help="summary of the commit")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.add_argument("--help", "-h", action="store_true", help="show this")
    if asks_help(words):
        parser.print_help()
        return 0
    typed = vars(parser.parse_args(words))
    from lmtasks.artifacts.publish import push

    url = push(
        typed["run"],
        typed["repo_id"],
        private=typed.get("private", False),
        create_pr=typed.get("create_pr", False),
        revision=typed.get("revision"),
        commit_message=typed.get("commit_message"),
    )
    print_json({"url": url}) if typed.get("json") else print(url)
    return 0
