from __future__ import annotations

from collections.abc import Iterator

import pytest

from sagas import Saga
from tests.sagas.toys import World, make_trip, registered


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def trip(world: World) -> Iterator[Saga]:
    """hold, pay (pivot), tell (retriable)."""
    saga = make_trip(world)
    with registered(saga):
        yield saga
