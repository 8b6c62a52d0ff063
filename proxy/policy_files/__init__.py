"""What admins edit: `policies/models.toml` and `policies/plans/*.toml`.

In: a directory. Out: the domain's `Model` and `Plan`, whole, or every fault with file, line and what would be
right. Prices that a catalogue entry leaves out come from the pinned table. This room reads and watches files; it
knows no ledger, no Redis and no wire: who asks it decides what becomes of a policy.
"""

from proxy.policy_files.checking import check, remarks
from proxy.policy_files.overrides import read_overrides
from proxy.policy_files.reading import (
    PLANS_FOLDER,
    PolicyFaults,
    PolicyFiles,
    policies_dir,
    read_document,
    read_plan_files,
    read_policies,
    shipped_policies,
)
from proxy.policy_files.watching import watch
from proxy.policy_files.writing import ASIDE, plan_toml, put_aside, write_plan

__all__ = [
    "ASIDE",
    "PLANS_FOLDER",
    "PolicyFaults",
    "PolicyFiles",
    "check",
    "plan_toml",
    "policies_dir",
    "put_aside",
    "read_document",
    "read_overrides",
    "read_plan_files",
    "read_policies",
    "remarks",
    "shipped_policies",
    "watch",
    "write_plan",
]
