"""What may come over the control channel, and what may not."""

from __future__ import annotations

import socket

import pytest

from proxy.processes import channel as channel_module
from proxy.processes.channel import Channel, ChannelBroken


async def pair() -> tuple[Channel, Channel, socket.socket, socket.socket]:
    ours, theirs = socket.socketpair()
    return await Channel.over(ours), await Channel.over(theirs), ours, theirs


async def test_a_large_message_arrives_whole_and_the_end_is_none() -> None:
    """A configuration with many upstreams is larger than a pipe; the end is how a death is noticed."""
    one, other, *_ = await pair()
    one.send("configuration", {"text": "ü" * 500_000})
    received = await other.receive()
    assert received == {"type": "configuration", "text": "ü" * 500_000}
    one.close()
    assert await other.receive() is None
    other.send("drained")
    other.close()


async def test_figures_are_skipped_while_the_peer_does_not_read() -> None:
    """A keeper that hangs must cost its workers no memory."""
    one, other, *_ = await pair()
    sent = [one.send_if_read("metrics", {"snapshot": "x" * 100_000}) for _ in range(100)]
    assert sent[0] is True
    assert sent[-1] is False
    await one.flush(timeout_s=0.05)
    one.close()
    other.close()


@pytest.mark.parametrize("line", [b"not json\n", b"[]\n", b'{"type": 1}\n', b"x" * 300_000])
async def test_what_is_no_message_is_a_fault(line: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker gone wrong must not take the keeper with it, nor fill its memory."""
    monkeypatch.setattr(channel_module, "LINE_BYTES_MAX", 65_536)
    ours, theirs = socket.socketpair()
    one = await Channel.over(ours)
    other = await Channel.over(theirs)
    other._writer.write(line)
    with pytest.raises(ChannelBroken):
        await one.receive()
    one.close()
    other.close()


async def test_a_message_cut_off_by_a_death_is_the_end() -> None:
    one, other, *_ = await pair()
    other._writer.write(b'{"type": "met')
    other.close()
    assert await one.receive() is None
    one.close()
