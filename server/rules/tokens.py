"""Secrets that callers show: claim tokens, which prove a lease, and API keys."""

import hashlib
import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from typing import Final, NamedTuple

TOKEN_FORM: Final = re.compile(r"wlt_(0|[1-9][0-9]{0,18})_([A-Za-z0-9_-]{43})", re.ASCII)
# What the database counts fences in; a form with more digits is longer than any token.
FENCE_LIMIT: Final = 2**63 - 1
KEY_PREFIX_CHARACTERS: Final = 15


class TokenParts(NamedTuple):
    """What a claim token says about itself."""

    fence: int
    proof: str


def claim_token(secret: bytes, workspace_id: str, run_id: str, fence: int) -> str:
    """The token of the claim of a run with this fence."""
    # Identifiers hold no NUL, so no two different triples make the same message.
    message = b"\x00".join((workspace_id.encode(), run_id.encode(), str(fence).encode()))
    digest = hmac.digest(secret, message, "sha256")
    return f"wlt_{fence}_{urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def parse_claim_token(text: str) -> TokenParts | None:
    """The parts of a claim token; None if the text has not its form."""
    match = TOKEN_FORM.fullmatch(text)
    if match is None or int(match[1]) > FENCE_LIMIT:
        return None
    return TokenParts(int(match[1]), match[2])


def made_here(text: str, secrets_in_use: Iterable[bytes], workspace_id: str, run_id: str) -> bool:
    """Whether a server with one of these secrets made the token for this run."""
    parts = parse_claim_token(text)
    if parts is None:
        return False
    shown = text.encode()
    return any(
        hmac.compare_digest(claim_token(secret, workspace_id, run_id, parts.fence).encode(), shown)
        for secret in secrets_in_use
    )


def token_hash(text: str) -> str:
    """What of a claim token is stored and shown."""
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()


def new_api_key(key_id: str) -> str:
    """The whole text of a new API key."""
    return f"wl_{key_id}_{secrets.token_urlsafe(32)}"


def api_key_hash(text: str) -> bytes:
    """What of an API key is stored."""
    return hashlib.sha256(text.encode()).digest()


def api_key_prefix(text: str) -> str:
    """What of an API key may be shown."""
    return text[:KEY_PREFIX_CHARACTERS]
