"""What goes back: answers, streams and errors."""

import asyncio
import gzip
from typing import Any, Final

from starlette.types import Receive, Scope, Send

from server import limits
from server.api.context import EventStream
from server.api.headers import Headers, takes_gzip
from server.contract.base import Encoded
from server.errors import Problem, envelope_bytes

NOTHING: Final[Encoded[None]] = Encoded(b"", status=204)
STREAM_HEADERS: Final = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
)
STREAM_BEGIN: Final = b"retry: 3000\n\n"


async def send_answer(
    answer: Encoded[Any], status: int, packs: bool, scope: Scope, headers: Headers,
    send: Send, request_id: str,
) -> None:  # fmt: skip
    """Sends an answer; packs: it may be compressed."""
    body = answer.body
    sent = [(b"x-request-id", request_id.encode())]
    if body:
        sent.append((b"content-type", answer.content_type))
    if answer.version is not None:
        sent.append((b"etag", b'"%d"' % answer.version))
    if answer.replayed:
        sent.append((b"idempotent-replayed", b"true"))
    if answer.headers:
        sent.extend(answer.headers)
    if packs and len(body) >= limits.GZIP_FROM_BYTES:
        sent.append((b"vary", b"accept-encoding"))
        if takes_gzip(headers):
            body = await asyncio.to_thread(gzip.compress, body, 1, mtime=0)
            sent.append((b"content-encoding", b"gzip"))
    if status != 204:
        sent.append((b"content-length", b"%d" % len(body)))
    if scope["method"] == "HEAD":
        body = b""
    await send({"type": "http.response.start", "status": status, "headers": sent})
    await send({"type": "http.response.body", "body": body})


async def send_stream(
    answer: EventStream, scope: Scope, receive: Receive, send: Send, request_id: str
) -> BaseException | None:
    """Sends frames until there are no more or the client leaves; what went wrong, if anything."""
    begin = [*STREAM_HEADERS, (b"x-request-id", request_id.encode())]
    outcome: object = None
    try:
        await send({"type": "http.response.start", "status": 200, "headers": begin})
        if scope["method"] != "HEAD":
            await send({"type": "http.response.body", "body": STREAM_BEGIN, "more_body": True})
            outcome = await _send_frames(answer, receive, send)
    finally:
        await answer.frames.aclose()
    # After the first byte there is no envelope: the client sees its stream end.
    await send({"type": "http.response.body", "body": b""})
    return outcome if isinstance(outcome, Exception) else None


async def _send_frames(answer: EventStream, receive: Receive, send: Send) -> object:
    async def frames() -> None:
        async for frame in answer.frames:
            await send({"type": "http.response.body", "body": frame, "more_body": True})

    async def left() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    sending, leaving = asyncio.ensure_future(frames()), asyncio.ensure_future(left())
    try:
        await asyncio.wait((sending, leaving), return_when=asyncio.FIRST_COMPLETED)
    finally:
        sending.cancel()
        leaving.cancel()
        outcome, _ = await asyncio.gather(sending, leaving, return_exceptions=True)
    return outcome


async def send_problem(problem: Problem, send: Send, request_id: str, public_url: str) -> None:
    """Sends the envelope of a problem."""
    body = envelope_bytes(problem, request_id, public_url)
    headers = [
        (b"x-request-id", request_id.encode()),
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
    ]
    if problem.retry_after_seconds is not None:
        headers.append((b"retry-after", b"%d" % problem.retry_after_seconds))
    if problem.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if problem.code == "method_not_allowed":
        headers.append((b"allow", ", ".join(problem.evidence["allowed"]).encode()))
    if problem.code in ("body_too_large", "malformed_json"):
        # What the client still sends, or what of it lies behind an Upgrade, is not read.
        headers.append((b"connection", b"close"))
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
