"""What tests change, and why."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

from config import settings
from config.env import Rate

globals().update({name: getattr(settings, name) for name in dir(settings) if name.isupper()})

INSTALLED_APPS = [*settings.INSTALLED_APPS, "django_migration_linter"]  # its command alone: scripts/check migrations
VAR_DIR = Path(tempfile.mkdtemp(prefix="orders-tests-"))  # nothing a test writes lands in somebody's real files
atexit.register(shutil.rmtree, VAR_DIR, ignore_errors=True)  # nor stays behind
SECRET_KEY = "a secret for tests only"  # noqa: S105  (guards nothing)
SITE_URL = "http://testserver"  # what Django's test client says it talks to
ALLOWED_HOSTS = ["testserver", "127.0.0.1", "localhost"]  # the client's name, and a live server's
CSRF_TRUSTED_ORIGINS: list[str] = []  # not whatever the machine's environment names
DEMO = True  # test cards, test postcodes and the scenario picker are part of what is tested
TRACES_EXPORTER = ""  # spans of tests go to whom a test names
FAULTS = True  # tests plan faults
API_FAILED_RATE = Rate(0, 1)  # all tests come from one address, and those of strangers show no key that is one
SAGA_COUNTS_KEPT = 1e9  # no test asks the database once more because a few seconds are over
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]  # the real ones are slow on purpose
STORAGES = {  # static files straight from the apps; uploads, should there be any, in memory
    "default": {"BACKEND": "django.core.files.storage.InMemoryStorage"},
    "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
}
STATIC_ROOT = VAR_DIR  # WhiteNoise warns about a folder that is not there, and warnings are errors
WHITENOISE_USE_FINDERS = True  # as in life; named here because browser tests depend on it
LOGGING: dict[str, object] = {
    "version": 1,
    "disable_existing_loggers": False,
}  # pytest shows what a failed test logged

DATABASES = settings.DATABASES
if settings.DATABASE["ENGINE"] == "django.db.backends.sqlite3":
    # A file, since threads and processes of a test share it; in memory each connection would have its own.
    DATABASES["default"]["TEST"] = {"NAME": str(VAR_DIR / "test.sqlite3")}
    # No test cuts the power, and waiting for the disk at each commit is most of a test's time.
    DATABASES["default"]["OPTIONS"]["init_command"] = "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;"  # type: ignore[index]
DATABASES["default"]["CONN_MAX_AGE"] = 0  # a kept connection keeps the test database from being dropped
