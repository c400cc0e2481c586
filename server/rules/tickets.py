"""Stream tickets: what stands for a caller where no header can be sent."""

import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Iterable
from typing import Final

import msgspec

PREFIX: Final = "wls_"


class Ticket(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    """Whom a ticket stands for, and until when (seconds since 1970)."""

    key_id: str
    workspace_id: str
    workspace_name: str
    agent_name: str | None
    session_id: str | None
    origin_kind: str
    expires_at: float


def seal_ticket(secret: bytes, ticket: Ticket) -> str:
    """The text of a ticket."""
    told = msgspec.json.encode(ticket)
    return f"{PREFIX}{_text(told)}.{_text(_proof(secret, told))}"


def open_ticket(text: str, secrets_in_use: Iterable[bytes]) -> Ticket | None:
    """The ticket, if a server with one of these secrets made it."""
    told_text, _, proof_text = text.removeprefix(PREFIX).partition(".")
    try:
        told, proof = _bytes(told_text), _bytes(proof_text)
    except ValueError:
        return None
    if not any(hmac.compare_digest(_proof(secret, told), proof) for secret in secrets_in_use):
        return None
    return msgspec.json.decode(told, type=Ticket)


def _proof(secret: bytes, told: bytes) -> bytes:
    # One NUL: no message of a claim token, which has two, is ever this one.
    return hmac.digest(secret, b"stream ticket\x00" + told, "sha256")


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()


def _bytes(text: str) -> bytes:
    return urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
