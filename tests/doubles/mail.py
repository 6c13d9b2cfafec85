"""Plays SendGrid, Amazon SES by way of moto, and a mail server by way of aiosmtpd."""

from __future__ import annotations

import base64
import datetime
import json
from functools import cache
from typing import Any

import httpx
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.x509.oid import NameOID
from django.conf import settings
from moto.server import ThreadedMotoServer

from tests.doubles.descriptions import Description
from tests.doubles.server import Call, Double, Reply

TOPIC = "arn:aws:sns:eu-central-1:123456789012:mails"


class SendGridDouble(Double):
    descriptions = (Description("sendgrid/mail_v3.json"),)
    exempt = (r"GET /v3/scopes",)

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[dict[str, Any]] = []
        self.key = ec.generate_private_key(ec.SECP256R1())

    @property
    def mails(self) -> list[tuple[str, str]]:
        """(recipient, subject) of each mail that was taken."""
        return [(one["personalizations"][0]["to"][0]["email"], one["subject"]) for one in self.sent]

    @property
    def public_key(self) -> str:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return base64.b64encode(self.key.public_key().public_bytes(serialization.Encoding.DER, form)).decode()

    def signed(self, *events: dict[str, Any]) -> tuple[bytes, dict[str, str]]:
        body, stamp = json.dumps(events).encode(), "1900000000"
        signature = base64.b64encode(self.key.sign(stamp.encode() + body, ec.ECDSA(hashes.SHA256()))).decode()
        return body, {
            "x-twilio-email-event-webhook-signature": signature,
            "x-twilio-email-event-webhook-timestamp": stamp,
        }

    def answer(self, call: Call) -> Reply:
        if call.headers.get("Authorization") != "Bearer SG.key":
            return Reply(
                status=401, said={"errors": [{"message": "The provided authorization grant is invalid", "field": None}]}
            )
        if call.path == "/v3/scopes":
            return Reply(said={"scopes": ["mail.send"]})
        recipient = call.json["personalizations"][0]["to"][0]["email"]
        if recipient.startswith("bounces"):
            error = {"message": "Does not contain a valid address.", "field": "personalizations.0.to.0.email"}
            return Reply(status=400, said={"errors": [error]})
        self.sent.append(call.json)
        return Reply(status=202, headers={"X-Message-Id": f"SG{len(self.sent):010}"})


@cache
def _moto() -> str:
    """Where moto answers: one for all tests of a process, since it takes its time to begin and to end, and forgets all
    when it is told."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    return f"http://{host}:{port}"


@cache
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


class SesDouble(Double):
    """Amazon SES: moto's server behind our own, which brings the failures."""

    def __init__(self) -> None:
        super().__init__()
        self.key = _key()
        self.fetched: list[str] = []
        self._client = httpx.Client(base_url=_moto())
        self._client.post("/moto-api/reset")
        self._verify(settings.DEFAULT_FROM_EMAIL)

    def signed(
        self, number: str, message: str, *, version: str = "2", kind: str = "Notification", **more: str
    ) -> bytes:
        """A message of SNS', signed with a key of our own, whose certificate `fetch` gives out."""
        told = {
            "Type": kind,
            "MessageId": number,
            "TopicArn": TOPIC,
            "Message": message,
            "Timestamp": "2030-01-01T12:00:00.000Z",
            **more,
        }
        names = ("Message", "MessageId", "SubscribeURL", "Subject", "Timestamp", "Token", "TopicArn", "Type")
        text = "".join(f"{name}\n{told[name]}\n" for name in names if name in told).encode()
        how = hashes.SHA256() if version == "2" else hashes.SHA1()  # noqa: S303  (SNS' first version)
        signature = base64.b64encode(self.key.sign(text, padding.PKCS1v15(), how)).decode()
        url = "https://sns.eu-central-1.amazonaws.com/SimpleNotificationService-1.pem"
        return json.dumps({**told, "SignatureVersion": version, "Signature": signature, "SigningCertURL": url}).encode()

    def confirmation(self, **more: str) -> bytes:
        asked = {"SubscribeURL": "https://sns.eu-central-1.amazonaws.com/?Action=ConfirmSubscription", "Token": "t"}
        return self.signed("c1", "You have chosen to subscribe.", kind="SubscriptionConfirmation", **{**asked, **more})

    def fetch(self, url: str) -> bytes:
        """What is at an address of SNS': its certificate."""
        self.fetched.append(url)
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "sns.amazonaws.com")])
        begin = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.key.public_key())
            .serial_number(1)
            .not_valid_before(begin)
            .not_valid_after(begin.replace(year=2040))
            .sign(self.key, hashes.SHA256())
        )
        return made.public_bytes(serialization.Encoding.PEM)

    @property
    def mails(self) -> list[tuple[str, str]]:
        """(recipient, subject) of each mail that was taken."""
        stored = self._client.get("/moto-api/data.json").json().get("ses", {}).get("Message", [])
        return [(one["destinations"]["ToAddresses"][0], one["subject"]) for one in stored]

    def said_when_ill(self, status: int) -> Any:
        code = {401: "UnrecognizedClientException", 429: "TooManyRequestsException"}.get(status, "InternalFailure")
        return {"__type": code, "message": "Something is wrong."}

    def answer(self, call: Call) -> Reply:
        if "bounces@" in call.body.decode(errors="replace"):  # moto takes any address that has the form of one
            headers = {"x-amzn-ErrorType": "BadRequestException"}
            return Reply(status=400, said={"message": "The address is not one."}, headers=headers)
        if call.path == "/v2/email/account":  # which moto does not know
            return Reply(said={"SendQuota": {"Max24HourSend": 200.0, "MaxSendRate": 1.0, "SentLast24Hours": 1.0}})
        left_out = {"host", "content-length", "connection", "accept-encoding"}
        headers = {name: value for name, value in call.headers.items() if name.lower() not in left_out}
        answer = self._client.request(call.method, call.path, params=call.query, headers=headers, content=call.body)
        return Reply(status=answer.status_code, said=answer.json() if answer.content else None)

    def server_close(self) -> None:
        super().server_close()
        self._client.close()

    def _verify(self, sender: str) -> None:
        signed = {"Authorization": "AWS4-HMAC-SHA256 Credential=a/20300101/eu-central-1/ses/aws4_request"}
        made = self._client.post("/v2/email/identities", json={"EmailIdentity": sender}, headers=signed)
        made.raise_for_status()


class Sink:
    """What aiosmtpd asks: who may get mail, and what to do with it."""

    def __init__(self) -> None:
        self.mails: list[tuple[str, str]] = []
        self.answers: dict[str, str] = {}

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, options: Any) -> str:
        if address in self.answers:
            return self.answers[address]
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        text = envelope.content.decode()
        number = next(line for line in text.splitlines() if line.lower().startswith("message-id:"))
        self.mails.append((envelope.rcpt_tos[0], number.partition(":")[2].strip()))
        return "250 OK"
