"""What a part of the proof is given, and what it tells."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple


class Bounds(NamedTuple):
    """How long and with what luck a part is tried; the same seed makes the same choices."""

    seed: int
    # Seconds that the part may take on two cores. A part that repeats itself ends in time.
    seconds: float
    # For what somebody wants to look at afterwards; exists, and is this part's own.
    directory: Path


@dataclass
class Told:
    """What a part tried, in numbers by name, and every breach of a promise that it found."""

    tried: dict[str, int | float | str] = field(default_factory=dict)
    # Each tells what was seen, what was due, and how to see it again.
    breaches: list[str] = field(default_factory=list)
    # Markdown for the report, under the numbers.
    page: str = ""


Part = Callable[[Bounds], Told]
