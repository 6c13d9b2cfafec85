"""What comes after an order was placed: cancelling it, and what happened to it."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any, cast

from django.http import Http404
from django.urls import reverse
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from orders import services
from orders.api import order_or_404, told
from orders.api_auth import actor_of
from orders.api_idempotency import KEY_PARAMETER, REPLAYED_PARAMETER, once
from orders.api_shapes import ORDER_ID_PARAMETER
from orders.models import Scope
from orders.selectors import OrderView
from sagas.api_fields import Strict, Words, checked, checked_query
from sagas.api_paging import PageQuery, page_of
from sagas.api_shapes import PublicUndo
from sagas.api_view import IF_MATCH, ApiView, check_version

STATES = {
    "compensating": "undoing",
    "compensated": "done",
    "needs_attention": "needs_attention",
    "abandoned": "abandoned",
}
"""A cancellation's state by its run's; before the run has turned back it is merely requested."""
OPEN = frozenset({"requested", "undoing"})
CANCELLATION_STATES = [(state, state) for state in ("requested", *STATES.values())]
ACTORS = [(name, name) for name in ("engine", "staff", "customer", "key")]


class UndoneStep(PublicUndo):
    """A step's compensation as part of a cancellation."""

    step = serializers.CharField(source="name")


class Cancellation(serializers.Serializer[Any]):
    """An order being undone, or undone."""

    id = serializers.IntegerField(source="event.id")
    order_id = serializers.CharField(source="view.order.order_id")
    state = serializers.ChoiceField(choices=CANCELLATION_STATES)
    reason = serializers.CharField(source="event.reason")
    requested_by = serializers.SerializerMethodField()
    requested_at = serializers.DateTimeField(source="event.created_at")
    ended_at = serializers.DateTimeField(source="view.run.run.ended_at", allow_null=True)
    sentence = serializers.CharField(source="view.run.sentence", help_text="How it stands, in plain words.")
    steps = serializers.SerializerMethodField(help_text="What is undone, in the order of the steps.")
    url = serializers.SerializerMethodField()

    @extend_schema_field(serializers.ChoiceField(choices=ACTORS))
    def get_requested_by(self, found: dict[str, Any]) -> str:
        return kind_of_actor(found["event"].actor)

    @extend_schema_field(UndoneStep(many=True))
    def get_steps(self, found: dict[str, Any]) -> list[Any]:
        steps = [step for step in found["view"].run.steps if step.undo_state is not None]
        return cast(list[Any], UndoneStep(steps, many=True).data)

    def get_url(self, found: dict[str, Any]) -> str:
        return cancellation_url(found)


class CancelApi(ApiView):
    """Cancel an order."""

    scopes = {"POST": Scope.ORDERS_WRITE}

    class Input(Strict):
        """That an order is to be undone, and why."""

        reason = Words(max_length=services.LONGEST_REASON, help_text="Why; it stays in the order's history.")

        class Meta:
            ref_name = "NewCancellation"

    @extend_schema(
        operation_id="cancel_order",
        summary="Cancel an order",
        description=(
            "Everything that was done is undone, newest first; a step under way ends first. Possible until the parcel "
            "was handed over. Sent twice it is done once."
        ),
        tags=["Orders"],
        parameters=[
            ORDER_ID_PARAMETER,
            KEY_PARAMETER,
            IF_MATCH,
            REPLAYED_PARAMETER,
            OpenApiParameter("Location", str, OpenApiParameter.HEADER, response=[202], description="The cancellation."),
        ],
        request=Input,
        responses={202: Cancellation},
    )
    def post(self, request: Request, order_id: str) -> Response:
        order_or_404(order_id, request)
        reason = checked(self.Input, request.data)["reason"]
        return once(request, lambda: _cancelled(request, order_id, reason))


class CancellationApi(ApiView):
    """One cancellation and how far it is."""

    scopes = {"GET": Scope.ORDERS_READ}

    @extend_schema(
        operation_id="get_cancellation",
        summary="Look at a cancellation",
        tags=["Orders"],
        parameters=[
            ORDER_ID_PARAMETER,
            OpenApiParameter(
                "Retry-After",
                {"type": "integer"},
                OpenApiParameter.HEADER,
                response=[200],
                description="Seconds after which to look again, while it is not at its end.",
            ),
        ],
        responses={200: Cancellation},
    )
    def get(self, request: Request, order_id: str, cancellation_id: int) -> Response:
        found = _cancellation_of(order_or_404(order_id, request))
        if found["event"].pk != cancellation_id:
            raise Http404(f"Order {order_id} has no cancellation {cancellation_id}.")
        return Response(Cancellation(found).data, headers=_look_again(found))


class EventListApi(ApiView):
    """What happened to an order, oldest first."""

    scopes = {"GET": Scope.ORDERS_READ}

    class Query(PageQuery):
        """Which page."""

    class Event(serializers.Serializer[Any]):
        """Something that happened to an order."""

        sequence = serializers.IntegerField(source="id", help_text="Grows with time; never used twice.")
        kind = serializers.CharField()
        step = serializers.CharField()
        direction = serializers.CharField(help_text="`action` or `compensation`; empty if it is about the whole order.")
        actor = serializers.SerializerMethodField()
        reason = serializers.SerializerMethodField(help_text="What staff wrote for each other is not shown here.")
        at = serializers.DateTimeField(source="created_at")

        class Meta:
            ref_name = "OrderEvent"

        @extend_schema_field(serializers.ChoiceField(choices=ACTORS))
        def get_actor(self, event: Any) -> str:
            return kind_of_actor(event.actor)

        def get_reason(self, event: Any) -> str:
            internal = kind_of_actor(event.actor) == "staff" and event.kind != "cancel_requested"
            return "" if internal else str(event.reason)

    class Output(serializers.Serializer[Any]):
        """A page of events, oldest first."""

        next = serializers.URLField(allow_null=True)
        previous = serializers.URLField(allow_null=True)

        class Meta:
            ref_name = "OrderEventPage"

        def get_fields(self) -> dict[str, Any]:
            return {"results": EventListApi.Event(many=True), **super().get_fields()}

    @extend_schema(
        operation_id="list_order_events",
        summary="What happened to an order",
        tags=["Orders"],
        parameters=[ORDER_ID_PARAMETER, Query],
        responses={200: Output},
    )
    def get(self, request: Request, order_id: str) -> Response:
        query = checked_query(self.Query, request)
        view = order_or_404(order_id, request)
        if view.run is None:
            return Response({"results": [], "next": None, "previous": None})
        page = page_of(
            view.run.run.events.all(),
            request=request,
            limit=query["limit"],
            cursor=query.get("cursor"),
            newest_first=False,
        )
        return Response(page.answer(self.Event(page.rows, many=True).data))


def kind_of_actor(actor: str) -> str:
    """Who, without the name: customers are not told which of us it was, nor keys of each other."""
    start = actor.partition(":")[0]
    return {"user": "staff", "customer": "customer", "key": "key"}.get(start, "engine")


def cancellation_url(found: dict[str, Any]) -> str:
    """Where a cancellation is, from the root of this site."""
    place = {"order_id": found["view"].order.order_id, "cancellation_id": found["event"].pk}
    return reverse("api-cancellation", kwargs=place)


def _cancelled(request: Request, order_id: str, reason: str) -> Response:
    # In here, so that a request that is sent twice gets its first answer although the order has changed by it.
    check_version(request, told(order_or_404(order_id, request), request))
    services.cancel_order(order_id=order_id, actor=actor_of(request), reason=reason)
    found = _cancellation_of(order_or_404(order_id, request))
    headers = {"Location": cancellation_url(found), **_look_again(found)}
    return Response(Cancellation(found).data, status=HTTPStatus.ACCEPTED, headers=headers)


def _look_again(found: dict[str, Any]) -> dict[str, str]:
    """The header that says when, while it is under way."""
    return {"Retry-After": "1"} if found["state"] in OPEN else {}


def _cancellation_of(view: OrderView) -> dict[str, Any]:
    """The event that asked for the order's end. An order that turned back before has the event of that instead."""
    events = view.run.events if view.run else []
    for kind in ("cancel_requested", "turned_back"):
        for event in events:
            if event.kind == kind:
                state = STATES.get(view.run.run.status, "requested") if view.run else "requested"
                return {"view": view, "event": event, "state": state}
    raise Http404(f"Order {view.order.order_id} was not cancelled.")
