"""The site's own settings, with providers and a mail backend at which a process may die."""

from __future__ import annotations

from config import settings

globals().update({name: getattr(settings, name) for name in dir(settings) if name.isupper()})

FAULTS = False  # nothing but death goes wrong here
PROVIDERS = {
    "inventory": "tests.e2e.mortal.providers.Inventory",
    "payments": "tests.e2e.mortal.providers.Gateway",
    "shipping": "tests.e2e.mortal.providers.Carrier",
    "mail": "tests.e2e.mortal.providers.Mail",
}
EMAIL_BACKEND = "tests.e2e.mortal.providers.MailBackend"
