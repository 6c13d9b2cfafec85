"""What runs are made of, and made from: steps, attempts, definitions."""

from __future__ import annotations

from typing import Any, cast
from uuid import UUID

from django.http import Http404
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from sagas import registry
from sagas.api import READ, view_or_404
from sagas.api_shapes import KINDS, Attempt, StepDetail
from sagas.api_view import ETAG, IF_NONE_MATCH, NOT_MODIFIED, StaffView, answer_with_tag
from sagas.definition import Saga, Step
from sagas.exceptions import UnknownSaga
from sagas.retry import RetryPolicy


@extend_schema_field(serializers.FloatField())
class Seconds(serializers.Field[Any, Any, float, Any]):
    """A stretch of time."""

    def to_representation(self, value: Any) -> float:
        return float(value.total_seconds())


@extend_schema_serializer(component_name="RetryPolicy")
class Retry(serializers.Serializer[RetryPolicy]):
    """How often, and after which waits, an attempt is made again."""

    attempts = serializers.IntegerField(help_text="At most so many, the first among them.")
    first_seconds = Seconds(source="first")
    factor = serializers.FloatField(help_text="By which each wait is longer than the one before.")
    cap_seconds = Seconds(source="cap", help_text="No wait is longer.")
    jitter = serializers.BooleanField(help_text="Waits are drawn at random up to their length.")


@extend_schema_serializer(component_name="StepDefinition")
class StepShape(serializers.Serializer[Step]):
    """A step and its undo, as they are defined."""

    name = serializers.CharField()
    title = serializers.CharField(source="display")
    kind = serializers.ChoiceField(choices=KINDS)
    timeout_seconds = Seconds(source="timeout")
    retry = Retry()
    has_look_up = serializers.SerializerMethodField(help_text="A lost answer is asked after before it is sent again.")
    compensation_title = serializers.SerializerMethodField(help_text="null: it has no undo.")
    compensation_retry = serializers.SerializerMethodField()

    def get_has_look_up(self, step: Step) -> bool:
        return step.look_up is not None

    @extend_schema_field(serializers.CharField(allow_null=True))
    def get_compensation_title(self, step: Step) -> str | None:
        return step.compensation_display if step.compensation is not None else None

    @extend_schema_field(Retry(allow_null=True))
    def get_compensation_retry(self, step: Step) -> dict[str, Any] | None:
        return cast(dict[str, Any], Retry(step.compensation_retry).data) if step.compensation is not None else None


@extend_schema_serializer(component_name="SagaDefinition")
class DefinitionShape(serializers.Serializer[Any]):
    """A saga as it is defined; runs go on under the version they began with."""

    name = serializers.CharField()
    version = serializers.IntegerField()
    deadline_seconds = serializers.SerializerMethodField(help_text="null: it may take as long as it takes.")
    steps = StepShape(many=True)

    @extend_schema_field(serializers.FloatField(allow_null=True))
    def get_deadline_seconds(self, saga: Saga) -> float | None:
        return saga.deadline.total_seconds() if saga.deadline is not None else None


class DefinitionListApi(StaffView):
    """Every definition, in every version that is registered."""

    scopes = {"GET": READ}

    class Output(serializers.Serializer[Any]):
        """All of them: there are few."""

        results = DefinitionShape(many=True)

        class Meta:
            ref_name = "SagaDefinitions"

    @extend_schema(
        operation_id="list_saga_definitions",
        summary="List definitions",
        tags=["Definitions"],
        parameters=[IF_NONE_MATCH, ETAG],
        responses={200: Output, 304: NOT_MODIFIED},
    )
    def get(self, request: Request) -> Response:
        sagas = [registry.get(name, version) for name, version in registry.names()]
        return answer_with_tag(request, {"results": DefinitionShape(sagas, many=True).data})


class DefinitionApi(StaffView):
    """The newest version of a definition."""

    scopes = {"GET": READ}

    @extend_schema(
        operation_id="get_saga_definition",
        summary="Look at a definition",
        tags=["Definitions"],
        parameters=[IF_NONE_MATCH, ETAG],
        responses={200: DefinitionShape, 304: NOT_MODIFIED},
    )
    def get(self, request: Request, name: str) -> Response:
        try:
            saga = registry.newest(name)
        except UnknownSaga:
            raise Http404(f"There is no definition {name[:100]}.") from None
        return answer_with_tag(request, DefinitionShape(saga).data)


class StepListApi(StaffView):
    """The steps of a run."""

    scopes = {"GET": READ}

    class Output(serializers.Serializer[Any]):
        """All of them, in the order of the definition."""

        results = StepDetail(many=True)

        class Meta:
            ref_name = "Steps"

    @extend_schema(
        operation_id="list_steps_of_saga_run",
        summary="The steps of a run",
        tags=["Runs"],
        parameters=[IF_NONE_MATCH, ETAG],
        responses={200: Output, 304: NOT_MODIFIED},
    )
    def get(self, request: Request, run_id: UUID) -> Response:
        return answer_with_tag(request, {"results": StepDetail(view_or_404(run_id).steps, many=True).data})


class AttemptListApi(StaffView):
    """Every attempt of a step and of its undo: none is left out, and none is changed afterwards."""

    scopes = {"GET": READ}

    class Output(serializers.Serializer[Any]):
        """In the order of their numbers."""

        attempts = Attempt(many=True)
        compensation_attempts = Attempt(many=True)

        class Meta:
            ref_name = "StepAttempts"

    @extend_schema(
        operation_id="list_attempts_of_step",
        summary="The attempts of a step and of its undo",
        tags=["Runs"],
        parameters=[
            IF_NONE_MATCH,
            ETAG,
            OpenApiParameter(
                "step", str, OpenApiParameter.PATH, description="Its name, or its number: the first is 1."
            ),
        ],
        responses={200: Output, 304: NOT_MODIFIED},
    )
    def get(self, request: Request, run_id: UUID, step: str) -> Response:
        for number, found in enumerate(view_or_404(run_id).steps, 1):
            if step in (found.name, str(number)):
                told = {
                    "attempts": Attempt(found.attempts, many=True).data,
                    "compensation_attempts": Attempt(found.undo_attempts, many=True).data,
                }
                return answer_with_tag(request, told)
        raise Http404(f"Run {run_id} has no step {step[:100]}.")
