from __future__ import annotations

import ipaddress
import socket

import pytest

from proxy.webhooks.addresses import AddressRefused, guarded_socket, is_public, url_fault


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.0.0.1", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
        "224.0.0.1", "255.255.255.255", "198.18.0.1", "::1", "::", "fe80::1", "fd00:ec2::254", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2001:db8::1",
    ],
)  # fmt: skip
def test_addresses_inside_are_not_public_in_whatever_clothes(address: str) -> None:
    """The metadata service of a cloud gives its keys to whoever asks from inside."""
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("https://example.com/hooks?tenant=1", None),
        ("https://8.8.8.8:8443/", None),
        ("https://[2606:4700::1111]/", None),
        ("http://example.com", "https://"),
        ("ftp://example.com", "https://"),
        ("example.com/hooks", "https://"),
        ("https://", "no host"),
        ("https://example.com:99999", "no URL"),
        ("https://[::1", "no URL"),
        ("https://user:word@example.com", "password"),
        ("https://example.com/#part", "fragment"),
        ("https://127.0.0.1/", "no public address"),
        ("https://[::ffff:127.0.0.1]/", "no public address"),
        ("https://localhost/", "inside your own network"),
        ("https://metadata.google.internal/", "inside your own network"),
    ],
)
def test_a_url_that_may_not_be_called_is_refused_with_the_reason(url: str, fault: str | None) -> None:
    """Where it is written down, not at the first alert."""
    found = url_fault(url, allow_private=False)
    assert found is None if fault is None else fault in str(found)


@pytest.mark.parametrize("url", ["http://127.0.0.1:9000/", "http://receiver.internal/", "https://[::1]/"])
def test_the_setting_allows_what_is_inside(url: str) -> None:
    assert url_fault(url, allow_private=True) is None
    assert "password" in str(url_fault(url.replace("://", "://user:word@"), allow_private=True))


def test_the_very_address_of_a_connection_is_looked_at() -> None:
    """A name may be answered with a public address first, and with an inner one when it is connected to."""
    inside = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", 443))
    with pytest.raises(AddressRefused):
        guarded_socket(allow_private=False)(inside)
    guarded_socket(allow_private=True)(inside).close()
    scoped = (socket.AF_INET6, socket.SOCK_STREAM, 0, "", ("fe80::1%eth0", 443, 0, 0))
    with pytest.raises(AddressRefused):
        guarded_socket(allow_private=False)(scoped)
