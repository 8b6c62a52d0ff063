"""Speaks to the gate as everybody else does: an admin over the admin API, an agent over the data plane."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import aiohttp
import orjson

from proxy.demo.stage import DemoFault

ANSWER_S = 15.0
WAIT_S = 10.0
LOOK_S = 0.02

Found = TypeVar("Found")


class Visitor:
    """A client of one gate, while it is entered. Raises `DemoFault` where the tour cannot go on with an answer."""

    def __init__(self, url: str, admin_url: str, admin_token: str) -> None:
        self._url, self._admin_url, self._admin_token = url, admin_url, admin_token
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Visitor:
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_S))
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session is not None:
            await self._session.close()

    async def admin(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
        url = f"{self._admin_url}/admin/v1{path}"
        status, _, answer = await self._ask(method, url, self._admin_token, body)
        if status >= 300:
            raise DemoFault(f"The admin API refused {method} {path}: {told(status, answer)}")
        return answer

    async def chat(self, secret: str, body: Mapping[str, Any]) -> tuple[int, Mapping[str, str], Any]:
        """Status, headers and body of a plain call, whatever they are."""
        return await self._ask("POST", f"{self._url}/v1/chat/completions", secret, body)

    async def stream(self, secret: str, body: Mapping[str, Any]) -> AsyncIterator[str]:
        """The pieces of an answer's text as they come."""
        assert self._session is not None
        url = f"{self._url}/v1/chat/completions"
        async with self._session.post(url, headers=_bearer(secret), json={**body, "stream": True}) as response:
            if response.status != 200:
                raise DemoFault(f"The stream was refused: {told(response.status, await _read(response))}")
            async for line in response.content:
                data = line.removeprefix(b"data: ").strip()
                if data and data != b"[DONE]":
                    for choice in orjson.loads(data).get("choices", ()):
                        yield choice["delta"].get("content") or ""

    async def usage_events(self, count: int) -> list[Any]:
        """The first `count` usage events, oldest first; the ledger has them a moment after the answer."""

        async def look() -> list[Any] | None:
            events = (await self.admin("GET", "/usage-events"))["data"]
            return sorted(events, key=lambda event: event["id"]) if len(events) >= count else None

        return await _until(look, f"The ledger had not taken {count} usage events")

    async def limit_is_live(self, customer_id: str, limit: int) -> None:
        """Waits until the customer's one budget has this limit, as the gate itself sees it."""

        async def look() -> bool | None:
            left = await self.admin("GET", f"/customers/{customer_id}/entitlements")
            return left["budgets"][0]["limit"] == limit or None

        await _until(look, f"The edited plan file (limit = {limit}) was not live")

    async def _ask(
        self, method: str, url: str, token: str, body: Mapping[str, Any] | None
    ) -> tuple[int, Mapping[str, str], Any]:
        assert self._session is not None
        async with self._session.request(method, url, headers=_bearer(token), json=body) as response:
            return response.status, response.headers, await _read(response)


def told(status: int, answer: Any) -> str:
    """An error for people: the message, and the status it came with."""
    message = answer.get("error", {}).get("message") if isinstance(answer, dict) else None
    return f"{message or 'no reason was given'} (status {status})"


def _bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def _read(response: aiohttp.ClientResponse) -> Any:
    body = await response.read()
    return orjson.loads(body) if body else None


async def _until(look: Callable[[], Awaitable[Found | None]], not_yet: str) -> Found:
    try:
        async with asyncio.timeout(WAIT_S):
            while True:
                found = await look()
                if found is not None:
                    return found
                await asyncio.sleep(LOOK_S)
    except TimeoutError:
        raise DemoFault(f"{not_yet} after {WAIT_S:g} s.") from None
