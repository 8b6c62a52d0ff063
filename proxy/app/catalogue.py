"""The data plane's small questions, which models and which entitlements: always afresh, since no script checks."""

from __future__ import annotations

from typing import Any

from proxy.domain.attribution import read_attribution
from proxy.domain.refusals import Refused
from proxy.gateway.entitlements import entitlements, models
from proxy.gateway.house import House
from proxy.gateway.identify import UNAVAILABLE, freshly_identify
from proxy.gateway.ports import Balances, Call, StoreAway


class WorkerCatalogue:
    """Implements the data plane's `Catalogue`."""

    def __init__(self, house: House, balances: Balances) -> None:
        self._house = house
        self._balances = balances

    async def models(self, call: Call) -> list[dict[str, Any]]:
        return models(await freshly_identify(call.secret, self._house))

    async def entitlements(self, call: Call) -> dict[str, Any]:
        standing = await freshly_identify(call.secret, self._house)
        try:
            user_id = read_attribution({}, call.headers, self._house.digest_user).user_id
            return await entitlements(standing, self._balances, self._house.clock.store_now_us(), user_id)
        except StoreAway:
            raise Refused(UNAVAILABLE) from None
