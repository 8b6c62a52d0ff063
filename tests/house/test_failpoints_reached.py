"""The proof of the guarantees kills processes at named points; a point that no code reaches proves nothing."""

from __future__ import annotations

import ast
from pathlib import Path

from proxy.telemetry.failpoints import POINTS

HOME = Path(__file__).parents[2]


def test_every_point_is_reached_by_the_code_and_every_reaching_is_a_point() -> None:
    """A renamed point would never strike, and its row of `make chaos` would wait for it in vain."""
    reached = set()
    for path in sorted((HOME / "proxy").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "reach":
                [point] = node.args
                assert isinstance(point, ast.Constant), f"{path}: a point is written out"
                reached.add(point.value)
    assert reached == set(POINTS)


def test_nothing_but_the_composition_root_arms_a_point() -> None:
    """What a client or an admin sends must never come near it."""
    arming = {
        path.relative_to(HOME).as_posix()
        for path in sorted((HOME / "proxy").rglob("*.py"))
        if "failpoints.arm" in path.read_text() or "import arm" in path.read_text()
    }
    assert arming == {"proxy/app/chaos.py"}
