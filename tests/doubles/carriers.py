"""Plays UPS, FedEx, DHL Express and DHL Parcel DE, which know parcels by their numbers and by our reference."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from tests.doubles.descriptions import Description
from tests.doubles.server import Call, Double, Reply

NOT_SERVED, NOT_DHLS = "99999", "00000"
"""Postcodes that UPS and FedEx do not serve, and those that DHL does not."""
PNG = b"\x89PNG\r\n\x1a\n" + b"label of UPS"
PDF = b"%PDF-1.4 label of DHL Express"
ELSEWHERE = "https://labels.example/document/v2/retrieve/SH,7946_SHIPPING_P/isLabel=true&autoPrint=false"
"""Where FedEx and DHL Parcel DE say that they keep a label. Nobody is there, and nobody asks."""


class CarrierDouble(Double):
    """What they have in common. `hide` keeps parcels from being found, `tender` sends them on their way."""

    def __init__(self) -> None:
        super().__init__()
        self.parcels: dict[str, dict[str, Any]] = {}
        self.hidden = False
        self.tokens = 0
        self.over_until = 0

    @property
    def live(self) -> list[str]:
        """References of the parcels that are booked and not cancelled."""
        return [one["reference"] for one in self.parcels.values() if one["state"] != "cancelled"]

    def tender(self) -> None:
        for one in self.parcels.values():
            one["state"] = "tendered"

    def booked(self, number: str, reference: str, **more: Any) -> str:
        self.parcels[number] = {"reference": reference, "state": "booked", **more}
        return number

    def found(self, reference: str) -> list[str]:
        if self.hidden:
            return []
        return [number for number, one in self.parcels.items() if one["reference"] == reference]

    def token(self, good: bool) -> Reply:
        if not good:
            return Reply(status=401, said={})
        self.tokens += 1
        return Reply(said={"access_token": f"token-{self.tokens}", "expires_in": 14399, "token_type": "Bearer"})

    def is_known(self, call: Call) -> bool:
        number = call.headers.get("Authorization", "").removeprefix("Bearer token-")
        return number.isdigit() and self.over_until < int(number) <= self.tokens

    def forget_tokens(self) -> None:
        """Every token given out so far is over."""
        self.over_until = self.tokens


class UpsDouble(CarrierDouble):
    descriptions = (
        Description("ups/shipping_v2409.json", "/api"),
        Description("ups/tracking.json", "/api"),
        Description("ups/oauth_client_credentials.json"),
    )
    # It demands formats' codes of four letters, of which there is none, and references beside a number.
    exempt = (r"POST /api/labels/v1/recovery",)
    checks_answers = False
    label: Any = {"ImageFormat": {"Code": "PNG", "Description": "PNG"}, "GraphicImage": b64encode(PNG).decode()}

    def answer(self, call: Call) -> Reply:
        if call.path.endswith("/oauth/token"):
            return self.token(call.headers.get("Authorization") == "Basic aWQ6c2VjcmV0")
        if not self.is_known(call):
            return _ups(401, "250002", "Invalid Authentication Information.")
        if call.path.endswith("/ship"):
            shipment = call.json["ShipmentRequest"]["Shipment"]
            if shipment["ShipTo"]["Address"]["PostalCode"] == NOT_SERVED:
                return _ups(400, "120802", "Address Validation Error on ShipTo address")
            named = shipment.get("ReferenceNumber") or shipment["Package"][0]["ReferenceNumber"]
            number = self.booked(f"1Z999AA1{len(self.parcels) + 1:010}", named[0]["Value"])
            results = {
                "ShipmentIdentificationNumber": number,
                "PackageResults": [{"TrackingNumber": number, "ShippingLabel": self.label}],
            }
            return Reply(said={"ShipmentResponse": {"Response": {}, "ShipmentResults": results}})
        if "/reference/details/" in call.path:
            numbers = self.found(call.path.rpartition("/")[2])
            if not numbers:
                return _ups(404, "TW0001", "Tracking Information Not Found")
            shipments = [{"package": [{"trackingNumber": number}]} for number in numbers]
            return Reply(said={"trackResponse": {"shipment": shipments}})
        if call.path.endswith("/recovery"):
            asked = call.json["LabelRecoveryRequest"]
            if asked["TrackingNumber"] not in self.parcels:
                return _ups(400, "9300", "No label was found for this tracking number.")
            code = asked["LabelSpecification"]["LabelImageFormat"]["Code"]
            image = {"LabelImageFormat": {"Code": code}, "GraphicImage": b64encode(PDF).decode()}
            labels = [{"TrackingNumber": asked["TrackingNumber"], "LabelImage": image}]
            return Reply(said={"LabelRecoveryResponse": {"Response": {}, "LabelResults": labels}})
        one = self.parcels.get(call.path.rpartition("/")[2])
        if one is None or one["state"] == "cancelled":
            return _ups(400, "190104", "The shipment has already been voided or does not exist.")
        if one["state"] == "tendered":
            return _ups(400, "190102", "No shipment found within the allowed void period")
        one["state"] = "cancelled"
        return Reply(said={"VoidShipmentResponse": {"SummaryResult": {"Status": {"Code": "1"}}}})


def _ups(status: int, code: str, words: str) -> Reply:
    return Reply(status=status, said={"response": {"errors": [{"code": code, "message": words}]}})


class FedexDouble(CarrierDouble):
    descriptions = (Description("fedex/ship_v1.json"), Description("fedex/track_v1.json"))
    exempt = (r"POST /oauth/token",)
    checks_answers = False  # FedEx' own examples break its own schema
    label: Any = {"contentType": "LABEL", "copiesToPrint": 1, "docType": "PDF", "url": ELSEWHERE}

    def answer(self, call: Call) -> Reply:
        if call.path == "/oauth/token":
            return self.token(b"client_id=id" in call.body and b"client_secret=secret" in call.body)
        if not self.is_known(call):
            return _fedex(401, "NOT.AUTHORIZED.ERROR", "Access token expired.")
        if call.path == "/ship/v1/shipments":
            shipment = call.json["requestedShipment"]
            if shipment["recipients"][0]["address"]["postalCode"] == NOT_SERVED:
                return _fedex(400, "SERVICE.UNAVAILABLE.FORDESTINATION", "No service to this destination.")
            reference = shipment["requestedPackageLineItems"][0]["customerReferences"][0]["value"]
            number = self.booked(f"7946{len(self.parcels) + 1:08}", reference)
            made = {
                "masterTrackingNumber": number,
                "serviceType": shipment["serviceType"],
                "pieceResponses": [{"trackingNumber": number, "packageDocuments": [self.label]}],
            }
            return Reply(said={"transactionId": "1", "output": {"transactionShipments": [made]}})
        if call.path == "/track/v1/referencenumbers":
            numbers = self.found(call.json["referencesInformation"]["value"])
            if not numbers:
                return _fedex(404, "TRACKING.REFERENCENUMBER.NOTFOUND", "Reference number cannot be found.")
            results = [{"trackingNumber": number, "trackResults": [{}]} for number in numbers]
            return Reply(said={"transactionId": "1", "output": {"completeTrackResults": results}})
        one = self.parcels.get(call.json["trackingNumber"])
        if one is None or one["state"] == "cancelled":
            return _fedex(400, "SHIPMENT.ALREADY.CANCELLED", "Shipment is already cancelled.")
        if one["state"] == "tendered":
            return _fedex(400, "SHIPMENT.ALREADY.TENDERED", "Shipment is already tendered.")
        one["state"] = "cancelled"
        return Reply(said={"transactionId": "1", "output": {"cancelledShipment": True, "cancelledHistory": True}})


def _fedex(status: int, code: str, words: str) -> Reply:
    return Reply(status=status, said={"transactionId": "1", "errors": [{"code": code, "message": words}]})


class DhlExpressDouble(CarrierDouble):
    descriptions = (Description("dhl_express/mydhl_3.1.1.shipments_pickups_tracking.json", "/mydhlapi"),)
    checks_answers = False
    label: Any = {"imageFormat": "PDF", "typeCode": "label", "content": b64encode(PDF).decode()}

    def answer(self, call: Call) -> Reply:
        if call.headers.get("Authorization") != "Basic aWQ6c2VjcmV0":
            return Reply(status=401, said={"status": "401", "title": "Unauthorized", "detail": "Invalid credentials."})
        if call.path.endswith("/shipments"):
            details = call.json["customerDetails"]["receiverDetails"]["postalAddress"]
            if details["postalCode"] == NOT_DHLS:
                words = "1001: The requested product(s) not available based on your search criteria."
                return Reply(status=422, said={"status": "422", "title": "Unprocessable", "detail": words})
            number = self.booked(f"93{len(self.parcels) + 1:08}", call.json["customerReferences"][0]["value"])
            made = {
                "shipmentTrackingNumber": number,
                "packages": [{"referenceNumber": 1, "trackingNumber": f"JD01{number}"}],
                "documents": [{"imageFormat": "PDF", "typeCode": "waybillDoc", "content": "JVBERi0="}, self.label],
            }
            return Reply(status=201, said=made)
        if call.path.endswith("/tracking") and "/shipments/" in call.path:
            one = self.parcels[call.path.split("/")[-2]]
            if one["state"] != "tendered":
                return Reply(status=404, said={"status": "404", "title": "Not found", "detail": "No Shipments Found."})
            return Reply(said={"shipments": [{"events": [{"typeCode": "PU", "description": "Shipment picked up"}]}]})
        numbers = self.found(call.query["shipmentReference"])
        if not numbers:
            return Reply(status=404, said={"status": "404", "title": "Not found", "detail": "No Shipments Found."})
        return Reply(said={"shipments": [{"shipmentTrackingNumber": number} for number in numbers]})


class DhlParcelDeDouble(CarrierDouble):
    descriptions = (Description("dhl_parcel_de/parcel_de_shipping_v2.json", "/parcel/de/shipping/v2"),)
    checks_answers = False
    label: Any = {"fileFormat": "PDF", "printFormat": "A4", "url": ELSEWHERE}

    def answer(self, call: Call) -> Reply:
        known = call.headers.get("dhl-api-key", call.headers.get("Dhl-Api-Key")) == "key"
        if call.headers.get("Authorization") != "Basic aWQ6c2VjcmV0" or not known:
            return Reply(status=401, said={"status": 401, "title": "Unauthorized", "detail": "Unauthorized."})
        if call.method == "GET" and call.path.endswith("/orders"):
            known = call.query["shipment"] in self.parcels
            status = {"title": "ok" if known else "Not Found", "statusCode": 200 if known else 404}
            item = {"shipmentNo": call.query["shipment"], "sstatus": status, **({"label": self.label} if known else {})}
            return Reply(said={"status": {"title": "ok", "statusCode": 200}, "items": [item]})
        if call.method == "GET":
            return Reply(said={"amp": {"name": "pp-parcel-shipping", "version": "v2.1.13"}})
        if call.method == "POST":
            asked = call.json["shipments"][0]
            if asked["consignee"]["postalCode"] == NOT_DHLS:
                message = {"property": "consignee.postalCode", "validationMessage": "The postal code is not valid."}
                item = {"sstatus": {"title": "Bad Request", "statusCode": 400}, "validationMessages": [message]}
                status = {"title": "Bad Request", "statusCode": 400, "detail": "1 of 1 shipment has errors."}
                return Reply(status=400, said={"status": status, "items": [item]})
            number = self.booked(f"0034043333{len(self.parcels) + 1:010}", asked["refNo"])
            item = {"shipmentNo": number, "sstatus": {"title": "ok", "statusCode": 200}, "label": self.label}
            return Reply(said={"status": {"title": "ok", "statusCode": 200}, "items": [item]})
        one = self.parcels.get(call.query["shipment"])
        if one is None or one["state"] == "cancelled":
            item = {"sstatus": {"title": "Bad Request", "statusCode": 400, "detail": "Unknown shipment number."}}
            return Reply(status=207, said={"status": {"title": "ok", "statusCode": 207}, "items": [item]})
        if one["state"] == "tendered":
            words = "The shipment was manifested already."
            return Reply(status=409, said={"status": {"title": "Conflict", "statusCode": 409, "detail": words}})
        one["state"] = "cancelled"
        return Reply(said={"status": {"title": "ok", "statusCode": 200}})
