"""The only room that calls the seller's own servers: webhooks, signed by Standard Webhooks and sent with care.

In: deliveries that are due, from a queue that it does not know. Out: what became of each. `signing.py` makes
secrets and signatures, `addresses.py` says who may be called, `sending.py` makes one call, `courier.py` is the
loop.
"""
