"""Connections that notice when the other end is gone, where TCP alone would take hours."""

from psycopg.conninfo import make_conninfo

# A silent peer, or one that confirms nothing of what it is sent, is given up after 15 s.
SETTINGS = {
    "keepalives_idle": 5,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 15_000,
}


def steady(conninfo: str) -> str:
    """The way to the database, with these settings."""
    return make_conninfo(conninfo, **SETTINGS)
