"""What an attempt used: the parts of its tokens, and the usage event that records it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

UsageSource = Literal["provider", "estimated", "none"]
Status = Literal["succeeded", "failed", "cancelled", "orphaned"]

# A provider that reports more tokens than this in one call is not believed (reservation.md, F27).
TOKENS_MAX = 1 << 40


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts of one attempt.

    `input_tokens` is all input, cache classes included, and equals the sum of its four disjoint parts;
    `output_tokens` is all output, and `reasoning_tokens` and `audio_output_tokens` are parts of it.
    `cache_write_1h_tokens` are those of the cache writes that stay for an hour, at a price of their own.
    `raw` is the provider's own object with nothing but its numbers. `disputed` says that the report
    contradicted itself, or was beyond belief, and that the sane part of it was taken. `calls` says how often the
    provider called the tools that it runs itself, by the plan's word for each ("web_search").
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0
    audio_input_tokens: int = 0
    reasoning_tokens: int = 0
    audio_output_tokens: int = 0
    cache_write_1h_tokens: int = 0
    source: UsageSource = "provider"
    disputed: bool = False
    raw: dict[str, Any] | None = field(default=None, compare=False)
    calls: Mapping[str, int] = field(default_factory=dict, hash=False)

    @property
    def uncached_input_tokens(self) -> int:
        return self.input_tokens - self.cache_read_tokens - self.cache_write_tokens - self.audio_input_tokens


NOTHING_USED = Usage(source="none")


def billable(status: Status, source: UsageSource, disputed: bool) -> bool:
    """DESIGN 5.6: provider and estimated usage of a succeeded or cancelled attempt; never a disputed one."""
    return not disputed and source != "none" and status in ("succeeded", "cancelled")
