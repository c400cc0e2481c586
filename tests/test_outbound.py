"""Calls to receivers: TLS for the name, to the address that was vetted, within bounds."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from server import limits
from server.net.outbound import Outbound, Posted

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


def _certificate(name: str, path: Path) -> Path:
    """A certificate for a name, signed by itself, with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(LONG_AGO)
        .not_valid_after(LONG_AGO + timedelta(days=36_500))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = serialization.PrivateFormat.PKCS8
    plain = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, form, plain)
    path.write_bytes(secret + made.public_bytes(serialization.Encoding.PEM))
    return path


@asynccontextmanager
async def _server(answer: bytes, certificate: Path | None = None) -> AsyncIterator[int]:
    """Something that answers every connection with these bytes; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        # Whoever has heard enough leaves.
        await reader.read()
        writer.close()

    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def _post(url: str) -> Posted:
    outbound = Outbound([ip_network("127.0.0.0/8"), ip_network("::1/128")], True, 2)
    posted = await outbound.post(url, {}, b"")
    await outbound.close()
    return posted


@pytest.mark.parametrize(("name", "status"), [("localhost", 204), ("other.example", None)])
async def test_tls_is_verified_for_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, status: int | None
) -> None:
    """Though the connection goes to an address, and that of another name is the same."""
    certificate = _certificate(name, tmp_path / "certificate.pem")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    async with _server(b"HTTP/1.1 204 No Content\r\n\r\n", certificate) as port:
        posted = await _post(f"https://localhost:{port}/")
    assert posted.http_status == status, posted.error
    assert status is not None or "ertificate" in (posted.error or "")


@pytest.mark.parametrize(
    "answer",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nx", b"nonsense\r\n\r\n"],
)
async def test_a_receiver_that_never_ends_is_left(
    monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    monkeypatch.setattr(limits, "DELIVERY_LIMIT_SECONDS", 0.2)
    async with _server(answer) as port:
        posted = await _post(f"http://127.0.0.1:{port}/")
    assert (posted.error is None) == answer.startswith(b"HTTP/1.1 200"), posted


async def test_a_flood_is_left_when_enough_is_read() -> None:
    async with _server(b"HTTP/1.1 500 No\r\n\r\n" + b"x" * 10_000_000) as port:
        posted = await _post(f"http://127.0.0.1:{port}/")
    assert posted.http_status == 500
    assert len(posted.error or "") == limits.DELIVERY_ERROR_LIMIT_BYTES
