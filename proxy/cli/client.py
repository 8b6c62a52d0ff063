"""Speaks to a running gate over its admin API."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from proxy.settings import Settings

DEFAULT_URL = "http://127.0.0.1:8081"
# A little more than the admin plane allows itself.
TIMEOUT_S = 30.0
_PAGE = 1000


class CliFault(Exception):
    """Ends a verb: a sentence for stderr and the exit code (1 refused, 2 wrongly asked, 3 no gate there).

    `status` is the gate's, if it was the gate that refused.
    """

    def __init__(self, message: str, exit_code: int, status: int | None = None) -> None:
        super().__init__(message)
        self.message, self.exit_code, self.status = message, exit_code, status


class Gate:
    """One gate's admin API. Every call answers the JSON, or raises `CliFault`."""

    def __init__(self, url: str, token: str, token_from: str) -> None:
        self.url, self._token, self._token_from = url.rstrip("/"), token, token_from

    def get(self, path: str, query: Mapping[str, Any] | None = None) -> Any:
        return self.ask("GET", path, query=query)

    def listed(self, path: str, query: Mapping[str, Any], limit: int) -> dict[str, Any]:
        """The first `limit` of a list, over as many pages as it takes."""
        data: list[Any] = []
        cursor: str | None = None
        while True:
            page = {**query, "limit": min(_PAGE, limit - len(data)), "cursor": cursor}
            answer = self.get(path, page)
            data += answer["data"]
            cursor = answer["next_cursor"]
            if cursor is None or len(data) >= limit:
                return {"data": data, "next_cursor": cursor}

    def ask(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        query: Mapping[str, Any] | None = None,
    ) -> Any:
        from urllib.parse import urlencode

        asked = {name: value for name, value in (query or {}).items() if value is not None}
        url = f"{self.url}/admin/v1{path}" + (f"?{urlencode(asked)}" if asked else "")
        status, raw = self._exchange(method, url, None if body is None else json.dumps(body).encode())
        if status == 204:
            return None
        try:
            answer = json.loads(raw)
            if status < 300:
                return answer
            message = str(answer["error"]["message"])
        except (ValueError, TypeError, KeyError):
            raise CliFault(
                f"What answers at {self.url} (with status {status}) is not Faregate's admin plane."
                " Name the right address with --url.",
                3,
            ) from None
        hint = f" The token came from {self._token_from}." if status == 401 else ""
        raise CliFault(message + hint, 1, status)

    def _exchange(self, method: str, url: str, body: bytes | None) -> tuple[int, bytes]:
        import http.client
        import urllib.error
        import urllib.request

        headers = {"Authorization": f"Bearer {self._token}", "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = "application/json"
        try:
            request = urllib.request.Request(url, body, headers, method=method)
            with _opener(self.url).open(request, timeout=TIMEOUT_S) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as fault:
            with fault:
                return fault.code, fault.read()
        except (OSError, http.client.HTTPException, ValueError) as fault:
            raise self._unreachable(getattr(fault, "reason", None) or fault) from None

    def _unreachable(self, why: object) -> CliFault:
        reason = getattr(why, "strerror", None) or str(why) or type(why).__name__
        return CliFault(
            f"Cannot reach the gate at {self.url}: {reason}.\n"
            "Start it with `faregate serve`, or name another with --url or FAREGATE_ADMIN_URL.",
            3,
        )


def find_gate(url: str | None, token_file: Path | None, config: Path | None) -> Gate:
    """The gate that the options, the environment or the configuration name; raises `CliFault` 2."""
    address = url or os.environ.get("FAREGATE_ADMIN_URL") or _configured_url(config)
    if not address.startswith(("http://", "https://")):
        raise CliFault(f"{address} is no address of a gate: it looks like {DEFAULT_URL}.", 2)
    return Gate(address, *_find_token(address, token_file, config))


def config_file(given: Path | None) -> Path | None:
    """The file that was named, else `config.toml` of this folder, else none: the defaults."""
    here = Path("config.toml")
    return given if given is not None or not here.is_file() else here


def _configured_url(config: Path | None) -> str:
    if config_file(config) is None and not any(name.startswith("FAREGATE_ADMIN__") for name in os.environ):
        return DEFAULT_URL
    admin = _settings(config).admin
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(admin.host, admin.host)
    return f"http://[{host}]:{admin.port}" if ":" in host else f"http://{host}:{admin.port}"


def _find_token(url: str, token_file: Path | None, config: Path | None) -> tuple[str, str]:
    """The token, and where it came from."""
    if token_file is not None:
        return _read_token(token_file)
    if token := os.environ.get("FAREGATE_ADMIN_TOKEN", "").strip():
        return token, "FAREGATE_ADMIN_TOKEN"
    # The file is of the gate on this machine: its token must not be carried to another's.
    if _is_here(url):
        from proxy.settings.credentials import ADMIN_TOKEN_FILE

        kept = _settings(config).data.dir / ADMIN_TOKEN_FILE
        if kept.is_file():
            return _read_token(kept)
        told = f" A gate on this machine would have kept one in {kept}."
    else:
        told = ""
    raise CliFault(f"No admin token.{told} Set FAREGATE_ADMIN_TOKEN, or name a file with --token-file.", 2)


def _read_token(path: Path) -> tuple[str, str]:
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as fault:
        reason = getattr(fault, "strerror", None) or "it is no text"
        raise CliFault(f"The admin token cannot be read from {path}: {reason}.", 2) from None
    if not token.isascii() or not token.isprintable() or not token:
        raise CliFault(f"{path} holds no admin token: it should be one line of text.", 2)
    return token, str(path)


def _settings(config: Path | None) -> Settings:
    from proxy.settings import SettingsFaults, load_settings

    try:
        return load_settings(config_file(config))
    except SettingsFaults as fault:
        raise CliFault(str(fault), 2) from None


def _is_here(url: str) -> bool:
    from urllib.parse import urlsplit

    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        return False
    return host == "localhost" or host == "::1" or host.startswith("127.")


def _opener(url: str) -> Any:
    """Follows no redirect (the token would go along), and asks no proxy for what is on this machine."""
    import urllib.request

    class NoRedirect(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: Any) -> None:
            return None

    proxies = [urllib.request.ProxyHandler({})] if _is_here(url) else []
    return urllib.request.build_opener(NoRedirect, *proxies)
