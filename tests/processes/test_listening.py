"""Who may listen where, on real sockets."""

from __future__ import annotations

import socket

import pytest

from proxy.processes.listening import CannotListen, PortClaim, listen_alone, listen_shared

HOST = "127.0.0.1"


async def test_workers_share_a_claimed_port_and_nobody_else_gets_it() -> None:
    """Two gates of one user on one port would answer by turns; the claim is what forbids it."""
    claim = await PortClaim.take(HOST, 0)
    for host in (HOST, "0.0.0.0"):
        with pytest.raises(CannotListen, match=r"server\.port"):
            await PortClaim.take(host, claim.port, patience_s=0)
    workers = [listen_shared(HOST, claim.port) for _ in range(2)]
    with pytest.raises(CannotListen, match=rf"Port {claim.port} .*FAREGATE_SERVER__PORT"):
        await PortClaim.take(HOST, claim.port, patience_s=0)
    with pytest.raises(CannotListen, match=r"admin\.port"):
        listen_alone(HOST, claim.port, "admin")
    for worker in workers:
        worker.close()
    claim.release()


async def test_a_claim_takes_no_connections() -> None:
    """While workers start, a client must be refused at once, not left waiting in a queue nobody serves."""
    claim = await PortClaim.take(HOST, 0)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((HOST, claim.port), timeout=2)
    claim.release()


async def test_connections_left_over_do_not_refuse_the_port_to_the_next_start() -> None:
    """Draining workers hold connections for half a minute, and TIME_WAIT for a whole one."""
    claim = await PortClaim.take(HOST, 0)
    listener = listen_shared(HOST, claim.port)
    listener.setblocking(True)
    client = socket.create_connection((HOST, claim.port))
    carried, _ = listener.accept()
    listener.close()
    claim.release()
    for _ in range(2):  # first with the connection carried, then with it in TIME_WAIT
        again = await PortClaim.take(HOST, claim.port, patience_s=0)
        listen_shared(HOST, claim.port).close()
        again.release()
        carried.close()
        client.close()


async def test_a_claim_waits_a_moment_for_listeners_that_are_about_to_close(until: object) -> None:
    """Workers of a killed keeper close at once, yet a start in the same instant may be quicker."""
    import asyncio

    old = listen_alone(HOST, 0, "server")
    port = old.getsockname()[1]
    asyncio.get_running_loop().call_later(0.1, old.close)
    claim = await PortClaim.take(HOST, port)
    assert claim.port == port
    claim.release()


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1"])
async def test_an_address_of_no_interface_names_the_setting(host: str) -> None:
    with pytest.raises(CannotListen, match=r"server\.host"):
        await PortClaim.take(host, 0, patience_s=0)
