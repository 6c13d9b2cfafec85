"""The site's own settings, and the app that is to be migrated."""

from __future__ import annotations

from config import settings

globals().update({name: getattr(settings, name) for name in dir(settings) if name.isupper()})

INSTALLED_APPS = [*settings.INSTALLED_APPS, "tests.e2e.growing"]
