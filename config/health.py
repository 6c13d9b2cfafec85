"""Probes for whoever runs the site: is this process alive, and should it be sent requests?

They say nothing about the workers; the staff's health page does, because it knows what is due and not taken.
"""

from __future__ import annotations

import logging

from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.http import HttpRequest, JsonResponse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

logger = logging.getLogger(__name__)


@never_cache
@require_safe
def livez(request: HttpRequest) -> JsonResponse:
    """Alive. Touches nothing: a database that is away is no reason to kill web servers."""
    return JsonResponse({"status": "ok"})


@never_cache
@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """Ready: the database answers and has every migration. 503 otherwise, naming what is missing."""
    try:
        executor = MigrationExecutor(connection)
        waiting = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError:
        logger.exception("The database does not answer.")
        return JsonResponse({"status": "unavailable", "database": "no answer", "migrations": "unknown"}, status=503)
    if waiting:
        names = [f"{migration.app_label}.{migration.name}" for migration, _ in waiting]
        return JsonResponse({"status": "unavailable", "database": "ok", "migrations": names}, status=503)
    return JsonResponse({"status": "ok", "database": "ok", "migrations": "ok"})
