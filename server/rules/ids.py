"""Identifiers: how new ones are made, and what any may look like."""

import random
import re
from typing import Final

ID_FORM: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}", re.ASCII)
VISIBLE_ASCII: Final = re.compile(r"[!-~]+", re.ASCII)


def uuid7(milliseconds: int) -> str:
    """A new UUIDv7 for that time, lower case; unique, but no secret."""
    number = (milliseconds & 0xFFFFFFFFFFFF) << 80 | random.getrandbits(80)
    number = number & ~(0xF << 76) | 0x7 << 76
    number = number & ~(0x3 << 62) | 0x2 << 62
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def new_id(prefix: str, milliseconds: int) -> str:
    """A new identifier of the kind that the prefix names."""
    return f"{prefix}_{uuid7(milliseconds)}"


def is_id(text: str) -> bool:
    """Whether any object may have this identifier."""
    return ID_FORM.fullmatch(text) is not None


def is_visible(text: str, limit_characters: int) -> bool:
    """Whether the text is visible ASCII and neither empty nor too long."""
    return len(text) <= limit_characters and VISIBLE_ASCII.fullmatch(text) is not None
