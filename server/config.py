"""Settings of the server: read once from the environment, checked, frozen."""

import difflib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

DATA_DIR = Path("~/.worklease")
SECRET_BYTES = 32
ADMIN_KEY_CHARACTERS = range(24, 257)

# Read by agent_sdk and the CLI; a server started in the same shell has nothing to say about them.
CLIENT_VARIABLES = frozenset({"WORKLEASE_URL", "WORKLEASE_API_KEY", "WORKLEASE_AGENT_NAME"})
# Kubernetes sets these for every Service named worklease.
KUBERNETES_PREFIXES = ("WORKLEASE_SERVICE_", "WORKLEASE_PORT_")

Parse = Callable[[str], Any]


class ConfigError(ValueError):
    """A variable whose value the server cannot start with; the message names it."""


class Setting(NamedTuple):
    """One row of the settings table: the variable, its default as shown to people, its meaning."""

    variable: str
    default: str
    meaning: str


def _text(raw: str) -> str:
    return raw


def _whole(low: int, high: int) -> Parse:
    def parse(raw: str) -> int:
        if not raw.isdecimal() or not low <= int(raw) <= high:
            raise ValueError(f"must be a whole number between {low} and {high}")
        return int(raw)

    return parse


def _number(low: float, high: float) -> Parse:
    def parse(raw: str) -> float:
        with suppress(ValueError):
            if low <= float(raw) <= high:
                return float(raw)
        raise ValueError(f"must be a number between {low:g} and {high:g}")

    return parse


def _flag(raw: str) -> bool:
    word = raw.lower()
    if word in {"1", "true", "yes", "on"}:
        return True
    if word in {"0", "false", "no", "off"}:
        return False
    raise ValueError("must be true or false")


def _choice(*words: str) -> Parse:
    def parse(raw: str) -> str:
        if raw.lower() not in words:
            raise ValueError(f"must be one of {', '.join(words)}")
        return raw.lower()

    return parse


def _path(raw: str) -> Path:
    return Path(raw).expanduser().absolute()


def _url(raw: str) -> str:
    parts = urlsplit(raw)
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        raise ValueError("must be an http or https URL without query")
    return raw.rstrip("/")


def _secret(raw: str) -> bytes:
    value = raw.encode()
    if len(value) < SECRET_BYTES:
        raise ValueError(f"must be at least {SECRET_BYTES} bytes")
    return value


def _visible(raw: str) -> str:
    if not all("!" <= character <= "~" for character in raw):
        raise ValueError("must be visible ASCII characters only")
    return raw


def _admin_key(raw: str) -> str:
    if len(raw) not in ADMIN_KEY_CHARACTERS:
        raise ValueError("must be 24 to 256 characters")
    return _visible(raw)


def _origins(raw: str) -> tuple[str, ...]:
    origins = tuple(part.strip() for part in raw.split(",") if part.strip())
    for origin in origins:
        parts = urlsplit(origin)
        if f"{parts.scheme}://{parts.netloc}" != origin or parts.scheme not in {"http", "https"}:
            raise ValueError(f"{origin!r} is not an origin like https://example.com")
    return origins


def _networks(raw: str) -> tuple[IPv4Network | IPv6Network, ...]:
    return tuple(ip_network(part.strip()) for part in raw.split(",") if part.strip())


def _setting(
    parse: Parse, default: Any, meaning: str, shown: str = "", secret: bool = False
) -> Any:
    """A field of Config; `shown` is the default in the settings table where str() is not it."""
    about = {"parse": parse, "meaning": meaning, "shown": shown or str(default).lower()}
    return field(default=default, repr=not secret, metadata=about)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every setting of a server process; a field `x_y` is the variable WORKLEASE_X_Y."""

    database_url: str | None = _setting(
        _text, None, "PostgreSQL 15 or later; unset: an embedded one in the data directory",
        "unset", secret=True,
    )  # fmt: skip
    database_direct_url: str | None = _setting(
        _text, None, "a connection past PgBouncer, for LISTEN, prepared statements and migrations",
        "DATABASE_URL", secret=True,
    )  # fmt: skip
    data_dir: Path = _setting(_path, DATA_DIR, "admin key, agent key, secret, embedded database")
    host: str = _setting(_text, "127.0.0.1", "address to listen on")
    port: int = _setting(_whole(0, 65535), 8000, "port to listen on; 0: any free one")
    public_url: str = _setting(
        _url, "", "the server's address as others see it", "http, host and port"
    )
    workers: int = _setting(_whole(1, 256), 1, "server processes on this port")
    secret: bytes | None = _setting(
        _secret, None, "32 bytes or more; derives claim tokens; required with DATABASE_URL,"
        " equal on all servers", "made once", secret=True,
    )  # fmt: skip
    secret_previous: bytes | None = _setting(
        _secret, None, "the former secret, still accepted", "unset", secret=True
    )
    admin_key: str | None = _setting(
        _admin_key, None, "the first admin key, 24 to 256 characters", "made once", secret=True
    )
    migrate: bool = _setting(_flag, True, "bring the schema up to date at start")
    loops: bool = _setting(_flag, True, "run the loops here; false: another server must")
    pool_size: int = _setting(
        _whole(1, 1000),
        10,
        "pooled database connections per process; batchers and loops have 16 more, 6"
        " besides while a workspace is held up",
    )
    db_timeout_seconds: float = _setting(
        _number(0.1, 60), 5, "longest wait for a connection or a lock"
    )
    statement_timeout_seconds: float = _setting(_number(1, 3600), 30, "limit per statement")
    sweep_seconds: float = _setting(_number(0.1, 10), 1, "interval of the expiry loop")
    sweep_batch: int = _setting(_whole(1, 100_000), 1000, "runs per pass of the expiry loop")
    review_max_attempts: int = _setting(
        _whole(1, 100),
        3,
        "reviews of one run and round that come to nothing, until a person decides",
    )
    review_max_expiries: int = _setting(
        _whole(1, 100), 3, "lapsed leases of one review, until it is recorded as an error"
    )
    session_ttl_seconds: int = _setting(
        _whole(10, 604_800), 300, "a session unseen for longer counts as stopped"
    )
    rate_limit: float = _setting(
        _number(0, 1_000_000), 0, "requests per second and key; 0: no limit"
    )
    sse_buffer: int = _setting(_whole(1, 65_536), 256, "frames kept for a slow stream")
    sse_max_connections: int = _setting(_whole(0, 1_000_000), 5000, "streams per process")
    bridge_allow_cidrs: tuple[IPv4Network | IPv6Network, ...] = _setting(
        _networks, (), "networks that bridges may reach though they are not public, comma list",
        "unset",
    )  # fmt: skip
    bridge_allow_http: bool = _setting(_flag, False, "bridges may have http URLs")
    delivery_concurrency: int = _setting(_whole(1, 1000), 16, "parallel deliveries per process")
    batch_max: int = _setting(_whole(1, 10_000), 100, "requests in one hot-path batch")
    cors_origins: tuple[str, ...] = _setting(
        _origins, (), "origins a browser may call from, comma list", "unset"
    )
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...] = _setting(
        _networks, (), "networks whose X-Forwarded-For counts, comma list of CIDRs", "unset"
    )
    metrics_token: str | None = _setting(
        _visible, None, "Bearer token that /metrics then wants", "unset", secret=True
    )
    shutdown_seconds: int = _setting(_whole(0, 3600), 20, "drain of a process")
    log_level: str = _setting(
        _choice("debug", "info", "warning", "error"), "info", "debug, info, warning or error"
    )
    log_format: str = _setting(_choice("json", "text"), "json", "json or text")
    test_clock: bool = _setting(_flag, False, "lets tests move the clock; never in production")

    @classmethod
    def from_env(cls, environ: Mapping[str, str]) -> "Config":
        """Reads the settings; raises ConfigError at the first variable that is wrong."""
        given: dict[str, Any] = {"data_dir": _path(str(DATA_DIR))}
        for spec in fields(cls):
            name = variable(spec.name)
            # An empty variable is an unset one, as in every shell script and compose file.
            raw = environ.get(name, "").strip()
            if not raw or (name == "WORKLEASE_PORT" and raw.startswith("tcp://")):
                continue
            try:
                given[spec.name] = spec.metadata["parse"](raw)
            except ValueError as wrong:
                raise ConfigError(f"{name}: {wrong}") from None
        if given.get("database_url") and not given.get("secret"):
            raise ConfigError("WORKLEASE_SECRET: required with DATABASE_URL, equal on all servers")
        return cls(**given)

    @property
    def url(self) -> str:
        """Where the server is reached: WORKLEASE_PUBLIC_URL, else host and port."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return self.public_url or f"http://{host}:{self.port}"


def variable(name: str) -> str:
    """The environment variable of a field of Config."""
    return name.upper() if name.startswith("database_") else f"WORKLEASE_{name.upper()}"


SETTINGS = tuple(
    Setting(variable(spec.name), spec.metadata["shown"], spec.metadata["meaning"])
    for spec in fields(Config)
)


def unknown_variables(environ: Mapping[str, str]) -> list[tuple[str, str | None]]:
    """WORKLEASE_ names that mean nothing here, each with the setting probably meant."""
    known = {setting.variable for setting in SETTINGS} | CLIENT_VARIABLES
    strange = [
        name
        for name in sorted(environ)
        if name.startswith("WORKLEASE_")
        and name not in known
        and not name.startswith(KUBERNETES_PREFIXES)
    ]
    return [(name, next(iter(difflib.get_close_matches(name, known, 1)), None)) for name in strange]
