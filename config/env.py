"""Typed readers of environment variables.

A value that cannot be read stops the start and names the variable, because a site that guesses what was meant
by `WORKERS=tow` runs wrong for weeks. An empty value counts as not set: compose files and unit files write
`NAME=` for "nothing here".
"""

from __future__ import annotations

import json
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

from django.core.exceptions import ImproperlyConfigured


class Rate(NamedTuple):
    """So many times in so many seconds; `most` 0: no limit."""

    most: int
    seconds: int


TRUE = frozenset({"1", "true", "yes", "on"})
FALSE = frozenset({"0", "false", "no", "off"})


def env_text(name: str, default: str = "") -> str:
    """The value as it stands, without the blanks around it."""
    return os.environ.get(name, "").strip() or default


def env_everything() -> dict[str, str]:
    """All variables as they stand, for whoever knows their names."""
    return dict(os.environ)


def env_choice(name: str, default: str, choices: frozenset[str]) -> str:
    value = env_text(name, default)
    if value not in choices:
        raise ImproperlyConfigured(f"{name}={value!r}: expected one of {', '.join(sorted(choices))}.")
    return value


def env_bool(name: str, default: bool) -> bool:
    value = env_text(name).lower()
    if not value:
        return default
    if value in TRUE:
        return True
    if value in FALSE:
        return False
    raise ImproperlyConfigured(f"{name}={value!r}: expected true or false.")


def env_int(name: str, default: int, *, least: int = 0) -> int:
    value = env_text(name)
    if not value:
        return default
    try:
        number = int(value)
    except ValueError:
        raise ImproperlyConfigured(f"{name}={value!r}: expected a whole number.") from None
    if number < least:
        raise ImproperlyConfigured(f"{name}={value!r}: expected at least {least}.")
    return number


def env_seconds(name: str, default: float, *, least: float = 0.0) -> float:
    """A length of time in seconds; `0.1` and `90` are both fine, `90s` is not."""
    value = env_text(name)
    if not value:
        return default
    try:
        seconds = float(value)
    except ValueError:
        raise ImproperlyConfigured(f"{name}={value!r}: expected a number of seconds.") from None
    # The comparison is written so that nan, which compares false with everything, is turned away too.
    if not least <= seconds < float("inf"):
        raise ImproperlyConfigured(f"{name}={value!r}: expected at least {least:g} seconds.")
    return seconds


def env_rate(name: str, default: str) -> Rate:
    """So many times in so many seconds: `20/900`. `0/1` is no limit."""
    value = env_text(name, default)
    most, _, seconds = value.partition("/")
    if not (most.isascii() and most.isdigit() and seconds.isascii() and seconds.isdigit() and int(seconds)):
        raise ImproperlyConfigured(f"{name}={value!r}: expected times/seconds, for example 20/900; 0/1 is no limit.")
    return Rate(most=int(most), seconds=int(seconds))


def env_link(name: str, *places: str) -> str:
    """An outside page's address with a place to fill in: `https://logs.example.com/?q={run}`. Empty: there is none.

    One of `places` is enough.
    """
    value = env_text(name)
    if value and (urlsplit(value).scheme not in {"http", "https"} or not any(place in value for place in places)):
        other = f", or with {' or '.join(places[1:])}" if places[1:] else ""
        example = f"https://logs.example.com/?q={places[0]}"
        raise ImproperlyConfigured(f"{name}={value!r}: expected an address like {example}{other}.")
    return value


class Limit(NamedTuple):
    """So many times in so many seconds, and so many at once; 0: no limit."""

    most: int = 0
    seconds: int = 1
    at_once: int = 0


def env_limits(name: str) -> dict[str, Limit]:
    """Limits by name: `stripe=25/1:20, ups=10/60` is 25 a second and 20 at once, and 10 a minute."""
    limits = {}
    for part in env_list(name):
        who, _, limit = part.partition("=")
        rate, _, at_once = limit.partition(":")
        most, _, seconds = rate.partition("/")
        numbers = (most, seconds, at_once or "0")
        if not who.strip() or not all(n.isascii() and n.isdigit() for n in numbers) or not int(seconds):
            raise ImproperlyConfigured(f"{name}={part!r}: expected name=times/seconds:at_once, as in stripe=25/1:20.")
        limits[who.strip()] = Limit(*map(int, numbers))
    return limits


def env_json(name: str, default: dict[str, object]) -> dict[str, object]:
    """A JSON object."""
    value = env_text(name)
    if not value:
        return default
    try:
        read = json.loads(value)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name}: not JSON ({error}).") from None
    if not isinstance(read, dict):
        raise ImproperlyConfigured(f"{name}: expected a JSON object, not {type(read).__name__}.")
    return read


def env_list(name: str, default: tuple[str, ...] = ()) -> list[str]:
    """Values parted by commas."""
    value = env_text(name)
    return [part.strip() for part in value.split(",") if part.strip()] if value else list(default)


def env_database(name: str, default: str) -> dict[str, object]:
    """A database address as Django's DATABASES wants it: ENGINE, NAME and whatever else the address holds.

    Understood are `sqlite:///relative/path`, `sqlite:////absolute/path` and
    `postgresql://user:password@host:port/name?sslmode=require`. A socket's folder goes where the host would
    (`postgresql:///name?host=/run/postgresql`, or percent-encoded in the host's place).
    """
    value = env_text(name, default)
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError as error:
        raise ImproperlyConfigured(f"{name}: not an address ({error}).") from None
    if url.scheme == "sqlite":
        return _sqlite(name, url.path)
    # The value itself is not repeated below: it may hold a password, and errors end up in logs.
    if url.scheme not in {"postgresql", "postgres"}:
        raise ImproperlyConfigured(f"{name}: expected sqlite:///… or postgresql://…, not {url.scheme or 'nothing'}://.")
    database = unquote(url.path.removeprefix("/"))
    if not database:
        raise ImproperlyConfigured(f"{name}: the address names no database.")
    options: dict[str, object] = dict(parse_qsl(url.query))
    host = unquote(url.hostname or "") if not url.netloc.rpartition("@")[2].startswith("%") else _socket(url.netloc)
    return {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": database,
        "USER": unquote(url.username or ""),
        "PASSWORD": unquote(url.password or ""),
        "HOST": options.pop("host", host),
        "PORT": str(options.pop("port", port or "")),
        "OPTIONS": options,
    }


def _sqlite(name: str, path: str) -> dict[str, object]:
    database = unquote(path.removeprefix("/"))
    # A database in memory is one per connection: the web server and the workers would each have their own.
    if not database or database == ":memory:":
        raise ImproperlyConfigured(f"{name}: SQLite needs a file, as in sqlite:///db.sqlite3.")
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": database}


def _socket(netloc: str) -> str:
    """A percent-encoded folder in the host's place; urlsplit would put it in lower case."""
    return unquote(netloc.rpartition("@")[2].partition(":")[0])


def env_broker(name: str) -> dict[str, object]:
    """A queue address as django-q2's Q_CLUSTER wants it; nothing set means the database itself is the queue.

    Understood are `orm`, `redis://…`, `rediss://…`, `unix://…` (Redis or Valkey) and `sqs://region`.
    """
    value = env_text(name, "orm")
    if value == "orm":
        return {"orm": "default"}
    url = urlsplit(value)
    if url.scheme in {"redis", "rediss", "unix"}:
        return {"redis": value}
    if url.scheme == "sqs" and url.netloc:
        # Without keys of its own django-q2 leaves it to boto3 to find the machine's credentials.
        return {"sqs": {"aws_region": url.netloc, "receive_message_wait_time_seconds": 1}}
    raise ImproperlyConfigured(f"{name}: expected orm, redis://…, rediss://…, unix://… or sqs://region.")


def env_mailer(name: str, default: str) -> tuple[str, dict[str, object]]:
    """Where mail goes: a Django mail backend and its options.

    Understood are `file:folder`, `console:`, `memory:`, `smtp://user:password@host:port` (STARTTLS),
    `smtps://…` (TLS at once), `smtp+plain://…` (neither), and the dotted path of a backend class.
    """
    value = env_text(name, default)
    if "." in value and ":" not in value:
        return value, {}
    try:
        url = urlsplit(value)
        port = url.port
    except ValueError as error:
        raise ImproperlyConfigured(f"{name}: not an address ({error}).") from None
    backend = "django.core.mail.backends.{}.EmailBackend"
    if url.scheme == "file" and url.path:
        return backend.format("filebased"), {"file_path": unquote(url.path)}
    if url.scheme == "console":
        return backend.format("console"), {}
    if url.scheme == "memory":
        return backend.format("locmem"), {}
    if url.scheme in {"smtp", "smtps", "smtp+plain"} and url.hostname:
        return backend.format("smtp"), {
            "host": url.hostname,
            "port": port or {"smtp": 587, "smtps": 465, "smtp+plain": 25}[url.scheme],
            "username": unquote(url.username or ""),
            "password": unquote(url.password or ""),
            "use_tls": url.scheme == "smtp",
            "use_ssl": url.scheme == "smtps",
            # A mail server that hangs must not hold a worker longer than a step may take.
            "timeout": 10,
        }
    raise ImproperlyConfigured(f"{name}: expected file:…, console:, memory:, smtp://…, smtps://… or a backend's path.")


def env_secret(name: str, file: Path, *, required: bool) -> str:
    """The secret, from the environment or else from a file made on first use and kept.

    A generated secret is known to one machine only, so a site that more than one machine serves must be given
    one: `required` says that this is such a site.
    """
    value = env_text(name)
    if value:
        return value
    if required:
        raise ImproperlyConfigured(f"{name} is not set. A site served over https needs one, the same on every machine.")
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_name(f".{file.name}.{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as handle:
            handle.write(secrets.token_urlsafe(50))
        # Web server and workers may start at the same moment: link() lets one of them win, whole.
        with suppress(FileExistsError):
            os.link(draft, file)
        draft.unlink()
    return file.read_text().strip()
