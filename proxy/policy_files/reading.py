"""A directory of policies -> models and plans, whole, or every fault of every file; a JSON document -> a plan."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from proxy.domain.policy import Model, Plan
from proxy.policy_files.catalogue import read_catalogue
from proxy.policy_files.plans import read_plan
from proxy.policy_files.tables import Note, Table
from proxy.settings import Fault, Settings, TomlText, nearest, read_toml
from proxy.settings.toml_text import Place

MODELS_FILE = "models.toml"
PLANS_FOLDER = "plans"


@dataclass(frozen=True, slots=True)
class PolicyFiles:
    """What the files say. Plans have version 0: the ledger gives versions.

    `written_in` has the file of each plan; `ignored` the files of plans that somebody else owns.
    """

    models: dict[str, Model]
    plans: dict[str, Plan]
    written_in: dict[str, Path] = field(default_factory=dict)
    ignored: dict[str, Path] = field(default_factory=dict)


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


def read_policies(
    directory: Path, settings: Settings, owned_elsewhere: Collection[str] = (), known: Collection[str] = ()
) -> PolicyFiles:
    """The policy of a directory; raises `PolicyFaults` with every fault. Plan files may have any name.

    `owned_elsewhere` are plans that no file decides over: a file of one of them is ignored, and not even faulty.
    `known` are plans that may be there although no file has them.
    """
    faults: list[Fault] = []
    catalogue = _read(directory / MODELS_FILE, faults)
    models: dict[str, Model] = {}
    model_ids: list[str] | None = None
    if catalogue:
        models = read_catalogue(Table(catalogue.data, _noting(catalogue, faults)), settings)
        model_ids = _ids(catalogue)
    files = PolicyFiles(models, {})
    _read_plans(directory / PLANS_FOLDER, model_ids, owned_elsewhere, files, faults)
    if not owned_elsewhere and not known:
        faults += _no_plan(directory)
    if not faults:
        faults += _default_plan_faults([*files.plans, *owned_elsewhere, *known], settings)
    if faults:
        raise PolicyFaults(sorted(faults))
    return files


def read_plan_files(directory: Path) -> PolicyFiles:
    """The plans of a directory alone, for whom upstreams do not matter; raises `PolicyFaults`."""
    faults: list[Fault] = []
    text = read_toml(directory / MODELS_FILE, named(directory / MODELS_FILE))
    files = PolicyFiles({}, {})
    _read_plans(directory / PLANS_FOLDER, _ids(text) if isinstance(text, TomlText) else None, (), files, faults)
    faults += _no_plan(directory)
    if faults:
        raise PolicyFaults(sorted(faults))
    return files


def read_document(
    document: Mapping[str, Any], catalogue: Collection[str] | None
) -> tuple[Plan | None, list[tuple[Place, str]]]:
    """The plan that a JSON document describes, and every fault with its place: a plan counts only without any.

    It has the keys of a plan file; null is as good as absent. `catalogue` None: any model passes.
    """
    faults: list[tuple[Place, str]] = []
    plan = read_plan(Table(_given(document), lambda place, message: faults.append((place, message))), catalogue)
    return plan, faults


def policy_paths(directory: Path) -> list[Path]:
    """The files that make up a policy; what editors leave beside them (hidden files) is none of it."""
    plans = (path for path in (directory / PLANS_FOLDER).glob("*.toml") if not path.name.startswith("."))
    return [directory / MODELS_FILE, *sorted(plans)]


def _given(value: Any) -> Any:
    """Without the nulls, but in features, which are the seller's own."""
    if isinstance(value, Mapping):
        return {
            key: item if key == "features" else _given(item) for key, item in value.items() if item is not None
        }
    return [_given(item) for item in value] if isinstance(value, list) else value


def _noting(text: TomlText, faults: list[Fault]) -> Note:
    return lambda place, message: faults.append(Fault(text.file, text.line(place) or 1, message))


def _ids(catalogue: TomlText) -> list[str] | None:
    entries = catalogue.data.get("models")
    return list(entries) if isinstance(entries, dict) else None


def _no_plan(directory: Path) -> list[Fault]:
    if policy_paths(directory)[1:]:
        return []
    told = 'has no plan; a plan is a file such as starter.toml with id = "starter"'
    return [Fault(named(directory / PLANS_FOLDER), 0, told)]


def _read_plans(
    folder: Path,
    catalogue: list[str] | None,
    owned_elsewhere: Collection[str],
    files: PolicyFiles,
    faults: list[Fault],
) -> None:
    for path in policy_paths(folder.parent)[1:]:
        text = _read(path, faults)
        if text is None:
            continue
        its_faults: list[Fault] = []
        root = Table(text.data, _noting(text, its_faults))
        plan = read_plan(root, catalogue)
        if plan is not None and plan.id in owned_elsewhere:
            files.ignored[plan.id] = path
            continue
        if plan is not None and plan.id in files.plans:
            earlier = named(files.written_in[plan.id])
            root.fault(f'the plan "{plan.id}" is already written in {earlier}: give this one another id', "id")
        faults += its_faults
        if plan is not None:
            files.plans[plan.id], files.written_in[plan.id] = plan, path


def _default_plan_faults(plans: Collection[str], settings: Settings) -> list[Fault]:
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
