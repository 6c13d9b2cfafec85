"""Every way in which the shop is attacked, each a function with a name and a weight.

A fault returns whether it was injected: there may be nobody busy to be killed just now.
"""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from django.db import connection
from django.utils import timezone
from django_q.models import OrmQ

from orders.models import FaultPlan
from orders.providers.faults import plan
from sagas.models import SagaRun, StepRecord
from tests.chaos.shop import LEASE_SECONDS, Cluster, Shop, pause, send

OPERATIONS = (
    *(("inventory", name) for name in ("reserve", "find_reservation", "release")),
    *(("payments", name) for name in ("charge", "find_charge", "refund", "find_refund")),
    *(("shipping", name) for name in ("create_shipment", "find_shipment", "cancel_shipment")),
    *(("mail", name) for name in ("send", "find")),
)


@dataclass
class Attack:
    """What is being done to the shop: what was injected, and what must still be put right later."""

    shop: Shop
    draw: random.Random
    counts: Counter[str] = field(default_factory=Counter)
    later: list[tuple[float, Callable[[], object]]] = field(default_factory=list)

    def after(self, seconds: float, act: Callable[[], object]) -> None:
        self.later.append((time.monotonic() + seconds, act))

    def catch_up(self, *, all_of_it: bool = False) -> None:
        """Do what is due: a stopped process goes on, a killed cluster is started again."""
        now = time.monotonic()
        due = [act for when, act in self.later if all_of_it or when <= now]
        self.later = [(when, act) for when, act in self.later if not all_of_it and when > now]
        for act in due:
            act()

    def any_cluster(self) -> Cluster | None:
        running = [cluster for cluster in self.shop.clusters if cluster.process.is_running()]
        return self.draw.choice(running) if running else None

    def drivers(self, *, busy: bool) -> list[int]:
        """Workers that hold runs just now, or that did once and hold none: these wait at the queue."""
        workers = set()
        held = SagaRun.objects.filter(lease_until__gt=timezone.now()).values_list("lease_owner", flat=True)
        holding = {_pid(owner) for owner in held}
        known = {_pid(worker) for worker in StepRecord.objects.exclude(worker="").values_list("worker", flat=True)}
        for cluster in self.shop.clusters:
            workers |= set(cluster.sentinel_children())
        return sorted(workers & holding if busy else (workers & known) - holding)


def kill_busy_worker(attack: Attack) -> bool:
    return _signal_one(attack, attack.drivers(busy=True), signal.SIGKILL)


def kill_idle_worker(attack: Attack) -> bool:
    return _signal_one(attack, attack.drivers(busy=False), signal.SIGKILL)


def kill_every_idle_worker(attack: Attack) -> bool:
    """The worst of it: each takes its queue's lock with it, and no cluster hears the bell any more."""
    return sum(send(pid, signal.SIGKILL) for pid in attack.drivers(busy=False)) > 0


def kill_any_process(attack: Attack) -> bool:
    """Whatever it is: supervisor's cluster, sentinel, worker, pusher, monitor."""
    cluster = attack.any_cluster()
    pids = [pid for pid in cluster.pids() if pid != cluster.process.pid] if cluster else []
    return _signal_one(attack, pids, signal.SIGKILL)


def kill_cluster(attack: Attack) -> bool:
    """A host without power, that comes back."""
    cluster = attack.any_cluster()
    if cluster is None:
        return False
    cluster.kill()
    attack.after(attack.draw.uniform(0, 3), cluster.start_again)
    return True


def kill_supervisor(attack: Attack) -> bool:
    """The supervisor alone; what starts it again is the host's business."""
    cluster = attack.any_cluster()
    if cluster is None or not send(cluster.process.pid, signal.SIGKILL):
        return False
    cluster.process.popen.wait()
    attack.after(attack.draw.uniform(0, 3), cluster.start_again)
    return True


def stall_busy_worker(attack: Attack) -> bool:
    """Stopped for longer than its lease, then it goes on and thinks it still holds its runs."""
    pids = attack.drivers(busy=True)
    if not pids:
        return False
    return _stall(attack, [attack.draw.choice(pids)])


def stall_cluster(attack: Attack) -> bool:
    cluster = attack.any_cluster()
    return _stall(attack, cluster.pids()) if cluster else False


def restart_database(attack: Attack) -> bool:
    """As a crash: connections break, what was not committed is gone, recovery at the start."""
    connection.close()
    attack.shop.postgres.kill()
    pause(attack.draw.uniform(0, 2))
    attack.shop.postgres.start()
    return True


def empty_broker(attack: Attack) -> bool:
    """Every wake-up in it is lost; a Valkey is away for a moment as well."""
    valkey = attack.shop.valkey
    if valkey is None:
        OrmQ.objects.all().delete()
        return True
    valkey.stop()
    pause(attack.draw.uniform(0, 2))
    valkey.start()
    return True


def fail_provider(attack: Attack) -> bool:
    """One of the ways to fail, for the next few calls of one operation."""
    provider, operation = attack.draw.choice(OPERATIONS)
    kind = attack.draw.choice(list(FaultPlan.Kind))
    times = attack.draw.randint(1, 4)
    plan(provider, operation, kind, times=times, code="chaos", seconds=attack.draw.uniform(0.5, 3))
    return True


FAULTS: dict[Callable[[Attack], bool], int] = {
    kill_busy_worker: 4,
    kill_idle_worker: 3,
    kill_every_idle_worker: 1,
    kill_any_process: 2,
    kill_cluster: 2,
    kill_supervisor: 1,
    stall_busy_worker: 3,
    stall_cluster: 1,
    restart_database: 2,
    empty_broker: 2,
    fail_provider: 12,
}


def strike(attack: Attack) -> None:
    """One fault by the weights; another if there is nobody to be hurt by the first."""
    for _ in range(5):
        fault = attack.draw.choices(list(FAULTS), weights=list(FAULTS.values()))[0]
        if fault(attack):
            attack.counts[title(fault)] += 1
            return


def title(fault: Callable[[Attack], bool]) -> str:
    return fault.__name__.replace("_", " ")


def _pid(worker: str) -> int:
    """Worker names are host:pid:random."""
    return int(worker.split(":")[1]) if worker.count(":") == 2 else 0


def _signal_one(attack: Attack, pids: list[int], number: signal.Signals) -> bool:
    return bool(pids) and send(attack.draw.choice(pids), number)


def _stall(attack: Attack, pids: list[int]) -> bool:
    stopped = [pid for pid in pids if send(pid, signal.SIGSTOP)]
    attack.after(LEASE_SECONDS + attack.draw.uniform(1, 3), lambda: [send(pid, signal.SIGCONT) for pid in stopped])
    return bool(stopped)
