"""Where the server is and who is calling: arguments first, then the environment."""

import os
import re
from pathlib import Path
from uuid import uuid4

from msgspec import Struct

from agent_sdk.errors import ConfigError

DEFAULT_URL = "http://127.0.0.1:8000"
LOCAL_AGENT = "local"
_SESSION = re.compile(r"[A-Za-z0-9._:-]{1,128}")


class Settings(Struct, frozen=True, kw_only=True):
    """Everything that a connection needs to know; made by `load`."""

    url: str
    api_key: str
    agent_name: str | None
    session_id: str
    workspace: str | None

    def __repr__(self) -> str:
        return f"Settings(url={self.url!r}, session_id={self.session_id!r})"


def new_session() -> str:
    """A session id of its own: one running agent process, or one worker in it."""
    return f"ses_{uuid4()}"


def load(
    *,
    url: str | None = None,
    api_key: str | None = None,
    agent_name: str | None = None,
    session_id: str | None = None,
    workspace: str | None = None,
) -> Settings:
    """Fill what is not given from WORKLEASE_* and, for the key, from the local `agent.key`.

    The name of the environment belongs to the key of the environment: with `api_key` given it
    does not count.
    """
    if not api_key:
        agent_name = agent_name or os.environ.get("WORKLEASE_AGENT_NAME") or None
        api_key = os.environ.get("WORKLEASE_API_KEY")
    if not api_key:
        api_key = _local_key()
        agent_name = agent_name or LOCAL_AGENT
    if session_id is not None and not _SESSION.fullmatch(session_id):
        raise ConfigError("a session id is 1 to 128 characters of A-Z a-z 0-9 . _ : -")
    return Settings(
        url=(url or os.environ.get("WORKLEASE_URL") or DEFAULT_URL).rstrip("/"),
        api_key=api_key.strip(),
        agent_name=agent_name,
        session_id=session_id or new_session(),
        workspace=workspace,
    )


def _local_key() -> str:
    directory = os.environ.get("WORKLEASE_DATA_DIR") or "~/.worklease"
    path = Path(directory).expanduser() / "agent.key"
    try:
        return path.read_text("ascii")
    except FileNotFoundError:
        raise ConfigError(
            f"no key: set WORKLEASE_API_KEY, or start a server here, which writes {path}"
        ) from None
