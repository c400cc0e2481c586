"""Which addresses notifications may go to: pure rules."""

from ipaddress import ip_address, ip_network

import pytest

from server.rules.targets import TargetRefused, may_reach, parse_target
from server.rules.webhooks import retry_after_seconds

REFUSED = (
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1",
    "100.100.100.200", "168.63.129.16", "224.0.0.1", "255.255.255.255", "0.0.0.0", "192.0.2.1",
    "198.18.0.1", "198.51.100.1", "203.0.113.1", "192.0.0.192", "::", "::1", "fe80::1",
    "fd00:ec2::254", "ff02::1", "2001:db8::1", "::ffff:127.0.0.1", "::ffff:192.168.0.1",
    "::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::1", "2002:7f00:1::", "fec0::1",
)  # fmt: skip


@pytest.mark.parametrize("address", REFUSED)
def test_an_address_that_is_not_public_is_refused(address: str) -> None:
    assert not may_reach(ip_address(address), [])


@pytest.mark.parametrize("address", ["93.184.216.34", "2606:2800:220:1::1", "::ffff:93.184.216.34"])
def test_a_public_address_may_be_reached(address: str) -> None:
    assert may_reach(ip_address(address), [])


def test_networks_are_opened_by_name_and_no_further() -> None:
    allowed = [ip_network("10.1.0.0/16"), ip_network("fd00::/8")]
    assert may_reach(ip_address("10.1.2.3"), allowed)
    assert may_reach(ip_address("::ffff:10.1.2.3"), allowed)
    assert may_reach(ip_address("fd00::1"), allowed)
    assert not may_reach(ip_address("10.2.0.1"), allowed)


def test_plain_http_must_be_asked_for() -> None:
    assert parse_target("http://example.com", allow_http=True).port == 80
    with pytest.raises(TargetRefused, match="scheme"):
        parse_target("http://example.com", allow_http=False)
    told = parse_target("https://example.com:8443/a?b=c", allow_http=False)
    assert told == ("https", "example.com", 8443, "/a?b=c")


@pytest.mark.parametrize(
    ("value", "date", "wanted"),
    [
        ("7", None, 7), (None, None, None), ("soon", None, None), ("999999999999", None, 86400),
        ("Wed, 21 Oct 2026 07:28:30 GMT", "Wed, 21 Oct 2026 07:28:00 GMT", 30),
        ("Wed, 21 Oct 2026 07:28:30 GMT", None, None),
    ],
)  # fmt: skip
def test_retry_after_is_read_by_the_receivers_clock(
    value: str | None, date: str | None, wanted: int | None
) -> None:
    assert retry_after_seconds(value, date) == wanted
