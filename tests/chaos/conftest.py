"""The helpers of the end-to-end and the budgets' tests are ours too."""

from __future__ import annotations

import sys
from pathlib import Path

for _room in ("e2e", "budgets"):
    _folder = str(Path(__file__).parents[1] / _room)
    if _folder not in sys.path:
        sys.path.append(_folder)
