"""Sends bytes to a server, and judges what comes back: answered or hung up within a bound, never a
fault, and every refusal in the shape of the contract."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Final, NamedTuple

import httpx2
import msgspec

from server.contract.base import ErrorEnvelope

# A server that has answered nothing by then is taken to wait for more of the request.
ANSWER_SECONDS: Final = 3.0
# Further answers, where several requests were sent.
SEVERAL_SECONDS: Final = 0.1
# Told that nothing more comes, it must hang up.
HANG_SECONDS: Final = 20.0
LENGTH: Final = re.compile(rb"(?i)\r\ncontent-length: (\d+)\r\n")
KINDS: Final = frozenset({"application/json", "text/plain", "text/html", "text/event-stream"})


class Answer(NamedTuple):
    """One answer as it came."""

    status: int
    head: bytes
    body: bytes


async def say(url: str, raw: bytes, several: bool) -> list[Answer]:
    """The answers to these bytes on a connection of their own; none if the server hung up.

    Raises TimeoutError if it neither answers nor hangs up.
    """
    told = httpx2.URL(url)
    reader, writer = await asyncio.open_connection(told.host, told.port or 80)
    answers: list[Answer] = []
    try:
        writer.write(raw)
        with suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            await _listen(reader, raw.startswith(b"HEAD"), several, answers)
        if not answers and not reader.at_eof():
            with suppress(OSError):
                writer.write_eof()
                await asyncio.wait_for(reader.read(), HANG_SECONDS)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
    return answers


async def _listen(
    reader: asyncio.StreamReader, head_only: bool, several: bool, answers: list[Answer]
) -> None:
    seconds = ANSWER_SECONDS
    while several or not answers:
        try:
            answers.append(await asyncio.wait_for(_answer(reader, head_only), seconds))
        except TimeoutError:
            return
        seconds = SEVERAL_SECONDS


async def _answer(reader: asyncio.StreamReader, head_only: bool) -> Answer:
    """The next answer."""
    head = await reader.readuntil(b"\r\n\r\n")
    status = int(head.split(b" ", 2)[1])
    if status == 100:
        return await _answer(reader, head_only)
    found = LENGTH.search(head)
    if status == 204 or head_only:
        return Answer(status, head, b"")
    if found is None:
        # A stream: what it begins with is enough.
        return Answer(status, head, await reader.readuntil(b"\n\n"))
    return Answer(status, head, await reader.readexactly(int(found[1])))


def faults(answer: Answer, head_only: bool) -> Iterator[str]:
    """What is wrong with an answer, whatever was asked."""
    head = answer.head.decode("latin-1").lower()
    for name in ("date: ", "x-request-id: "):
        if f"\r\n{name}" not in head:
            yield f"the header {name} is missing"
    if answer.status >= 500:
        yield f"status {answer.status}: {answer.body[:300]!r}"
    kind = re.search(r"\r\ncontent-type: ([\w/-]+)", head)
    if answer.status != 204 and (kind is None or kind[1] not in KINDS):
        yield "it has no content type that is known"
    if answer.status < 400 or head_only:
        return
    try:
        told = msgspec.json.decode(answer.body, type=ErrorEnvelope)
    except msgspec.MsgspecError as error:
        yield f"the refusal is none of the contract's ({error}): {answer.body[:300]!r}"
        return
    request_id = re.search(r"\r\nx-request-id: (.*)\r\n", answer.head.decode("latin-1"), re.I)
    wanted = f"{told.diagnostic.code}.{request_id and request_id[1]}"
    if told.diagnostic.id != wanted or told.error != told.diagnostic.message:
        yield f"the refusal does not fit its headers: {answer.body[:300]!r}"
