"""The notes that adapters keep of what they asked for: model OutsideEffect, and the moves it makes.

effect = begin("ups", reference, Kind.PARCEL, weight=500)   # or Declined: called off, or another request's key
if claim(effect): …ask, then note(effect, remote_id=…)      # nobody else asks meanwhile
"""

from __future__ import annotations

import hashlib
import json
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError
from django.db.models import F, Q
from django.utils import timezone

from orders.models import OutsideEffect
from orders.providers.errors import Declined, Postponed, ProviderError
from orders.providers.ledger import own_commit
from sagas.barrier import insert_missing

Kind = OutsideEffect.Kind
LOOK_AGAIN = timedelta(minutes=10)
FIRST_LOOK = timedelta(seconds=60)
LONGEST_PENDING = timedelta(days=14)
"""Bank transfers that a gateway waits for end within ten days."""


def begin(provider: str, key: str, kind: OutsideEffect.Kind, operation: str, **asked_for: Any) -> OutsideEffect:
    """The effect of that key, written down now if it is new.

    Raises Declined: `already_undone` if it was barred, `key_reused` if the key was used to ask for something else.
    """
    digest = hashlib.sha256(json.dumps(asked_for, sort_keys=True, default=str).encode()).hexdigest()
    effect = OutsideEffect(provider=provider, key=key, kind=kind, digest=digest)
    with own_commit():
        if not insert_missing(effect):
            effect = OutsideEffect.objects.get(provider=provider, key=key)
    about: dict[str, Any] = {"provider": provider, "operation": operation, "provider_id": effect.remote_id}
    if effect.is_barred:
        raise Declined("This was undone before it came.", code="already_undone", **about)
    if effect.digest != digest:
        raise Declined("This key was used to ask for something else.", code="key_reused", **about)
    return effect


def find(provider: str, key: str) -> OutsideEffect | None:
    """The effect of that key; None: it was never asked for."""
    return OutsideEffect.objects.filter(provider=provider, key=key).first()


def find_remote(provider: str, remote_id: str) -> OutsideEffect | None:
    """The effect that has this number there."""
    return OutsideEffect.objects.filter(provider=provider, remote_id=remote_id).first() if remote_id else None


def find_reference(provider: str, reference: str) -> OutsideEffect | None:
    """The effect that goes by this name of ours there."""
    return OutsideEffect.objects.filter(provider=provider, reference=reference).first() if reference else None


def bar(provider: str, key: str, kind: OutsideEffect.Kind) -> OutsideEffect:
    """Turn the action of that key away from now on, whether it came already or never did. The effect as it stands."""
    with own_commit():
        insert_missing(OutsideEffect(provider=provider, key=key, kind=kind, is_barred=True))
        OutsideEffect.objects.filter(provider=provider, key=key).update(is_barred=True, updated_at=timezone.now())
        return OutsideEffect.objects.get(provider=provider, key=key)


def take_number(effect: OutsideEffect, remote_id: str, operation: str) -> OutsideEffect:
    """Note a number that somebody else brought. Raises Declined (number_taken) if another key has it: one payment
    there is not good for two orders here."""
    try:
        return note(effect, remote_id=remote_id)
    except IntegrityError as error:
        raise Declined(
            "This payment was used for another order.",
            provider=effect.provider,
            operation=operation,
            code="number_taken",
            provider_id=remote_id,
        ) from error


def not_yet(effect: OutsideEffect, operation: str, message: str) -> ProviderError:
    """The other side has to finish something of this effect first: a wait that costs no tries, for as long as that is
    any use; then a person is asked."""
    about: dict[str, Any] = {"provider": effect.provider, "operation": operation, "provider_id": effect.remote_id}
    if timezone.now() - effect.created_at > LONGEST_PENDING:
        return Declined(f"{message} That has lasted {LONGEST_PENDING.days} days.", code="still_processing", **about)
    return Postponed(message, code="still_processing", retry_after=LOOK_AGAIN, **about)


def is_barred(effect: OutsideEffect) -> bool:
    """Whether it was undone meanwhile."""
    return OutsideEffect.objects.filter(pk=effect.pk, is_barred=True).exists()


def claim(effect: OutsideEffect, *, settled: timedelta | None = None) -> bool:
    """Take the right to make the call that has this effect: nobody has it, or had it `settled` ago and is not coming
    back. False: a call is under way, or its answer was lost."""
    now = timezone.now()
    free = Q(asked_at__isnull=True)
    if settled is not None:
        free |= Q(asked_at__lte=now - settled)
    with own_commit():
        ours = OutsideEffect.objects.filter(free, pk=effect.pk, remote_id="", is_barred=False)
        taken = ours.update(asked_at=now, asks=F("asks") + 1, updated_at=now)
    effect.refresh_from_db()
    return bool(taken)


def give_up(effect: OutsideEffect) -> None:
    """The call certainly had no effect: the next one need not wait."""
    with own_commit():
        OutsideEffect.objects.filter(pk=effect.pk, remote_id="").update(
            asked_at=None, asks=F("asks") - 1, updated_at=timezone.now()
        )
    effect.refresh_from_db()


def note(effect: OutsideEffect, *, remote_id: str = "", reference: str = "", **facts: Any) -> OutsideEffect:
    """Write down what is known of it now; facts are added to those that are there."""
    with own_commit():
        row = OutsideEffect.objects.select_for_update().get(pk=effect.pk)
        row.remote_id = remote_id or row.remote_id
        row.reference = reference or row.reference
        row.facts = row.facts | facts
        row.save(update_fields=["remote_id", "reference", "facts", "updated_at"])
    return row


def look_again(effect: OutsideEffect, settled: timedelta) -> timedelta | None:
    """When to look for an effect whose answer was lost: soon at first, ever more rarely, and the last time when it is
    `settled` that it did not happen. Few looks: a step has few tries."""
    if effect.asked_at is None:
        return None
    age = timezone.now() - effect.asked_at
    return max(min(max(4 * age, FIRST_LOOK), settled - age), timedelta(seconds=1))


def asked_since(effect: OutsideEffect) -> datetime | None:
    """When the call went out whose answer is not known; None: none is open."""
    return None if effect.remote_id else effect.asked_at
