"""The command line."""

from lmtasks.cli.app import main

__all__ = ["main"]
