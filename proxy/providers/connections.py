"""Connections to one upstream, and one exchange over one of them.

aiohttp's client session costs three times its connector and its parser (57 against 19 µs of CPU a call), for
cookies, redirects and middlewares that a gate must not have. So this goes one floor below it: connections,
TLS, DNS and pooling are the connector's; what is written and read is ours. All of aiohttp that is used below
its documented surface is in this file and in `upstream_protocol`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, cast

import aiohttp
from aiohttp import ClientTimeout, TCPConnector
from aiohttp.client_reqrep import ClientRequest
from aiohttp.connector import Connection
from yarl import URL

from proxy.gateway.ports import UpstreamFailed
from proxy.providers.exchanges import KEEPALIVE_S, BegunExchange, Exchange, Idle, Lingering, failure_in_transit
from proxy.providers.upstream_protocol import UpstreamProtocol
from proxy.telemetry.failpoints import reach


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Deadlines of one upstream: to connect, to the first byte of the answer, and between two reads of it."""

    connect_s: float = 5.0
    first_byte_s: float = 600.0
    idle_s: float = 120.0


class Head(Protocol):
    """An answer's status and headers."""

    @property
    def code(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]: ...


class UpstreamConnections:
    """The connections to one upstream. `headers` are sent with every request, before the exchange's own.

    `base_url` may have a query, which then follows every path.
    """

    def __init__(self, base_url: str, headers: Mapping[str, str], timeouts: Timeouts) -> None:
        self._url = _checked(base_url)
        self._timeouts = timeouts
        self._connect_timeout = ClientTimeout(total=None, connect=timeouts.connect_s)
        self._fixed = _fixed_lines(self._url, headers)
        self._connector: TCPConnector | None = None
        self._target: ClientRequest | None = None
        self._idle = Idle()
        self._lingering: set[Lingering] = set()

    def head(self, method: str, path: str, query: str = "") -> bytes:
        """The request line for `path` (below the base URL, well-formed) and the fixed header lines."""
        queries = "&".join(each for each in (self._url.raw_query_string, query) if each)
        target = self._url.raw_path.rstrip("/") + path + (f"?{queries}" if queries else "")
        return f"{method} {target} HTTP/1.1\r\n".encode("ascii") + self._fixed

    async def send(self, head: bytes, body: bytes, headers: bytes = b"") -> tuple[Head, Exchange]:
        """Send and wait for the answer's head. `headers` are complete lines. Raises `UpstreamFailed`."""
        connection = self._idle.take() or await self._connect()
        try:
            protocol = cast(UpstreamProtocol, connection.protocol)
            asked = protocol.ask(
                b"%b%bcontent-length: %d\r\n\r\n%b" % (head, headers, len(body), body),
                self._timeouts.first_byte_s,
            )
            reach("request_sent")
            whole = await asked
            if whole is not None:
                self._idle.put(connection)
                return whole, whole
            answer, payload = await protocol.read()
            while 100 <= answer.code < 200 and answer.code != 101:
                answer, payload = await protocol.read()
        except asyncio.CancelledError:
            connection.close()
            raise
        except Exception as error:
            connection.close()
            raise failure_in_transit(error) from None
        return cast(Head, answer), BegunExchange(
            connection, payload, self._timeouts.idle_s, self._idle, self._lingering
        )

    async def _connect(self) -> Connection:
        if self._connector is None:
            self._connector = TCPConnector(limit=0, keepalive_timeout=KEEPALIVE_S)
            self._connector._factory = cast(Any, partial(UpstreamProtocol, asyncio.get_running_loop()))
            self._target = ClientRequest("POST", self._url, loop=asyncio.get_running_loop())
        assert self._target is not None
        try:
            return await self._connector.connect(self._target, [], self._connect_timeout)
        except TimeoutError:
            raise UpstreamFailed(
                "unsent", "upstream_connect_timeout", "The model's provider could not be reached in time."
            ) from None
        except (aiohttp.ClientError, OSError, ValueError):
            raise UpstreamFailed(
                "unsent", "upstream_unreachable", "The model's provider could not be reached."
            ) from None

    async def close(self) -> None:
        for each in list(self._lingering):
            each.give_up()
        self._idle.close()
        if self._connector is not None:
            await self._connector.close()
            self._connector = self._target = None


def _checked(url: str) -> URL:
    parsed = URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ValueError(f"{url!r} is no upstream address: it must begin with https:// or http:// and a host")
    if parsed.user or parsed.password:
        raise ValueError("an upstream address carries no user or password; the key goes into api_key_env")
    return parsed.with_fragment(None)


def _fixed_lines(url: URL, headers: Mapping[str, str]) -> bytes:
    host = url.raw_host or ""
    host = f"[{host}]" if ":" in host else host
    port = "" if url.is_default_port() else f":{url.port}"
    lines = [f"host: {host}{port}"]
    for name, value in headers.items():
        if not value.isascii() or not value.isprintable():
            raise ValueError(f"the {name} header for {url.host} would carry characters that no header may")
        lines.append(f"{name}: {value}")
    return "".join(f"{line}\r\n" for line in lines).encode("ascii")
