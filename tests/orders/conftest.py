from __future__ import annotations

import pytest
from django.test import Client

from tests.orders.pages import visitor


@pytest.fixture
def gina() -> Client:
    """An agent's browser."""
    return visitor("gina", "agent")


@pytest.fixture
def sam() -> Client:
    """A supervisor's browser."""
    return visitor("sam", "supervisor")
