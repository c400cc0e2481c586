"""What the handlers work with; built once per process."""

from collections.abc import Callable
from dataclasses import dataclass

from server.api.claiming import Claiming
from server.api.holding import Holding
from server.api.hub import Hub
from server.api.identity import Identity
from server.api.reviewing import Reviewing
from server.api.settings import SettingsCache
from server.config import Config
from server.db.pool import Database
from server.net.outbound import Outbound
from server.rules.seals import Seal


@dataclass(slots=True)
class Services:
    """The parts that a handler may reach."""

    config: Config
    db: Database
    identity: Identity
    settings: SettingsCache
    claiming: Claiming
    holding: Holding
    reviewing: Reviewing
    hub: Hub
    # The way to the receivers of notifications, and how their secrets are kept.
    outbound: Outbound
    seal: Seal
    # Claim tokens are made with the first; the others are still known.
    secrets: tuple[bytes, ...]
    # The document of /openapi.json.
    openapi: bytes = b"{}"
    # How long ago a notification of our own came back; None before the first.
    notify_age_seconds: Callable[[], float | None] = lambda: None
    # Set when the process is told to end: long waits then end at once.
    draining: bool = False
