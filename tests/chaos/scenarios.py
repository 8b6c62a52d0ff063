"""Every row of the table by its name, in the table's order."""

from __future__ import annotations

import scenario_kills
import scenario_ledger
import scenario_races
import scenario_store
import scenario_streams
from chaos_table import Run

SCENARIOS: dict[str, Run] = {
    "racers": scenario_races.racers,
    "budgets": scenario_races.five_budgets,
    "failpoints": scenario_kills.failpoints,
    "kills": scenario_kills.at_random,
    "store-killed": scenario_store.killed,
    "flushed": scenario_store.flushed,
    "put-back": scenario_store.put_back,
    "failover": scenario_store.failed_over,
    "bad-line": scenario_store.bad_line,
    "duplicates": scenario_ledger.duplicates,
    "ledger-away": scenario_ledger.away,
    "disconnects": scenario_streams.disconnects,
    "usage-reports": scenario_streams.usage_reports,
    "garbage": scenario_streams.garbage_streams,
}
