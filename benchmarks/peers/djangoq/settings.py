"""The least that django-q2 needs."""

from __future__ import annotations

import os
from urllib.parse import parse_qs, urlsplit

url = urlsplit(os.environ["DATABASE_URL"])
SECRET_KEY = "measured, not trusted"  # noqa: S105
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "django_q", "benchmarks.peers.djangoq"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": url.path.lstrip("/"),
        "USER": url.username or "",
        "PASSWORD": url.password or "",
        "HOST": url.hostname or parse_qs(url.query).get("host", [""])[0],
        "PORT": url.port or parse_qs(url.query).get("port", [""])[0],
        "CONN_MAX_AGE": 60,
    }
}
Q_CLUSTER = {
    "name": "alone",
    "orm": "default",
    "workers": int(os.environ.get("WORKERS", "2")),
    "poll": 0.02,
    "bulk": 50,
    "queue_limit": 200,
    "timeout": 60,
    "retry": 90,
    "save_limit": -1,
    "log_level": "WARNING",
}
