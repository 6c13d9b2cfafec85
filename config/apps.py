from __future__ import annotations

from django.apps import AppConfig


class SiteConfig(AppConfig):
    name = "config"

    def ready(self) -> None:
        from config import tracing

        tracing.begin()
