"""The admin plane: customers, agents, secrets, plans and usage over HTTP, for whoever holds the admin token.

In: requests with a bearer token. Out: JSON in the shapes of `answers.py`, or one error shape. A request meets
`app.py` (faults, token, deadline), `reading.py` (path, query, body into the classes of `bodies.py`), a handler
of its subject (`customers`, `agents`, `plans`, `usage`, `gate`) and `writing.py`. `openapi.py` describes the
same table of routes. What it knows of the world is in `deps.py`; it does not know SQL or Redis.
"""

from proxy.web.admin.app import admin_app
from proxy.web.admin.auth import token_digest
from proxy.web.admin.deps import AdminDeps
from proxy.web.admin.listener import AdminRunner

__all__ = ["AdminDeps", "AdminRunner", "admin_app", "token_digest"]
