"""The keys: spelled in one place, and all of a shard in one slot."""

from __future__ import annotations

import binascii

from proxy.budgets import keys
from proxy.budgets.keys import ShardKeys


def test_the_keys_are_those_of_the_schema() -> None:
    """Operators, dumps and other versions know them by these names."""
    shard = ShardKeys(7)
    assert shard.shard == "faregate:{s7}:shard"
    assert shard.held == "faregate:{s7}:held"
    assert shard.leases == "faregate:{s7}:leases"
    assert shard.observed == "faregate:{s7}:observed"
    assert shard.events == "faregate:{s7}:events"
    assert shard.denials == "faregate:{s7}:denials"
    assert shard.customer("acme") == "faregate:{s7}:c:acme"
    assert shard.counter("acme:tokens") == "faregate:{s7}:b:acme:tokens"
    assert shard.rates("acme") == "faregate:{s7}:r:acme"
    assert shard.holding("acme") == "faregate:{s7}:h:acme"
    assert shard.done("req_1:1") == "faregate:{s7}:done:req_1:1"
    assert shard.response("acme", "resp_1") == "faregate:{s7}:response:acme/resp_1"
    assert shard.item("acme", "msg_1") == "faregate:{s7}:item:acme/msg_1"
    assert keys.INSTALL == "faregate:install"
    assert keys.DIRECTORY == "faregate:directory"
    assert keys.POLICY == "faregate:policy"
    assert keys.policy_document(4) == "faregate:policy:4"
    assert keys.secret("ab12") == "faregate:secret:ab12"
    assert keys.secret_field("sec_1") == "k:sec_1"


def test_whatever_a_customer_is_called_its_keys_lie_in_the_shards_slot() -> None:
    """A cluster hashes what stands in the first braces: a brace in an id must not move a key away."""
    shard = ShardKeys(3)
    for key in (shard.customer("{x}"), shard.counter("}{"), shard.done("{}"), shard.rates(""), shard.holding("}")):
        tag = key[key.index("{") + 1 : key.index("}")]
        assert binascii.crc_hqx(tag.encode(), 0) == binascii.crc_hqx(b"s3", 0)
