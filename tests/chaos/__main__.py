"""Attack a shop of real processes for a while, let it come to rest, and hold it against its promises.

    python -m tests.chaos --seconds 60 --broker orm --seed 1 --clusters 3 --rate 3

Exits with 1 and a list if anything is not as promised. The seed draws faults and orders; what they meet is up to the
machine, so that the same seed gives the same attack and not the same fight.
"""

from __future__ import annotations

import argparse
import logging
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import django

from tests.chaos.shop import SETTINGS, Shop, shop_servers
from tests.processes import Site


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seconds", type=float, default=60, help="how long to attack")
    parser.add_argument("--broker", choices=["orm", "valkey"], default="orm")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--clusters", type=int, default=3)
    parser.add_argument("--rate", type=float, default=3, help="orders a second")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # or the servers would stay
    folder = Path(tempfile.mkdtemp(prefix="orders-chaos-"))
    try:
        code = _run(options, folder)
    except BaseException:
        _tell_where(folder)
        raise
    if code:
        _tell_where(folder)
    else:
        shutil.rmtree(folder)
    return code


def _run(options: argparse.Namespace, folder: Path) -> int:
    with shop_servers(options.broker) as (database, queue):
        settings = {**SETTINGS, "BROKER_URL": queue.url if queue else "orm", "VAR_DIR": str(folder / "var")}
        os.environ |= {**settings, "DATABASE_URL": database.url, "DJANGO_SETTINGS_MODULE": "config.settings"}
        django.setup()
        # Customers live in this process, and see every fault: what they log belongs beside the other logs.
        logging.getLogger().handlers = [logging.FileHandler(folder / "customers.log")]
        from tests.chaos.fight import fight  # knows the shop's models, and so wants the settings first

        site = Site(folder, **settings)
        site.manage("migrate", "--verbosity", "0")
        shop = Shop(site=site, postgres=database, valkey=queue)
        return fight(shop, seconds=options.seconds, seed=options.seed, clusters=options.clusters, rate=options.rate)


def _tell_where(folder: Path) -> None:
    print(f"Logs are kept in {folder}", file=sys.stderr)  # noqa: T201


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
