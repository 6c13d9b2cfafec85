"""Orders over HTTP: place one, list them. One of them is in api_order.py, what comes after in api_follow_up.py."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any
from uuid import UUID

from django.conf import settings
from django.db.models import Q, QuerySet
from django.http import Http404
from drf_spectacular.utils import OpenApiExample, OpenApiParameter, OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.exceptions import APIException
from rest_framework.renderers import JSONRenderer
from rest_framework.request import Request
from rest_framework.response import Response

from orders import rates, selectors, services
from orders.api_auth import actor_of, caller_of
from orders.api_errors import found_in
from orders.api_idempotency import KEY_PARAMETER, REPLAYED_PARAMETER, amend, key_in, once
from orders.api_inputs import OrderInput
from orders.api_json import object_of
from orders.api_shapes import OrderDetail, OrderSummary, order_url
from orders.exceptions import FieldError, InvalidOrder, OrderError
from orders.models import ApiKey, Order, Scope, User
from orders.roles import is_staff
from sagas import InvalidInput
from sagas.api_fields import Moment, checked, checked_query
from sagas.api_paging import PageQuery, page_of
from sagas.api_shapes import RUN_STATES
from sagas.api_view import ETAG, IF_NONE_MATCH, NOT_MODIFIED, ApiView, answer_with_tag, tag_of

LONGEST_WAIT = 10
"""Seconds. A request that waits holds a thread of the server's."""
LOOK_EVERY = 0.1
SETTLED = frozenset({"completed", "compensated", "needs_attention", "abandoned"})
PREFER_WAIT = re.compile(r"(?:^|[,;\s])wait=(\d{1,4})(?:$|[,;\s])")

EXAMPLE_ORDER = {
    "order_id": "ORD-123",
    "user_id": "USER-456",
    "items": [{"sku": "ITEM-001", "quantity": 2}, {"sku": "ITEM-002", "quantity": 1}],
    "total_amount": {"amount": "99.99", "currency": "EUR"},
    "email": "ada@example.com",
    "shipping_address": {
        "name": "Ada Lovelace",
        "line1": "12 St James's Square",
        "city": "London",
        "postcode": "SW1Y 4JH",
        "country": "GB",
    },
    "payment": {"token": "tok_visa"},
}


class OrderCollectionApi(ApiView):
    """Placing orders, and the list of them."""

    scopes = {"GET": Scope.ORDERS_READ, "POST": Scope.ORDERS_WRITE}

    class Query(PageQuery):
        """Which orders, and in which order."""

        state = serializers.ChoiceField(choices=RUN_STATES, required=False)
        user_id = serializers.CharField(required=False, max_length=100, help_text="Your reference for the customer.")
        placed_from = Moment(required=False, help_text="Placed then or later.")
        placed_to = Moment(required=False, help_text="Placed before then.")
        step = serializers.CharField(required=False, max_length=100, help_text="The step it is at now, by name.")
        error_code = serializers.CharField(required=False, max_length=100, help_text="Why it turned back.")
        tag = serializers.CharField(required=False, max_length=services.LONGEST_TAG)
        q = serializers.CharField(
            required=False,
            max_length=100,
            help_text="The id of a reservation, transaction, shipment, parcel, mail or request; or part of a number, "
            "an e-mail address, a name or a reference.",
        )
        sort = serializers.ChoiceField(
            choices=[("-placed_at", "newest first"), ("placed_at", "oldest first")], default="-placed_at"
        )

    class Output(serializers.Serializer[Any]):
        """A page of orders."""

        results = OrderSummary(many=True)
        next = serializers.URLField(allow_null=True)
        previous = serializers.URLField(allow_null=True)

        class Meta:
            ref_name = "OrderPage"

    @extend_schema(
        operation_id="list_orders",
        summary="List orders",
        description="Your own; staff see all. Newest first unless asked otherwise.",
        tags=["Orders"],
        parameters=[Query, IF_NONE_MATCH, ETAG],
        responses={200: Output, 304: NOT_MODIFIED},
    )
    def get(self, request: Request) -> Response:
        query = checked_query(self.Query, request)
        page = page_of(
            _asked_for(selectors.orders_visible_to(request.user), query),
            request=request,
            limit=query["limit"],
            cursor=query.get("cursor"),
            newest_first=query["sort"] == "-placed_at",
        )
        rows = OrderSummary(selectors.order_rows(page.rows), many=True).data
        return answer_with_tag(request, page.answer(rows))

    @extend_schema(
        operation_id="place_order",
        summary="Place an order",
        description=(
            "The order is stored when the answer arrives, and then goes through its steps by itself: follow it at "
            "`Location`. Whether it is in stock and can be paid is found out there, and is no error here."
        ),
        tags=["Orders"],
        parameters=[
            KEY_PARAMETER,
            OpenApiParameter(
                "Prefer",
                {"type": "string", "examples": ["wait=5"]},
                OpenApiParameter.HEADER,
                description="`wait=5`: answer when the order has come to an end, or after that many seconds, at most "
                f"{LONGEST_WAIT}. Other preferences are passed over.",
            ),
            REPLAYED_PARAMETER,
            OpenApiParameter("Location", str, OpenApiParameter.HEADER, response=[202], description="The order."),
            OpenApiParameter("ETag", str, OpenApiParameter.HEADER, response=[202]),
            OpenApiParameter(
                "Preference-Applied", str, OpenApiParameter.HEADER, response=[202], description="We did wait."
            ),
        ],
        request=OrderInput,
        responses={202: OpenApiResponse(OrderDetail, description="Stored, and under way.")},
        examples=[OpenApiExample("Two mugs and a coffee grinder", value=EXAMPLE_ORDER, request_only=True)],
    )
    def post(self, request: Request) -> Response:
        rate = settings.API_ORDER_RATE if request.auth else settings.ORDER_RATE
        rates.count("order", _who(request), rate)
        key_in(request)  # said first: without a key there is no point in looking at the body
        data = checked(OrderInput, request.data)
        response = once(request, lambda: _placed(request, data))
        wait = _wait_asked_for(request)
        if wait is not None and "Idempotent-Replayed" not in response.headers:
            response.data = _settled(response.data["order_id"], request, wait)
            response.headers["Preference-Applied"] = f"wait={wait}"
            amend(user=caller_of(request), key=key_in(request), body=JSONRenderer().render(response.data).decode())
        response.headers["ETag"] = tag_of(response.data)
        if rate.most:
            left, seconds = rates.left("order", _who(request), rate)
            response.headers["RateLimit-Policy"] = f'"order";q={rate.most};w={rate.seconds}'
            response.headers["RateLimit"] = f'"order";r={left};t={seconds}'
        return response


def order_or_404(order_id: str, request: Request) -> selectors.OrderView:
    """The order, if the caller may know of it."""
    try:
        return selectors.order_page(order_id, request.user)
    except Order.DoesNotExist:
        raise Http404(f"There is no order {order_id}.") from None


def told(view: selectors.OrderView, request: Request) -> dict[str, Any]:
    """The order as this caller may see it."""
    return dict(OrderDetail(view, context={"for_staff": is_staff(request.user)}).data)


def _asked_for(orders: QuerySet[Order], query: dict[str, Any]) -> QuerySet[Order]:
    if "state" in query:
        orders = selectors.in_status(orders, query["state"])
    if "user_id" in query:
        orders = orders.filter(customer_ref=query["user_id"])
    if "step" in query or "error_code" in query:
        orders = selectors.at_step(orders, step=query.get("step", ""), error=query.get("error_code", ""))
    if "tag" in query:
        orders = selectors.tagged(orders, query["tag"])
    if "placed_from" in query:
        orders = orders.filter(placed_at__gte=query["placed_from"])
    if "placed_to" in query:
        orders = orders.filter(placed_at__lt=query["placed_to"])
    if "q" in query:
        part = query["q"]
        named = selectors.find_by_any_id(orders, part)
        orders = orders.filter(
            Q(pk__in=list(named))
            | Q(order_id__icontains=part)
            | Q(email__icontains=part)
            | Q(ship_name__icontains=part)
            | Q(customer_ref__icontains=part)
        )
    return orders


def _who(request: Request) -> str:
    """Whose orders are counted together: a key's, or a person's."""
    return f"key:{request.auth.pk}" if isinstance(request.auth, ApiKey) else f"user:{caller_of(request).pk}"


def _placed(request: Request, data: dict[str, Any]) -> Response:
    caller = caller_of(request)
    key = request.auth if isinstance(request.auth, ApiKey) else None
    order, is_new = _stored(data, user=caller, key=key, customer=caller.get_username(), actor=actor_of(request))
    headers = {"Location": order_url(order.order_id), "Retry-After": "1"}
    view = selectors.view_of(order, is_new=is_new)
    return Response(told(view, request), status=HTTPStatus.ACCEPTED, headers=headers)


def _stored(
    data: dict[str, Any], *, user: User | None, key: ApiKey | None, customer: str, actor: str
) -> tuple[Order, bool]:
    """Place an order of the shape that the API takes. Raises InvalidOrder, with its places, and OrderConflict."""
    amount, currency = data.get("total_amount", (None, None))
    address = data["shipping_address"]
    try:
        return services.place_order(
            order_id=data.get("order_id"),
            user=user,
            api_key=key,
            customer_ref=data.get("user_id", customer),
            items=data["items"],
            total_amount=amount,
            currency=currency or data.get("currency") or settings.SHOP_CURRENCY,
            email=data["email"],
            ship_name=address["name"],
            ship_line1=address["line1"],
            ship_city=address["city"],
            ship_postcode=address["postcode"],
            ship_country=address["country"],
            card_token=data["payment"]["token"],
            actor=actor,
        )
    except InvalidOrder as error:
        raise InvalidOrder(_placed_faults(error.errors, within_total=currency is not None)) from error


def start_order(given: dict[str, Any], *, key: str, actor: str) -> UUID:
    """Place the order in a file of the shape that the API takes, and return its run: `saga start order FILE`.

    `key` is the order's number, if the file has none. Raises InvalidInput.
    """
    if key and given.get("order_id", key) != key:
        raise InvalidInput(f"The file is of order {given['order_id']}, and --key says {key}.")
    # Read once more as the API does: with exact numbers, and every fault named.
    exact = object_of(json.dumps({**given, **({"order_id": key} if key else {})}).encode())
    try:
        order, _ = _stored(checked(OrderInput, exact), user=None, key=None, customer=actor, actor=actor)
    except (APIException, OrderError) as error:
        code, detail, more = found_in(error)
        faults = "; ".join(f"{fault['pointer']}: {fault['detail']}" for fault in more.get("errors", []))
        raise InvalidInput(f"{code}: {faults or detail}") from error
    if order.run_id is None:
        raise InvalidInput(f"Order {order.order_id} has no run.")
    return order.run_id


def _placed_faults(errors: Sequence[FieldError], *, within_total: bool) -> Sequence[FieldError]:
    """The faults at the places where this caller wrote what is wrong."""
    if not within_total:
        return errors
    places = {"total_amount": "total_amount.amount", "currency": "total_amount.currency"}
    return [
        FieldError(field=places.get(error.field, error.field), code=error.code, message=error.message)
        for error in errors
    ]


def _wait_asked_for(request: Request) -> int | None:
    """Seconds, at most LONGEST_WAIT; None: the caller does not wait. Source: RFC 7240, 4.3."""
    found = PREFER_WAIT.search(request.headers.get("Prefer", ""))
    return min(int(found[1]), LONGEST_WAIT) if found else None


def _settled(order_id: str, request: Request, seconds: int) -> dict[str, Any]:
    """The order as it stands when its run has come to rest, or when the time is up."""
    until = time.monotonic() + seconds
    settled = selectors.in_status(Order.objects.filter(order_id=order_id), *SETTLED)
    while not settled.exists() and time.monotonic() < until:
        time.sleep(LOOK_EVERY)
    return told(order_or_404(order_id, request), request)
