"""One order over HTTP: look at it, and change of it what is not history."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from orders import services
from orders.api import order_or_404, told
from orders.api_auth import actor_of
from orders.api_errors import ProblemError
from orders.api_shapes import ORDER_ID_PARAMETER, OrderDetail
from orders.models import ApiKey, Scope
from orders.roles import Act, can, refusal
from sagas.api_fields import Strict, Text, checked, checked_query
from sagas.api_view import (
    ETAG,
    IF_MATCH,
    IF_NONE_MATCH,
    NOT_MODIFIED,
    ApiView,
    answer_with_tag,
    check_owner,
    check_version,
    tag_of,
)

EVERYTHING = "run.steps.attempts"


class OrderDetailApi(ApiView):
    """One order with its lines, money, parcel and mail, and every step with its attempts and its compensation."""

    scopes = {"GET": Scope.ORDERS_READ, "PATCH": Scope.ORDERS_WRITE}

    class Query(Strict):
        """How much of it."""

        part = "parameter"

        expand = serializers.ChoiceField(
            choices=[(EVERYTHING, EVERYTHING), ("none", "none")],
            default=EVERYTHING,
            help_text="`none` leaves the run out, with its steps and their attempts.",
        )

    class Input(Strict):
        """What may be changed of an order as such. All else is history, or an act of its own."""

        owner = Text(
            max_length=150,
            allow_null=True,
            required=False,
            help_text="Who of the staff looks after an order that waits for a person, as the history names people: "
            "`user:gina`; null: everybody. For staff; a key needs the scope `runs:act` too.",
        )
        tags = serializers.ListField(
            child=Text(max_length=services.LONGEST_TAG),
            required=False,
            max_length=services.MOST_TAGS,
            help_text="All of them: the ones that are not here are taken off.",
        )

        class Meta:
            ref_name = "OrderChange"

        def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
            if not attrs:
                raise ValidationError([ErrorDetail("Say what is to be changed: `owner`, `tags`.", code="empty")])
            return attrs

    @extend_schema(
        operation_id="get_order",
        summary="Look at an order",
        tags=["Orders"],
        parameters=[ORDER_ID_PARAMETER, Query, IF_NONE_MATCH, ETAG],
        responses={200: OrderDetail, 304: NOT_MODIFIED},
    )
    def get(self, request: Request, order_id: str) -> Response:
        expand = checked_query(self.Query, request)["expand"]
        data = told(order_or_404(order_id, request), request)
        # One tag for both: what is left out may not change unseen either.
        tag = tag_of(data)
        return answer_with_tag(request, data if expand == EVERYTHING else {**data, "run": None}, tag=tag)

    @extend_schema(
        operation_id="change_order",
        summary="Change an order's tags, or who looks after it",
        tags=["Orders"],
        parameters=[
            ORDER_ID_PARAMETER,
            IF_MATCH,
            OpenApiParameter("ETag", str, OpenApiParameter.HEADER, response=[200]),
        ],
        request=Input,
        responses={200: OrderDetail},
    )
    def patch(self, request: Request, order_id: str) -> Response:
        order_or_404(order_id, request)
        data = checked(self.Input, request.data)
        if "owner" in data:
            _check_may_assign(request)
            check_owner(data["owner"] or "", asked_by=actor_of(request))
        with transaction.atomic():  # both or neither
            # Of two with the same version one comes second, and is told so: it would take the other's tags off unseen.
            services.hold(order_id=order_id)
            check_version(request, told(order_or_404(order_id, request), request))
            if "owner" in data:
                services.look_after(order_id=order_id, owner=data["owner"] or "", actor=actor_of(request))
            if "tags" in data:
                services.set_tags(order_id=order_id, tags=data["tags"], author=actor_of(request))
        changed = told(order_or_404(order_id, request), request)
        return Response(changed, headers={"ETag": tag_of(changed)})


def _check_may_assign(request: Request) -> None:
    """What `PATCH /saga-runs/{id}` asks of whoever says the same there. Raises ProblemError."""
    if not can(request.user, Act.ASSIGN):
        raise ProblemError("forbidden", refusal(request.user, Act.ASSIGN))
    if isinstance(request.auth, ApiKey) and Scope.RUNS_ACT not in request.auth.scopes:
        raise ProblemError("scope-missing", f"To say who looks after it needs a key with the scope {Scope.RUNS_ACT}.")
