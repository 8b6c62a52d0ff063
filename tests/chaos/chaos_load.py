"""Mixed load: plain calls, streams, streams that are left, and calls that fall back; each with a tag of its own.

The tag travels as the `user` of the request, so the upstream's own list of calls and the ledger's rows can be
matched one by one. What the client saw of each is kept: who saw a whole answer was promised a usage event.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from dataclasses import dataclass

import aiohttp
from chaos_gate import Place

from proxy.demo.scripts import Script

SERVED = "small-upstream"
REFUSING = "large-upstream"


@dataclass
class Asked:
    """One request and what its client saw. `status` 0: the connection broke."""

    tag: str
    status: int = 0
    whole: bool = False
    took_s: float = 0.0


class Load:
    """`async with Load(place, seed): ...` asks all the while; `asked` is what came of it."""

    def __init__(self, place: Place, seed: int, *, clients: int = 12, output_tokens: int = 50) -> None:
        self.place = place
        self.asked: list[Asked] = []
        self._seed = seed
        self._clients = clients
        self._output_tokens = output_tokens
        self._stop = asyncio.Event()

    @property
    def served(self) -> int:
        return sum(each.whole for each in self.asked)

    async def __aenter__(self) -> Load:
        upstream = self.place.upstream
        upstream.script(Script(model=REFUSING, times=0, status=500))
        upstream.script(Script(times=0, output_tokens=self._output_tokens, chunk_delay_s=0.01, head_delay_s=0.005))
        self._tasks = [asyncio.create_task(self._client(number)) for number in range(self._clients)]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._stop.set()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, Exception):
                raise result

    async def until(self, more: int, within_s: float = 30.0) -> None:
        """Waits for that many further whole answers."""
        wanted, loop = self.served + more, asyncio.get_running_loop()
        deadline = loop.time() + within_s
        while self.served < wanted and loop.time() < deadline:
            await asyncio.sleep(0.02)

    async def _client(self, number: int) -> None:
        dice = random.Random(f"{self._seed}-{number}")
        timeout = aiohttp.ClientTimeout(total=20)
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            # New connections now and then, so that every worker gets its share again after a kill.
            async with aiohttp.ClientSession(timeout=timeout) as session:
                for _ in range(dice.randint(1, 8)):
                    if self._stop.is_set():
                        return
                    asked = Asked(f"c{number}x{len(self.asked)}")
                    self.asked.append(asked)
                    began = loop.time()
                    with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                        await self._ask(session, dice, asked)
                    asked.took_s = loop.time() - began
                    if not asked.whole:
                        await asyncio.sleep(0.05)

    async def _ask(self, session: aiohttp.ClientSession, dice: random.Random, asked: Asked) -> None:
        kind = dice.choices(("plain", "stream", "left", "fallback"), (4, 4, 1, 1))[0]
        streamed = kind in ("stream", "left")
        body = {
            "model": "large" if kind == "fallback" else "small",
            "user": asked.tag,
            "stream": streamed,
            "max_tokens": dice.randint(3, self._output_tokens),
            "messages": [{"role": "user", "content": "word " * dice.randint(1, 30)}],
        }
        secret = self.place.secrets[dice.choice(sorted(self.place.secrets))]
        headers = {"authorization": f"Bearer {secret}"}
        url = f"{self.place.gate.url}/v1/chat/completions"
        async with session.post(url, json=body, headers=headers) as response:
            asked.status = response.status
            if kind == "left" and response.status == 200:
                await response.content.readany()
                response.close()
                return
            answer = await response.read()
            asked.whole = response.status == 200 and (not streamed or answer.endswith(b"data: [DONE]\n\n"))
            if not streamed and asked.whole:
                json.loads(answer)
