"""UPS, Shipping v2409 and Tracking v1, over HTTP. Settings and what is proven: docs/providers/ups.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from django.utils import timezone

from orders.providers.base import Address, Label, Line
from orders.providers.errors import ProviderError
from orders.providers.http import Answer, ClientCredentials, Http, fetch_token, number_of
from orders.providers.keys import as_hex
from orders.providers.options import ADDRESS, SECONDS, option, read
from orders.providers.shipping.booking import Booked, CarrierByReference, Destination, ShipperOptions, kilograms
from orders.providers.shipping.labels import label_of, within

PROVIDER = "ups"
SHIP = "/api/shipments/v2409"
RECOVERY = "/api/labels/v1/recovery"
GONE_ALREADY = frozenset({"190101", "190103", "190104"})
"""Nothing to void: unknown, or voided before. Source: UPS, Shipping errors; not tried with an account."""
TOO_LATE = frozenset({"190102", "190117", "190118"})
NO_SUCH_REFERENCE = frozenset({"TW0001", "TW0002", "151018", "151044"})
BAD_ADDRESS = frozenset({"111210", "120201", "120202", "120206", "120207", "120208", "120209", "120802", "121210"})
"""Of the recipient's, or no service from here to there. Everything else is refused for a reason of ours."""
VOIDED = "1"


@dataclass(frozen=True, kw_only=True)
class UpsOptions:
    """What UPS' adapter has to be told, beside who sends."""

    client_id: str = option("UPS_CLIENT_ID", example="the app's client id")
    client_secret: str = option("UPS_CLIENT_SECRET", secret=True, example="the app's secret")
    account: str = option("UPS_ACCOUNT", form=r"[0-9A-Z]{6}", example="the shipper number, six letters and digits")
    service: str = option("UPS_SERVICE", "11", form=r"\d{2}", example="a service code: 11 is Standard, 03 Ground")
    url: str = option(
        "UPS_URL", "https://onlinetools.ups.com", form=ADDRESS, example="an address", toy=r"https?://wwwcie\."
    )
    seconds: str = option("UPS_TIMEOUT_SECONDS", "20", form=SECONDS, example="a number of seconds")


class UpsCarrier(CarrierByReference):
    """A Carrier."""

    Options = UpsOptions
    SharedOptions = ShipperOptions
    provider = PROVIDER

    def __init__(self, options: UpsOptions | None = None, shipper: ShipperOptions | None = None) -> None:
        self._options = options or read(UpsOptions)
        self._shipper = shipper or read(ShipperOptions)
        self.sender = self._shipper.address
        seconds, url = float(self._options.seconds), self._options.url
        tokens = Http(PROVIDER, url, seconds=seconds, auth=(self._options.client_id, self._options.client_secret))
        self._fetch: Callable[[], tuple[str, float]] = lambda: fetch_token(
            tokens,
            "/security/v1/oauth/token",
            {"grant_type": "client_credentials"},
            {"x-merchant-id": self._options.account},
        )
        self._http = Http(PROVIDER, url, seconds=seconds, auth=ClientCredentials(self._fetch))

    def book(self, reference: str, address: Address, lines: Sequence[Line], key: str) -> Booked:
        """One package."""
        weight = {"UnitOfMeasurement": {"Code": "KGS"}, "Weight": f"{kilograms(lines):.1f}"}
        package: dict[str, Any] = {
            "Packaging": {"Code": "02"},  # the shop's own box
            "PackageWeight": weight,
        }
        shipment: dict[str, Any] = {
            "Description": "Goods of a shop order",  # demanded within the EU, too, for all services but Standard
            "Shipper": {**_party(self.sender, self._shipper.phone), "ShipperNumber": self._options.account},
            "ShipTo": _party(address, self._shipper.phone),
            "ShipFrom": _party(self.sender, self._shipper.phone),
            "PaymentInformation": {
                "ShipmentCharge": [{"Type": "01", "BillShipper": {"AccountNumber": self._options.account}}]
            },
            "Service": {"Code": self._options.service},
            "Package": [package],
        }
        # Within the US a reference belongs to the package, everywhere else to the shipment.
        within_us = self._shipper.country == address.country == "US"
        (package if within_us else shipment)["ReferenceNumber"] = [{"Value": reference}]
        answer = self._http.ask(
            "create_shipment",
            "POST",
            f"{SHIP}/ship",
            json={
                "ShipmentRequest": {
                    "Request": {
                        "RequestOption": "nonvalidate",
                        "TransactionReference": {"CustomerContext": reference},
                    },
                    "Shipment": shipment,
                    "LabelSpecification": {
                        "LabelImageFormat": {"Code": "PNG"},
                        "LabelStockSize": {"Height": "6", "Width": "4"},
                    },
                }
            },
            headers=self._headers(key),
        )
        if not answer.is_good:
            raise self._no("create_shipment", answer, "address_not_served" if _code(answer) in BAD_ADDRESS else "")
        results = answer.said["ShipmentResponse"]["ShipmentResults"]
        packages = results.get("PackageResults") or [{}]
        first = packages[0] if isinstance(packages, list) else packages
        number = number_of(results, "ShipmentIdentificationNumber")
        return Booked(
            shipment_id=number,
            tracking_number=str(first.get("TrackingNumber") or number),
            facts={},
            label=label_of(encoded=within(first, "ShippingLabel", "GraphicImage")),
        )

    def look_for(self, reference: str, to: Destination) -> Sequence[Booked]:
        """By reference and account, among the shipments of the last days."""
        today = timezone.localdate()
        answer = self._http.ask(
            "find_shipment",
            "GET",
            f"/api/track/v1/reference/details/{reference}",
            params={
                "locale": "en_US",
                "fromPickUpDate": f"{today - timedelta(days=7):%Y%m%d}",
                "toPickUpDate": f"{today + timedelta(days=7):%Y%m%d}",
                "destCountry": to.country,
                "destZip": to.postcode,
                "shipperNum": self._options.account,
                "refNumType": "SmallPackage",
            },
            headers=self._headers(reference),
        )
        if (answer.status == 404 and _code(answer)) or _code(answer) in NO_SUCH_REFERENCE:
            return []
        if not answer.is_good:
            # A question that was refused is no answer: taken for "not there", it would book a second parcel.
            raise self._http.unknown(
                "find_shipment", _error(answer).get("message") or f"UPS refused ({answer.status})."
            )
        shipments = (answer.said.get("trackResponse") or {}).get("shipment") or []
        packages = [package for shipment in shipments for package in (shipment.get("package") or [])[:1]]
        numbers = [number_of(package, "trackingNumber") for package in packages]
        return [Booked(shipment_id=number, tracking_number=number, facts={}) for number in numbers]

    def call_off(self, number: str, key: str, *, asked_before: bool) -> None:
        """Void it."""
        answer = self._http.ask(
            "cancel_shipment", "DELETE", f"{SHIP}/void/cancel/{quote(number, safe='')}", headers=self._headers(key)
        )
        if answer.is_good:
            result = answer.said["VoidShipmentResponse"]["SummaryResult"]["Status"]
            if result["Code"] != VOIDED:
                words = result.get("Description") or "UPS did not void it."
                raise self._http.declined("cancel_shipment", words, "not_cancelled", provider_id=number)
            return
        if _code(answer) in GONE_ALREADY:
            return
        raise self._no("cancel_shipment", answer, "handed_over" if _code(answer) in TOO_LATE else "", number=number)

    def find_label(self, *, reference: str) -> Label | None:
        """By label recovery, as a PDF."""
        parcel = self.find_shipment(reference=reference)
        if parcel is None:
            return None
        answer = self._http.ask(
            "find_label",
            "POST",
            RECOVERY,
            json={
                "LabelRecoveryRequest": {
                    "Request": {"TransactionReference": {"CustomerContext": reference}},
                    "LabelSpecification": {"LabelImageFormat": {"Code": "PDF"}},
                    "TrackingNumber": parcel.tracking_number,
                }
            },
            headers=self._headers(reference),
            reads=True,
        )
        if not answer.is_good:
            raise self._no("find_label", answer, "")
        results = within(answer.said, "LabelRecoveryResponse", "LabelResults")
        first = within(results, 0) or results
        return label_of(encoded=within(first, "LabelImage", "GraphicImage"))

    def check(self) -> str:
        """Fetches a token: it shows that id, secret and account belong together."""
        self._fetch()
        return "credentials are good"

    def _headers(self, key: str) -> dict[str, str]:
        return {"transId": as_hex(key), "transactionSrc": "order-saga"}

    def _no(self, operation: str, answer: Answer, code: str, *, number: str = "") -> ProviderError:
        error = _error(answer)
        return self._http.declined(
            operation,
            error.get("message") or f"UPS refused ({answer.status}).",
            code or str(error.get("code") or "rejected"),
            provider_id=number,
        )


def _party(address: Address, phone: str) -> dict[str, Any]:
    return {
        "Name": address.name[:35],
        "AttentionName": address.name[:35],
        "Phone": {"Number": "".join(filter(str.isdigit, phone))[:15]},
        "Address": {
            "AddressLine": [address.line1[:35]],
            "City": address.city[:30],
            "PostalCode": address.postcode[:9],
            "CountryCode": address.country,
        },
    }


def _error(answer: Answer) -> Mapping[str, Any]:
    return next(iter((answer.said.get("response") or {}).get("errors") or []), {})


def _code(answer: Answer) -> str:
    return str(_error(answer).get("code") or "")
