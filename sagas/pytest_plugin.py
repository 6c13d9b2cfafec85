"""Fixtures for whoever tests a saga: `pytest_plugins = ["sagas.pytest_plugin"]` in the top conftest.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from sagas.fakes import FakeProvider

if TYPE_CHECKING:
    from sagas.definition import Saga
    from sagas.testing import FrozenClock


@pytest.fixture
def fake_provider() -> FakeProvider:
    """An outside system that has done nothing yet."""
    return FakeProvider()


@pytest.fixture
def saga_clock() -> FrozenClock:
    """A clock that moves only when told to: `saga_clock.advance(timedelta(hours=1))`.

    A minute ahead, so that what the test begins after it is due.
    """
    from sagas.testing import FrozenClock  # not before Django is set up

    return FrozenClock(datetime.now(UTC) + timedelta(minutes=1))


@pytest.fixture
def registered_saga() -> Iterator[Callable[[Saga], Saga]]:
    """Registers a saga for the length of a test: `trip = registered_saga(Saga(...))`."""
    from sagas import registry

    known: list[Saga] = []

    def register(saga: Saga) -> Saga:
        registry.register(saga)
        known.append(saga)
        return saga

    yield register
    for saga in known:
        registry.forget(saga)
