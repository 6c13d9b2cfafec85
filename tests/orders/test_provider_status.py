"""What is said of the providers' settings: at the start, by the command, and never more than that a secret is set."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from pytest_django import Settings

from config.env import Limit, env_json, env_limits
from orders import checks, provider_status, providers
from orders.providers.names import BY_NAME
from orders.providers.options import settings_of
from tests.test_house import ROOT

pytestmark = pytest.mark.django_db(transaction=True)

Outside = Callable[..., dict[str, Any]]


def command(*arguments: str) -> tuple[int, str, str]:
    """(exit code, what it printed, what it complained of)."""
    out, err = io.StringIO(), io.StringIO()
    try:
        call_command("providers", *arguments, stdout=out, stderr=err)
    except SystemExit as end:
        return int(str(end.code)), out.getvalue(), err.getvalue()
    return 0, out.getvalue(), err.getvalue()


def errors() -> list[tuple[str, str]]:
    return [(str(one.id), one.msg) for one in checks.check_providers(None)]


def test_all_is_well_with_the_embedded_ones() -> None:
    code, out, err = command("check")

    assert (code, err, errors()) == (0, "", [])
    assert [line.split()[:3] for line in out.splitlines()] == [
        ["inventory", "local", "ok"],
        ["payments", "sandbox", "ok"],
        ["shipping", "sandbox", "ok"],
        ["mail", "django", "ok"],
    ]


def test_each_missing_and_each_malformed_setting_is_named(settings: Settings) -> None:
    settings.PROVIDERS = {**settings.PROVIDERS, "payments": "stripe"}
    settings.PROVIDER_SETTINGS = {"STRIPE_SECRET_KEY": "pk_live_public", "STRIPE_URL": "stripe"}
    providers.forget()

    code, out, err = command("check")

    assert code == 1
    assert "payments   stripe   FAILED" in out
    assert "STRIPE_SECRET_KEY is malformed. It is a key that begins with sk_ or rk_." in err
    assert "STRIPE_URL='stripe' is malformed." in err
    assert "pk_live_public" not in out + err
    assert [one[0] for one in errors()] == ["orders.E001"] * 2
    with pytest.raises(ImproperlyConfigured, match="STRIPE_SECRET_KEY is malformed"):
        providers.get_payments()
    providers.forget()


def test_credentials_are_tried_by_a_call_that_does_nothing(outside: Outside) -> None:
    double = outside(payments="stripe", mail="sendgrid")["stripe"]

    code, out, _ = command("check")
    assert code == 0
    assert "test mode, no payments so far" in out
    assert "stripe sends its webhooks to http://testserver/webhooks/stripe" in out
    assert double.intents == {}

    double.fall_ill("status", status=401, times=9)
    code, out, _ = command("check")
    assert code == 1
    assert "Stripe does not accept our key (401)." in out


def test_it_can_look_without_calling(outside: Outside) -> None:
    double = outside(shipping="fedex")["fedex"]

    assert command("check", "--no-calls")[0] == 0
    assert double.calls == []


def test_a_provider_that_there_is_not_is_named_with_those_there_are(settings: Settings) -> None:
    settings.PROVIDERS = {**settings.PROVIDERS, "shipping": "dhl"}

    assert errors() == [
        (
            "orders.E001",
            "PROVIDERS['shipping'] is 'dhl': there is no 'dhl'. There are sandbox, fedex, ups, dhl-express, "
            "dhl-parcel-de, and the dotted paths of your own classes.",
        )
    ]


def test_a_real_shop_does_not_start_with_sandboxes(settings: Settings, outside: Outside) -> None:
    settings.ALLOW_SANDBOX = False

    assert [one[0] for one in errors()] == ["orders.E002"] * 2
    assert "PROVIDER_PAYMENTS is the sandbox" in errors()[0][1]

    outside(payments="stripe", shipping="ups")
    assert [one[1].partition(",")[0] for one in errors()] == ["STRIPE_SECRET_KEY is that of stripe's test mode"]

    settings.PROVIDER_SETTINGS = {**settings.PROVIDER_SETTINGS, "STRIPE_SECRET_KEY": "sk_live_double"}
    assert errors() == []


@pytest.mark.parametrize(
    ("kind", "name", "setting", "toy", "real"),
    [
        ("payments", "stripe", "STRIPE_SECRET_KEY", "rk_test_1", "rk_live_1"),
        ("payments", "paypal", "PAYPAL_URL", "https://api-m.sandbox.paypal.com", "https://api-m.paypal.com"),
        ("payments", "adyen", "ADYEN_URL", "", "https://a1-shop-checkout-live.adyenpayments.com/checkout/v72"),
        ("shipping", "ups", "UPS_URL", "https://wwwcie.ups.com", "https://onlinetools.ups.com"),
        ("shipping", "fedex", "FEDEX_URL", "https://apis-sandbox.fedex.com", "https://apis.fedex.com"),
        ("shipping", "dhl-express", "DHL_EXPRESS_URL", "https://express.api.dhl.com/mydhlapi/test", ""),
        ("shipping", "dhl-parcel-de", "DHL_PARCEL_DE_URL", "https://api-sandbox.dhl.com/parcel/de/shipping/v2", ""),
        ("mail", "sendgrid", "SENDGRID_SANDBOX", "true", "false"),
    ],
)
def test_a_vendors_test_mode_is_a_toy_too(
    kind: str, name: str, setting: str, toy: str, real: str, settings: Settings
) -> None:
    settings.PROVIDERS = {**settings.PROVIDERS, kind: name}

    settings.PROVIDER_SETTINGS = {setting: toy}
    assert provider_status.toys_in(kind, name) == [setting]
    settings.PROVIDER_SETTINGS = {setting: real}
    assert provider_status.toys_in(kind, name) == []


def test_money_cannot_be_set_aside_by_who_cannot(settings: Settings, outside: Outside) -> None:
    settings.ORDER_CAPTURE = "shipment"
    assert [one[0] for one in errors()] == ["orders.E003"]

    outside(payments="adyen")
    assert errors() == []


def test_the_command_lists_and_closes(outside: Outside, settings: Settings) -> None:
    outside(shipping="ups")
    settings.PROVIDER_LIMITS = {"ups": Limit(most=25, seconds=1, at_once=20)}

    assert "shipping  ups  well  25 in 1 s, 20 at once" in command("list")[1]
    assert command("close", "ups")[1] == "ups was not known to be down.\n"
    with pytest.raises(CommandError, match="There is no dhl; there are local, sandbox, ups, django"):
        command("close", "dhl")


def test_secrets_are_shown_as_set_or_not(outside: Outside) -> None:
    outside(payments="stripe")

    shown = dict(provider_status.shown_settings("payments", "stripe"))

    assert (shown["STRIPE_SECRET_KEY"], shown["STRIPE_TIMEOUT_SECONDS"]) == ("set", "3")


@pytest.mark.parametrize("value", ["stripe", "stripe=25", "stripe=a/1", "stripe=1/0", "=1/1", "stripe=1/1:x"])
def test_limits_that_cannot_be_read_stop_the_start(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("L", value)

    with pytest.raises(ImproperlyConfigured, match="as in stripe=25/1:20"):
        env_limits("L")


def test_limits_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("L", "stripe=25/1:20, ups=10/60")

    assert env_limits("L") == {"stripe": Limit(25, 1, 20), "ups": Limit(10, 60, 0)}


@pytest.mark.parametrize(("value", "words"), [("{", "not JSON"), ("[]", "expected a JSON object, not list")])
def test_routes_that_cannot_be_read_stop_the_start(monkeypatch: pytest.MonkeyPatch, value: str, words: str) -> None:
    monkeypatch.setenv("R", value)

    with pytest.raises(ImproperlyConfigured, match=words):
        env_json("R", {})


@pytest.mark.parametrize(
    ("kind", "name"),
    [(kind, name) for kind, names in BY_NAME.items() for name in names if name not in {"local", "sandbox", "django"}],
)
def test_each_adapters_page_has_each_of_its_settings(kind: str, name: str, settings: Settings) -> None:
    settings.PROVIDERS = {**settings.PROVIDERS, kind: name}
    made = providers.class_of(kind, name)
    page = (ROOT / "docs" / "providers" / f"{name.partition('-')[0]}.md").read_text()

    missing = [one.name for one in settings_of(made.Options) if f"`{one.name}`" not in page]

    assert missing == []
    assert "## Proven, and not" in page
