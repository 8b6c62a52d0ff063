"""The canned upstream in a process of its own: `python -m bench.upstream PORT CHUNKS INTERVAL_S`."""

from __future__ import annotations

import sys

import uvloop

from proxy.demo.canned_upstream import serve_canned

if __name__ == "__main__":
    port, chunks, interval_s = sys.argv[1:]
    uvloop.run(serve_canned("127.0.0.1", int(port), int(chunks), float(interval_s)))
