"""Secrets that the server must be able to read again: encrypted while they are stored."""

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from typing import Final

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

PURPOSE: Final = b"worklease bridge secrets"


class Seal:
    """Encrypts with a key derived from the first secret; reads what any of them encrypted."""

    def __init__(self, secrets_in_use: Iterable[bytes]) -> None:
        fernets = [Fernet(_key(secret)) for secret in secrets_in_use]
        self._newest = fernets[0]
        self._all = MultiFernet(fernets)

    def close(self, text: str) -> str:
        """The text, encrypted."""
        return self._newest.encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str | None:
        """The text again; None if it was encrypted under a secret that is no longer known."""
        try:
            return self._all.decrypt(sealed).decode()
        except InvalidToken:
            return None

    def renewed(self, sealed: str) -> str | None:
        """The same text under the newest secret; None if it is that already, or unreadable."""
        try:
            self._newest.decrypt(sealed)
        except InvalidToken:
            text = self.open(sealed)
            return None if text is None else self.close(text)
        return None


def _key(secret: bytes) -> bytes:
    return urlsafe_b64encode(hmac.digest(secret, PURPOSE, "sha256"))
