"""FedEx, Ship v1 and Track v1, over HTTP. Settings and what is proven: docs/providers/fedex.md."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from django.utils import timezone

from orders.providers.base import Address, Label, Line
from orders.providers.errors import ProviderError
from orders.providers.http import Answer, ClientCredentials, Http, fetch_token, number_of
from orders.providers.keys import as_uuid
from orders.providers.options import ADDRESS, SECONDS, option, read
from orders.providers.shipping.booking import Booked, CarrierByReference, Destination, ShipperOptions, kilograms
from orders.providers.shipping.labels import first_of, label_of, within

PROVIDER = "fedex"
LABELS = frozenset({"LABEL", "MERGED_LABELS_ONLY", "MERGED_LABEL_DOCUMENTS"})
GONE_ALREADY = frozenset({"SHIPMENT.ALREADY.CANCELLED", "TRACKINGNUMBER.NOTFOUND", "TRACKING.TRACKINGNUMBER.NOTFOUND"})
TOO_LATE = frozenset({"SHIPMENT.ALREADY.TENDERED", "UNABLE.TO.DELETE.SHIPMENT.ALREADY.TENDERED"})
NO_SUCH_REFERENCE = frozenset(
    {"TRACKING.REFERENCENUMBER.NOTFOUND", "TRACKING.REFERENCEVALUE.NOTFOUND", "NOT.FOUND.ERROR"}
)
ABOUT_THE_ADDRESS = ("RECIPIENT", "DESTINATION", "POSTALCODE")
"""Names of codes as far as they are published; not tried with an account."""


@dataclass(frozen=True, kw_only=True)
class FedexOptions:
    """What FedEx' adapter has to be told, beside who sends."""

    client_id: str = option("FEDEX_CLIENT_ID", example="the project's API key")
    client_secret: str = option("FEDEX_CLIENT_SECRET", secret=True, example="the project's secret key")
    account: str = option("FEDEX_ACCOUNT", form=r"\d{9}", example="the account number, nine digits")
    service: str = option("FEDEX_SERVICE", "FEDEX_INTERNATIONAL_PRIORITY", form=r"[A-Z0-9_]+", example="a service type")
    url: str = option(
        "FEDEX_URL", "https://apis.fedex.com", form=ADDRESS, example="an address", toy=r"https?://[^/]*sandbox"
    )
    seconds: str = option("FEDEX_TIMEOUT_SECONDS", "20", form=SECONDS, example="a number of seconds")


class FedexCarrier(CarrierByReference):
    """A Carrier."""

    Options = FedexOptions
    SharedOptions = ShipperOptions
    provider = PROVIDER

    def __init__(self, options: FedexOptions | None = None, shipper: ShipperOptions | None = None) -> None:
        self._options = options or read(FedexOptions)
        self._shipper = shipper or read(ShipperOptions)
        self.sender = self._shipper.address
        seconds, url = float(self._options.seconds), self._options.url
        tokens = Http(PROVIDER, url, seconds=seconds)
        self._fetch: Callable[[], tuple[str, float]] = lambda: fetch_token(
            tokens,
            "/oauth/token",
            {
                "grant_type": "client_credentials",
                "client_id": self._options.client_id,
                "client_secret": self._options.client_secret,
            },
        )
        self._http = Http(PROVIDER, url, seconds=seconds, auth=ClientCredentials(self._fetch))

    def book(self, reference: str, address: Address, lines: Sequence[Line], key: str) -> Booked:
        """One package, its label as an address rather than as a picture: FedEx keeps it there for 24 hours."""
        shipment = {
            "shipper": _party(self.sender, self._shipper.phone),
            "recipients": [_party(address, self._shipper.phone)],
            "pickupType": "USE_SCHEDULED_PICKUP",
            "serviceType": self._options.service,
            "packagingType": "YOUR_PACKAGING",
            "totalWeight": kilograms(lines),
            "shippingChargesPayment": {
                "paymentType": "SENDER",
                "payor": {"responsibleParty": {"accountNumber": {"value": self._options.account}}},
            },
            "labelSpecification": {"imageType": "PDF", "labelStockType": "PAPER_4X6"},
            "requestedPackageLineItems": [
                {
                    "weight": {"units": "KG", "value": kilograms(lines)},
                    "customerReferences": [{"customerReferenceType": "CUSTOMER_REFERENCE", "value": reference}],
                }
            ],
        }
        answer = self._http.ask(
            "create_shipment",
            "POST",
            "/ship/v1/shipments",
            json={
                "labelResponseOptions": "URL_ONLY",
                "accountNumber": {"value": self._options.account},
                "requestedShipment": shipment,
            },
            headers={"x-customer-transaction-id": as_uuid(key)},
        )
        if not answer.is_good:
            about_it = any(word in str(_error(answer).get("code")) for word in ABOUT_THE_ADDRESS)
            raise self._no("create_shipment", answer, "address_not_served" if about_it else "")
        made = answer.said["output"]["transactionShipments"][0]
        number = number_of(made, "masterTrackingNumber")
        commit = ((made.get("completedShipmentDetail") or {}).get("operationalDetail") or {}).get("deliveryDate") or ""
        return Booked(
            shipment_id=number,
            tracking_number=number,
            estimated_delivery=str(commit)[:10],
            facts={},
            label=_label(made),
        )

    def look_for(self, reference: str, to: Destination) -> Sequence[Booked]:
        """By reference and account. Whether a label that was never scanned is found is not known."""
        today = timezone.localdate()
        answer = self._http.ask(
            "find_shipment",
            "POST",
            "/track/v1/referencenumbers",
            json={
                "referencesInformation": {
                    "type": "CUSTOMER_REFERENCE",
                    "value": reference,
                    "accountNumber": self._options.account,
                    "shipDateBegin": (today - timedelta(days=7)).isoformat(),
                    "shipDateEndDate": (today + timedelta(days=7)).isoformat(),
                    "destinationCountryCode": to.country,
                    "destinationPostalCode": to.postcode,
                },
                "includeDetailedScans": False,
            },
            headers={"x-customer-transaction-id": as_uuid(reference)},
            reads=True,
        )
        if _error(answer).get("code") in NO_SUCH_REFERENCE:
            return []
        if not answer.is_good:
            # A question that was refused is no answer: taken for "not there", it would book a second parcel.
            words = _error(answer).get("message") or f"FedEx refused ({answer.status})."
            raise self._http.unknown("find_shipment", words)
        numbers = [
            number_of(result, "trackingNumber")
            for result in answer.said["output"]["completeTrackResults"]
            if result.get("trackingNumber") and not all("error" in one for one in result.get("trackResults", [{}]))
        ]
        return [Booked(shipment_id=number, tracking_number=number, facts={}) for number in numbers]

    def call_off(self, number: str, key: str, *, asked_before: bool) -> None:
        """Delete all packages, which works until the first is tendered."""
        answer = self._http.ask(
            "cancel_shipment",
            "PUT",
            "/ship/v1/shipments/cancel",
            json={
                "accountNumber": {"value": self._options.account},
                "trackingNumber": number,
                "deletionControl": "DELETE_ALL_PACKAGES",
            },
            headers={"x-customer-transaction-id": as_uuid(key)},
        )
        code = str(_error(answer).get("code") or "")
        if answer.is_good and answer.said["output"]["cancelledShipment"] is True:
            return
        if code in GONE_ALREADY:
            return
        late = "handed_over" if code in TOO_LATE else "not_cancelled" if answer.is_good else ""
        raise self._no("cancel_shipment", answer, late, number=number)

    def check(self) -> str:
        """Fetches a token: it shows that id and secret belong together."""
        self._fetch()
        return "credentials are good"

    def _no(self, operation: str, answer: Answer, code: str, *, number: str = "") -> ProviderError:
        error = _error(answer)
        return self._http.declined(
            operation,
            error.get("message") or f"FedEx refused ({answer.status}).",
            code or str(error.get("code") or "rejected"),
            provider_id=number,
        )


def _party(address: Address, phone: str) -> dict[str, Any]:
    return {
        "contact": {"personName": address.name[:70], "phoneNumber": "".join(filter(str.isdigit, phone))[:15]},
        "address": {
            "streetLines": [address.line1[:35]],
            "city": address.city[:35],
            "postalCode": address.postcode[:10],
            "countryCode": address.country,
        },
    }


def _label(made: Any) -> Label | None:
    document = first_of(within(made, "pieceResponses", 0, "packageDocuments"), "contentType", LABELS)
    return label_of(encoded=within(document, "encodedLabel"), url=within(document, "url"))


def _error(answer: Answer) -> Mapping[str, Any]:
    return next(iter(answer.said.get("errors") or []), {})
