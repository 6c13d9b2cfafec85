"""Real worker processes: started, killed at the worst moment, started again, and stopped without a trace."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from sagas import heartbeats
from sagas.models import SagaRun, StepRecord
from sagas.services import start
from sagas.states import RunStatus
from tests.processes import Process, Site, family, wait_for
from tests.sagas.toyapp.saga import ERRAND
from tests.sagas.toys import attempts_of, registered

pytestmark = [
    pytest.mark.processes,
    pytest.mark.parametrize(
        "site",
        [
            {
                "DJANGO_SETTINGS_MODULE": "tests.sagas.toyapp.settings",
                "Q_WORKERS": "1",
                "SAGA_LEASE_SECONDS": "5",
                "SAGA_MAX_CLAIMS": "3",
            }
        ],
        indirect=True,
    ),
]


@pytest.fixture(autouse=True)
def errand() -> Iterator[None]:
    with registered(ERRAND):
        yield


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """The folder in which the errand's effects are seen."""
    folder = tmp_path / "world"
    folder.mkdir()
    return folder


def send(world: Path, key: str, **more: Any) -> SagaRun:
    return start(saga=ERRAND, business_key=key, input={"world": str(world), **more})


def has_status(run: SagaRun, status: RunStatus) -> bool:
    run.refresh_from_db()
    return run.status == status


def wait_until(run: SagaRun, status: RunStatus, *, seconds: float = 60) -> None:
    wait_for(f"{run.business_key} to be {status.value}", lambda: has_status(run, status), seconds=seconds)


def worker_pid(run: SagaRun) -> int:
    """The process that last began an attempt of this run."""
    worker = StepRecord.objects.filter(run=run).order_by("-id").values_list("worker", flat=True)[0]
    return int(worker.split(":")[1])


def start_worker(site: Site, *, stalled_after: float = 60) -> Process:
    return site.start("worker", "manage.py", "sagaworker", "--stalled-after", str(stalled_after))


def effects(world: Path, run: SagaRun) -> dict[str, list[str]]:
    """By step: which attempts had the effect of their key."""
    return {file.name.split(":")[1]: file.read_text().split() for file in world.glob(f"{run.pk}:*")}


def test_killed_in_the_middle_of_a_step_and_started_again(site: Site, world: Path) -> None:
    run = send(world, "E-1", gate=True)
    start_worker(site)
    wait_for("the effect", lambda: effects(world, run), seconds=60)

    # As a power cut would: everything at once, and no handler runs.
    for pid in family(site):
        os.kill(pid, signal.SIGKILL)
    wait_for("the end of all processes", lambda: not family(site))
    (world / "gate").touch()
    start_worker(site)
    wait_until(run, RunStatus.COMPLETED)

    assert attempts_of(run) == [
        ("fetch", "action", 1, "unknown"),
        ("fetch", "action", 2, "succeeded"),
        ("deliver", "action", 1, "succeeded"),
    ]
    assert effects(world, run) == {"fetch": ["1"], "deliver": ["1"]}


def test_workers_stand_back_for_whoever_waits_for_an_answer(site: Site, world: Path) -> None:
    start_worker(site)
    run = send(world, "E-1", gate=True)
    wait_for("the effect", lambda: effects(world, run), seconds=60)

    niceness = {os.getpriority(os.PRIO_PROCESS, pid) for pid in family(site)}

    (world / "gate").touch()
    wait_until(run, RunStatus.COMPLETED)
    assert niceness == {min(os.getpriority(os.PRIO_PROCESS, 0) + 5, 19)}


STALLED = "Work is due and nobody takes it; restarting the cluster."


def test_an_idle_worker_is_killed_and_the_cluster_stalls(site: Site, world: Path) -> None:
    supervisor = start_worker(site, stalled_after=3)
    run = send(world, "E-1")
    wait_until(run, RunStatus.COMPLETED)

    # Idle, it waits for the queue under a lock that it takes along: whoever is started in its place waits for ever.
    # One that is still on its way there takes nothing along, and the next one is tried.
    for number in range(2, 8):
        killed = worker_pid(run)
        os.kill(killed, signal.SIGKILL)
        run = send(world, f"E-{number}")
        wait_until(run, RunStatus.COMPLETED)
        assert worker_pid(run) != killed
        assert effects(world, run) == {"fetch": ["1"], "deliver": ["1"]}
        if STALLED in supervisor.output():
            break

    assert STALLED in supervisor.output()


def test_a_step_that_kills_its_worker_every_time_holds_up_nobody_else(site: Site, world: Path) -> None:
    killer = send(world, "killer", kills=True)
    others = [send(world, f"E-{n}") for n in range(3)]
    start_worker(site)

    wait_until(killer, RunStatus.NEEDS_ATTENTION, seconds=120)
    for run in others:
        wait_until(run, RunStatus.COMPLETED)

    assert killer.attention_reason == "Taken up 3 times and nothing came of it: fetch may be killing its workers."
    assert [outcome for *_, outcome in attempts_of(killer)] == ["unknown"] * 3


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda how: how.name)
def test_stopping_the_supervisor_stops_everything(site: Site, world: Path, how: signal.Signals) -> None:
    supervisor = start_worker(site)
    run = send(world, "E-1")
    wait_until(run, RunStatus.COMPLETED)
    assert len(family(site)) > 3
    wait_for("a sign of life", lambda: heartbeats.alive(timezone.now()) == {"orders": 1}, seconds=30)

    os.kill(supervisor.pid, how)

    wait_for("the end of all processes", lambda: not family(site), seconds=30)
    if how is signal.SIGKILL:
        # It could say nothing any more, and is missed when its last sign of life is over.
        assert heartbeats.alive(timezone.now() + heartbeats.LASTS) == {}
    else:
        assert supervisor.popen.wait(5) == 0
        assert heartbeats.alive(timezone.now()) == {}


def test_what_does_not_end_within_the_grace_is_killed_and_taken_over(site: Site, world: Path) -> None:
    supervisor = site.start("worker", "manage.py", "sagaworker", "--grace", "2")
    run = send(world, "E-1", gate=True)
    wait_for("the effect", lambda: effects(world, run), seconds=60)

    told = time.monotonic()
    os.kill(supervisor.pid, signal.SIGTERM)
    wait_for("it to say that it stops", lambda: not heartbeats.alive(timezone.now()))
    late = send(world, "E-2", gate=True)
    code = supervisor.popen.wait(30)
    took = time.monotonic() - told

    assert (code, family(site)) == (0, [])
    assert 2 <= took < 8
    assert "The cluster did not stop within 2 s; killing it." in supervisor.output()
    assert (attempts_of(run), attempts_of(late)) == ([("fetch", "action", 1, "")], [])  # nothing new was begun

    (world / "gate").touch()
    start_worker(site)
    for one in (run, late):
        wait_until(one, RunStatus.COMPLETED)
    assert attempts_of(run)[:2] == [("fetch", "action", 1, "unknown"), ("fetch", "action", 2, "succeeded")]
    assert effects(world, run) == {"fetch": ["1"], "deliver": ["1"]}


def test_what_is_under_way_is_finished_before_it_stops(site: Site, world: Path) -> None:
    supervisor = start_worker(site)
    run = send(world, "E-1", gate=True)
    wait_for("the effect", lambda: effects(world, run), seconds=60)

    os.kill(supervisor.pid, signal.SIGTERM)
    (world / "gate").touch()

    wait_for("the end of all processes", lambda: not family(site), seconds=30)
    # The step that was under way is recorded, and the next one is for another worker.
    assert attempts_of(run)[0] == ("fetch", "action", 1, "succeeded")
    run.refresh_from_db()
    assert (run.lease_owner, run.lease_until) == ("", None)
    assert "killing it" not in supervisor.output()
