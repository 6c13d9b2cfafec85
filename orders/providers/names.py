"""The names of the providers that come with the shop, as settings.PROVIDERS takes them."""

from __future__ import annotations

from collections.abc import Mapping

BY_NAME: Mapping[str, Mapping[str, str]] = {
    "inventory": {
        "local": "orders.providers.inventory.local.LocalInventory",
        "sap": "orders.providers.inventory.sap.SapInventory",
        "oracle": "orders.providers.inventory.oracle.OracleInventory",
        "http": "orders.providers.inventory.http.HttpInventory",
    },
    "payments": {
        "sandbox": "orders.providers.payments.sandbox.SandboxGateway",
        "stripe": "orders.providers.payments.stripe.StripeGateway",
        "paypal": "orders.providers.payments.paypal.PayPalGateway",
        "adyen": "orders.providers.payments.adyen.AdyenGateway",
    },
    "shipping": {
        "sandbox": "orders.providers.shipping.sandbox.SandboxCarrier",
        "fedex": "orders.providers.shipping.fedex.FedexCarrier",
        "ups": "orders.providers.shipping.ups.UpsCarrier",
        "dhl-express": "orders.providers.shipping.dhl.DhlExpressCarrier",
        "dhl-parcel-de": "orders.providers.shipping.dhl.DhlParcelDeCarrier",
    },
    "mail": {
        "django": "orders.providers.mail.django.DjangoMail",
        "sendgrid": "orders.providers.mail.sendgrid.SendGridMail",
        "ses": "orders.providers.mail.ses.SesMail",
    },
}
EMBEDDED = frozenset(
    BY_NAME[kind][name]
    for kind, name in [("inventory", "local"), ("payments", "sandbox"), ("shipping", "sandbox"), ("mail", "django")]
)
"""Those that work in our own database, and mail by Django: they have neither limits nor a circuit breaker."""
SANDBOXES = frozenset({BY_NAME["payments"]["sandbox"], BY_NAME["shipping"]["sandbox"]})
"""Those with which no money and no parcel moves."""


def chosen(kind: str, setting: str) -> dict[str, str]:
    """Name -> dotted path of the providers that a setting like `dhl-express, ups` names, the first one first.

    A dotted path stands for itself. Raises ValueError for a name that there is not.
    """
    found: dict[str, str] = {}
    for name in filter(None, (part.strip() for part in setting.split(","))):
        path = BY_NAME[kind].get(name, name)
        if "." not in path:
            raise ValueError(f"there is no {name!r}. {_there_are(kind)}")
        own = next((short for short, long in BY_NAME[kind].items() if long == path), name)
        found[own] = path
    if not found:
        raise ValueError(f"it names nobody. {_there_are(kind)}")
    return found


def _there_are(kind: str) -> str:
    return f"There are {', '.join(BY_NAME[kind])}, and the dotted paths of your own classes"
