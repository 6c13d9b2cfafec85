"""A real Chromium, the system's own: for the tests with pages, and for measuring what a browser feels."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--no-sandbox",  # root may not have one, and nothing but our own pages is opened
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    # Nothing may be asked of the outside world, on a machine that may not even have one.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def find() -> str | None:
    """The program's path; None: there is none on this machine."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def running(program: str) -> Iterator[Browser]:
    """Playwright's event loop runs in this thread as long as it does: Django would refuse it the ORM unless
    DJANGO_ALLOW_ASYNC_UNSAFE is set."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield browser
        browser.close()
