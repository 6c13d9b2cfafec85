"""Runs over HTTP, for staff: list them, look at one, and help one on."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import Http404
from django.urls import reverse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from sagas import selectors, services
from sagas.api_fields import Moment, PlainObject, Strict, Text, Words, checked, checked_query
from sagas.api_paging import PageQuery, page_of
from sagas.api_shapes import DIRECTIONS, RUN_STATES, RunDetail, RunSummary
from sagas.api_view import ETAG, IF_NONE_MATCH, NOT_MODIFIED, StaffView, answer_with_tag
from sagas.models import SagaRun

READ, ACT = "runs:read", "runs:act"
LOCATION = OpenApiParameter(
    "Location", str, OpenApiParameter.HEADER, response=[202], description="The run, to be looked at again."
)


class RunListApi(StaffView):
    """Runs, newest first."""

    scopes = {"GET": READ}

    class Query(PageQuery):
        """Which runs."""

        state = serializers.ChoiceField(choices=RUN_STATES, required=False)
        saga = serializers.CharField(required=False, max_length=100, help_text="The name of a definition.")
        business_key = serializers.CharField(required=False, max_length=200)
        step = serializers.CharField(required=False, max_length=100, help_text="The step the run is at.")
        error_code = serializers.CharField(required=False, max_length=100, help_text="Why it turned back.")
        created_from = Moment(required=False)
        created_to = Moment(required=False)

    class Output(serializers.Serializer[Any]):
        """A page of runs."""

        results = RunSummary(many=True)
        next = serializers.URLField(allow_null=True)
        previous = serializers.URLField(allow_null=True)

        class Meta:
            ref_name = "RunPage"

    @extend_schema(
        operation_id="list_saga_runs",
        summary="List runs",
        tags=["Runs"],
        parameters=[Query, IF_NONE_MATCH, ETAG],
        responses={200: Output, 304: NOT_MODIFIED},
    )
    def get(self, request: Request) -> Response:
        query = checked_query(self.Query, request)
        page = page_of(_runs(query), request=request, limit=query["limit"], cursor=query.get("cursor"))
        views = selectors.views_for(page.rows)
        rows = RunSummary([views[run.pk] for run in page.rows], many=True).data
        return answer_with_tag(request, page.answer(rows))


class RunDetailApi(StaffView):
    """One run with its steps, attempts, compensations and events."""

    scopes = {"GET": READ}

    @extend_schema(
        operation_id="get_saga_run",
        summary="Look at a run",
        tags=["Runs"],
        parameters=[IF_NONE_MATCH, ETAG],
        responses={200: RunDetail, 304: NOT_MODIFIED},
    )
    def get(self, request: Request, run_id: UUID) -> Response:
        return answer_with_tag(request, RunDetail(_view(run_id)).data)


class Place(Strict):
    """Which step, and which way."""

    step = Text(max_length=100, help_text="The step's name.")
    direction = serializers.ChoiceField(
        choices=DIRECTIONS, default="action", help_text="The step itself, or its compensation."
    )


class RetryApi(StaffView):
    """Try a step or an undo again now."""

    scopes = {"POST": ACT}
    act = "retry"

    class Input(Place):
        """A step or undo to be tried again."""

        reason = Words(max_length=services.LONGEST_REASON, required=False, default="", allow_blank=True)

        class Meta:
            ref_name = "Retry"

    @extend_schema(
        operation_id="retry_saga_run",
        summary="Try a step or an undo again now",
        description="Also cuts a wait short. Sent twice it is done once.",
        tags=["Runs"],
        parameters=[LOCATION],
        request=Input,
        responses={202: RunDetail},
    )
    def post(self, request: Request, run_id: UUID) -> Response:
        services.retry(run_id=_known(run_id), actor=actor_of(request), **checked(self.Input, request.data))
        return _accepted(run_id)


class SkipApi(StaffView):
    """Go on without a step or an undo."""

    scopes = {"POST": ACT}
    act = "skip"

    class Input(Place):
        """A step or undo to be left out."""

        reason = Words(max_length=services.LONGEST_REASON, help_text="Why; it stays in the history.")

        class Meta:
            ref_name = "Skip"

    @extend_schema(
        operation_id="skip_step_of_saga_run",
        summary="Go on without a step or an undo",
        description="For a run that needs attention. What the step would have done stays undone.",
        tags=["Runs"],
        parameters=[LOCATION],
        request=Input,
        responses={202: RunDetail},
    )
    def post(self, request: Request, run_id: UUID) -> Response:
        services.skip(run_id=_known(run_id), actor=actor_of(request), **checked(self.Input, request.data))
        return _accepted(run_id)


class ResolveApi(StaffView):
    """Say that a step or an undo was done outside."""

    scopes = {"POST": ACT}
    act = "resolve"

    class Input(Place):
        """A step or undo that was done outside."""

        reason = Words(max_length=services.LONGEST_REASON, help_text="What was done, and why by hand.")
        evidence = Words(max_length=services.LONGEST_REASON, help_text="A reference that somebody else can check.")
        result = PlainObject(required=False, help_text="What the step would have returned; later steps find it there.")

        class Meta:
            ref_name = "Resolution"

    @extend_schema(
        operation_id="resolve_step_of_saga_run",
        summary="Say that a step or an undo was done outside",
        description="For a run that needs attention: the run goes on as if the step had succeeded.",
        tags=["Runs"],
        parameters=[LOCATION],
        request=Input,
        responses={202: RunDetail},
    )
    def post(self, request: Request, run_id: UUID) -> Response:
        services.resolve(run_id=_known(run_id), actor=actor_of(request), **checked(self.Input, request.data))
        return _accepted(run_id)


def actor_of(request: Request) -> str:
    """How the history names the caller: by key, where one was used, else by name."""
    return str(getattr(request.auth, "actor", "") or f"user:{request.user.get_username()}")


def _runs(query: dict[str, Any]) -> QuerySet[SagaRun]:
    asked = {
        "status": query.get("state"),
        "saga": query.get("saga"),
        "business_key": query.get("business_key"),
        "current_step": query.get("step"),
        "failure_code": query.get("error_code"),
        "created_at__gte": query.get("created_from"),
        "created_at__lt": query.get("created_to"),
    }
    return SagaRun.objects.filter(**{name: value for name, value in asked.items() if value is not None})


def _known(run_id: UUID) -> UUID:
    """Raises Http404 for a run that is not there."""
    if not SagaRun.objects.filter(pk=run_id).exists():
        raise Http404(f"There is no run {run_id}.")
    return run_id


def _view(run_id: UUID) -> selectors.RunView:
    try:
        return selectors.run_view(run_id)
    except SagaRun.DoesNotExist:
        raise Http404(f"There is no run {run_id}.") from None


def _accepted(run_id: UUID) -> Response:
    """The run as it now is; what was asked for goes on by itself."""
    return Response(
        RunDetail(_view(run_id)).data,
        status=HTTPStatus.ACCEPTED,
        headers={"Location": reverse("api-saga-run", kwargs={"run_id": run_id}), "Retry-After": "1"},
    )
