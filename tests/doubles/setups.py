"""Each adapter with its double: what the contract is held against, and what whole orders go through."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from orders.providers.inventory.http import HttpInventory
from orders.providers.inventory.oracle import OracleInventory
from orders.providers.inventory.sap import SapInventory
from orders.providers.mail.sendgrid import SendGridMail
from orders.providers.mail.ses import SesMail
from orders.providers.payments.adyen import AdyenGateway
from orders.providers.payments.paypal import PayPalGateway
from orders.providers.payments.stripe import StripeGateway
from orders.providers.shipping.dhl import DhlExpressCarrier, DhlParcelDeCarrier
from orders.providers.shipping.fedex import FedexCarrier
from orders.providers.shipping.ups import UpsCarrier
from tests.doubles import adyen, paypal, sap, stripe
from tests.doubles.carriers import DhlExpressDouble, DhlParcelDeDouble, FedexDouble, UpsDouble
from tests.doubles.mail import TOPIC, SendGridDouble, SesDouble
from tests.doubles.sap import SapDouble
from tests.doubles.server import Double
from tests.doubles.stocks import InventoryServer, OracleDouble

SHIPPER = {
    "SHIPPER_NAME": "The Shop",
    "SHIPPER_LINE1": "Lagerweg 1",
    "SHIPPER_CITY": "Hamburg",
    "SHIPPER_POSTCODE": "20095",
    "SHIPPER_COUNTRY": "DE",
    "SHIPPER_PHONE": "+49 40 1234567",
    "SHIPPER_EMAIL": "shop@example.com",
}


@dataclass(frozen=True, kw_only=True)
class Setup:
    """One adapter and how it is told of its double."""

    adapter: Callable[[], Any]
    double: Callable[[], Double]
    settings: Callable[[Any], Mapping[str, str]]
    """What settings.PROVIDER_SETTINGS holds for it."""


GATEWAYS: dict[str, Setup] = {
    "stripe": Setup(
        adapter=StripeGateway,
        double=stripe.StripeDouble,
        settings=lambda double: {
            "STRIPE_SECRET_KEY": stripe.KEY,
            "STRIPE_WEBHOOK_SECRET": stripe.WEBHOOK_SECRET,
            "STRIPE_URL": double.url,
            "STRIPE_TIMEOUT_SECONDS": "3",
        },
    ),
    "paypal": Setup(
        adapter=PayPalGateway,
        double=paypal.PayPalDouble,
        settings=lambda double: {
            "PAYPAL_CLIENT_ID": "id",
            "PAYPAL_CLIENT_SECRET": "secret",
            "PAYPAL_WEBHOOK_ID": "WEBHOOK1",
            "PAYPAL_URL": double.url,
            "PAYPAL_TIMEOUT_SECONDS": "3",
        },
    ),
    "adyen": Setup(
        adapter=AdyenGateway,
        double=adyen.AdyenDouble,
        settings=lambda double: {
            "ADYEN_API_KEY": adyen.KEY,
            "ADYEN_MERCHANT_ACCOUNT": adyen.ACCOUNT,
            "ADYEN_HMAC_KEY": adyen.HMAC_KEY,
            "ADYEN_RETURN_URL": "https://shop.example/paid",
            "ADYEN_URL": f"{double.url}/v72",
            "ADYEN_TIMEOUT_SECONDS": "3",
        },
    ),
}


def _carrier(prefix: str, path: str = "", **more: str) -> Callable[[Any], Mapping[str, str]]:
    return lambda double: {
        **SHIPPER,
        f"{prefix}_URL": double.url + path,
        f"{prefix}_TIMEOUT_SECONDS": "3",
        **{f"{prefix}_{name}": value for name, value in more.items()},
    }


CLIENT = {"CLIENT_ID": "id", "CLIENT_SECRET": "secret"}
USER = {"USERNAME": "id", "PASSWORD": "secret"}

CARRIERS: dict[str, Setup] = {
    "ups": Setup(adapter=UpsCarrier, double=UpsDouble, settings=_carrier("UPS", ACCOUNT="A1B2C3", **CLIENT)),
    "fedex": Setup(adapter=FedexCarrier, double=FedexDouble, settings=_carrier("FEDEX", ACCOUNT="740561073", **CLIENT)),
    "dhl-express": Setup(
        adapter=DhlExpressCarrier,
        double=DhlExpressDouble,
        settings=_carrier("DHL_EXPRESS", "/mydhlapi", ACCOUNT="123456789", **USER),
    ),
    "dhl-parcel-de": Setup(
        adapter=DhlParcelDeCarrier,
        double=DhlParcelDeDouble,
        settings=_carrier(
            "DHL_PARCEL_DE", "/parcel/de/shipping/v2", API_KEY="key", BILLING_NUMBER="33333333330101", **USER
        ),
    ),
}

INVENTORIES: dict[str, Setup] = {
    "sap": Setup(
        adapter=SapInventory,
        double=SapDouble,
        settings=lambda double: {
            "SAP_URL": double.url,
            "SAP_USERNAME": "id",
            "SAP_PASSWORD": "secret",
            "SAP_PLANT": sap.PLANT,
            "SAP_STORAGE_LOCATION": sap.LOCATION,
            "SAP_COST_CENTER": "10101101",
            "SAP_TIMEOUT_SECONDS": "3",
        },
    ),
    "oracle": Setup(
        adapter=OracleInventory,
        double=OracleDouble,
        settings=lambda double: {
            "ORACLE_URL": double.url,
            "ORACLE_USERNAME": "id",
            "ORACLE_PASSWORD": "secret",
            "ORACLE_ORGANIZATION": "M1",
            "ORACLE_SUBINVENTORY": "Stores",
            "ORACLE_TIMEOUT_SECONDS": "3",
        },
    ),
    "http": Setup(
        adapter=HttpInventory,
        double=InventoryServer,
        settings=lambda double: {
            "INVENTORY_URL": double.url,
            "INVENTORY_TOKEN": "token",
            "INVENTORY_TIMEOUT_SECONDS": "3",
        },
    ),
}

MAILERS: dict[str, Setup] = {
    "sendgrid": Setup(
        adapter=SendGridMail,
        double=SendGridDouble,
        settings=lambda double: {
            "SENDGRID_API_KEY": "SG.key",
            "SENDGRID_WEBHOOK_KEY": double.public_key,
            "SENDGRID_URL": double.url,
            "SENDGRID_TIMEOUT_SECONDS": "3",
        },
    ),
    "ses": Setup(
        adapter=SesMail,
        double=SesDouble,
        settings=lambda double: {
            "SES_REGION": "eu-central-1",
            "SES_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
            "SES_SECRET_ACCESS_KEY": "secret",
            "SES_SNS_TOPIC": TOPIC,
            "SES_URL": double.url,
            "SES_TIMEOUT_SECONDS": "3",
        },
    ),
}

TABLES: dict[str, dict[str, Setup]] = {
    "payments": GATEWAYS,
    "shipping": CARRIERS,
    "inventory": INVENTORIES,
    "mail": MAILERS,
}
