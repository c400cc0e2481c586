"""What the headers of a request say, checked."""

import time
from collections.abc import Iterable, Mapping
from typing import Final

from server import limits
from server.errors import Problem
from server.rules.ids import is_id, is_visible, uuid7

Headers = Mapping[bytes, bytes]

JSON: Final = b"application/json"
SINGLE: Final = {
    name.lower().encode(): name
    for name in (
        "Authorization", "X-API-Key", "X-Session-ID", "X-Agent-Name", "X-Workspace",
        "X-Origin-Kind", "X-Run-ID", "X-Claim-Token", "Idempotency-Key", "If-Match",
        "Last-Event-ID", "Content-Type", "Content-Encoding",
    )
}  # fmt: skip
ORIGIN_KINDS: Final = frozenset({"cli", "web", "http", "automation", "extension", "network"})


def refuse_repeated(sent: Iterable[tuple[bytes, bytes]]) -> None:
    """Refuses a header that stands twice, where each of the two would mean another request."""
    names = [name for name, _ in sent]
    for name in names:
        if name in SINGLE and names.count(name) > 1:
            raise Problem("invalid_query", f"{SINGLE[name]} stands twice.", parameter=SINGLE[name])


def request_id(headers: Headers) -> str:
    """The caller's X-Request-ID, or a new one where that is missing or unfit."""
    given = headers.get(b"x-request-id")
    if given is not None:
        text = given.decode("latin-1")
        if is_visible(text, limits.REQUEST_ID_LIMIT_CHARACTERS):
            return text
    return uuid7(time.time_ns() // 1_000_000)


def check_content(headers: Headers, limit_bytes: int) -> None:
    """Refuses a body that is no plain JSON, or says itself that it is too large."""
    kind = headers.get(b"content-type", JSON)
    if kind != JSON and kind.partition(b";")[0].strip().lower() != JSON:
        raise Problem("unsupported_media_type", content_type=kind.decode("latin-1"))
    coding = headers.get(b"content-encoding", b"identity").strip().lower()
    if coding != b"identity":
        message = "A request may not be compressed."
        raise Problem("unsupported_media_type", message, content_type=coding.decode("latin-1"))
    told = headers.get(b"content-length", b"0")
    if told.isdigit() and int(told) > limit_bytes:
        raise Problem("body_too_large", limit_bytes=limit_bytes)


def lost_body(headers: Headers) -> bool:
    """Whether a body was announced that the HTTP parser drops: it reads none behind an Upgrade."""
    told = headers.get(b"content-length", b"0") != b"0" or b"transfer-encoding" in headers
    return told and b"upgrade" in headers


def credential(headers: Headers) -> str | None:
    """The API key that the caller shows."""
    bearer = headers.get(b"authorization")
    shown = headers.get(b"x-api-key")
    if bearer is not None:
        scheme, _, text = bearer.partition(b" ")
        if scheme.lower() != b"bearer" or (shown is not None and shown.strip() != text.strip()):
            raise Problem("invalid_credentials")
        shown = text
    return shown.strip().decode("latin-1") if shown is not None else None


def agent_name(headers: Headers, role: str, own: str, needed: bool) -> str | None:
    """As which agent the caller acts; own is the name, or the prefix and `*`, of an agent's key."""
    raw = headers.get(b"x-agent-name")
    given = _name(raw) if raw is not None else None
    if role == "agent":
        prefix = own.endswith("*")
        if given is None and prefix:
            raise Problem("identity_required", header="X-Agent-Name")
        if given is not None and not (given.startswith(own[:-1]) if prefix else given == own):
            raise Problem("identity_mismatch", "The key does not speak for this agent name.")
        return given or own
    if given is not None and role == "viewer":
        raise Problem("identity_mismatch", "The key does not speak for any agent.")
    if given is None and needed:
        raise Problem("identity_required", header="X-Agent-Name")
    return given


def _name(raw: bytes) -> str:
    text = raw.decode(errors="replace").strip()
    short = 0 < len(text) <= limits.NAME_LIMIT_CHARACTERS
    if not short or not text.isprintable() or "\N{REPLACEMENT CHARACTER}" in text:
        raise unfit("X-Agent-Name")
    return text


def session_id(headers: Headers, needed: bool) -> str | None:
    """Which process of an agent calls."""
    raw = headers.get(b"x-session-id")
    if raw is None:
        if needed:
            raise Problem("identity_required", header="X-Session-ID")
        return None
    text = raw.decode("latin-1").strip()
    if not is_id(text):
        raise unfit("X-Session-ID")
    return text


def origin_kind(headers: Headers, agent: bool) -> str:
    """Through what the caller says it calls."""
    if agent:
        return "agent_session"
    kind = headers.get(b"x-origin-kind", b"http").decode("latin-1").strip().lower()
    if kind not in ORIGIN_KINDS:
        raise unfit("X-Origin-Kind")
    return kind


def idempotency_key(headers: Headers) -> str | None:
    """The key under which a call may be repeated."""
    raw = headers.get(b"idempotency-key")
    if raw is None:
        return None
    text = raw.decode("latin-1")
    if not is_visible(text, limits.IDEMPOTENCY_KEY_LIMIT_CHARACTERS):
        raise unfit("Idempotency-Key")
    return text


def if_match(headers: Headers) -> int | None:
    """The version that the caller wants to change; None for whatever there is."""
    text = headers.get(b"if-match", b"*").decode("latin-1").strip()
    if text == "*":
        return None
    number = text[1:-1]
    if text != f'"{number}"' or not number.isascii() or not number.isdecimal():
        raise unfit("If-Match")
    # No object has such a version, and the database has no such number.
    if len(number) > 10 or int(number) > limits.VERSION_LIMIT:
        raise unfit("If-Match")
    return int(number)


def last_event_id(headers: Headers) -> int | None:
    """The last sequence that a subscriber saw."""
    text = headers.get(b"last-event-id", b"").decode("latin-1").strip()
    if not text:
        return None
    if not (text.isascii() and text.isdecimal()) or len(text) > 18:
        raise unfit("Last-Event-ID")
    return int(text)


def guard(headers: Headers) -> tuple[str, str] | None:
    """The lease under which a call is made: run id and claim token."""
    run, token = headers.get(b"x-run-id"), headers.get(b"x-claim-token")
    if run is None and token is None:
        return None
    if run is None or token is None:
        missing = "X-Run-ID" if run is None else "X-Claim-Token"
        raise Problem("invalid_query", f"{missing} is missing.", parameter=missing)
    return run.decode("latin-1").strip(), token.decode("latin-1").strip()


def takes_gzip(headers: Headers) -> bool:
    """Whether the answer may be compressed."""
    for part in headers.get(b"accept-encoding", b"").lower().split(b","):
        coding, _, weight = part.partition(b";")
        if coding.strip() == b"gzip":
            return weight.replace(b" ", b"") not in (b"q=0", b"q=0.0", b"q=0.00", b"q=0.000")
    return False


def unfit(name: str) -> Problem:
    """What to say of a header whose value is not valid."""
    return Problem("invalid_query", f"{name} is not valid.", parameter=name)


def telling(headers: Headers, agent: bool) -> tuple[bytes | None, ...]:
    """All that decides who the caller is, but for what the query and the body say."""
    get = headers.get
    return (
        get(b"authorization"),
        get(b"x-session-id"),
        get(b"x-agent-name"),
        get(b"x-api-key"),
        get(b"x-workspace"),
        get(b"x-origin-kind"),
        b"agent" if agent else None,
    )
