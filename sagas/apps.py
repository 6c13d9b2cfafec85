from __future__ import annotations

from django.apps import AppConfig
from django.conf import settings


class SagasConfig(AppConfig):
    name = "sagas"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from sagas import checks, notices, run_log  # noqa: F401  (registers the system checks)

        if settings.SAGA_LOG_RUNS:
            notices.listen(run_log.note)
