from __future__ import annotations

from typing import Any

import django_stubs_ext
from django.apps import AppConfig
from django.conf import settings

django_stubs_ext.monkeypatch()  # lets our modules write what a field or a queryset is of

# What a site has that says nothing else. The reasons stand in the settings of the shop here.
DEFAULTS = {
    "SAGA_LEASE": 60,
    "SAGA_DRIVE_SECONDS": 20,
    "SAGA_LINGER_SECONDS": 3,
    "SAGA_BATCH": 200,
    "SAGA_THREADS": 32,
    "SAGA_MAX_CLAIMS": 5,
    "SAGA_STOP_FLAG": "",
    "SAGA_COUNTS_KEPT": 5,
    "SAGA_LOG_RUNS": False,
    "SAGA_PROVIDERS_PAGE": "",
}


class SagasConfig(AppConfig):
    name = "sagas"
    default_auto_field = "django.db.models.BigAutoField"

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        for name, value in DEFAULTS.items():
            if not hasattr(settings, name):
                setattr(settings, name, value)

    def ready(self) -> None:
        from sagas import checks, notices, run_log  # noqa: F401  (registers the system checks)

        if settings.SAGA_LOG_RUNS:
            notices.listen(run_log.note)
