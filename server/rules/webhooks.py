"""Standard Webhooks: secrets, and the headers that prove a message to its receiver."""

import hmac
import secrets
from base64 import b64decode, b64encode
from collections.abc import Iterable
from email.utils import parsedate_to_datetime

PREFIX = "whsec_"


def new_signing_secret() -> str:
    """A new secret of a bridge, as its owner is shown it."""
    return PREFIX + b64encode(secrets.token_bytes(32)).decode()


def signed_headers(
    message_id: str, seconds: int, body: bytes, signing_secrets: Iterable[str]
) -> dict[str, str]:
    """The three headers of a message, signed under each secret."""
    told = b"%s.%d.%s" % (message_id.encode(), seconds, body)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(_signature(told, secret) for secret in signing_secrets),
    }


def _signature(told: bytes, secret: str) -> str:
    key = b64decode(secret.removeprefix(PREFIX))
    return "v1," + b64encode(hmac.digest(key, told, "sha256")).decode()


def retry_after_seconds(value: str | None, date: str | None) -> int | None:
    """How long a receiver asks to be left alone; its own clock counts, not ours."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdecimal():
        return min(int(value.strip()[:9]), 86_400)
    try:
        wanted = parsedate_to_datetime(value)
        return max(0, int((wanted - parsedate_to_datetime(date or "")).total_seconds()))
    except (ValueError, TypeError):
        return None
