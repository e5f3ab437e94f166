"""What a model card says of a model that nobody can know but its maker."""

from __future__ import annotations

import re
from collections.abc import Iterator

from lmtasks.config.settings import OutputSettings
from lmtasks.errors import InputError

_LANGUAGE = re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]{2,8})*|multilingual|code")
"""Codes of ISO 639, with what BCP 47 may add; and two words that the Hub has beside them."""

_LICENSE = re.compile(r"[a-z0-9][a-z0-9.+-]*")
"""The shape of the Hub's identifiers. Which there are changes, so an unknown one is for the Hub to refuse."""


def faults_of_card(output: OutputSettings) -> Iterator[InputError]:
    """Languages and licences of which the Hub could make nothing."""
    for language in output.language or ():
        if not _LANGUAGE.fullmatch(language):
            yield InputError(f"--language {language!r} is no code of a language", "such as --language en zh pt-BR")
    if output.license and not _LICENSE.fullmatch(output.license):
        likely = re.sub("[^a-z0-9.+]+", "-", output.license.lower()).strip("-") or "apache-2.0"
        yield InputError(f"--license {output.license!r} is no identifier of a licence", f"such as --license {likely}")
