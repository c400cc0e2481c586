"""Requests as bytes, and what may be wrong with them."""

import random
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import msgspec

from server.api.routes import ROUTES
from server.contract.base import Query


class Said(NamedTuple):
    """A request before it is bytes."""

    method: bytes
    path: bytes
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes

    def bytes(self) -> bytes:
        """As it goes over the wire."""
        lines = [b"%s %s HTTP/1.1" % (self.method, self.path)]
        lines += [b"%s: %s" % pair for pair in self.headers]
        named = {name.lower() for name, _ in self.headers}
        if self.body and not named & {b"content-length", b"transfer-encoding"}:
            lines.append(b"Content-Length: %d" % len(self.body))
        return b"\r\n".join([*lines, b"", self.body])


NASTY: Final = (
    b"", b" ", b"-1", b"0", b"1", b"3.0", b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b"%00",
    b"%ff%fe", b"%", b"%zz", b"\xff\xfe", b"\xc3\x28", b"\xed\xa0\x80", b"..", b"../..", b"*",
    b"'; select 1; --", b"${x}", b"%0d%0aX-A:%20b", b"2147483648", b"9223372036854775807",
    b"9223372036854775808", b"-9223372036854775809", b"9" * 400, b"a" * 300, b"a" * 9000,
    b"coord-", b"wlt_1_" + b"A" * 43, b"wl_x", b"2026-01-01T00:00:00Z",
    b"9999-12-31T23:59:59-23:59",
    b"0000-00-00T00:00:00Z", b"\xe2\x80\xae", b"\xf0\x9f\x92\xa9", b"a,b,,c", b",", b"\"7\"",
    b"task_0", b"run_0", b"ws_0", b"default", b"high", b"queued,running",
)  # fmt: skip
HEADERS: Final = (
    b"X-Session-ID", b"X-Agent-Name", b"X-Workspace", b"X-Origin-Kind", b"X-Run-ID",
    b"X-Claim-Token", b"Idempotency-Key", b"If-Match", b"Last-Event-ID", b"X-Request-ID",
    b"Content-Type", b"Content-Encoding", b"Accept-Encoding", b"Content-Length",
    b"Transfer-Encoding", b"Connection", b"Upgrade", b"Expect", b"Host", b"X-Forwarded-For",
    b"X-Forwarded-Proto", b"Authorization", b"X-API-Key", b"Range", b"Cookie", b"Te", b"Trailer",
)  # fmt: skip
VALUES: Final = (
    *NASTY, b"chunked", b"gzip, chunked", b"identity", b"gzip", b"close", b"keep-alive", b"upgrade",
    b"h2c", b"websocket", b"100-continue", b"application/json", b"application/json; charset=x",
    b"text/plain", b"5", b"+5", b"0x5", b"5, 5", b"127.0.0.1", b"::1, unknown", b"https",
    b"Bearer", b"Basic YTpi", b"agent_session", b"x" * 70_000,
)  # fmt: skip


def _parameters() -> tuple[bytes, ...]:
    """Every name that a query may have."""
    kinds = {value for route in ROUTES for value in route.handler.__annotations__.values()}
    found = {"workspace", "ticket", "colour"}
    for kind in kinds:
        if isinstance(kind, type) and issubclass(kind, Query):
            found |= {*kind.__struct_fields__}
    return tuple(sorted(name.encode() for name in found))


def _fields() -> tuple[str, ...]:
    """Every name that a body may have, but those for which a call would wait."""
    kinds = [route.handler.__annotations__.get("body") for route in ROUTES]
    found = {name for kind in kinds if kind is not None for name in kind.__struct_fields__}
    return tuple(sorted(found - {"wait", "wait_seconds", "timeout_seconds", "claim_next"}))


PARAMETERS: Final = _parameters()
FIELDS: Final = _fields()
# What a field may be given, as JSON.
JSON: Final = (
    b"null", b"true", b"0", b"-1", b"3.0", b"1e999", b"NaN", b"9" * 400, b"9223372036854775808",
    b"0.1e-400", b'""', b'" "', b'"\\u0000"', b'"\\ud800"', b'"\xff"', b'"\xe2\x80\xae"',
    b'"' + b"a" * 600 + b'"', b'"' + b"a" * 70_000 + b'"', b"[]", b"{}", b"[[]]",
    b"[" * 70 + b"]" * 70, b"[" * 20_000 + b"]" * 20_000, b'{"a":' * 500 + b"1" + b"}" * 500,
    b'{"a":1,"a":2}', b'{"claim_token":1}', b'["a","a"]', b"[null]", b'[{"ref":"a"}]',
    b'"task_0"', b'"2026-01-01T00:00:00+25:00"', b'"99999-01-01T00:00:00Z"', b"tru", b"'a'", b"1.",
    b"\xef\xbb\xbf{}", b"[1,2", b"{\"a\"}",
)  # fmt: skip

METHODS: Final = (
    b"HEAD", b"OPTIONS", b"TRACE", b"CONNECT", b"get", b"PUT", b"PATCH", b"DELETE", b"POST", b"GET",
    b"BREW", b"", b"M-SEARCH", b"PRI",
)  # fmt: skip

Spoil = Callable[[random.Random, Said], Said]


def _header(luck: random.Random, said: Said) -> Said:
    """A header more, or one with another value, or one twice."""
    own = list(said.headers)
    at = luck.randrange(len(own))
    pair = luck.choice(HEADERS), luck.choice(VALUES)
    match luck.randrange(5):
        case 0:
            own[at] = own[at][0], pair[1]
        case 1:
            own.insert(at, own[at])
        case 2:
            own.append((own[at][0].lower(), pair[1]))
        case 3:
            own[at] = own[at][0], _flipped(luck, own[at][1])
        case _:
            own.append(pair)
    return said._replace(headers=tuple(own))


def _query(luck: random.Random, said: Said) -> Said:
    pairs = [
        luck.choice(PARAMETERS) + luck.choice((b"=", b"=", b"=", b"")) + luck.choice(NASTY)
        for _ in range(luck.randint(1, 3))
    ]
    glue = b"&" if b"?" in said.path else b"?"
    return said._replace(path=said.path + glue + b"&".join(pairs))


def _path(luck: random.Random, said: Said) -> Said:
    """One part of the path is another, or more of it."""
    parts = said.path.split(b"/")
    at = luck.randrange(len(parts))
    told = luck.choice((luck.choice(NASTY), _flipped(luck, parts[at])))
    parts[at:at + luck.randint(0, 1)] = [told]  # fmt: skip
    return said._replace(path=b"/".join(parts))


def _method(luck: random.Random, said: Said) -> Said:
    return said._replace(method=luck.choice(METHODS))


def _field(luck: random.Random, said: Said) -> Said:
    """Some fields of the body are something else."""
    try:
        told: dict[str, Any] = msgspec.json.decode(said.body or b"{}", type=dict)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _bytes(luck, said)
    names = [*told, *FIELDS]
    members = {name: msgspec.json.encode(value) for name, value in told.items()}
    for _ in range(luck.randint(1, 3)):
        members[luck.choice(names)] = luck.choice(JSON)
    body = b",".join(b'"%s":%s' % (name.encode(), value) for name, value in members.items())
    return said._replace(body=b"{" + body + b"}")


def _bytes(luck: random.Random, said: Said) -> Said:
    """The body is cut, flipped or another."""
    body = luck.choice((
        said.body[: luck.randint(0, len(said.body))], _flipped(luck, said.body),
        luck.choice(JSON), luck.randbytes(luck.randint(1, 200)), said.body + luck.choice(JSON),
    ))  # fmt: skip
    return said._replace(body=body)


def _chunks(luck: random.Random, said: Said) -> Said:
    """The body comes in chunks, which may be wrong."""
    size = max(1, luck.randint(1, 64))
    parts = [said.body[at:at + size] for at in range(0, len(said.body), size)]  # fmt: skip
    sizes = [b"%x" % len(part) for part in parts]
    if parts and luck.random() < 0.5:
        wrong = (b"0", b"-1", b"zz", b"fffffffffffffffffff", b"1;a=" + b"b" * 500, b"0x5", b" 5 ")
        sizes[luck.randrange(len(sizes))] = luck.choice(wrong)
    end = luck.choice((b"0\r\n\r\n", b"0\r\n\r\n", b"0\r\nX-A: b\r\n\r\n", b"0\r\n", b"", b"0\n\n"))
    body = b"".join(b"%s\r\n%s\r\n" % pair for pair in zip(sizes, parts, strict=True)) + end
    kept = tuple(pair for pair in said.headers if pair[0].lower() != b"content-length")
    return said._replace(headers=(*kept, (b"Transfer-Encoding", b"chunked")), body=body)


def _flipped(luck: random.Random, raw: bytes) -> bytes:
    changed = bytearray(raw or b"a")
    for _ in range(luck.randint(1, 3)):
        changed[luck.randrange(len(changed))] = luck.randrange(256)
    return bytes(changed)


SPOILS: Final[tuple[Spoil, ...]] = (
    _header, _header, _header, _query, _query, _query, _path, _path, _method,
    _field, _field, _field, _field, _field, _field, _bytes, _bytes, _chunks,
)  # fmt: skip


def spoiled(luck: random.Random, said: Said) -> bytes:
    """The bytes of a request with something wrong in it; at times cut, or twice."""
    for _ in range(luck.choice((1, 1, 1, 2, 3))):
        said = luck.choice(SPOILS)(luck, said)
    raw = said.bytes()
    match luck.randrange(40):
        case 0:
            return raw[: luck.randint(1, len(raw))]
        case 1:
            return _flipped(luck, raw)
        case 2:
            return raw * luck.randint(2, 4)
        case 3:
            return raw.replace(b"\r\n", b"\n")
        case 4:
            return raw.replace(b"HTTP/1.1", luck.choice((b"HTTP/1.0", b"HTTP/2.0", b"HTTP/0.9")), 1)
    return raw
