"""Endpoints that are told what happens to orders, and what they were told."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from django.db.models import QuerySet
from django.http import Http404
from django.urls import reverse
from drf_spectacular.utils import OpenApiParameter, extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from orders.api_auth import caller_of
from orders.models import Scope, WebhookDelivery, WebhookEndpoint
from orders.webhooks import endpoints
from orders.webhooks.outbox import TYPES
from sagas.api_fields import Strict, Text, checked, checked_query
from sagas.api_paging import PageQuery, page_of
from sagas.api_view import ApiView

MANAGE = Scope.WEBHOOKS_MANAGE
EVENT_TYPES = [(one, one) for one in TYPES]
DELIVERY_STATUSES = [(one, one) for one in WebhookDelivery.Status.values]
LOCATION = OpenApiParameter("Location", str, OpenApiParameter.HEADER, response=[201], description="The endpoint.")


@extend_schema_serializer(component_name="WebhookEndpoint")
class EndpointShape(serializers.Serializer[Any]):
    """An address, without its secret."""

    id = serializers.IntegerField()
    url = serializers.CharField()
    events = serializers.ListField(child=serializers.ChoiceField(choices=EVENT_TYPES), help_text="None: every type.")
    is_active = serializers.BooleanField()
    disabled_reason = serializers.CharField()
    old_secret_until = serializers.DateTimeField(
        allow_null=True, help_text="Until then the secret before the last rotation signs too."
    )
    created_at = serializers.DateTimeField()


@extend_schema_serializer(component_name="NewWebhookEndpoint")
class NewEndpointShape(EndpointShape):
    """An address with its secret, this once."""

    secret = serializers.CharField(help_text="Shown now and never again: check signatures with it.")


@extend_schema_serializer(component_name="WebhookDelivery")
class DeliveryShape(serializers.Serializer[Any]):
    """One event for one endpoint, and how telling it went."""

    id = serializers.IntegerField()
    endpoint_id = serializers.IntegerField()
    message_id = serializers.SerializerMethodField(help_text="What `webhook-id` says, the same for every try.")
    type = serializers.CharField(source="event.type")
    order_id = serializers.CharField(source="event.order_id", help_text="Empty: a test.")
    status = serializers.ChoiceField(choices=DELIVERY_STATUSES, help_text="`failed`: given up.")
    attempts = serializers.IntegerField()
    next_at = serializers.DateTimeField(allow_null=True)
    last_code = serializers.IntegerField(allow_null=True, help_text="The last answer's status; null: none came.")
    last_error = serializers.CharField()
    delivered_at = serializers.DateTimeField(allow_null=True)
    created_at = serializers.DateTimeField(source="event.created_at")

    def get_message_id(self, delivery: WebhookDelivery) -> str:
        return f"msg_{delivery.event.message_id.hex}"


class EndpointListApi(ApiView):
    """The caller's endpoints."""

    scopes = {"GET": MANAGE, "POST": MANAGE}

    class Input(Strict):
        """Where to be told, and of what."""

        url = Text(max_length=500, help_text="https, and in the public network.")
        events = serializers.ListField(
            child=serializers.ChoiceField(choices=EVENT_TYPES), required=False, default=list, max_length=len(TYPES)
        )

        class Meta:
            ref_name = "WebhookEndpointRequest"

    class Query(PageQuery):
        """Which page."""

    class Output(serializers.Serializer[Any]):
        """A page of endpoints, the newest first."""

        results = EndpointShape(many=True)
        next = serializers.URLField(allow_null=True)
        previous = serializers.URLField(allow_null=True)

        class Meta:
            ref_name = "WebhookEndpoints"

    @extend_schema(
        operation_id="list_webhook_endpoints",
        summary="List your endpoints",
        tags=["Webhooks"],
        parameters=[Query],
        responses={200: Output},
    )
    def get(self, request: Request) -> Response:
        query = checked_query(self.Query, request)
        page = page_of(_endpoints(request), request=request, limit=query["limit"], cursor=query.get("cursor"))
        return Response(page.answer(EndpointShape(page.rows, many=True).data))

    @extend_schema(
        operation_id="create_webhook_endpoint",
        summary="Be told what happens to orders",
        description="To your own; staff to all. Messages are signed as Standard Webhooks 1.0 says.",
        tags=["Webhooks"],
        parameters=[LOCATION],
        request=Input,
        responses={201: NewEndpointShape},
    )
    def post(self, request: Request) -> Response:
        endpoint = endpoints.create(user=caller_of(request), **checked(self.Input, request.data))
        headers = {"Location": reverse("api-webhook-endpoint", kwargs={"endpoint_id": endpoint.pk})}
        return Response(NewEndpointShape(endpoint).data, status=HTTPStatus.CREATED, headers=headers)


class EndpointApi(ApiView):
    """One endpoint."""

    scopes = {"GET": MANAGE, "PATCH": MANAGE, "DELETE": MANAGE}

    class Input(Strict):
        """What is to be changed."""

        url = Text(max_length=500, required=False)
        events = serializers.ListField(
            child=serializers.ChoiceField(choices=EVENT_TYPES), required=False, max_length=len(TYPES)
        )
        is_active = serializers.BooleanField(required=False)

        class Meta:
            ref_name = "WebhookEndpointChange"

    @extend_schema(
        operation_id="get_webhook_endpoint",
        summary="Look at an endpoint",
        tags=["Webhooks"],
        responses={200: EndpointShape},
    )
    def get(self, request: Request, endpoint_id: int) -> Response:
        return Response(EndpointShape(_endpoint(request, endpoint_id)).data)

    @extend_schema(
        operation_id="change_webhook_endpoint",
        summary="Change an endpoint",
        tags=["Webhooks"],
        request=Input,
        responses={200: EndpointShape},
    )
    def patch(self, request: Request, endpoint_id: int) -> Response:
        endpoint, data = _endpoint(request, endpoint_id), checked(self.Input, request.data)
        changed = endpoints.change(
            endpoint, url=data.get("url"), events=data.get("events"), active=data.get("is_active")
        )
        return Response(EndpointShape(changed).data)

    @extend_schema(
        operation_id="delete_webhook_endpoint",
        summary="Be told no more",
        description="What was sent stays on record.",
        tags=["Webhooks"],
        responses={204: None},
    )
    def delete(self, request: Request, endpoint_id: int) -> Response:
        endpoints.delete(_endpoint(request, endpoint_id))
        return Response(status=HTTPStatus.NO_CONTENT)


class RotationApi(ApiView):
    """A new secret."""

    scopes = {"POST": MANAGE}

    @extend_schema(
        operation_id="rotate_webhook_secret",
        summary="Get a new secret",
        description="For 24 hours messages are signed with the old one too.",
        tags=["Webhooks"],
        parameters=[LOCATION],
        request=None,
        responses={201: NewEndpointShape},
    )
    def post(self, request: Request, endpoint_id: int) -> Response:
        endpoint = endpoints.rotate(_endpoint(request, endpoint_id))
        headers = {"Location": reverse("api-webhook-endpoint", kwargs={"endpoint_id": endpoint.pk})}
        return Response(NewEndpointShape(endpoint).data, status=HTTPStatus.CREATED, headers=headers)


class TestDeliveryApi(ApiView):
    """A message to try an endpoint with."""

    scopes = {"POST": MANAGE}

    @extend_schema(
        operation_id="send_test_delivery",
        summary="Send a test",
        tags=["Webhooks"],
        request=None,
        responses={202: DeliveryShape},
    )
    def post(self, request: Request, endpoint_id: int) -> Response:
        delivery = endpoints.send_test(_endpoint(request, endpoint_id))
        return Response(DeliveryShape(delivery).data, status=HTTPStatus.ACCEPTED)


class DeliveryListApi(ApiView):
    """What was sent, and what is to be."""

    scopes = {"GET": MANAGE}

    class Query(PageQuery):
        """Which of them."""

        endpoint_id = serializers.IntegerField(required=False, min_value=1, max_value=2**63 - 1)
        status = serializers.ChoiceField(choices=DELIVERY_STATUSES, required=False)

    class Output(serializers.Serializer[Any]):
        """A page of deliveries, the newest first."""

        results = DeliveryShape(many=True)
        next = serializers.URLField(allow_null=True)
        previous = serializers.URLField(allow_null=True)

        class Meta:
            ref_name = "WebhookDeliveryPage"

    @extend_schema(
        operation_id="list_webhook_deliveries",
        summary="List deliveries",
        tags=["Webhooks"],
        parameters=[Query],
        responses={200: Output},
    )
    def get(self, request: Request) -> Response:
        query = checked_query(self.Query, request)
        rows = _deliveries(request)
        wanted = {name: query[name] for name in ("endpoint_id", "status") if name in query}
        page = page_of(rows.filter(**wanted), request=request, limit=query["limit"], cursor=query.get("cursor"))
        return Response(page.answer(DeliveryShape(page.rows, many=True).data))


class RedeliveryApi(ApiView):
    """Once more."""

    scopes = {"POST": MANAGE}

    @extend_schema(
        operation_id="redeliver_webhook",
        summary="Send one again",
        description="Under the same id, so that who has it already can tell.",
        tags=["Webhooks"],
        request=None,
        responses={202: DeliveryShape},
    )
    def post(self, request: Request, delivery_id: int) -> Response:
        delivery = _deliveries(request).filter(pk=delivery_id).first()
        if delivery is None:
            raise Http404(f"There is no delivery {delivery_id}.")
        return Response(DeliveryShape(endpoints.redeliver(delivery)).data, status=HTTPStatus.ACCEPTED)


def _endpoints(request: Request) -> QuerySet[WebhookEndpoint]:
    return WebhookEndpoint.objects.filter(user=caller_of(request), deleted_at__isnull=True)


def _endpoint(request: Request, endpoint_id: int) -> WebhookEndpoint:
    endpoint = _endpoints(request).filter(pk=endpoint_id).first()
    if endpoint is None:
        raise Http404(f"You have no endpoint {endpoint_id}.")
    return endpoint


def _deliveries(request: Request) -> QuerySet[WebhookDelivery]:
    return WebhookDelivery.objects.filter(endpoint__user=caller_of(request)).select_related("event", "endpoint")
