"""DHL: Express (MyDHL API 3.1.1, worldwide) and Parcel DE (Shipping v2, within and from Germany), over HTTP.

Settings and what is proven: docs/providers/dhl.md. Express knows no cancelling of a shipment: its undo lets the waybill
lapse, which costs nothing as long as nobody hands the parcel over. Parcel DE cannot be asked by our reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from django.utils import timezone

from orders.providers.base import Address, Label, Line
from orders.providers.errors import ProviderError
from orders.providers.http import Answer, Http, number_of
from orders.providers.keys import as_uuid
from orders.providers.options import ADDRESS, SECONDS, option, read
from orders.providers.shipping.booking import Booked, CarrierByReference, Destination, ShipperOptions, kilograms
from orders.providers.shipping.labels import first_of, label_of, within

EXPRESS, PARCEL_DE = "dhl-express", "dhl-parcel-de"
ALPHA3 = {
    "AT": "AUT", "BE": "BEL", "BG": "BGR", "CH": "CHE", "CY": "CYP", "CZ": "CZE", "DE": "DEU", "DK": "DNK", "EE": "EST",
    "ES": "ESP", "FI": "FIN", "FR": "FRA", "GB": "GBR", "GR": "GRC", "HR": "HRV", "HU": "HUN", "IE": "IRL", "IT": "ITA",
    "LI": "LIE", "LT": "LTU", "LU": "LUX", "LV": "LVA", "MT": "MLT", "NL": "NLD", "NO": "NOR", "PL": "POL", "PT": "PRT",
    "RO": "ROU", "SE": "SWE", "SI": "SVN", "SK": "SVK", "US": "USA",
}  # fmt: skip
"""Parcel DE wants three letters. Source: ISO 3166-1; where it says nothing, the address is not served."""
WITHIN_GERMANY = frozenset({"V01PAK", "V62WP", "V62KP"})
"""Products of Parcel DE's that do not leave the country."""
ABOUT_THE_RECEIVER = ("1001:", "996:", "3005:", "receiver", "destination")
"""What DHL Express says when it is the destination that it cannot serve; not tried with an account."""


@dataclass(frozen=True, kw_only=True)
class DhlExpressOptions:
    """What DHL Express' adapter has to be told, beside who sends."""

    username: str = option("DHL_EXPRESS_USERNAME", example="the API's user name")
    password: str = option("DHL_EXPRESS_PASSWORD", secret=True, example="its password")
    account: str = option("DHL_EXPRESS_ACCOUNT", form=r"\d{9}", example="the shipper account, nine digits")
    product: str = option("DHL_EXPRESS_PRODUCT", "U", form=r"[A-Z0-9]", example="a product code: U is within the EU")
    url: str = option(
        "DHL_EXPRESS_URL",
        "https://express.api.dhl.com/mydhlapi",
        form=ADDRESS,
        example="an address",
        toy=r"https?://.*/test/?$|https?://[^/]*-mock",
    )
    seconds: str = option("DHL_EXPRESS_TIMEOUT_SECONDS", "20", form=SECONDS, example="a number of seconds")


class DhlExpressCarrier(CarrierByReference):
    """A Carrier. No pickup is booked: parcels wait for the daily one."""

    Options = DhlExpressOptions
    SharedOptions = ShipperOptions
    provider = EXPRESS
    days = 2

    def __init__(self, options: DhlExpressOptions | None = None, shipper: ShipperOptions | None = None) -> None:
        self._options = options or read(DhlExpressOptions)
        self._shipper = shipper or read(ShipperOptions)
        self.sender = self._shipper.address
        self._http = Http(
            EXPRESS,
            self._options.url,
            seconds=float(self._options.seconds),
            auth=(self._options.username, self._options.password),
            headers={"x-version": "3.1.1"},
        )

    def book(self, reference: str, address: Address, lines: Sequence[Line], key: str) -> Booked:
        """One package, with nothing to declare."""
        when = timezone.localtime() + timedelta(minutes=30)
        party = self.sender
        answer = self._http.ask(
            "create_shipment",
            "POST",
            "/shipments",
            json={
                "plannedShippingDateAndTime": f"{when:%Y-%m-%dT%H:%M:%S} GMT{when:%z}"[:-2] + f":{when:%z}"[-2:],
                "pickup": {"isRequested": False},
                "productCode": self._options.product,
                "accounts": [{"typeCode": "shipper", "number": self._options.account}],
                "customerReferences": [{"value": reference, "typeCode": "CU"}],
                "customerDetails": {
                    "shipperDetails": self._party(party),
                    "receiverDetails": self._party(address),
                },
                "content": {
                    "packages": [{"weight": kilograms(lines), "dimensions": {"length": 30, "width": 20, "height": 15}}],
                    "isCustomsDeclarable": False,
                    "description": "Goods of a shop order",
                    "incoterm": "DAP",
                    "unitOfMeasurement": "metric",
                },
            },
            headers={"Message-Reference": as_uuid(key)},
        )
        if not answer.is_good:
            words = f"{answer.said.get('detail')} {answer.said.get('additionalDetails')}"
            about_it = any(word in words for word in ABOUT_THE_RECEIVER)
            raise _no(self._http, "create_shipment", answer, "address_not_served" if about_it else "rejected")
        said = answer.said
        number = number_of(said, "shipmentTrackingNumber")
        packages = said.get("packages") or [{}]
        expected = (said.get("estimatedDeliveryDate") or {}).get("estimatedDeliveryDate") or ""
        return Booked(
            shipment_id=number,
            tracking_number=number,
            estimated_delivery=str(expected)[:10],
            facts={"piece": str(packages[0].get("trackingNumber") or "")},
            label=label_of(encoded=within(first_of(said.get("documents"), "typeCode", {"label"}), "content")),
        )

    def look_for(self, reference: str, to: Destination) -> Sequence[Booked]:
        """By reference and account."""
        answer = self._http.ask(
            "find_shipment",
            "GET",
            "/tracking",
            params={
                "shipmentReference": reference,
                "shipmentReferenceType": "CU",
                "shipperAccountNumber": self._options.account,
                "dateRangeFrom": (timezone.localdate() - timedelta(days=2)).isoformat(),
                "dateRangeTo": (timezone.localdate() + timedelta(days=2)).isoformat(),
            },
            headers={"Message-Reference": as_uuid(reference)},
        )
        if answer.status == 404 and answer.said:
            return []
        if not answer.is_good:
            # A question that was refused is no answer: taken for "not there", it would book a second parcel.
            raise self._http.unknown("find_shipment", _words(answer))
        numbers = [number_of(shipment, "shipmentTrackingNumber") for shipment in answer.said["shipments"]]
        return [Booked(shipment_id=number, tracking_number=number, facts={}) for number in numbers]

    def call_off(self, number: str, key: str, *, asked_before: bool) -> None:
        """There is no such call: a waybill that nobody hands over lapses by itself. So it is asked whether somebody
        did."""
        answer = self._http.ask(
            "cancel_shipment",
            "GET",
            f"/shipments/{quote(number, safe='')}/tracking",
            params={"trackingView": "all-checkpoints", "levelOfDetail": "shipment"},
            headers={"Message-Reference": as_uuid(key)},
        )
        if answer.status == 404 and answer.said:
            return  # not seen anywhere
        if not answer.is_good:
            raise self._http.away("cancel_shipment", _words(answer))
        if any(shipment.get("events") for shipment in answer.said["shipments"]):
            raise self._http.declined(
                "cancel_shipment", "DHL has this parcel already.", "handed_over", provider_id=number
            )

    def check(self) -> str:
        """Asks after a shipment that there is not: it shows that name and password are good."""
        self.look_for("CHECK-OF-CREDENTIALS", Destination(country="DE", postcode="10115"))
        return "credentials are good"

    def _party(self, address: Address) -> dict[str, Any]:
        return {
            "postalAddress": {
                "postalCode": address.postcode[:12],
                "cityName": address.city[:45],
                "countryCode": address.country,
                "addressLine1": address.line1[:45],
            },
            "contactInformation": {
                "phone": self._shipper.phone,
                "companyName": address.name[:100],
                "fullName": address.name[:255],
            },
        }


@dataclass(frozen=True, kw_only=True)
class DhlParcelDeOptions:
    """What DHL Parcel DE's adapter has to be told, beside who sends."""

    api_key: str = option("DHL_PARCEL_DE_API_KEY", secret=True, example="the app's key from the developer portal")
    username: str = option("DHL_PARCEL_DE_USERNAME", example="the business customer's user name")
    password: str = option("DHL_PARCEL_DE_PASSWORD", secret=True, example="its password")
    billing_number: str = option("DHL_PARCEL_DE_BILLING_NUMBER", form=r"\w{14}", example="14 letters and digits")
    product: str = option(
        "DHL_PARCEL_DE_PRODUCT", "V01PAK", form=r"V\d{2}[A-Z]{2,4}", example="V01PAK within Germany, V53WPAK abroad"
    )
    url: str = option(
        "DHL_PARCEL_DE_URL",
        "https://api-eu.dhl.com/parcel/de/shipping/v2",
        form=ADDRESS,
        example="an address",
        toy=r"https?://[^/]*sandbox",
    )
    seconds: str = option("DHL_PARCEL_DE_TIMEOUT_SECONDS", "20", form=SECONDS, example="a number of seconds")


class DhlParcelDeCarrier(CarrierByReference):
    """A Carrier. A booking whose answer was lost is a person's: DHL cannot be asked for it by our reference."""

    Options = DhlParcelDeOptions
    SharedOptions = ShipperOptions
    provider = PARCEL_DE
    finds = False
    days = 2

    def __init__(self, options: DhlParcelDeOptions | None = None, shipper: ShipperOptions | None = None) -> None:
        self._options = options or read(DhlParcelDeOptions)
        self._shipper = shipper or read(ShipperOptions)
        self.sender = self._shipper.address
        self._http = Http(
            PARCEL_DE,
            self._options.url,
            seconds=float(self._options.seconds),
            auth=(self._options.username, self._options.password),
            headers={"dhl-api-key": self._options.api_key},
        )

    def book(self, reference: str, address: Address, lines: Sequence[Line], key: str) -> Booked:
        """One parcel, its label as an address rather than as a picture."""
        for country in (self._shipper.country, address.country):
            if country not in ALPHA3:
                raise self._http.declined(
                    "create_shipment", f"DHL Parcel DE is not set up for {country}.", "address_not_served"
                )
        if self._options.product in WITHIN_GERMANY and address.country != "DE":
            raise self._http.declined(
                "create_shipment",
                f"The product {self._options.product} stays in Germany, and this parcel goes to {address.country}.",
                "address_not_served",
            )
        answer = self._http.ask(
            "create_shipment",
            "POST",
            "/orders",
            params={"includeDocs": "URL"},
            json={
                "profile": "STANDARD_GRUPPENPROFIL",
                "shipments": [
                    {
                        "product": self._options.product,
                        "billingNumber": self._options.billing_number,
                        "refNo": reference,
                        "shipper": _party_de(self.sender),
                        "consignee": _party_de(address),
                        "details": {"weight": {"uom": "kg", "value": kilograms(lines)}},
                    }
                ],
            },
        )
        item = (answer.said.get("items") or [{}])[0]
        if not answer.is_good or _failed(item):
            faults = [str(one.get("property")) for one in item.get("validationMessages") or []]
            about_it = any(fault.startswith("consignee") for fault in faults)
            raise _no(self._http, "create_shipment", answer, "address_not_served" if about_it else "rejected")
        number = number_of(item, "shipmentNo")
        return Booked(shipment_id=number, tracking_number=number, facts={}, label=_label_de(item))

    def find_label(self, *, reference: str) -> Label | None:
        """Until the day's manifest, once the parcel's number is known."""
        parcel = self.find_shipment(reference=reference)
        if parcel is None:
            return None
        answer = self._http.ask(
            "find_label", "GET", "/orders", params={"shipment": parcel.shipment_id, "includeDocs": "URL"}
        )
        item = (answer.said.get("items") or [{}])[0]
        if not answer.is_good or _failed(item):
            raise _no(self._http, "find_label", answer, "rejected", number=parcel.shipment_id)
        return _label_de(item)

    def look_for(self, reference: str, to: Destination) -> Sequence[Booked]:
        """Never asked: `finds` is False."""
        raise NotImplementedError

    def call_off(self, number: str, key: str, *, asked_before: bool) -> None:
        """Delete the order, which works until the day's manifest."""
        answer = self._http.ask(
            "cancel_shipment",
            "DELETE",
            "/orders",
            params={"profile": "STANDARD_GRUPPENPROFIL", "shipment": number},
        )
        item = (answer.said.get("items") or [{}])[0]
        refused = not answer.is_good or _failed(item)
        if not refused:
            return
        if answer.status in {207, 400, 404} and answer.said and asked_before:
            return  # unknown or deleted before: that try's answer was lost
        code = "handed_over" if answer.status == 409 else "not_cancelled"
        raise _no(self._http, "cancel_shipment", answer, code, number=number)

    def check(self) -> str:
        """Asks which version is there, with the credentials."""
        answer = self._http.ask("check", "GET", "/")
        return f"version {(answer.said.get('amp') or {}).get('version', 'unknown')}"


def _party_de(address: Address) -> dict[str, Any]:
    return {
        "name1": address.name[:50],
        "addressStreet": address.line1[:50],
        "postalCode": address.postcode[:10],
        "city": address.city[:40],
        "country": ALPHA3[address.country],
    }


def _label_de(item: Mapping[str, Any]) -> Label | None:
    return label_of(encoded=within(item, "label", "b64"), url=within(item, "label", "url"))


def _failed(item: Mapping[str, Any]) -> bool:
    """Whether the one item of an answer says no, which it may within a 207."""
    return int((item.get("sstatus") or {}).get("statusCode", 200)) >= 400


def _no(http: Http, operation: str, answer: Answer, code: str, *, number: str = "") -> ProviderError:
    return http.declined(operation, _words(answer), code, provider_id=number)


def _words(answer: Answer) -> str:
    said = answer.said
    status = said.get("status")
    item = (said.get("items") or [{}])[0]
    messages = [one.get("validationMessage", "") for one in item.get("validationMessages") or []]
    return (
        "; ".join(filter(None, messages))
        or said.get("detail")
        or (status.get("detail") if isinstance(status, dict) else "")
        or said.get("title")
        or f"DHL refused ({answer.status})."
    )
