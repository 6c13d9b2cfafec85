"""What belongs around orders: notes, what is in stock, and one's own keys."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.http import Http404
from django.urls import reverse
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_field, extend_schema_serializer
from rest_framework import serializers
from rest_framework.exceptions import ErrorDetail, ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from orders import services
from orders.api import order_or_404
from orders.api_auth import actor_of, caller_of
from orders.api_errors import ProblemError
from orders.api_keys import KeyNameTaken, create_key, revoke_key
from orders.api_shapes import ORDER_ID_PARAMETER, Money, money
from orders.models import ApiKey, OrderNote, Scope, StockItem
from orders.roles import Act, can, roles_of
from sagas.api_fields import Moment, Strict, Words, checked, checked_query
from sagas.api_paging import PageQuery, page_of
from sagas.api_view import (
    ETAG,
    IF_NONE_MATCH,
    NOT_MODIFIED,
    ApiView,
    StaffView,
    answer_with_tag,
)

SCOPES = [(scope.value, scope.value) for scope in Scope]


@extend_schema_serializer(component_name="OrderNote")
class NoteShape(serializers.Serializer[Any]):
    """What staff wrote down about an order."""

    id = serializers.IntegerField()
    author = serializers.CharField()
    text = serializers.CharField()
    created_at = serializers.DateTimeField()


class NoteApi(StaffView):
    """Notes on an order, for staff."""

    scopes = {"GET": Scope.ORDERS_READ, "POST": Scope.ORDERS_WRITE}

    class Input(Strict):
        """A note."""

        text = Words(max_length=services.LONGEST_NOTE)

        class Meta:
            ref_name = "NewOrderNote"

    class Query(PageQuery):
        """Which page."""

    class Output(serializers.Serializer[Any]):
        """A page of notes, oldest first."""

        results = NoteShape(many=True)
        next = serializers.URLField(allow_null=True)
        previous = serializers.URLField(allow_null=True)

        class Meta:
            ref_name = "OrderNotePage"

    @extend_schema(
        operation_id="list_order_notes",
        summary="The notes on an order",
        tags=["Orders"],
        parameters=[ORDER_ID_PARAMETER, Query],
        responses={200: Output},
    )
    def get(self, request: Request, order_id: str) -> Response:
        query = checked_query(self.Query, request)
        notes = OrderNote.objects.filter(order=order_or_404(order_id, request).order)
        page = page_of(notes, request=request, limit=query["limit"], cursor=query.get("cursor"), newest_first=False)
        return Response(page.answer(NoteShape(page.rows, many=True).data))

    @extend_schema(
        operation_id="write_order_note",
        summary="Write a note on an order",
        description="Notes are only added, and shown to staff alone.",
        tags=["Orders"],
        parameters=[
            ORDER_ID_PARAMETER,
            OpenApiParameter("Location", str, OpenApiParameter.HEADER, response=[201], description="The notes."),
        ],
        request=Input,
        responses={201: NoteShape},
    )
    def post(self, request: Request, order_id: str) -> Response:
        order_or_404(order_id, request)
        text = checked(self.Input, request.data)["text"]
        note = services.add_note(order_id=order_id, author=actor_of(request), text=text)
        headers = {"Location": reverse("api-order-notes", kwargs={"order_id": order_id})}
        return Response(NoteShape(note).data, status=HTTPStatus.CREATED, headers=headers)


@extend_schema_serializer(component_name="InventoryItem")
class StockShape(serializers.Serializer[Any]):
    """A product, and how much of it there is."""

    sku = serializers.CharField(source="product.sku")
    name = serializers.CharField(source="product.name")
    price = serializers.SerializerMethodField()
    is_active = serializers.BooleanField(source="product.is_active", help_text="It can be ordered.")
    on_hand = serializers.IntegerField(help_text="Pieces in the house.")
    reserved = serializers.IntegerField(source="allocated", help_text="Of them, promised to orders.")
    free = serializers.IntegerField(source="available")

    @extend_schema_field(Money)
    def get_price(self, item: StockItem) -> dict[str, Any]:
        return money(item.product.price, item.product.currency)


class StockListApi(StaffView):
    """What is in stock."""

    scopes = {"GET": Scope.ORDERS_READ}

    class Query(PageQuery):
        """Which page."""

    class Output(serializers.Serializer[Any]):
        """A page of products."""

        results = StockShape(many=True)
        next = serializers.URLField(allow_null=True)
        previous = serializers.URLField(allow_null=True)

        class Meta:
            ref_name = "InventoryItemPage"

    @extend_schema(
        operation_id="list_inventory_items",
        summary="What is in stock",
        tags=["Inventory"],
        parameters=[Query, IF_NONE_MATCH, ETAG],
        responses={200: Output, 304: NOT_MODIFIED},
    )
    def get(self, request: Request) -> Response:
        query = checked_query(self.Query, request)
        items = StockItem.objects.select_related("product")
        page = page_of(items, request=request, limit=query["limit"], cursor=query.get("cursor"), newest_first=False)
        return answer_with_tag(request, page.answer(StockShape(page.rows, many=True).data))


class StockItemApi(StaffView):
    """One product's stock."""

    scopes = {"GET": Scope.ORDERS_READ}

    @extend_schema(
        operation_id="get_inventory_item",
        summary="How much there is of a product",
        tags=["Inventory"],
        parameters=[IF_NONE_MATCH, ETAG],
        responses={200: StockShape, 304: NOT_MODIFIED},
    )
    def get(self, request: Request, sku: str) -> Response:
        item = StockItem.objects.select_related("product").filter(product__sku=sku.replace("\0", "")).first()
        if item is None:
            raise Http404(f"There is no product {sku[:64]}.")
        return answer_with_tag(request, StockShape(item).data)


@extend_schema_serializer(component_name="ApiKey")
class KeyShape(serializers.Serializer[Any]):
    """A key, without its secret."""

    id = serializers.IntegerField()
    name = serializers.CharField(help_text="How the history names it.")
    prefix = serializers.CharField(help_text="The public part of it.")
    scopes = serializers.ListField(child=serializers.ChoiceField(choices=SCOPES))
    created_at = serializers.DateTimeField()
    expires_at = serializers.DateTimeField(allow_null=True)
    revoked_at = serializers.DateTimeField(allow_null=True)
    last_used_at = serializers.DateTimeField(allow_null=True, help_text="To the minute.")


@extend_schema_serializer(component_name="NewApiKey")
class NewKeyShape(KeyShape):
    """A key with its secret, this once."""

    key = serializers.CharField(help_text="Shown now and never again.")


class KeyListApi(ApiView):
    """The caller's own keys."""

    is_own = True
    scopes = {"GET": Scope.KEYS_MANAGE, "POST": Scope.KEYS_MANAGE}

    class Input(Strict):
        """A key to be made."""

        name = Words(max_length=100, help_text="Never used twice, also after it was revoked.")
        scopes = serializers.ListField(
            child=serializers.ChoiceField(choices=SCOPES), min_length=1, max_length=len(SCOPES)
        )
        expires_at = Moment(required=False, allow_null=True, help_text="null or left out: it does not expire.")

        class Meta:
            ref_name = "NewApiKeyRequest"

    class Query(PageQuery):
        """Which page."""

    class Output(serializers.Serializer[Any]):
        """A page of keys, the newest first."""

        results = KeyShape(many=True)
        next = serializers.URLField(allow_null=True)
        previous = serializers.URLField(allow_null=True)

        class Meta:
            ref_name = "ApiKeys"

    @extend_schema(
        operation_id="list_api_keys",
        summary="List your keys",
        tags=["Keys"],
        parameters=[Query],
        responses={200: Output},
    )
    def get(self, request: Request) -> Response:
        query = checked_query(self.Query, request)
        keys = ApiKey.objects.filter(user=caller_of(request))
        page = page_of(keys, request=request, limit=query["limit"], cursor=query.get("cursor"))
        return Response(page.answer(KeyShape(page.rows, many=True).data))

    @extend_schema(
        operation_id="create_api_key",
        summary="Make a key",
        description="For yourself. A key gives no other scopes than it has.",
        tags=["Keys"],
        request=Input,
        responses={201: NewKeyShape},
    )
    def post(self, request: Request) -> Response:
        data = checked(self.Input, request.data)
        expires_at = data.get("expires_at")
        if expires_at is not None and expires_at <= timezone.now():
            raise ValidationError({"expires_at": [ErrorDetail("That is over already.", code="invalid")]})
        if isinstance(request.auth, ApiKey):
            more = sorted(set(data["scopes"]) - set(request.auth.scopes))
            if more:
                raise ProblemError("scope-missing", f"Your key does not have {', '.join(more)}, and cannot give it.")
        try:
            key, text = create_key(
                user=caller_of(request),
                name=data["name"],
                scopes=data["scopes"],
                expires_at=expires_at,
                created_by=actor_of(request),
            )
        except KeyNameTaken as error:
            raise ValidationError({"name": [ErrorDetail(str(error), code="taken")]}) from error
        return Response({**KeyShape(key).data, "key": text}, status=HTTPStatus.CREATED)


class KeyApi(ApiView):
    """One of the caller's own keys."""

    is_own = True
    scopes = {"DELETE": Scope.KEYS_MANAGE}

    @extend_schema(
        operation_id="revoke_api_key",
        summary="Revoke a key",
        description="From now on it opens nothing. Twice is once.",
        tags=["Keys"],
        responses={204: None},
    )
    def delete(self, request: Request, key_id: int) -> Response:
        key = ApiKey.objects.filter(user=caller_of(request), pk=key_id).first()
        if key is None:
            raise Http404(f"You have no key {key_id}.")
        revoke_key(name=key.name)
        return Response(status=HTTPStatus.NO_CONTENT)


class MeApi(ApiView):
    """Who is calling."""

    scopes = {}

    class Output(serializers.Serializer[Any]):
        """The caller, and what they may do."""

        username = serializers.CharField()
        actor = serializers.CharField(help_text="How the history names you.")
        roles = serializers.ListField(child=serializers.CharField())
        may = serializers.ListField(child=serializers.CharField(), help_text="Acts on any order or run.")
        key = KeyShape(allow_null=True, help_text="The key that was used; null: a session was.")

        class Meta:
            ref_name = "Me"

    @extend_schema(operation_id="get_me", summary="Who am I?", tags=["Keys"], responses={200: Output})
    def get(self, request: Request) -> Response:
        user = caller_of(request)
        told = {
            "username": user.get_username(),
            "actor": actor_of(request),
            "roles": sorted(roles_of(user)),
            "may": [act.value for act in Act if can(user, act)],
            "key": request.auth if isinstance(request.auth, ApiKey) else None,
        }
        return Response(self.Output(told).data)
