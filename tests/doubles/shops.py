"""Three shops, each with other outside systems: whole orders go through them in one process and by real workers."""

from __future__ import annotations

from dataclasses import dataclass

from tests.doubles.paypal import DECLINED


@dataclass(frozen=True, kw_only=True)
class Shop:
    """Who stands behind each interface, and by which words their calls are known."""

    payments: str
    shipping: str
    mail: str
    inventory: str
    takes: str
    gives_back: str
    books: str
    refused: str
    """A means of payment that is declined."""
    nowhere: str
    """A postcode that is not served."""


SHOPS = {
    "stripe, ups, ses, http stock": Shop(
        payments="stripe",
        shipping="ups",
        mail="ses",
        inventory="http",
        takes="/confirm",
        gives_back="POST /v1/refunds",
        books="/ship",
        refused="pm_declined",
        nowhere="99999",
    ),
    "adyen, dhl, sendgrid, sap": Shop(
        payments="adyen",
        shipping="dhl-parcel-de",
        mail="sendgrid",
        inventory="sap",
        takes="/payments",
        gives_back="/reversals",
        books="POST",
        refused="declined",
        nowhere="00000",
    ),
    "paypal, fedex, smtp, oracle": Shop(
        payments="paypal",
        shipping="fedex",
        mail="django",
        inventory="oracle",
        takes="/capture",
        gives_back="/refund",
        books="/ship/v1/shipments",
        refused=DECLINED,
        nowhere="99999",
    ),
}
