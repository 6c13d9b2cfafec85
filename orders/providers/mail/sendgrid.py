"""SendGrid, Mail Send v3, over HTTP. Settings and what is proven: docs/providers/sendgrid.md."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.utils import parseaddr
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from django.conf import settings

from orders.providers import effects
from orders.providers.base import BadSignature, Heard, Message
from orders.providers.http import Http
from orders.providers.keys import as_uuid
from orders.providers.mail.handing import MailerByService
from orders.providers.options import ADDRESS, SECONDS, YES_OR_NO, option, read

PROVIDER = "sendgrid"
DELIVERY = {
    "deferred": "delayed",
    "delivered": "delivered",
    "dropped": "dropped",
    "bounce": "bounced",
    "spamreport": "complained",
}
"""What SendGrid calls what becomes of a mail."""


@dataclass(frozen=True, kw_only=True)
class SendGridOptions:
    """What SendGrid's adapter has to be told. The sender is DEFAULT_FROM_EMAIL."""

    api_key: str = option("SENDGRID_API_KEY", secret=True, form=r"SG\..+", example="a key that begins with SG.")
    webhook_key: str = option(
        "SENDGRID_WEBHOOK_KEY", "", form=r"[A-Za-z0-9+/=]+", example="the public key of the signed event webhook"
    )
    sandbox: str = option(
        "SENDGRID_SANDBOX", "false", form=YES_OR_NO, example="true to have mails checked and not sent", toy=r"true$"
    )
    url: str = option("SENDGRID_URL", "https://api.sendgrid.com", form=ADDRESS, example="an address")
    seconds: str = option("SENDGRID_TIMEOUT_SECONDS", "15", form=SECONDS, example="a number of seconds")


class SendGridMail(MailerByService):
    """A Mailer."""

    Options = SendGridOptions
    provider = PROVIDER

    def __init__(self, options: SendGridOptions | None = None) -> None:
        self._options = options or read(SendGridOptions)
        self._http = Http(
            PROVIDER,
            self._options.url,
            seconds=float(self._options.seconds),
            headers={"Authorization": f"Bearer {self._options.api_key}"},
        )

    def hand_over(self, message: Message, key: str) -> str:
        """202 without a body; the id is in a header."""
        name, sender = parseaddr(settings.DEFAULT_FROM_EMAIL)
        content = [{"type": "text/plain", "value": message.body}]
        if message.html:
            content.append({"type": "text/html", "value": message.html})
        body: dict[str, Any] = {
            # Here and not at the top, where the description wants them: they come back with each event.
            "personalizations": [{"to": [{"email": message.recipient}], "custom_args": {"key": as_uuid(key)}}],
            "from": {"email": sender, **({"name": name} if name else {})},
            "subject": message.subject,
            "content": content,
        }
        if self._options.sandbox == "true":
            body["mail_settings"] = {"sandbox_mode": {"enable": True}}
        answer = self._http.ask("send", "POST", "/v3/mail/send", json=body)
        if not answer.is_good:
            errors = answer.said.get("errors") or [{}] if isinstance(answer.said, dict) else [{}]
            code = "bad_address" if ".to" in str(errors[0].get("field") or "") else "bad_message"
            raise self._http.declined("send", errors[0].get("message") or "SendGrid refused this mail.", code)
        return answer.headers.get("X-Message-Id") or as_uuid(key)

    def check(self) -> str:
        """Asks what the key may do."""
        answer = self._http.ask("check", "GET", "/v3/scopes")
        return "may send" if "mail.send" in answer.said.get("scopes", []) else "the key may not send mail"

    def read_webhook(self, headers: Mapping[str, str], body: bytes) -> Sequence[Heard]:
        """Events of mails. Raises BadSignature."""
        signature = headers.get("x-twilio-email-event-webhook-signature", "")
        stamp = headers.get("x-twilio-email-event-webhook-timestamp", "")
        try:
            key = serialization.load_der_public_key(base64.b64decode(self._options.webhook_key))
            if not isinstance(key, ec.EllipticCurvePublicKey):
                raise BadSignature("SENDGRID_WEBHOOK_KEY is no elliptic curve key.")
            key.verify(base64.b64decode(signature), stamp.encode() + body, ec.ECDSA(hashes.SHA256()))
            events = json.loads(body)
            return [
                Heard(
                    event_id=str(event["sg_event_id"]),
                    kind=str(event["event"]),
                    about=str(event.get("sg_message_id", "")).partition(".")[0],
                    facts={
                        "reason": str(event.get("reason") or event.get("response") or "")[:200],
                        "delivery": DELIVERY.get(str(event["event"]), ""),
                        "reference": str(event.get("key", "")),
                    },
                )
                for event in events
            ]
        except (ValueError, KeyError, TypeError, InvalidSignature) as error:
            raise BadSignature("SendGrid did not sign this.") from error

    def hear(self, event: Heard) -> str:
        """What became of the mail is noted: accepted is not delivered."""
        effect = effects.find_remote(PROVIDER, event.about) or effects.find_reference(
            PROVIDER, event.facts.get("reference", "")
        )
        if effect is None:
            return ""
        effects.note(effect, events={**effect.facts.get("events", {}), event.kind: event.facts.get("reason", "")})
        return effect.key
