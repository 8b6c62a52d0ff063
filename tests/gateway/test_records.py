"""What stays with a reservation must be whole when it is read again, perhaps by a later Faregate."""

from __future__ import annotations

import orjson

from proxy.domain.pricing import Price
from proxy.gateway.records import _price, _price_list

PRICE = Price(1, 2, 3, 4, 5, 6, 7, "v", 8, {"web_search": 9})


def test_a_price_comes_back_whole() -> None:
    """An attempt that nobody settled is charged by it."""
    assert None not in _price_list(PRICE)
    assert _price(orjson.loads(orjson.dumps(_price_list(PRICE)))) == PRICE


def test_a_price_that_an_older_faregate_wrote_lacks_what_came_later() -> None:
    assert _price([1, 2, 3, 4, 5, 6, 7, "v"]) == Price(1, 2, 3, 4, 5, 6, 7, "v")
