"""The API's addresses, below /api/v1/."""

from __future__ import annotations

from django.urls import include, path, register_converter

from orders import (
    api,
    api_callbacks,
    api_follow_up,
    api_guide,
    api_label,
    api_order,
    api_schema,
    api_shop,
    api_stream,
    api_webhooks,
)
from orders.intake import ORDER_ID


class OrderIdConverter:
    """What can be an order's number. Anything else is nobody's, and is not looked for."""

    regex = ORDER_ID.pattern

    def to_python(self, value: str) -> str:
        return value

    def to_url(self, value: str) -> str:
        return value


register_converter(OrderIdConverter, "api_order_id")

urlpatterns = [
    path("orders", api.OrderCollectionApi.as_view(), name="api-orders"),
    path("orders/<api_order_id:order_id>", api_order.OrderDetailApi.as_view(), name="api-order"),
    path(
        "orders/<api_order_id:order_id>/cancellations",
        api_follow_up.CancelApi.as_view(),
        name="api-cancellations",
    ),
    path(
        "orders/<api_order_id:order_id>/cancellations/<int:cancellation_id>",
        api_follow_up.CancellationApi.as_view(),
        name="api-cancellation",
    ),
    path("orders/<api_order_id:order_id>/events", api_follow_up.EventListApi.as_view(), name="api-order-events"),
    path("orders/<api_order_id:order_id>/stream", api_stream.order_stream, name="api-order-stream"),
    path("orders/<api_order_id:order_id>/label", api_label.LabelApi.as_view(), name="api-order-label"),
    path("orders/<api_order_id:order_id>/notes", api_shop.NoteApi.as_view(), name="api-order-notes"),
    path("inventory-items", api_shop.StockListApi.as_view(), name="api-inventory-items"),
    path("inventory-items/<str:sku>", api_shop.StockItemApi.as_view(), name="api-inventory-item"),
    path("api-keys", api_shop.KeyListApi.as_view(), name="api-keys"),
    path("api-keys/<int:key_id>", api_shop.KeyApi.as_view(), name="api-key"),
    path("webhook-endpoints", api_webhooks.EndpointListApi.as_view(), name="api-webhook-endpoints"),
    path("webhook-endpoints/<int:endpoint_id>", api_webhooks.EndpointApi.as_view(), name="api-webhook-endpoint"),
    path(
        "webhook-endpoints/<int:endpoint_id>/secret-rotations",
        api_webhooks.RotationApi.as_view(),
        name="api-webhook-rotations",
    ),
    path(
        "webhook-endpoints/<int:endpoint_id>/test-deliveries",
        api_webhooks.TestDeliveryApi.as_view(),
        name="api-webhook-tests",
    ),
    path("webhook-deliveries", api_webhooks.DeliveryListApi.as_view(), name="api-webhook-deliveries"),
    path(
        "webhook-deliveries/<int:delivery_id>/redeliveries",
        api_webhooks.RedeliveryApi.as_view(),
        name="api-redeliveries",
    ),
    path("provider-callbacks/<str:provider>", api_callbacks.receive, name="api-provider-callbacks"),
    path("me", api_shop.MeApi.as_view(), name="api-me"),
    path("", include("sagas.api_urls")),
    path("schema", api_schema.SchemaApi.as_view(), name="schema"),
    path("docs", api_guide.guide, name="docs"),
    path("docs/console", api_schema.DocsApi.as_view(), name="api-console"),
    path("problems", api_guide.problem_list, name="api-problems"),
    path("problems/<slug:slug>", api_schema.ProblemApi.as_view(), name="api-problem"),
    path("", api_schema.NowhereApi.as_view()),
    path("<path:rest>", api_schema.NowhereApi.as_view()),
]
