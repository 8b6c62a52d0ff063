"""What is sent of plans, and what is answered. The keys of a plan are those of its file; the reader of plan files
checks them, so that a plan is never right in one place and wrong in the other."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StringConstraints

from proxy.domain.policy import Budget, DenialTexts, Plan, RateLimits
from proxy.domain.written_plans import written_plan
from proxy.web.admin.answers import Record
from proxy.web.admin.bodies import Body
from proxy.web.admin.values import Instant, Text

Message = Annotated[Text, StringConstraints(max_length=500)]
VERSIONS_MAX = 2**31 - 1


def _schema(schema: dict[str, Any]) -> None:
    """The keys of a plan, with the kinds of value that they take: what a file may say, and no more."""
    example = written_plan(
        Plan("", "", 0, budgets=(Budget("", "", 0),), rate_limits=RateLimits(), denial=DenialTexts())
    )
    schema["properties"] = {key: _kind(value) for key, value in example.items()}


def _kind(value: Any) -> dict[str, Any]:
    match value:
        case bool():
            return {"type": "boolean"}
        case str():
            return {"type": "string"}
        case int():
            return {"type": ["integer", "string"]}
        case [dict() as item, *_]:
            return {"type": "array", "items": _kind(item)}
        case list():
            return {"type": "array"}
        case dict():
            return {"type": "object", "properties": {key: _kind(item) for key, item in value.items()}}
    return {"type": ["integer", "null"]}


class PlanDocument(Body):
    """A whole plan, with the keys of a plan file; absent or null: the default. Limits of `cost_usd` in USD."""

    model_config = ConfigDict(extra="allow", json_schema_extra=_schema)

    @property
    def document(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class WhyQuery(Body):
    message: Message | None = Field(default=None, description="Why, for whoever reads the versions later.")


class Adoption(Body):
    """Where the plan is to be edited from now on."""

    to: Literal["files", "store"]


class Rollback(Body):
    """Which version is to be the newest again, and why."""

    version: int = Field(ge=1, le=VERSIONS_MAX)
    message: Message = ""


class FilesRead(Body):
    """`dry_run`: say what would change, and change nothing."""

    dry_run: bool = False
    message: Message = ""


class AgainstQuery(Body):
    against: int | None = Field(
        default=None, ge=1, le=VERSIONS_MAX, description="The version to compare with; absent: the one before."
    )


class ShownPlan(Record):
    """A plan at its newest version, with the keys of its file; `file` is where it is edited, if files own it."""

    id: str
    name: str
    version: int
    owner: Literal["files", "store"]
    file: str | None
    models: list[str]
    features: dict[str, Any]
    budgets: list[dict[str, Any]]
    rate_limits: dict[str, Any]
    denial: dict[str, Any]


class Change(Record):
    """One difference: where, and `from` what `to` what; null where there was, or is, nothing."""

    model_config = ConfigDict(extra="allow", json_schema_extra={"required": ["path", "from", "to"]})
    path: str
    from_: Any = Field(default=None, alias="from")
    to: Any = None


class PlanVersion(Record):
    """A plan as it was at one version; `changes` are those since the version before."""

    version: int
    applied_at: Instant
    applied_by: str
    message: str
    document: dict[str, Any]
    changes: list[Change]


class PlanDiff(Record):
    """What leads from version `against` to `version`; `text` has a line for each change, for people."""

    version: int
    against: int
    changes: list[Change]
    text: list[str]


class PlanFault(Record):
    """`path` is where in the document."""

    path: str
    message: str


class Validation(Record):
    """`ok`: it could be written. `document` is the plan as it would be, `changes` what that changes."""

    ok: bool
    faults: list[PlanFault]
    document: dict[str, Any] | None
    changes: list[Change]


class Adopted(ShownPlan):
    """The plan; `notices` say what became of its file."""

    notices: list[str]


class PlanOfFiles(Record):
    """`version` is null for a plan that is gone."""

    id: str
    version: int | None
    changes: list[Change]
    text: list[str]


class FilesApplied(Record):
    """The plans that changed, or would."""

    dry_run: bool
    revision: int
    plans: list[PlanOfFiles]
    notices: list[str]
