"""Calls to receivers: to an address that was looked up and vetted, bounded in time and size."""

import asyncio
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from ipaddress import ip_address
from typing import Final, NamedTuple

import httpx2

from server import limits
from server.rules.targets import Network, Target, TargetRefused, may_reach, parse_target
from server.rules.webhooks import retry_after_seconds

USER_AGENT: Final = f"worklease/{version('worklease')}"
DENIED: Final = (429, 503)


class Posted(NamedTuple):
    """How a call went: without error it was answered 2xx."""

    http_status: int | None
    error: str | None
    duration_seconds: float
    retry_after_seconds: int | None = None


class Outbound:
    """Posts messages to the URLs of bridges."""

    def __init__(self, allowed: Sequence[Network], allow_http: bool, concurrency: int) -> None:
        self._allowed = allowed
        self._allow_http = allow_http
        # Of its own: names that resolve slowly hold up nobody else's threads.
        self._resolvers = ThreadPoolExecutor(concurrency, thread_name_prefix="resolve")
        # No connection is kept: another name with the same address must not find it.
        self._transport = httpx2.AsyncHTTPTransport(
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0)
        )

    async def close(self) -> None:
        """Ends what is open."""
        await self._transport.aclose()
        self._resolvers.shutdown(wait=False, cancel_futures=True)

    async def check(self, url: str) -> None:
        """Raises TargetRefused unless a bridge may have this URL; the name need not resolve."""
        target = parse_target(url, self._allow_http)
        try:
            async with asyncio.timeout(limits.DELIVERY_CONNECT_SECONDS):
                await self._address(target)
        except (OSError, UnicodeError):
            # Not known, or not within the time: it is looked up again at each attempt.
            return

    async def post(self, url: str, headers: dict[str, str], body: bytes) -> Posted:
        """Sends a message once; never raises for what a receiver may do."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(limits.DELIVERY_LIMIT_SECONDS):
                answer, text = await self._send(parse_target(url, self._allow_http), headers, body)
        except TargetRefused as refused:
            return Posted(None, str(refused), time.monotonic() - began)
        except TimeoutError:
            return Posted(None, "no answer in time", time.monotonic() - began)
        except (OSError, UnicodeError, httpx2.HTTPError, httpx2.InvalidURL) as failed:
            return Posted(
                None, _cut(f"{type(failed).__name__}: {failed}"), time.monotonic() - began
            )
        told = answer.headers
        wait = retry_after_seconds(told.get("Retry-After"), told.get("Date"))
        return Posted(
            answer.status_code,
            None if answer.is_success else _cut(f"HTTP {answer.status_code}: {text}".rstrip(": ")),
            time.monotonic() - began,
            wait if answer.status_code in DENIED else None,
        )

    async def _send(
        self, target: Target, headers: dict[str, str], body: bytes
    ) -> tuple[httpx2.Response, str]:
        async with asyncio.timeout(limits.DELIVERY_CONNECT_SECONDS):
            address = await self._address(target)
        literal = f"[{address}]" if ":" in address else address
        # The address that was vetted, under the name that was asked for: in Host and in TLS.
        request = httpx2.Request(
            "POST",
            f"{target.scheme}://{literal}:{target.port}{target.path}",
            headers={
                "Host": _authority(target),
                "Content-Type": "application/json",
                "User-Agent": USER_AGENT,
                "Accept-Encoding": "identity",
                **headers,
            },
            content=body,
            extensions={
                "sni_hostname": target.host,
                "timeout": {
                    "connect": limits.DELIVERY_CONNECT_SECONDS,
                    "read": limits.DELIVERY_LIMIT_SECONDS,
                    "write": limits.DELIVERY_LIMIT_SECONDS,
                    "pool": limits.DELIVERY_LIMIT_SECONDS,
                },
            },
        )
        answer = await self._transport.handle_async_request(request)
        try:
            return answer, await _text(answer)
        finally:
            await answer.aclose()

    async def _address(self, target: Target) -> str:
        """An address of the target, all of which may be reached; raises TargetRefused."""
        found = await asyncio.get_running_loop().run_in_executor(
            self._resolvers, _resolve, target.host, target.port
        )
        for address in found:
            if not may_reach(ip_address(address), self._allowed):
                raise TargetRefused("address")
        return found[0]


def _resolve(host: str, port: int) -> list[str]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(row[4][0]).partition("%")[0] for row in found]


def _authority(target: Target) -> str:
    host = f"[{target.host}]" if ":" in target.host else target.host
    usual = {"https": 443, "http": 80}[target.scheme]
    return host if target.port == usual else f"{host}:{target.port}"


async def _text(answer: httpx2.Response) -> str:
    """The beginning of an answer's body, for the log of attempts; a good one needs none."""
    read = bytearray()
    if not answer.is_success:
        async for part in answer.aiter_raw():
            read += part
            if len(read) >= limits.DELIVERY_ANSWER_LIMIT_BYTES:
                break
    return bytes(read[: limits.DELIVERY_ERROR_LIMIT_BYTES]).decode(errors="replace")


def _cut(text: str) -> str:
    cut = text.replace("\0", "")[: limits.DELIVERY_ERROR_LIMIT_BYTES].encode()
    return cut[: limits.DELIVERY_ERROR_LIMIT_BYTES].decode(errors="ignore")
