"""Runs, steps and attempts as JSON. `Public…` shapes leave out what is staff's: who among them did it, and where."""

from __future__ import annotations

from typing import Any, cast

from drf_spectacular.utils import extend_schema_field, extend_schema_serializer
from rest_framework import serializers

from sagas.api_fields import PlainObject
from sagas.definition import Kind
from sagas.models import RunEvent, SagaRun
from sagas.selectors import AttemptView, RunView, StepView, owner_of
from sagas.states import Direction, Outcome, RunStatus, StepState, UndoState

Data = dict[str, Any]

RUN_STATES = [(status.value, status.value) for status in RunStatus]
STEP_STATES = [(state.value, state.value) for state in StepState]
UNDO_STATES = [(state.value, state.value) for state in UndoState]
OUTCOMES = [("started", "started"), *((outcome.value, outcome.value) for outcome in Outcome)]
DIRECTIONS = [(direction.value, direction.value) for direction in Direction]
KINDS = [(kind.value, kind.value) for kind in Kind]


class AttemptError(serializers.Serializer[AttemptView]):
    """Why an attempt did not succeed."""

    code = serializers.CharField(source="error_code", help_text="Short and stable, such as `card_declined`.")
    message = serializers.CharField(source="error_message")


class PublicAttempt(serializers.Serializer[Any]):
    """One try of an action or a compensation."""

    number = serializers.IntegerField(help_text="From 1.")
    outcome = serializers.SerializerMethodField(
        help_text="`started` until it has ended; `unknown`: it was sent and the answer was lost."
    )
    started_at = serializers.DateTimeField()
    ended_at = serializers.DateTimeField(allow_null=True)
    seconds = serializers.FloatField(allow_null=True)
    key = serializers.CharField(help_text="What the provider was sent: the same for every try, so that twice is once.")
    provider = serializers.CharField()
    provider_id = serializers.CharField(help_text="The provider's own reference, where it gave one.")
    error = serializers.SerializerMethodField()
    retry_at = serializers.DateTimeField(allow_null=True, help_text="When the next try is due.")

    @extend_schema_field(serializers.ChoiceField(choices=OUTCOMES))
    def get_outcome(self, attempt: AttemptView) -> str:
        return attempt.outcome or "started"

    @extend_schema_field(AttemptError(allow_null=True))
    def get_error(self, attempt: AttemptView) -> Data | None:
        return cast(Data, AttemptError(attempt).data) if attempt.error_code else None


class Attempt(PublicAttempt):
    """One try of an action or a compensation, with who began it and where."""

    started_by = serializers.CharField(help_text="`engine`, `user:…`, `customer:…` or `key:…`.")
    worker = serializers.CharField()


class UndoFields(serializers.Serializer[Any]):
    """A step's compensation."""

    title = serializers.CharField(source="undo_title")
    state = serializers.ChoiceField(choices=UNDO_STATES, source="undo_state")
    note = serializers.CharField(source="undo_note", help_text="Why it stands as it does, in words.")
    attempts_allowed = serializers.IntegerField(source="undo_attempts_allowed")
    retry_at = serializers.DateTimeField(source="undo_retry_at", allow_null=True)
    result = PlainObject(source="undo_result", allow_null=True)


class PublicUndo(UndoFields):
    """A step's compensation."""

    attempts = PublicAttempt(many=True, source="undo_attempts")


class Undo(UndoFields):
    """A step's compensation, and what can be done about it now."""

    can = serializers.ListField(child=serializers.CharField(), source="undo_can")
    attempts = Attempt(many=True, source="undo_attempts")


class StepFields(serializers.Serializer[Any]):
    """A step."""

    name = serializers.CharField()
    title = serializers.CharField()
    kind = serializers.ChoiceField(choices=KINDS)
    state = serializers.ChoiceField(choices=STEP_STATES)
    note = serializers.CharField(help_text="Why it stands as it does, in words.")
    attempts_allowed = serializers.IntegerField()
    retry_at = serializers.DateTimeField(allow_null=True)
    result = PlainObject(allow_null=True, help_text="What the action returned; null until it is done.")


class PublicStep(StepFields):
    """A step with its attempts and its compensation."""

    attempts = PublicAttempt(many=True)
    compensation = serializers.SerializerMethodField()

    @extend_schema_field(PublicUndo(allow_null=True))
    def get_compensation(self, step: StepView) -> Data | None:
        return cast(Data, PublicUndo(step).data) if step.undo_state is not None else None


class StepDetail(StepFields):
    """A step with its attempts, its compensation and what can be done about it now."""

    can = serializers.ListField(child=serializers.CharField(), help_text="`retry`, `skip` or `resolve`.")
    attempts = Attempt(many=True)
    compensation = serializers.SerializerMethodField()

    @extend_schema_field(Undo(allow_null=True))
    def get_compensation(self, step: StepView) -> Data | None:
        return cast(Data, Undo(step).data) if step.undo_state is not None else None


class Failure(serializers.Serializer[SagaRun]):
    """Why a run turned back. An ordinary end, not an HTTP error."""

    step = serializers.CharField(source="failure_step", help_text="Empty if a person or the deadline turned it back.")
    code = serializers.CharField(source="failure_code")
    message = serializers.CharField(source="failure_message")


@extend_schema_serializer(component_name="RunEvent")
class RunEventShape(serializers.Serializer[RunEvent]):
    """Something that happened to a run, who did it and why."""

    sequence = serializers.IntegerField(source="id", help_text="Grows with time; never used twice.")
    kind = serializers.CharField()
    step = serializers.CharField()
    direction = serializers.CharField()
    actor = serializers.CharField()
    reason = serializers.CharField()
    details = PlainObject(source="data", help_text="What belongs to this kind: evidence, a code.")
    at = serializers.DateTimeField(source="created_at")


@extend_schema_serializer(component_name="RunSummary")
class RunSummary(serializers.Serializer[Any]):
    """A run, as a list shows it."""

    id = serializers.UUIDField(source="run.id")
    saga = serializers.CharField(source="run.saga")
    version = serializers.IntegerField(source="run.version")
    business_key = serializers.CharField(source="run.business_key", help_text="Of an order's run: the order's number.")
    state = serializers.ChoiceField(choices=RUN_STATES, source="run.status")
    sentence = serializers.CharField(help_text="The state in plain words.")
    current_step = serializers.CharField(source="run.current_step")
    failure = serializers.SerializerMethodField()
    attention_reason = serializers.CharField(
        source="run.attention_reason", help_text="Why it waits for a person; empty if it does not."
    )
    can = serializers.ListField(child=serializers.CharField(), help_text="`cancel` or `abandon`.")
    trace_id = serializers.CharField(
        source="run.trace_id",
        help_text="Of the `traceparent` it was asked for with, or of a trace begun for it; empty for runs of long ago.",
    )
    due_at = serializers.DateTimeField(source="run.due_at", allow_null=True)
    created_at = serializers.DateTimeField(source="run.created_at")
    updated_at = serializers.DateTimeField(source="run.updated_at")
    ended_at = serializers.DateTimeField(source="run.ended_at", allow_null=True)
    imported_at = serializers.DateTimeField(
        source="run.imported_at", allow_null=True, help_text="Read from a file then, to be looked at; else null."
    )

    @extend_schema_field(Failure(allow_null=True))
    def get_failure(self, view: RunView) -> Data | None:
        return failure_of(view)


@extend_schema_serializer(component_name="Run")
class RunDetail(RunSummary):
    """A run with everything that is known of it."""

    owner = serializers.SerializerMethodField(help_text="Who looks after it while it waits for a person; or empty.")
    input = PlainObject(source="run.input", help_text="What it was started with.")
    cancel_refusal = serializers.CharField(help_text="Why it cannot be cancelled; empty if it can.")
    cancel_reason = serializers.CharField(source="run.cancel_reason")
    steps = StepDetail(many=True)
    events = RunEventShape(many=True, help_text="Oldest first.")

    def get_owner(self, view: RunView) -> str:
        return owner_of(view.run)


def failure_of(view: RunView) -> Data | None:
    """Why a run turned back, or None."""
    return cast(Data, Failure(view.run).data) if view.run.failure_code else None
