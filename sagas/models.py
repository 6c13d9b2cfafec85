"""What is stored of runs: the rows are the truth, and the queue only rings the bell."""

from __future__ import annotations

import os
import time
import uuid
from datetime import datetime

from django.db import models
from django.db.models import Case, F, Q, Value, When

from sagas.states import FORWARD, LIVE, BulkState, Direction, ItemState, Outcome, RunStatus
from sagas.traces import trace_id

RUN_STATUSES = [(status.value, status.value.replace("_", " ")) for status in RunStatus]
DIRECTIONS = [(direction.value, direction.value) for direction in Direction]
PHASE_FORWARD = "forward"
OUTCOMES = [(outcome.value, outcome.value) for outcome in Outcome]


def new_run_id() -> uuid.UUID:
    """A UUID of version 7: time first, so that new rows stand together in the index. Source: RFC 9562, 5.7."""
    milliseconds = time.time_ns() // 1_000_000
    tail = int.from_bytes(os.urandom(10), "big")
    number = (milliseconds << 80) | tail
    number = (number & ~(0xF << 76)) | (0x7 << 76)
    number = (number & ~(0x3 << 62)) | (0x2 << 62)
    return uuid.UUID(int=number)


def earliest_run_id(at: datetime) -> uuid.UUID:
    """No run that began at `at` or later has an id below this."""
    return uuid.UUID(int=int(at.timestamp() * 1000) << 80)


class SagaRuns(models.QuerySet["SagaRun"]):
    def in_states(self, *statuses: str) -> SagaRuns:
        """Those with one of `statuses`, found by the index, which knows phases only."""
        phases = {PHASE_FORWARD if status in FORWARD else str(status) for status in statuses}
        return self.filter(phase__in=sorted(phases), status__in=sorted(map(str, statuses)))


class SagaRun(models.Model):
    """One execution of a saga. Written by journal.py alone, each write under the fence."""

    id = models.UUIDField(primary_key=True, default=new_run_id, editable=False)
    saga = models.CharField(max_length=100)
    version = models.PositiveIntegerField()
    business_key = models.CharField(max_length=200)
    status = models.CharField(max_length=20, choices=RUN_STATUSES, default=RunStatus.PENDING.value)
    phase = models.GeneratedField(
        expression=Case(
            When(status__in=sorted(status.value for status in FORWARD), then=Value(PHASE_FORWARD)), default=F("status")
        ),
        output_field=models.CharField(max_length=20),
        db_persist=True,
    )
    """The status as indexes know it: one value for all of going forward. PostgreSQL writes a row in place only if no
    column of any index changes, the condition of an index among them, and every claim changes the status."""
    input = models.JSONField(default=dict)
    current_step = models.CharField(max_length=100, blank=True, default="")
    due_at = models.DateTimeField(null=True, blank=True)
    deadline_at = models.DateTimeField(null=True, blank=True)
    lease_owner = models.CharField(max_length=100, blank=True, default="")
    lease_until = models.DateTimeField(null=True, blank=True)
    fence = models.PositiveBigIntegerField(default=0)
    claims = models.PositiveIntegerField(default=0)
    """Claims since something was last recorded: a run that kills its workers is found by it."""
    turned_back_at = models.DateTimeField(null=True, blank=True)
    cancel_requested_at = models.DateTimeField(null=True, blank=True)
    cancel_reason = models.TextField(blank=True, default="")
    fresh_from = models.JSONField(default=dict, blank=True)
    """{"<step>:<direction>": n}: a person asked for another try after attempt n; earlier failures no longer count."""
    failure_step = models.CharField(max_length=100, blank=True, default="")
    failure_code = models.CharField(max_length=100, blank=True, default="")
    failure_message = models.TextField(blank=True, default="")
    """Why the run turned back."""
    attention_reason = models.TextField(blank=True, default="")
    """Why it waits for a person, and what remains to be done."""
    created_at = models.DateTimeField()
    updated_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    pruned_at = models.DateTimeField(null=True, blank=True)
    """When its attempts and events were taken away: sagas/pruning.py. From then on nothing can be undone by them."""
    imported_at = models.DateTimeField(null=True, blank=True)
    """When it was read from a file: sagas/export.py. What it did happened elsewhere, and nobody acts on it here."""
    traceparent = models.CharField(max_length=55, blank=True, default="", db_default="")
    """Of the request that the run was asked for in, as W3C Trace Context writes it. Written once, with the run; last of
    the columns, so that a write that leaves it alone does not log it."""

    objects = SagaRuns.as_manager()

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(status__in=[status.value for status in RunStatus]), name="sagas_run_status_known"
            ),
            # Placing an order twice must not start two live runs.
            models.UniqueConstraint(
                fields=["saga", "business_key"],
                condition=Q(ended_at__isnull=True),
                name="sagas_one_live_run_per_key",
            ),
            # An ended run is due for nothing and held by nobody.
            models.CheckConstraint(
                condition=Q(ended_at__isnull=False, due_at__isnull=True, lease_until__isnull=True)
                | Q(ended_at__isnull=True),
                name="sagas_run_ended_is_at_rest",
            ),
            models.CheckConstraint(
                condition=Q(ended_at__isnull=True, status__in=sorted(status.value for status in LIVE))
                | Q(ended_at__isnull=False, status__in=sorted({s.value for s in RunStatus} - {s.value for s in LIVE})),
                name="sagas_run_ended_has_end",
            ),
            models.CheckConstraint(
                condition=Q(lease_until__isnull=True, lease_owner="")
                | (Q(lease_until__isnull=False) & ~Q(lease_owner="")),
                name="sagas_run_lease_has_owner",
            ),
            models.CheckConstraint(
                condition=~Q(status=RunStatus.NEEDS_ATTENTION.value) | ~Q(attention_reason=""),
                name="sagas_run_attention_has_reason",
            ),
        ]
        indexes = [
            # The claim: what is due, oldest first. Ended runs have no due time and stay out of it.
            models.Index(fields=["due_at"], condition=Q(due_at__isnull=False), name="sagas_run_due"),
            # A second order of the same number finds the first, also when that one has ended.
            models.Index(fields=["saga", "business_key"], name="sagas_run_key"),
            # Lists by state, newest first; ids grow with time.
            models.Index(fields=["phase", "-id"], name="sagas_run_phase"),
        ]

    def __str__(self) -> str:
        return f"{self.saga} {self.business_key} ({self.status})"

    @property
    def trace_id(self) -> str:
        return trace_id(self.traceparent)


class StepRecord(models.Model):
    """One attempt of an action or a compensation: written before it begins, closed once, never edited after."""

    run = models.ForeignKey(SagaRun, on_delete=models.PROTECT, related_name="records", db_index=False)
    step = models.CharField(max_length=100)
    direction = models.CharField(max_length=12, choices=DIRECTIONS)
    number = models.PositiveIntegerField()
    outcome = models.CharField(max_length=12, choices=OUTCOMES, blank=True, default="")
    key = models.CharField(max_length=200)
    started_by = models.CharField(max_length=150, default="engine")
    worker = models.CharField(max_length=100, blank=True, default="")
    fence = models.PositiveBigIntegerField(default=0)
    started_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)
    retry_at = models.DateTimeField(null=True, blank=True)
    """When the next attempt is due, or until when a wait may last."""
    wait_signal = models.CharField(max_length=100, blank=True, default="")
    settled = models.BooleanField(default=False)
    """The look-up said that no earlier attempt happened."""
    result = models.JSONField(null=True, blank=True)
    error_code = models.CharField(max_length=100, blank=True, default="")
    error_message = models.TextField(blank=True, default="")
    provider = models.CharField(max_length=100, blank=True, default="")
    provider_id = models.CharField(max_length=200, blank=True, default="")

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "step", "direction", "number"], name="sagas_record_attempt_once"),
            models.CheckConstraint(condition=Q(number__gte=1), name="sagas_record_number_from_one"),
            models.CheckConstraint(
                condition=Q(outcome="", ended_at__isnull=True)
                | (Q(outcome__in=[outcome.value for outcome in Outcome]) & Q(ended_at__isnull=False)),
                name="sagas_record_ended_has_outcome",
            ),
            models.CheckConstraint(
                condition=Q(ended_at__isnull=True) | Q(ended_at__gte=F("started_at")),
                name="sagas_record_ends_after_start",
            ),
            models.CheckConstraint(
                condition=Q(direction__in=[direction.value for direction in Direction]),
                name="sagas_record_direction_known",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.step} {self.direction} {self.number}: {self.outcome or 'started'}"


class RunEvent(models.Model):
    """Who did what to a run, and why. Only added."""

    run = models.ForeignKey(SagaRun, on_delete=models.PROTECT, related_name="events", db_index=False)
    kind = models.CharField(max_length=50)
    step = models.CharField(max_length=100, blank=True, default="")
    direction = models.CharField(max_length=12, blank=True, default="")
    actor = models.CharField(max_length=150, default="engine")
    reason = models.TextField(blank=True, default="")
    data = models.JSONField(default=dict, blank=True)
    created_at = models.DateTimeField()

    class Meta:
        indexes = [models.Index(fields=["run", "id"], name="sagas_event_run")]

    def __str__(self) -> str:
        return f"{self.kind} by {self.actor}"


class Signal(models.Model):
    """What the world said to a run. May come before anybody waits for it; the first of a name is the one heard."""

    run = models.ForeignKey(SagaRun, on_delete=models.PROTECT, related_name="signals", db_index=False)
    name = models.CharField(max_length=100)
    payload = models.JSONField(default=dict, blank=True)
    actor = models.CharField(max_length=150, default="engine")
    received_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["run", "name"], name="sagas_signal_heard_once"),
        ]

    def __str__(self) -> str:
        return self.name


class Assignment(models.Model):
    """Who looks after a run that waits for a person, and until when it may rest. The run's own columns are its
    workers'."""

    run = models.OneToOneField(SagaRun, on_delete=models.PROTECT, primary_key=True, related_name="assignment")
    owner = models.CharField(max_length=150, blank=True, default="")
    """As the history names people: user:ada."""
    snoozed_until = models.DateTimeField(null=True, blank=True)
    snoozed_since = models.DateTimeField(null=True, blank=True)
    """When the wait began that was put off: coming back to need a person, a run is not put off any more."""

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(snoozed_until__isnull=True, snoozed_since__isnull=True)
                | Q(snoozed_until__isnull=False, snoozed_since__isnull=False),
                name="sagas_assignment_put_off_in_a_wait",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.owner or 'nobody'} looks after {self.run_id}"


class BulkOperation(models.Model):
    """One act on many runs. Goes on in the background, run by run, through crashes and restarts."""

    id = models.UUIDField(primary_key=True, default=new_run_id, editable=False)
    act = models.CharField(max_length=20)
    reason = models.TextField(blank=True, default="")
    actor = models.CharField(max_length=150)
    about = models.CharField(max_length=300)
    """Which runs were meant, in words."""
    per_second = models.PositiveIntegerField(default=20)
    state = models.CharField(max_length=10, choices=[(s.value, s.value) for s in BulkState], default=BulkState.OPEN)
    lease_until = models.DateTimeField(null=True, blank=True)
    """Somebody is at it until then."""
    created_at = models.DateTimeField()
    ended_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=[state.value for state in BulkState]), name="sagas_bulk_state_known"
            ),
            models.CheckConstraint(
                condition=Q(state=BulkState.OPEN.value, ended_at__isnull=True)
                | (~Q(state=BulkState.OPEN.value) & Q(ended_at__isnull=False)),
                name="sagas_bulk_open_or_ended",
            ),
        ]
        indexes = [
            models.Index(fields=["id"], condition=Q(state=BulkState.OPEN.value), name="sagas_bulk_open"),
        ]

    def __str__(self) -> str:
        return f"{self.act} {self.about} ({self.state})"


class BulkItem(models.Model):
    """One run of a bulk operation, and what came of the act on it."""

    operation = models.ForeignKey(BulkOperation, on_delete=models.PROTECT, related_name="items", db_index=False)
    run = models.ForeignKey(SagaRun, on_delete=models.PROTECT, related_name="+", db_index=False)
    step = models.CharField(max_length=100, blank=True, default="")
    """Empty: whatever of the run the act fits."""
    direction = models.CharField(max_length=12, blank=True, default="")
    state = models.CharField(
        max_length=10, choices=[(s.value, s.value) for s in ItemState], default=ItemState.PENDING.value
    )
    note = models.TextField(blank=True, default="")
    done_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["operation", "run"], name="sagas_bulk_item_once"),
            models.CheckConstraint(
                condition=Q(state__in=[state.value for state in ItemState]), name="sagas_bulk_item_state_known"
            ),
        ]

    def __str__(self) -> str:
        return f"{self.run_id}: {self.state}"


class Tally(models.Model):
    """A number that only grows, or a place up to which something was counted: what metrics are told from."""

    name = models.CharField(max_length=100)
    labels = models.CharField(max_length=300, blank=True, default="")
    """As Prometheus writes them: step="reserve",outcome="succeeded"."""
    value = models.FloatField(default=0)

    class Meta:
        verbose_name_plural = "tallies"
        constraints = [models.UniqueConstraint(fields=["name", "labels"], name="sagas_tally_once")]

    def __str__(self) -> str:
        return f"{self.name}{{{self.labels}}} {self.value:g}"


class Heartbeat(models.Model):
    """A worker's last sign of life."""

    name = models.CharField(max_length=100, unique=True)
    """Host and process; never told outside, since each start makes a new one."""
    cluster = models.CharField(max_length=100)
    """The name of the queue it works for."""
    seen_at = models.DateTimeField()
    alive_until = models.DateTimeField()
    """It counts as alive until then, unless it is seen again."""

    def __str__(self) -> str:
        return f"{self.name} of {self.cluster}"


class Barrier(models.Model):
    """An effect in our own database, once: the row commits with it. The key holds run, step and direction."""

    key = models.CharField(max_length=200, unique=True)
    cause = models.CharField(max_length=12, choices=DIRECTIONS)
    """compensation on an action's key: the undo came first, and the action will be turned away."""
    result = models.JSONField(default=dict)
    created_at = models.DateTimeField(auto_now_add=True)

    def __str__(self) -> str:
        return self.key
