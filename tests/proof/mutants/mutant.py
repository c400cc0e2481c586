"""A deliberate break of the product, and how a copy of it is made."""

import shutil
from pathlib import Path
from typing import Final, NamedTuple

TOP: Final = Path(__file__).parents[3]
PARTS: Final = ("server", "schema.sql")


class Mutant(NamedTuple):
    """One break: what it means, which promise falls, who is to see it, and the text that changes.

    The old text stands in its file exactly once, so a mutant that the code has left behind is told
    of and not forgotten.
    """

    meaning: str
    promise: str
    check: str
    file: str
    old: str
    new: str


class StaleError(Exception):
    """A mutant does not fit the product any more."""


def broken(mutant: Mutant) -> str:
    """The text of its file with the break in it."""
    text = (TOP / mutant.file).read_text()
    found = text.count(mutant.old)
    if found != 1:
        raise StaleError(f"{mutant.meaning}: {mutant.file} has its text {found} times, not once")
    return text.replace(mutant.old, mutant.new)


def copy(mutant: Mutant | None, directory: Path) -> None:
    """Copies what a server is made of to this directory, with the break in it."""
    for part in PARTS:
        if (TOP / part).is_dir():
            leave = shutil.ignore_patterns("__pycache__")
            shutil.copytree(TOP / part, directory / part, ignore=leave)
        else:
            shutil.copy(TOP / part, directory / part)
    if mutant is not None:
        (directory / mutant.file).write_text(broken(mutant))
