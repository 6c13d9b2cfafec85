"""A shop to look at: products with stock, logins, an API key."""

from __future__ import annotations

from typing import Any

from orders.seeding import seed
from sagas.shell import ShellCommand


class Command(ShellCommand):
    help = "Fill the database with a demo shop. Run again, it adds only what is missing."

    def handle(self, *args: Any, **options: Any) -> None:
        seeded = seed()
        logins = "  ".join(f"{login.username} / {login.password}" for login in seeded.logins)
        self.stdout.write(f"Products  {seeded.products}")
        self.stdout.write(f"Logins    {logins}")
        self.stdout.write(f"API key   {seeded.api_key}")
