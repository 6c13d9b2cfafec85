from __future__ import annotations

from django.apps import AppConfig


class BenchmarksConfig(AppConfig):
    name = "benchmarks"

    def ready(self) -> None:
        from benchmarks.sagas import SAGAS
        from sagas import register

        for saga in SAGAS.values():
            register(saga)
