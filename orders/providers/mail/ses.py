"""Amazon SES v2, by its own SDK. Settings and what is proven: docs/providers/ses.md."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
)
from botocore.parsers import ResponseParserError
from django.conf import settings

from orders.providers import effects
from orders.providers.base import Heard, Message
from orders.providers.errors import Declined, OutcomeUnknown, ProviderError, Unavailable
from orders.providers.http import NOT_JUDGED, shortened
from orders.providers.keys import as_hex
from orders.providers.mail import sns
from orders.providers.mail.handing import MailerByService
from orders.providers.options import ADDRESS, SECONDS, option, read

PROVIDER = "ses"
CONFIRM = "SubscriptionConfirmation"
DELIVERY = {
    "DeliveryDelay": "delayed",
    "Delivery": "delivered",
    "Reject": "dropped",
    "Rendering Failure": "dropped",
    "Bounce": "bounced",
    "Complaint": "complained",
}
"""What SES calls what becomes of a mail."""
REFUSED = {
    "MessageRejected": "bad_message",
    "MailFromDomainNotVerifiedException": "sender_not_verified",
    "BadRequestException": "bad_message",
    "InvalidParameterValue": "bad_address",
    "NotFoundException": "not_found",
    "AccountSuspendedException": "account_suspended",
    "SendingPausedException": "sending_paused",
}
AWAY = {"TooManyRequestsException": "too_many", "Throttling": "too_many", "LimitExceededException": "quota"}
BAD_CREDENTIALS = frozenset(
    {"UnrecognizedClientException", "InvalidClientTokenId", "SignatureDoesNotMatch", "AccessDeniedException"}
)


@dataclass(frozen=True, kw_only=True)
class SesOptions:
    """What SES' adapter has to be told. The sender is DEFAULT_FROM_EMAIL, an identity that SES has verified."""

    region: str = option("SES_REGION", form=r"[a-z]{2}(-[a-z]+)+-\d", example="a region, like eu-central-1")
    access_key: str = option("SES_ACCESS_KEY_ID", form=r"\w{16,128}", example="an access key's id")
    secret_key: str = option("SES_SECRET_ACCESS_KEY", secret=True, example="its secret")
    configuration_set: str = option("SES_CONFIGURATION_SET", "", example="the configuration set that sends events")
    topic: str = option(
        "SES_SNS_TOPIC", "", form=r"arn:aws[a-z-]*:sns:\S+", example="the ARN of the SNS topic that events are sent to"
    )
    url: str = option("SES_URL", "", form=ADDRESS, example="an address; empty for the region's own")
    seconds: str = option("SES_TIMEOUT_SECONDS", "15", form=SECONDS, example="a number of seconds")


class SesMail(MailerByService):
    """A Mailer."""

    Options = SesOptions
    provider = PROVIDER

    def __init__(self, options: SesOptions | None = None) -> None:
        self._options = options or read(SesOptions)
        seconds = float(self._options.seconds)
        self._certificates: dict[str, bytes] = {}
        self._client: Any = boto3.client(
            "sesv2",
            region_name=self._options.region,
            aws_access_key_id=self._options.access_key,
            aws_secret_access_key=self._options.secret_key,
            endpoint_url=self._options.url or None,
            # By itself it would try three times, and that may be three mails.
            config=Config(
                connect_timeout=min(seconds, 5),
                read_timeout=seconds,
                retries={"total_max_attempts": 1},
                max_pool_connections=32,
            ),
        )

    def close(self) -> None:
        """Let go of the connections."""
        self._client.close()

    def hand_over(self, message: Message, key: str) -> str:
        """Accepted is not delivered; the id is SES' own."""
        body: dict[str, Any] = {"Text": {"Data": message.body, "Charset": "UTF-8"}}
        if message.html:
            body["Html"] = {"Data": message.html, "Charset": "UTF-8"}
        asked: dict[str, Any] = {
            "FromEmailAddress": settings.DEFAULT_FROM_EMAIL,
            "Destination": {"ToAddresses": [message.recipient]},
            "Content": {"Simple": {"Subject": {"Data": message.subject, "Charset": "UTF-8"}, "Body": body}},
            "EmailTags": [{"Name": "key", "Value": as_hex(key)}],
        }
        if self._options.configuration_set:
            asked["ConfigurationSetName"] = self._options.configuration_set
        number = self._call("send", lambda: self._client.send_email(**asked)).get("MessageId")
        if not number:
            raise OutcomeUnknown("SES' answer has no number.", provider=PROVIDER, operation="send")
        return str(number)

    def read_webhook(self, headers: Mapping[str, str], body: bytes) -> Sequence[Heard]:
        """An event of SES', by way of SNS; or SNS' question whether this address is meant. Raises BadSignature."""
        message = sns.read(body, topic=self._options.topic, fetch=self._certificate)
        if message["Type"] == CONFIRM:
            return [Heard(event_id=message["MessageId"], kind=CONFIRM, facts={"url": message["SubscribeURL"]})]
        try:
            event = json.loads(message["Message"])
            kind = str(event.get("eventType") or event["notificationType"])
            return [
                Heard(
                    event_id=message["MessageId"],
                    kind=kind,
                    about=str(event["mail"]["messageId"]),
                    facts={"delivery": DELIVERY.get(kind, ""), "reason": _reason(event)},
                )
            ]
        except (ValueError, KeyError, TypeError, AttributeError):
            # Signed, and of another kind: the topic says so of itself when it is set up.
            return [Heard(event_id=message["MessageId"], kind="other")]

    def hear(self, event: Heard) -> str:
        """What became of the mail is noted; and that this address takes the topic's messages is confirmed."""
        if event.kind == CONFIRM:
            if sns.is_amazons(event.facts["url"]):
                sns.get(event.facts["url"])
            return CONFIRM
        effect = effects.find_remote(PROVIDER, event.about)
        if effect is None:
            return ""
        effects.note(effect, events={**effect.facts.get("events", {}), event.kind: event.facts.get("reason", "")})
        return effect.key

    def _certificate(self, url: str) -> bytes:
        if url not in self._certificates:
            self._certificates[url] = sns.get(url)
        return self._certificates[url]

    def check(self) -> str:
        """Asks after the account: quota, and whether it may send at all."""
        account = self._call("check", self._client.get_account)
        quota = account.get("SendQuota") or {}
        return f"{quota.get('SentLast24Hours', 0):g} of {quota.get('Max24HourSend', 0):g} mails of the day are sent"

    def _call(self, operation: str, ask: Any) -> Any:
        try:
            return ask()
        except (ClientError, BotoCoreError) as error:
            raise _outcome(operation, error) from error
        except ResponseParserError as error:  # no BotoCoreError: a page, say
            raise OutcomeUnknown("SES' answer cannot be read.", provider=PROVIDER, operation=operation) from error


def _reason(event: Mapping[str, Any]) -> str:
    """Why, in the words of the other mail server where it said something."""
    bounce = event.get("bounce") or {}
    said = [one.get("diagnosticCode") or one.get("status") for one in bounce.get("bouncedRecipients") or []]
    others = {"reject": "reason", "complaint": "complaintFeedbackType", "deliveryDelay": "delayType"}
    words = [*said, bounce.get("bounceType"), *((event.get(kind) or {}).get(name) for kind, name in others.items())]
    return str(next(filter(None, words), ""))[:200]


def _outcome(operation: str, error: ClientError | BotoCoreError) -> ProviderError:
    about: dict[str, Any] = {"provider": PROVIDER, "operation": operation}
    if isinstance(error, ParamValidationError):
        return Declined("This mail cannot be written as it is.", code="bad_message", **about)
    if isinstance(error, ConnectTimeoutError | EndpointConnectionError | NoCredentialsError):
        return Unavailable(f"SES cannot be reached ({type(error).__name__}).", **about)
    if not isinstance(error, ClientError):
        return OutcomeUnknown(f"SES was asked and gave no answer ({type(error).__name__}).", **about)
    said = error.response["Error"]
    code, status = said.get("Code", ""), error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
    if code in AWAY or status == 429:
        return Unavailable("SES wants fewer mails just now.", code=AWAY.get(code, "too_many"), **about)
    if code in BAD_CREDENTIALS or status in {401, 403}:
        return Unavailable("SES does not accept our credentials.", code="credentials", **about)
    if not 400 <= status < 500 or status in NOT_JUDGED:
        return OutcomeUnknown(f"SES failed while it was at it ({status}).", **about)
    return Declined(
        shortened(said.get("Message") or "SES refused this mail."), code=REFUSED.get(code, "rejected"), **about
    )
