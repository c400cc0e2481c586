"""Calls an ASGI application in this process, as a client would call a server."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx2

App = Callable[..., Awaitable[None]]


@asynccontextmanager
async def client_of(app: App, **headers: str) -> AsyncIterator[httpx2.AsyncClient]:
    """A client whose every request carries these headers."""
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(
        transport=transport, base_url="http://worklease.test", headers=headers
    ) as client:
        yield client


def code_of(answer: httpx2.Response) -> str:
    """The code of an error; fails if the answer is none."""
    told: dict[str, Any] = answer.json()
    assert set(told) == {"error", "diagnostic"}
    assert told["error"] == told["diagnostic"]["message"]
    assert (
        told["diagnostic"]["id"] == f"{told['diagnostic']['code']}.{answer.headers['x-request-id']}"
    )
    return f"{answer.status_code} {told['diagnostic']['code']}"


def evidence_of(answer: httpx2.Response) -> dict[str, Any]:
    """The evidence of an error."""
    evidence: dict[str, Any] = answer.json()["diagnostic"]["evidence"]
    return evidence
