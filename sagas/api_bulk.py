"""One act on many runs, over HTTP: tried dry, begun, followed, stopped."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any
from uuid import UUID

from django.db.models import QuerySet
from django.http import Http404
from django.urls import reverse
from drf_spectacular.utils import OpenApiParameter, OpenApiResponse, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.exceptions import APIException, ErrorDetail, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from sagas import InvalidOperation, operations, services
from sagas.api import ACT, READ, actor_of
from sagas.api_fields import Strict, Text, Whole, Words, checked, checked_query
from sagas.api_paging import PageQuery, page_of
from sagas.api_shapes import RUN_STATES
from sagas.api_view import KEY, StaffView, once
from sagas.models import BulkItem, BulkOperation, SagaRun
from sagas.operations import MOST, Target
from sagas.states import BulkState, ItemState

BULK_ACTS = [(act, act) for act in operations.ACTS]
BULK_STATES = [(state.value, state.value) for state in BulkState]
ITEM_STATES = [(state.value, state.value) for state in ItemState]
SAMPLE = 10
MOST_IDS = 1000


class SelectionChanged(APIException):
    """Other runs are meant now than in the dry run whose token was sent."""

    status_code = HTTPStatus.CONFLICT
    default_code = "selection-changed"
    default_detail = "Other runs fit now than in the dry run. Do it again, and look at what it says."


class RunFilter(Strict):
    """Which runs: all of what is given holds."""

    state = serializers.ChoiceField(choices=RUN_STATES, required=False)
    saga = Text(max_length=100, required=False)
    step = Text(max_length=100, required=False, help_text="The step the run is at.")
    error_code = Text(max_length=100, required=False, help_text="Why it turned back.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Nobody acts on all of history by mistake."""
        if not attrs:
            raise ValidationError([ErrorDetail("Say which runs are meant.", code="empty")])
        return attrs


@extend_schema_serializer(component_name="BulkOperation")
class OperationShape(serializers.Serializer[BulkOperation]):
    """An act on many runs."""

    id = serializers.UUIDField()
    act = serializers.ChoiceField(choices=BULK_ACTS)
    state = serializers.ChoiceField(choices=BULK_STATES, help_text="`stopped`: by a person, with runs left.")
    about = serializers.CharField(help_text="Which runs were meant, in words.")
    reason = serializers.CharField()
    actor = serializers.CharField()
    max_per_second = serializers.IntegerField(source="per_second")
    counts = serializers.SerializerMethodField(help_text="Runs by what came of it.")
    created_at = serializers.DateTimeField()
    ended_at = serializers.DateTimeField(allow_null=True)
    url = serializers.SerializerMethodField()

    def get_counts(self, operation: BulkOperation) -> dict[str, int]:
        return dict(operations.counts(operation))

    def get_url(self, operation: BulkOperation) -> str:
        return reverse("api-bulk-operation", kwargs={"operation_id": operation.pk})


class DryRun(serializers.Serializer[Any]):
    """What an act would be done to."""

    count = serializers.IntegerField()
    sample = serializers.ListField(child=serializers.CharField(), help_text="Business keys of some of them.")
    token = serializers.CharField(help_text="Stands for exactly these runs: send it along, and no others are acted on.")


@extend_schema_serializer(component_name="BulkItem")
class ItemShape(serializers.Serializer[Any]):
    """One run of an operation."""

    run_id = serializers.UUIDField()
    business_key = serializers.CharField(source="run.business_key")
    state = serializers.ChoiceField(choices=ITEM_STATES)
    note = serializers.CharField(help_text="What was done, or why not.")
    run_state = serializers.ChoiceField(choices=RUN_STATES, source="run.status", help_text="How the run stands now.")
    done_at = serializers.DateTimeField(allow_null=True)


class BulkCollectionApi(StaffView):
    """Beginning an act on many runs."""

    scopes = {"POST": ACT}
    act = "bulk"

    class Input(Strict):
        """An act, and the runs that are meant: by id, or by what they have in common."""

        act = serializers.ChoiceField(choices=BULK_ACTS)
        run_ids = serializers.ListField(child=serializers.UUIDField(), required=False, max_length=MOST_IDS)
        filter = RunFilter(required=False)
        reason = Words(max_length=services.LONGEST_REASON, help_text="Why; it stays in every run's history.")
        dry_run = serializers.BooleanField(default=False, help_text="Only say what would be done, and to how many.")
        max_per_second = Whole(required=False, default=20, schema={"minimum": 1, "maximum": operations.FASTEST})
        token = Text(max_length=100, required=False, help_text="Of a dry run: act on no others than it counted.")

        class Meta:
            ref_name = "NewBulkOperation"

        def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
            if ("run_ids" in attrs) == ("filter" in attrs):
                raise ValidationError([ErrorDetail("Give either `run_ids` or `filter`.", code="one_of")])
            return attrs

    @extend_schema(
        operation_id="begin_bulk_operation",
        summary="Act on many runs",
        description="Goes on in the background, one run after another. What does not fit a run's state is refused for "
        "that run alone, with the reason.",
        tags=["Bulk operations"],
        parameters=[
            KEY,
            OpenApiParameter("Location", str, OpenApiParameter.HEADER, response=[202], description="The operation."),
        ],
        request=Input,
        responses={
            200: OpenApiResponse(DryRun, description="A dry run: nothing was done."),
            202: OpenApiResponse(OperationShape, description="Begun."),
        },
    )
    def post(self, request: Request) -> Response:
        data = checked(self.Input, request.data)
        return self._tried(data) if data["dry_run"] else once(request, lambda: self._begun(request, data))

    def _tried(self, data: dict[str, Any]) -> Response:
        found = _chosen(data, least=0)
        told = {"count": len(found), "sample": [key for _, key in found[:SAMPLE]], "token": _token(found)}
        return Response(told)

    def _begun(self, request: Request, data: dict[str, Any]) -> Response:
        found = _chosen(data, least=1)
        if "token" in data and data["token"] != _token(found):
            raise SelectionChanged
        operation = operations.begin(
            act=data["act"],
            targets=[Target(run_id=pk) for pk, _ in found],
            about=_words(data, len(found)),
            actor=actor_of(request),
            reason=data["reason"],
            per_second=data["max_per_second"],
        )
        told = OperationShape(operation).data
        return Response(told, status=HTTPStatus.ACCEPTED, headers={"Location": told["url"], "Retry-After": "1"})


class BulkDetailApi(StaffView):
    """An act on many runs, and stopping it."""

    scopes = {"GET": READ, "DELETE": ACT}
    acts = {"DELETE": "bulk"}

    @extend_schema(
        operation_id="get_bulk_operation",
        summary="Look at an act on many runs",
        tags=["Bulk operations"],
        responses={200: OperationShape},
    )
    def get(self, request: Request, operation_id: UUID) -> Response:
        return Response(OperationShape(_operation(operation_id)).data)

    @extend_schema(
        operation_id="stop_bulk_operation",
        summary="Stop an act on many runs",
        description="The runs that are still pending stay as they are. One that has ended stays so.",
        tags=["Bulk operations"],
        responses={202: OperationShape},
    )
    def delete(self, request: Request, operation_id: UUID) -> Response:
        _operation(operation_id)
        operation = operations.stop(operation_id=operation_id)
        return Response(OperationShape(operation).data, status=HTTPStatus.ACCEPTED)


class BulkItemsApi(StaffView):
    """Each run of an operation."""

    scopes = {"GET": READ}

    class Query(PageQuery):
        """Which of them."""

        state = serializers.ChoiceField(choices=ITEM_STATES, required=False)

    class Output(serializers.Serializer[Any]):
        """A page of runs, in the order in which they are taken."""

        results = ItemShape(many=True)
        next = serializers.URLField(allow_null=True)
        previous = serializers.URLField(allow_null=True)

        class Meta:
            ref_name = "BulkItemPage"

    @extend_schema(
        operation_id="list_bulk_items",
        summary="What came of it on each run",
        tags=["Bulk operations"],
        parameters=[Query],
        responses={200: Output},
    )
    def get(self, request: Request, operation_id: UUID) -> Response:
        query = checked_query(self.Query, request)
        rows = BulkItem.objects.filter(operation=_operation(operation_id)).select_related("run")
        if "state" in query:
            rows = rows.filter(state=query["state"])
        page = page_of(rows, request=request, limit=query["limit"], cursor=query.get("cursor"), newest_first=False)
        return Response(page.answer(ItemShape(page.rows, many=True).data))


def _chosen(data: dict[str, Any], *, least: int) -> list[tuple[UUID, str]]:
    """(id, business key) of the runs that are meant. Raises InvalidOperation, with what the caller named wrongly."""
    found = list(_meant(data).order_by("id").values_list("id", "business_key")[: MOST + 1])
    count = max(len(found), 1 - least)
    try:
        operations.check(act=data["act"], count=count, reason=data["reason"], per_second=data["max_per_second"])
    except InvalidOperation as error:
        if error.field != "runs":
            raise
        raise InvalidOperation("run_ids" if "run_ids" in data else "filter", str(error)) from error
    return found


def _meant(data: dict[str, Any]) -> QuerySet[SagaRun]:
    if "run_ids" in data:
        return SagaRun.objects.filter(pk__in=data["run_ids"])
    names = {"saga": "saga", "step": "current_step", "error_code": "failure_code"}
    wanted = dict(data["filter"])
    state = wanted.pop("state", None)
    runs = SagaRun.objects.in_states(state) if state else SagaRun.objects.all()
    return runs.filter(**{names[name]: value for name, value in wanted.items()})


def _token(found: Iterable[tuple[UUID, str]]) -> str:
    return hashlib.sha256("".join(str(pk) for pk, _ in found).encode()).hexdigest()[:32]


def _words(data: dict[str, Any], count: int) -> str:
    runs = "1 run" if count == 1 else f"{count} runs"
    if "run_ids" in data:
        return f"{runs} by id"
    return f"{runs} with " + ", ".join(f"{name} {value}" for name, value in data["filter"].items())


def _operation(operation_id: UUID) -> BulkOperation:
    operation = BulkOperation.objects.filter(pk=operation_id).first()
    if operation is None:
        raise Http404(f"There is no bulk operation {operation_id}.")
    return operation
