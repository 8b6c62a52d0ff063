"""A directory of policies -> models and plans, whole, or every fault of every file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from proxy.domain.policy import Model, Plan
from proxy.policy_files.catalogue import read_catalogue
from proxy.policy_files.plans import read_plan
from proxy.policy_files.tables import Table
from proxy.settings import Fault, Settings, TomlText, nearest, read_toml

MODELS_FILE = "models.toml"
PLANS_FOLDER = "plans"


@dataclass(frozen=True, slots=True)
class PolicyFiles:
    """What the files say. Plans have version 0: the ledger gives versions."""

    models: dict[str, Model]
    plans: dict[str, Plan]


class PolicyFaults(Exception):
    """What is wrong with the policy files: at least one `Fault`."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = list(faults)


def policies_dir(settings: Settings) -> Path:
    """`policies.dir` if it is there or was written down, else the policies that ship with Faregate."""
    if settings.policies_given or settings.policies.dir.is_dir():
        return settings.policies.dir
    return shipped_policies() or settings.policies.dir


def shipped_policies() -> Path | None:
    """The policies that ship with Faregate: in the installed package, or beside it in a checkout."""
    proxy = Path(__file__).parent.parent
    places = (proxy / "default_policies", proxy.parent / "policies")
    return next((place for place in places if place.is_dir()), None)


def read_policies(directory: Path, settings: Settings) -> PolicyFiles:
    """The policy of a directory; raises `PolicyFaults` with every fault. Plan files may have any name."""
    faults: list[Fault] = []
    catalogue = _read(directory / MODELS_FILE, faults)
    models: dict[str, Model] = {}
    known: list[str] | None = None
    if catalogue:
        models = read_catalogue(Table(catalogue.data, catalogue, faults), settings)
        entries = catalogue.data.get("models")
        known = list(entries) if isinstance(entries, dict) else None
    plans = _plans(directory / PLANS_FOLDER, known, faults)
    faults += _default_plan_faults(plans, settings) if not faults else []
    if faults:
        raise PolicyFaults(sorted(faults))
    return PolicyFiles(models, plans)


def policy_paths(directory: Path) -> list[Path]:
    """The files that make up a policy; what editors leave beside them (hidden files) is none of it."""
    plans = (path for path in (directory / PLANS_FOLDER).glob("*.toml") if not path.name.startswith("."))
    return [directory / MODELS_FILE, *sorted(plans)]


def _plans(folder: Path, catalogue: list[str] | None, faults: list[Fault]) -> dict[str, Plan]:
    plans: dict[str, Plan] = {}
    written_in: dict[str, str] = {}
    paths = policy_paths(folder.parent)[1:]
    if not paths:
        faults.append(
            Fault(named(folder), 0, 'has no plan; a plan is a file such as starter.toml with id = "starter"')
        )
    for path in paths:
        text = _read(path, faults)
        root = Table(text.data, text, faults) if text else None
        plan = read_plan(root, catalogue) if root else None
        if root is None or plan is None:
            continue
        if plan.id in plans:
            root.fault(
                f'the plan "{plan.id}" is already written in {written_in[plan.id]}: give this one another id', "id"
            )
        plans[plan.id] = plan
        written_in[plan.id] = named(path)
    return plans


def _default_plan_faults(plans: dict[str, Plan], settings: Settings) -> list[Fault]:
    """Only a default that somebody wrote must exist: the one that ships need not be among one's own plans."""
    name = settings.policies.default_plan
    if name in plans or "default_plan" not in settings.policies.model_fields_set:
        return []
    text = read_toml(settings.file) if settings.file else None
    line = text.line(("policies", "default_plan")) if isinstance(text, TomlText) else 0
    file = str(settings.file) if settings.file else "settings"
    return [Fault(file, line, f'policies.default_plan names no plan: "{name}"{nearest(name, plans)}')]


def named(path: Path) -> str:
    """A path as a person would type it: from the working directory, if it is below."""
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _read(path: Path, faults: list[Fault]) -> TomlText | None:
    text = read_toml(path, named(path))
    if isinstance(text, Fault):
        faults.append(text)
        return None
    return text
