from __future__ import annotations

from django.apps import AppConfig


class ToyConfig(AppConfig):
    name = "tests.sagas.toyapp"

    def ready(self) -> None:
        from sagas import register
        from tests.sagas.toyapp.saga import ERRAND

        register(ERRAND)
