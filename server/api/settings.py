"""The settings of workspaces, as this process knows them: at most 5 s old."""

import time
from typing import Any

import msgspec

from server import limits
from server.db.pool import Database
from server.store.workspaces import read_settings


class SettingsCache:
    """What each workspace is set to."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._known: dict[str, tuple[dict[str, Any], float]] = {}

    async def of(self, workspace_id: str, name: str) -> int:
        """One setting of a workspace."""
        known = self._known.get(workspace_id)
        now = time.monotonic()
        if known is None or known[1] < now:
            told = msgspec.json.decode(await read_settings(self._db, workspace_id))
            known = self._known[workspace_id] = (told, now + limits.KEY_CACHE_SECONDS)
        value: int = known[0][name]
        return value
