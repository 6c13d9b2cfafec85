"""How the providers stand: their settings, their health, and whether their credentials are good."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from orders.models import ProviderHealth, ProviderSlot
from orders.providers import adapter, class_of, paths_of
from orders.providers.base import Checks, SendsWebhooks, offers
from orders.providers.errors import ProviderError
from orders.providers.guard import Limit, limit_of
from orders.providers.names import EMBEDDED, SANDBOXES
from orders.providers.options import faults_of, settings_of, toys_of, value_of
from orders.providers.routing import rules_of

KINDS = ("inventory", "payments", "shipping", "mail")


@dataclass(frozen=True, kw_only=True)
class ProviderStatus:
    """One provider that the settings name."""

    kind: str
    name: str
    path: str
    is_embedded: bool
    is_sandbox: bool
    faults: tuple[str, ...]
    """What is wrong with its settings."""
    limit: str
    under_way: int
    """Calls at this moment, where they are limited."""
    failures: int
    last_error: str
    opened_at: datetime | None
    trial_at: datetime | None

    @property
    def state(self) -> str:
        """misconfigured, down, failing or well."""
        if self.faults:
            return "misconfigured"
        if self.opened_at is not None:
            return "down"
        return "failing" if self.failures else "well"


def provider_statuses() -> list[ProviderStatus]:
    """Those that settings.PROVIDERS names, kind by kind."""
    health = {row.name: row for row in ProviderHealth.objects.all()}
    now = timezone.now()
    found = []
    for kind in KINDS:
        for name, path in paths_of(kind).items():
            row, limit = health.get(name), limit_of(name)
            found.append(
                ProviderStatus(
                    kind=kind,
                    name=name,
                    path=path,
                    is_embedded=path in EMBEDDED,
                    is_sandbox=path in SANDBOXES or bool(toys_in(kind, name)),
                    faults=tuple(faults_in(kind, name)),
                    limit=_words(limit),
                    under_way=ProviderSlot.objects.filter(name=name, taken_until__gt=now).count()
                    if limit is not None and limit.at_once
                    else 0,
                    failures=row.failures if row is not None else 0,
                    last_error=row.last_error if row is not None else "",
                    opened_at=row.opened_at if row is not None else None,
                    trial_at=row.trial_at if row is not None else None,
                )
            )
    return found


def _words(limit: Limit | None) -> str:
    if limit is None:
        return ""
    parts = [f"{limit.most} in {limit.seconds} s" if limit.most else "", f"{limit.at_once} at once"]
    return ", ".join(filter(None, parts if limit.at_once else parts[:1]))


def faults_in(kind: str, name: str) -> Iterator[str]:
    """What is wrong with one provider's settings, one sentence each."""
    try:
        made = class_of(kind, name)
    except ImproperlyConfigured as error:
        yield str(error)
        return
    for options in ("Options", "SharedOptions"):
        if hasattr(made, options):
            yield from faults_of(getattr(made, options))


def faults_in_settings() -> Iterator[str]:
    """What is wrong with the choice of providers, their rules and their own settings."""
    for kind in KINDS:
        try:
            names = list(paths_of(kind))
            rules_of(kind, names)
        except (ImproperlyConfigured, ValueError) as error:
            yield str(error)
            continue
        for name in names:
            for fault in faults_in(kind, name):
                yield f"{name}: {fault}"
    if settings.TRACEPARENT_TO:
        used = sorted(set(_names_in_use()))
        for name in settings.TRACEPARENT_TO:
            if name not in used:
                yield f"TRACEPARENT_TO names {name!r}, which is no provider in use; those are {', '.join(used)}."
    unknown = sorted(set(settings.PROVIDER_ROUTES) - set(KINDS))
    if unknown:
        yield f"PROVIDER_ROUTES has rules for {unknown[0]!r}; kinds are {', '.join(KINDS)}."


def _names_in_use() -> Iterator[str]:
    for kind in KINDS:
        with suppress(ImproperlyConfigured):  # which is a fault of its own
            yield from paths_of(kind)


def toys_in(kind: str, name: str) -> list[str]:
    """Names of settings by which nothing real happens with this provider."""
    try:
        options = getattr(class_of(kind, name), "Options", None)
    except ImproperlyConfigured:
        return []
    return list(toys_of(options)) if options is not None else []


def sandboxes_in_use() -> list[str]:
    """What of the settings moves no money, no parcels or no mail: one phrase each."""
    found = []
    for kind in KINDS:
        for name, path in paths_of(kind).items():
            if path in SANDBOXES:
                found.append(f"PROVIDER_{kind.upper()} is the sandbox")
            found += [f"{setting} is that of {name}'s test mode" for setting in toys_in(kind, name)]
    return found


def shown_settings(kind: str, name: str) -> list[tuple[str, str]]:
    """(name, value) of a provider's settings; of a secret only whether it is set."""
    made = class_of(kind, name)
    rows = []
    for options in ("Options", "SharedOptions"):
        for setting in settings_of(getattr(made, options)) if hasattr(made, options) else []:
            value = value_of(setting)
            rows.append((setting.name, ("set" if value else "not set") if setting.is_secret else value))
    return rows


def tried(kind: str, name: str) -> tuple[bool, str]:
    """(whether its credentials are good, what was found), by a call that does nothing."""
    try:
        one = adapter(kind, name)
        if not offers(one, Checks):
            return True, "nothing to try"
        return True, one.check()
    except (ImproperlyConfigured, ProviderError) as error:
        return False, str(error)
    except Exception as error:  # whatever answers there is not what it should be
        return False, f"the answer cannot be read ({type(error).__name__})"


def sends_webhooks(kind: str, name: str) -> bool:
    """Whether it tells us by itself what changes."""
    return offers(class_of(kind, name), SendsWebhooks)
