"""What an adapter has to be told: its settings, each read from settings.PROVIDER_SETTINGS, the environment.

@dataclass(frozen=True, kw_only=True)
class AcmeOptions:
    key: str = option("ACME_KEY", secret=True, form=r"[a-z0-9]{32}", example="32 letters and digits")
    url: str = option("ACME_URL", "https://api.acme.example", form=ADDRESS, example="an https address")

read(AcmeOptions)   # or ImproperlyConfigured, which names every setting that is missing or malformed
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

T = TypeVar("T")
ADDRESS = r"https?://\S+"
SECONDS = r"\d+(\.\d+)?"
YES_OR_NO = r"true|false"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting of an adapter."""

    name: str
    default: str | None
    """None: it must be set."""
    is_secret: bool
    form: str
    example: str
    """What a right one looks like, in words."""
    toy: str
    """The form of a value with which nothing real happens: a test key, a vendor's sandbox. Empty: none is known."""


def option(
    name: str,
    default: str | None = None,
    *,
    secret: bool = False,
    form: str = r".+",
    example: str = "",
    toy: str = "",
) -> Any:
    """A field of an adapter's options. A secret is not shown where the options are."""
    about = Setting(name=name, default=default, is_secret=secret, form=form, example=example, toy=toy)
    return field(default=default or "", repr=not secret, metadata={"setting": about})


def settings_of(kind: type[Any]) -> list[Setting]:
    """The settings that these options are read from, in the order they are written."""
    return [one.metadata["setting"] for one in fields(kind)]


def value_of(setting: Setting) -> str:
    """As it is set, or its default; empty if there is neither."""
    return str(settings.PROVIDER_SETTINGS.get(setting.name, "")).strip() or setting.default or ""


def faults_of(kind: type[Any]) -> Iterator[str]:
    """What is wrong with the settings of these options, one sentence each. A secret's value is never told."""
    for setting in settings_of(kind):
        value = value_of(setting)
        wanted = f" It is {setting.example}." if setting.example else ""
        if not value:
            if setting.default is None:
                yield f"{setting.name} is not set.{wanted}"
        elif not re.fullmatch(setting.form, value):
            yield f"{setting.name}{'' if setting.is_secret else f'={value!r}'} is malformed.{wanted}"


def toys_of(kind: type[Any]) -> Iterator[str]:
    """Names of the settings of these options that make a toy of the provider."""
    for setting in settings_of(kind):
        if setting.toy and re.match(setting.toy, value_of(setting)):
            yield setting.name


def read(kind: type[T]) -> T:
    """The options as they are set. Raises ImproperlyConfigured naming everything that is missing or malformed."""
    faults = list(faults_of(kind))
    if faults:
        raise ImproperlyConfigured(" ".join(faults))
    return kind(**{one.name: value_of(one.metadata["setting"]) for one in fields(kind)})  # type: ignore[arg-type]
