"""Money in two integer units, so that nothing is ever rounded by accident.

Prices are *picodollars per token* (1e-12 USD): "0.15" USD per million tokens is 0.15 microdollars a
token, hence 150,000 picodollars. Budgets are counted in *microdollars* (1e-6 USD), which stay exact in a
Lua number up to nine billion dollars. A cost is exact in picodollars and rounded up once, when it is
charged to a budget; the ledger keeps the exact decimal.
"""

from __future__ import annotations

from decimal import Context, Decimal, InvalidOperation

PICO_PER_MICRO = 1_000_000
PICO_PER_USD = 1_000_000_000_000
MICRO_PER_USD = 1_000_000

# Decimal rounds to 28 digits unless told otherwise, and an amount must not depend on who asked before.
EXACT = Context(prec=200)

# Ten to the power of this is beyond any amount, and before any overflow.
LARGEST_ADJUSTED = 30


def pico_per_token(usd_per_million_tokens: str) -> int:
    """The price of one token in picodollars; ValueError if it is no non-negative, exact decimal."""
    return _exact(usd_per_million_tokens, PICO_PER_MICRO, "USD per million tokens")


def pico_per_unit(usd: str) -> int:
    """The price of one request (or other unit) in picodollars; ValueError as above."""
    return _exact(usd, PICO_PER_USD, "USD")


def microusd(usd: str | int) -> int:
    """A budget's limit in microdollars; ValueError if it is finer than a microdollar or negative."""
    return _exact(str(usd), MICRO_PER_USD, "USD")


def microusd_charged(pico: int) -> int:
    """What a budget is charged for an exact cost: rounded up, so that a budget never pays for less."""
    return -(-pico // PICO_PER_MICRO)


def usd_text(pico: int) -> str:
    """An exact cost as the decimal string of the ledger and of JSON: "0.00001725", never an exponent."""
    sign, rest = ("-", -pico) if pico < 0 else ("", pico)
    whole, fraction = divmod(rest, PICO_PER_USD)
    return f"{sign}{whole}.{fraction:012d}".rstrip("0").rstrip(".") or "0"


def pico_of(usd: str | Decimal) -> int:
    """The exact picodollars of a decimal string that `usd_text` wrote, however long it is."""
    return int(EXACT.scaleb(Decimal(usd), 12))


def _exact(text: str, scale: int, unit: str) -> int:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise ValueError(f"{text!r} is no decimal number of {unit}") from None
    if not value.is_finite() or value < 0:
        raise ValueError(f"{text!r} is no amount of {unit}: it must be zero or more")
    if value.adjusted() > LARGEST_ADJUSTED:
        raise ValueError(f"{text[:20]!r} is more {unit} than there is")
    scaled = EXACT.multiply(value, scale)
    if scaled != scaled.to_integral_value():
        raise ValueError(f"{text!r} {unit} is finer than Faregate counts (1/{scale} of it)")
    return int(scaled)
