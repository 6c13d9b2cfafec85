"""Runs over HTTP, for staff: list them, look at one, and help one on."""

from __future__ import annotations

from collections.abc import Callable
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
from sagas.api_view import (
    ETAG,
    IF_MATCH,
    IF_NONE_MATCH,
    KEY,
    NOT_MODIFIED,
    StaffView,
    answer_with_tag,
    check_owner,
    check_version,
    once,
    tag_of,
)
from sagas.models import SagaRun

ETAG_AFTER = OpenApiParameter("ETag", str, OpenApiParameter.HEADER, response=[202])
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

    scopes = {"GET": READ, "PATCH": ACT}
    acts = {"PATCH": "assign"}

    class Input(Strict):
        """What may be changed of a run as such. All else is history, or an act of its own."""

        owner = Text(
            max_length=150, allow_null=True, help_text="As the history names people: `user:gina`; null: everybody's."
        )

        class Meta:
            ref_name = "RunChange"

    @extend_schema(
        operation_id="get_saga_run",
        summary="Look at a run",
        tags=["Runs"],
        parameters=[IF_NONE_MATCH, ETAG],
        responses={200: RunDetail, 304: NOT_MODIFIED},
    )
    def get(self, request: Request, run_id: UUID) -> Response:
        return answer_with_tag(request, RunDetail(view_or_404(run_id)).data)

    @extend_schema(
        operation_id="change_saga_run",
        summary="Say who looks after a run",
        description="Of a run that waits for a person.",
        tags=["Runs"],
        parameters=[IF_MATCH, OpenApiParameter("ETag", str, OpenApiParameter.HEADER, response=[200])],
        request=Input,
        responses={200: RunDetail},
    )
    def patch(self, request: Request, run_id: UUID) -> Response:
        view = view_or_404(run_id)
        owner = checked(self.Input, request.data)["owner"] or ""
        check_version(request, RunDetail(view).data)
        check_owner(owner, asked_by=actor_of(request))
        services.assign(run_id=run_id, owner=owner, actor=actor_of(request))
        data = RunDetail(view_or_404(run_id)).data
        return Response(data, headers={"ETag": tag_of(data)})


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
        parameters=[IF_MATCH, KEY, LOCATION, ETAG_AFTER],
        request=Input,
        responses={202: RunDetail},
    )
    def post(self, request: Request, run_id: UUID) -> Response:
        return _acted(services.retry, self.Input, request, run_id)


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
        parameters=[IF_MATCH, KEY, LOCATION, ETAG_AFTER],
        request=Input,
        responses={202: RunDetail},
    )
    def post(self, request: Request, run_id: UUID) -> Response:
        return _acted(services.skip, self.Input, request, run_id)


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
        parameters=[IF_MATCH, KEY, LOCATION, ETAG_AFTER],
        request=Input,
        responses={202: RunDetail},
    )
    def post(self, request: Request, run_id: UUID) -> Response:
        return _acted(services.resolve, self.Input, request, run_id)


class CompensateApi(StaffView):
    """Have everything undone."""

    scopes = {"POST": ACT}
    act = "cancel"

    class Input(Strict):
        """That a run is to be undone, and why."""

        reason = Words(max_length=services.LONGEST_REASON, help_text="Why; it stays in the history.")

        class Meta:
            ref_name = "Compensation"

    @extend_schema(
        operation_id="compensate_saga_run",
        summary="Have everything undone",
        description="Newest first; a step under way ends first. Sent twice it is done once.",
        tags=["Runs"],
        parameters=[IF_MATCH, KEY, LOCATION, ETAG_AFTER],
        request=Input,
        responses={202: RunDetail},
    )
    def post(self, request: Request, run_id: UUID) -> Response:
        return _acted(services.cancel, self.Input, request, run_id)


def _acted(
    act: Callable[..., SagaRun], shape: type[serializers.Serializer[Any]], request: Request, run_id: UUID
) -> Response:
    """The answer to an act on a run that is there, and is as the caller saw it."""
    view_or_404(run_id)
    data = checked(shape, request.data)

    def work() -> Response:
        # In here, so that a request that is sent twice gets its first answer although the run has changed by it.
        check_version(request, RunDetail(view_or_404(run_id)).data)
        act(run_id=run_id, actor=actor_of(request), **data)
        return accepted(run_id)

    return once(request, work)


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


def view_or_404(run_id: UUID) -> selectors.RunView:
    """Raises Http404 for a run that is not there."""
    try:
        return selectors.run_view(run_id)
    except SagaRun.DoesNotExist:
        raise Http404(f"There is no run {run_id}.") from None


def accepted(run_id: UUID) -> Response:
    """The run as it now is; what was asked for goes on by itself."""
    data = RunDetail(view_or_404(run_id)).data
    headers = {"Location": reverse("api-saga-run", kwargs={"run_id": run_id}), "Retry-After": "1", "ETag": tag_of(data)}
    return Response(data, status=HTTPStatus.ACCEPTED, headers=headers)
