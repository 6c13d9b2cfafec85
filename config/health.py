"""Probes for whoever runs the site: is this process alive, and should it be sent requests?

A web server without workers goes on taking orders: that nobody takes work is a warning here, and no reason to be out.
"""

from __future__ import annotations

import logging
from typing import Any

from django.core.cache import cache
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, JsonResponse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from sagas.heartbeats import alive_ones
from sagas.selectors import UNTAKEN_AFTER, overdue

logger = logging.getLogger(__name__)


@never_cache
@require_safe
def livez(request: HttpRequest) -> JsonResponse:
    """Alive. Touches nothing: a database that is away is no reason to kill web servers."""
    return JsonResponse({"status": "ok"})


@never_cache
@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """Ready: the database answers and has every migration. 503 otherwise, naming what is missing.

    With `?verbose` also the cache, whose absence only takes limits away, and whether work lies untaken.
    """
    told = _database()
    if told["status"] == "ok" and "verbose" in request.GET:
        told |= {"cache": _cache(), "workers": _workers()}
    return JsonResponse(told, status=200 if told["status"] == "ok" else 503)


def _database() -> dict[str, Any]:
    try:
        executor = MigrationExecutor(connection)
        waiting = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError:
        logger.exception("The database does not answer.")
        return {"status": "unavailable", "database": "no answer", "migrations": "unknown"}
    if waiting:
        names = [f"{migration.app_label}.{migration.name}" for migration, _ in waiting]
        return {"status": "unavailable", "database": "ok", "migrations": names}
    return {"status": "ok", "database": "ok", "migrations": "ok"}


def _cache() -> str:
    try:
        cache.set("readyz", "ok", 5)
        return "ok" if cache.get("readyz") == "ok" else "warning: it forgets what it is told"
    except Exception:  # each kind of cache has errors of its own
        logger.exception("The cache does not answer.")
        return "warning: no answer"


def _workers() -> str:
    try:
        now = timezone.now()
        late = overdue(now=now, longer_than=UNTAKEN_AFTER).exists()
        is_alive = alive_ones(now).exists()
    except DatabaseError:  # it went away since it was asked for its migrations
        logger.exception("The database does not answer.")
        return "unknown: the database does not answer"
    if late:
        return "warning: work has been due for 30 s and nobody takes it"
    return "ok" if is_alive else "warning: no worker has been seen for 30 s"
