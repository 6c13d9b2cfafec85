from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from django.test import Client
from pytest_django import Settings

from orders import providers
from tests.doubles.server import served
from tests.doubles.setups import TABLES
from tests.orders.pages import visitor


@pytest.fixture
def gina() -> Client:
    """An agent's browser."""
    return visitor("gina", "agent")


@pytest.fixture
def sam() -> Client:
    """A supervisor's browser."""
    return visitor("sam", "supervisor")


@pytest.fixture
def vera() -> Client:
    """A viewer's browser."""
    return visitor("vera", "viewer")


@pytest.fixture
def outside(settings: Settings) -> Iterator[Callable[..., dict[str, Any]]]:
    """`outside(payments="stripe", shipping="ups, dhl-express")` has the shop use these, each with its double; returns
    the doubles by name."""
    with ExitStack() as stack:

        def use(**wanted: str) -> dict[str, Any]:
            doubles: dict[str, Any] = {}
            told: dict[str, str] = {}
            for kind, names in wanted.items():
                for name in (part.strip() for part in names.split(",")):
                    if name in TABLES[kind]:
                        setup = TABLES[kind][name]
                        doubles[name] = stack.enter_context(served(setup.double()))
                        told.update(setup.settings(doubles[name]))
            settings.PROVIDERS = {**settings.PROVIDERS, **wanted}
            settings.PROVIDER_SETTINGS = told
            providers.forget()
            return doubles

        yield use
        providers.forget()
