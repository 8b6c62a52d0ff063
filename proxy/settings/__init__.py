"""What an operator sets: one tree, read once from config.toml and the environment.

In: a file (or none) and `FAREGATE_SECTION__KEY`. Out: `Settings`, whole and checked, or every fault with file,
line and what would be right. The upstream keys, the admin token and the pepper are no settings: they never stand
in the file, and `credentials.py` fetches them. What admins edit while the gate runs lives in `policy_files`.
"""

from proxy.settings.credentials import admin_token, secret_pepper, take_upstream_keys
from proxy.settings.faults import Fault, nearest
from proxy.settings.loading import SettingsFaults, load_settings
from proxy.settings.toml_text import TomlText, read_toml
from proxy.settings.tree import (
    AdminSettings,
    DataSettings,
    LedgerSettings,
    PolicySettings,
    RedisSettings,
    ServerSettings,
    Settings,
    TelemetrySettings,
    Upstream,
)

__all__ = [
    "AdminSettings",
    "DataSettings",
    "Fault",
    "LedgerSettings",
    "PolicySettings",
    "RedisSettings",
    "ServerSettings",
    "Settings",
    "SettingsFaults",
    "TelemetrySettings",
    "TomlText",
    "Upstream",
    "admin_token",
    "load_settings",
    "nearest",
    "read_toml",
    "secret_pepper",
    "take_upstream_keys",
]
