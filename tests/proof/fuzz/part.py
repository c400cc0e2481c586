"""No request makes the server fail, hang or grow: calls from openapi.yaml, and spoiled bytes."""

from typing import Final

from tests.proof.fuzz import byte_level, document
from tests.proof.ground import database, world_on
from tests.proof.part import Bounds, Told

# So much of the time goes to calls from the document, which are the slower ones.
DOCUMENT_SHARE: Final = 0.45
# More than there is time for; the document's calls leave time for more bytes.
DOCUMENT_CALLS: Final = 6_000
BYTE_REQUESTS: Final = 60_000


def prove(bounds: Bounds) -> Told:
    """Both kinds, one after the other."""
    settings = {"WORKLEASE_TRUSTED_PROXIES": "127.0.0.1/32"}
    with database() as conninfo, world_on(conninfo, bounds.directory, **settings) as world:
        of_document = bounds.seconds * DOCUMENT_SHARE
        calls = document.fuzz(world, bounds.seed, DOCUMENT_CALLS, of_document)
        left = bounds.seconds - of_document
        raw = byte_level.fuzz(world, bounds.seed, BYTE_REQUESTS, left)
    return Told(calls.tried | raw.tried, calls.breaches + raw.breaches)
