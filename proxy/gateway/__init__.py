"""The hot path: one request's way through the house, told in `journey.py`.

In: a `Call` (a client's request and the way back to it). Out: an answer, a reservation settled, a usage
event. What lies beyond (Redis, upstreams, the network) is behind the protocols of `ports.py`.
"""
