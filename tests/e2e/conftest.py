from __future__ import annotations

import pytest

from tests.processes import Site


@pytest.fixture
def shop(site: Site) -> Site:
    """The demo's shop with nobody's orders in it, its pages served, no worker yet."""
    site.manage("seed_demo")
    site.start_web()
    return site
