"""One call of one endpoint: signed, bounded in time, and trusting nothing that comes back."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable

import aiohttp

from proxy import __version__
from proxy.billing.alerts import Delivery, Outcome, WebhookEndpoint
from proxy.webhooks.addresses import AddressRefused, guarded_socket, url_fault
from proxy.webhooks.signing import signed_headers

READ_BYTES = 4096
HEARD_S = 1.0
SENT_AT_ONCE = 100


class Sender:
    """Calls endpoints. `open` once on a loop, `close` at the end."""

    def __init__(
        self,
        pepper: bytes,
        now_us: Callable[[], int],
        *,
        timeout_s: float,
        allow_private: bool,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._pepper, self._now_us = pepper, now_us
        self._timeout_s, self._allow_private, self._tls = timeout_s, allow_private, tls
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        connector = aiohttp.TCPConnector(
            limit=SENT_AT_ONCE,
            force_close=True,
            use_dns_cache=False,
            ssl=self._tls or True,
            socket_factory=guarded_socket(self._allow_private),
        )
        self._session = aiohttp.ClientSession(
            connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False, trust_env=False
        )

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    async def send(self, delivery: Delivery, endpoint: WebhookEndpoint) -> Outcome:
        """Makes one attempt; whatever goes wrong is an `Outcome`, in words that repeat nothing of the answer."""
        assert self._session is not None, "open() it first"
        if wrong := url_fault(endpoint.url, self._allow_private):
            # The setting may have been narrowed since the endpoint was made.
            return Outcome(None, f"not called: {wrong}")
        headers = {
            **signed_headers(self._pepper, endpoint, delivery.message_id, delivery.body, self._now_us()),
            "content-type": "application/json",
            "user-agent": f"Faregate/{__version__}",
            "accept-encoding": "identity",
        }
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                self._session.post(
                    endpoint.url,
                    data=delivery.body.encode(),
                    headers=headers,
                    allow_redirects=False,
                    timeout=aiohttp.ClientTimeout(total=None),
                ) as answer,
            ):
                await _hear_out(answer)
                return _outcome(answer.status)
        except TimeoutError:
            return Outcome(None, f"no answer within {self._timeout_s:g} s")
        except (aiohttp.ClientError, OSError, ValueError) as fault:
            return Outcome(None, _told(fault))


async def _hear_out(answer: aiohttp.ClientResponse) -> None:
    """Lets a well-behaved server finish its sentence. What it says is not kept, and its status stands already."""
    with contextlib.suppress(TimeoutError, aiohttp.ClientError, OSError):
        async with asyncio.timeout(HEARD_S):
            await answer.content.read(READ_BYTES)


def _outcome(status: int) -> Outcome:
    if 200 <= status < 300:
        return Outcome(status, None)
    if 300 <= status < 400:
        return Outcome(status, f"it answered {status}, a redirect, which is not followed: give the final URL")
    return Outcome(status, f"it answered {status}", gone=status == 410)


def _told(fault: BaseException) -> str:
    cause: BaseException | None = fault
    while cause is not None:
        if isinstance(cause, AddressRefused):
            return "not called: its address is not public; see webhooks.allow_private"
        if isinstance(cause, ssl.SSLCertVerificationError):
            return "its TLS certificate cannot be verified"
        cause = cause.__cause__ or cause.__context__
    if isinstance(fault, aiohttp.ClientConnectorDNSError):
        return "its host name cannot be resolved"
    if isinstance(fault, aiohttp.ClientSSLError):
        return "TLS failed"
    if isinstance(fault, aiohttp.ClientConnectorError):
        return "it cannot be connected to"
    if isinstance(fault, aiohttp.ServerDisconnectedError):
        return "it closed the connection without an answer"
    if isinstance(fault, aiohttp.ClientResponseError | aiohttp.ClientPayloadError):
        return "its answer is no HTTP"
    return f"the call failed ({type(fault).__name__})"
