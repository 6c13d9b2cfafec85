"""The shop's rows."""

from __future__ import annotations

from django.contrib.auth.models import User

from orders.models.api_key import ApiKey, Scope
from orders.models.effect import OutsideEffect
from orders.models.idempotency import IdempotentRequest
from orders.models.inbound import InboundDelivery, InboundEvent
from orders.models.message import MailDelivery, SentMessage
from orders.models.note import OrderNote
from orders.models.order import Order, OrderLine
from orders.models.payment import Payment, PaymentOperation
from orders.models.preference import Preference
from orders.models.provider import ProviderChoice, ProviderHealth, ProviderSlot
from orders.models.rate import RateWindow
from orders.models.refused import RefusedRequest
from orders.models.retired_use import RetiredUse
from orders.models.sandbox import (
    FaultPlan,
    SandboxCharge,
    SandboxMail,
    SandboxMishap,
    SandboxParcel,
    SandboxRefund,
)
from orders.models.saved_view import SavedView
from orders.models.shipment import Shipment, ShipmentLabel
from orders.models.stock import Product, Reservation, StockItem, StockMovement
from orders.models.tag import OrderTag
from orders.models.webhook import WebhookDelivery, WebhookEndpoint, WebhookEvent

__all__ = [
    "ApiKey",
    "FaultPlan",
    "IdempotentRequest",
    "InboundDelivery",
    "InboundEvent",
    "MailDelivery",
    "Order",
    "OrderLine",
    "OrderNote",
    "OrderTag",
    "OutsideEffect",
    "Payment",
    "PaymentOperation",
    "Preference",
    "Product",
    "ProviderChoice",
    "ProviderHealth",
    "ProviderSlot",
    "RateWindow",
    "RefusedRequest",
    "Reservation",
    "RetiredUse",
    "SandboxCharge",
    "SandboxMail",
    "SandboxMishap",
    "SandboxParcel",
    "SandboxRefund",
    "SavedView",
    "Scope",
    "SentMessage",
    "Shipment",
    "ShipmentLabel",
    "StockItem",
    "StockMovement",
    "User",
    "WebhookDelivery",
    "WebhookEndpoint",
    "WebhookEvent",
]
