"""Databases, servers and browsers for tests. What a shop or a saga needs is made by tests/factories.py."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings as hypothesis_settings

from tests import chromium, servers
from tests.emptying import empty_quickly
from tests.processes import Site

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

# Time limits per example say more about the machine than about the code. A check tries the same examples each time, so
# that it fails for the one who broke something; looking for more is asked for by name, and then by chance.
hypothesis_settings.register_profile("orders", deadline=None, print_blob=True, derandomize=True)
hypothesis_settings.register_profile("harder", deadline=None, print_blob=True, max_examples=1000)
hypothesis_settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "orders"))

empty_quickly()

failed = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Remember a failure, so that fixtures can show what they know about it."""
    report = yield
    item.stash[failed] = item.stash.get(failed, False) or report.failed
    return report


@pytest.fixture
def site(transactional_db: None, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Site]:
    """Real processes on the test's database: `site.start_web()`, `site.start_worker()`, `site.manage(...)`.

    Settings of the environment can be given: `@pytest.mark.parametrize("site", [{"Q_WORKERS": "1"}], indirect=True)`.
    """
    site = Site(tmp_path, **getattr(request, "param", {}))
    try:
        yield site
    finally:
        try:
            site.stop()
        finally:
            if request.node.stash.get(failed, False):
                print(site.logs())  # noqa: T201  (pytest shows it with the failure)


@pytest.fixture(scope="session")
def valkey() -> Iterator[servers.Valkey]:
    """A real Valkey; `valkey.url` is what BROKER_URL wants."""
    with servers.valkey() as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """A real Chromium, the system's own.

    One per module, because Playwright's event loop runs in the test's thread as long as it lives, and async tests
    want a loop of their own there.
    """
    found = chromium.find()
    if found is None:
        if os.environ.get("CI"):
            pytest.fail("No Chromium found; .ci/run should have installed one.")
        pytest.skip("No Chromium on this machine; install the system's package to run the browser tests.")
    with pytest.MonkeyPatch.context() as patch, chromium.running(found) as browser:
        # Because of that loop Django takes the test for async code and would refuse it the ORM.
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        yield browser


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A visitor with no cookies yet. A second visitor is `browser.new_context()`."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    context.set_default_timeout(15_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Page]:
    """A visitor's page. The test fails if the page complains (errors, broken policy) or asks another host."""
    page = context.new_page()
    complaints: list[str] = []
    # What a server refuses on purpose shows up as "Failed to load resource"; tests look at statuses themselves.
    page.on(
        "console",
        lambda message: (
            complaints.append(f"console: {message.text}")
            if message.type == "error" and not message.text.startswith("Failed to load resource")
            else None
        ),
    )
    page.on("pageerror", lambda error: complaints.append(f"script: {error}"))
    page.on(
        "request",
        lambda asked: (
            complaints.append(f"outside: {asked.url}")
            if not asked.url.startswith(("http://127.0.0.1:", "http://localhost:", "data:", "blob:", "about:"))
            else None
        ),
    )
    yield page
    if request.node.stash.get(failed, False):
        page.screenshot(path=tmp_path / "failed.png", full_page=True)
        print(f"{page.url}: see {tmp_path / 'failed.png'}")  # noqa: T201  (pytest shows it with the failure)
    assert complaints == []
