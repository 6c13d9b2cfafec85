"""The label of an order's parcel over HTTP, for programs that print."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from django.http import Http404
from drf_spectacular.utils import extend_schema, extend_schema_serializer
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from orders.api import order_or_404
from orders.api_shapes import ORDER_ID_PARAMETER
from orders.labels import MEDIA_TYPES
from orders.models import Scope, ShipmentLabel
from orders.roles import is_staff
from orders.selectors import label_to_print
from sagas.api_view import ApiView


@extend_schema_serializer(component_name="ParcelLabel")
class LabelShape(serializers.Serializer[Any]):
    """A label: the document itself, or where the carrier keeps it."""

    media_type = serializers.CharField(
        allow_null=True, help_text=f"Of the document: {', '.join(MEDIA_TYPES.values())}; null for an address."
    )
    content = serializers.CharField(allow_null=True, help_text="The document in base64; null for an address.")
    url = serializers.CharField(
        allow_null=True,
        help_text="Where the carrier keeps it, which may be for a day only; null for a document. Whoever has the "
        "address has the label.",
    )


class LabelApi(ApiView):
    """The label of an order's parcel. Customers have none: to them it is not there, as on the page."""

    scopes = {"GET": Scope.ORDERS_READ}

    @extend_schema(
        operation_id="get_order_label",
        summary="The label of an order's parcel",
        description=(
            "As the carrier gave it when the parcel was booked; for staff. 404 if it gave none, once the parcel is "
            "being called off, since then it must not be sent, and to customers, who are not the sender."
        ),
        tags=["Orders"],
        parameters=[ORDER_ID_PARAMETER],
        responses={200: LabelShape},
    )
    def get(self, request: Request, order_id: str) -> Response:
        order_or_404(order_id, request)
        label = label_to_print(order_id) if is_staff(request.user) else None
        if label is None:
            raise Http404(f"Order {order_id} has no label to print.")
        return Response(LabelShape(_told(label)).data)


def _told(label: ShipmentLabel) -> dict[str, str | None]:
    if not label.media_type:
        return {"media_type": None, "content": None, "url": label.url}
    return {"media_type": label.media_type, "content": b64encode(label.content).decode(), "url": None}
