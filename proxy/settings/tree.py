"""Every setting with its default, in the order of config.example.toml, which says why each is there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, model_validator
from pydantic_core import PydanticCustomError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict


def _refuse(message: str) -> PydanticCustomError:
    return PydanticCustomError("faregate", "{said}", {"said": message})


def _url(*schemes: str) -> AfterValidator:
    """Empty, or a URL of one of these schemes. The value is never repeated: it may hold a password."""

    def check(value: str) -> str:
        if value and (value != value.strip() or value.partition("://")[0] not in schemes or "://" not in value):
            raise _refuse("must be empty or a URL that begins with " + " or ".join(f"{s}://" for s in schemes))
        return value

    return AfterValidator(check)


def _only(default: Any) -> AfterValidator:
    """A setting of the contract that is not built yet: accepted at its default, never ignored."""

    def check(value: Any) -> Any:
        if value != default:
            raise _refuse(f"is not available yet: leave it out, or write {default!r}".replace("'", '"'))
        return value

    return AfterValidator(check)


# In a file a Path is text, which pydantic's strict mode would not take for one.
Directory = Annotated[Path, BeforeValidator(lambda value: Path(value) if isinstance(value, str) else value)]
Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
RetryWait = Annotated[float, Field(ge=0, le=604_800)]
Wire = Literal["openai", "anthropic", "litellm"]

# Which endpoints a wire has, as they are named after /v1/ in the settings.
WIRE_ENDPOINTS: dict[str, tuple[str, ...]] = {
    "openai": ("chat/completions", "responses", "completions", "embeddings"),
    "anthropic": ("messages", "messages/count_tokens"),
    "litellm": ("chat/completions", "embeddings"),
}


def _endpoint_name(value: Any) -> Any:
    """ "/v1/responses" says the same as "responses"."""
    return value.removeprefix("/").removeprefix("v1/") if isinstance(value, str) else value


EndpointName = Annotated[
    Literal["chat/completions", "responses", "completions", "embeddings", "messages", "messages/count_tokens"],
    BeforeValidator(_endpoint_name),
]

HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]{1,64}$")]
HeaderValue = Annotated[str, Field(pattern=r"^[ -~]{0,1024}$")]
NATIVE_AUTH_HEADERS = {"openai": "authorization", "anthropic": "x-api-key"}
NATIVE_BASE_URLS = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}

# A file that changes one of these keeps the rest of it; further upstreams stand beside them.
DEFAULT_UPSTREAMS: dict[str, dict[str, Any]] = {
    "openai": {"wire": "openai", "provider": "openai", "api_key_env": "OPENAI_API_KEY"},
    "anthropic": {"wire": "anthropic", "provider": "anthropic", "api_key_env": "ANTHROPIC_API_KEY"},
    "gemini": {"wire": "litellm", "provider": "gemini", "api_key_env": "GEMINI_API_KEY"},
}


class Section(BaseModel):
    """One table of the file."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ServerSettings(Section):
    host: str = "127.0.0.1"
    port: Port = 8080
    workers: Annotated[int, Field(ge=1, le=256)] = 1
    drain_s: Annotated[float, Field(ge=0, le=3600)] = 30


class AdminSettings(Section):
    host: str = "127.0.0.1"
    port: Port = 8081


class DataSettings(Section):
    """`dir` is absolute once loaded."""

    dir: Directory = Path("var")


class RedisSettings(Section):
    url: Annotated[str, _url("redis", "rediss", "unix"), Field(repr=False)] = ""
    shards: Annotated[int, Field(ge=1, le=1024)] = 16
    fsync: Literal["everysec", "always"] = "everysec"


class LedgerSettings(Section):
    url: Annotated[str, _url("postgresql"), Field(repr=False)] = ""
    backlog_max_events: Annotated[int, Field(ge=1, le=1_000_000_000)] = 1_000_000


class PolicySettings(Section):
    """`dir` is absolute once loaded. `default_plan` is the plan of a customer created without one."""

    dir: Directory = Path("policies")
    watch: bool = True
    default_plan: str = "free"


# As Standard Webhooks proposes.
STANDARD_WAITS_S = (5, 300, 1800, 7200, 18000, 36000, 50400, 72000, 86400)


class AlertSettings(Section):
    grant_expiring_days: Annotated[int, Field(ge=1, le=365)] = 7


class WebhookSettings(Section):
    """`retry_s` are the waits after each failed attempt; after the last of them a delivery is dead."""

    timeout_s: Annotated[float, Field(gt=0, le=60)] = 15
    retry_s: Annotated[list[RetryWait], Field(max_length=20)] = [*STANDARD_WAITS_S]
    allow_private: bool = False


class Upstream(Section):
    """A provider endpoint with a key. An empty `api_key_env` says that it needs none.

    `provider` is LiteLLM's name for it: who is called on the litellm wire, and whose prices are looked up on
    every wire. `endpoints` are those that it serves natively; empty: all of its wire's. `auth_header` carries
    the key: bare, but in `authorization`, where "Bearer" stands before it. `query` and `headers` are sent with
    every request. `max_concurrency` is divided among the workers, of which each has a queue of its own.
    """

    wire: Wire
    base_url: Annotated[str, _url("http", "https")] = ""
    api_key_env: Annotated[str, Field(pattern=r"^([A-Za-z_][A-Za-z0-9_]*)?$")] = ""
    provider: str = ""
    auth_header: Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{0,64}$")] = ""
    query: dict[str, str] = Field(default_factory=dict, repr=False)
    headers: dict[HeaderName, HeaderValue] = Field(default_factory=dict, repr=False)
    endpoints: list[EndpointName] = Field(default_factory=list)
    max_concurrency: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    queue_max: Annotated[int, Field(ge=0, le=100_000)] = 1_000
    queue_timeout_s: Seconds = 30
    max_retries: Annotated[int, Field(ge=0, le=10)] = 1
    retry_within_s: Annotated[float, Field(ge=0, le=600)] = 20
    connect_timeout_s: Seconds = 5
    first_byte_timeout_s: Seconds = 600
    idle_timeout_s: Seconds = 120

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        wire = given.get("wire") if isinstance(given, dict) else None
        if wire not in NATIVE_BASE_URLS:
            return given
        usual = {
            "auth_header": given.get("auth_header") or NATIVE_AUTH_HEADERS[wire],
            "base_url": given.get("base_url") or NATIVE_BASE_URLS[wire],
            "provider": given.get("provider") or wire,
        }
        return {**given, **usual}

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.wire == "litellm" and not self.provider:
            raise _refuse('needs `provider`, LiteLLM\'s name for it, such as provider = "gemini"')
        if self.wire == "litellm" and (self.auth_header or self.query or self.headers):
            raise _refuse("cannot have `auth_header`, `query` or `headers` on the litellm wire, which has its own")
        return self

    @model_validator(mode="after")
    def _of_the_wire(self) -> Self:
        for endpoint in self.endpoints:
            if endpoint not in WIRE_ENDPOINTS[self.wire]:
                raise _refuse(
                    f'cannot serve "{endpoint}" on the {self.wire} wire, whose endpoints are '
                    + ", ".join(f'"{each}"' for each in WIRE_ENDPOINTS[self.wire])
                )
        return self

    @property
    def served(self) -> tuple[str, ...]:
        """The endpoints that it serves itself: those that are written, else all of its wire's."""
        return tuple(self.endpoints) or WIRE_ENDPOINTS[self.wire]


class TelemetrySettings(Section):
    log_format: Literal["json", "console"] = "json"
    otlp_endpoint: Annotated[str, _only("")] = ""


class Settings(BaseSettings):
    """Everything, checked. Build it with `load_settings`; in a test `Settings()` gives the defaults."""

    model_config = SettingsConfigDict(
        env_prefix="FAREGATE_", env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=True
    )

    server: ServerSettings = ServerSettings()
    admin: AdminSettings = AdminSettings()
    data: DataSettings = DataSettings()
    redis: RedisSettings = RedisSettings()
    ledger: LedgerSettings = LedgerSettings()
    policies: PolicySettings = PolicySettings()
    alerts: AlertSettings = AlertSettings()
    webhooks: WebhookSettings = WebhookSettings()
    upstreams: dict[str, Upstream] = Field(default_factory=dict)
    telemetry: TelemetrySettings = TelemetrySettings()

    _file: Path | None = PrivateAttr(None)
    _policies_given: bool = PrivateAttr(False)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment goes before the file, whose content `load_settings` passes in."""
        return env_settings, init_settings

    @model_validator(mode="before")
    @classmethod
    def _with_default_upstreams(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(given.get("upstreams", {}), dict):
            return given
        return {**given, "upstreams": with_default_upstreams(given.get("upstreams", {}))}

    @model_validator(mode="after")
    def _apart(self) -> Self:
        server, admin = self.server, self.admin
        if server.port and (server.host, server.port) == (admin.host, admin.port):
            raise _refuse(f"server and admin cannot both listen on {admin.host}:{admin.port}")
        return self

    @model_validator(mode="after")
    def _divisible(self) -> Self:
        workers = self.server.workers
        for name, upstream in self.upstreams.items():
            if 0 < upstream.max_concurrency < workers:
                raise _refuse(
                    f"upstreams.{name}.max_concurrency is {upstream.max_concurrency}, of which {workers} workers"
                    f" cannot have one each: make it {workers} or more (0: unlimited), or server.workers"
                    f" {upstream.max_concurrency} or less"
                )
        return self

    @property
    def file(self) -> Path | None:
        """The file that was read; None without one."""
        return self._file

    @property
    def policies_given(self) -> bool:
        """Whether somebody wrote `policies.dir`: then nothing else may stand in for it."""
        return self._policies_given


def with_default_upstreams(given: dict[str, Any]) -> dict[str, Any]:
    """The default upstreams, changed by and beside what is given."""
    merged: dict[str, Any] = {name: dict(upstream) for name, upstream in DEFAULT_UPSTREAMS.items()}
    for name, changes in given.items():
        merged[name] = {**merged.get(name, {}), **changes} if isinstance(changes, dict) else changes
    return merged
