"""The version of the contract between this core and its plugins."""

API_VERSION = 1
"""The version of the contract that this core executes.

What is added to it leaves the number as it is: a plugin that needs what is newer says so by the release of lmtasks that
it requires.
"""
