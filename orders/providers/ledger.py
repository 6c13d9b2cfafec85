"""How the embedded outside systems write: as if they were somebody else's machines."""

from __future__ import annotations

from contextlib import AbstractContextManager

from django.db import transaction
from django.db.models import F

from orders.models import SandboxMishap
from sagas.barrier import insert_missing


def own_commit() -> AbstractContextManager[None]:
    """A transaction that joins none of the caller's: what an outside system did stays done, whatever becomes of us.

    Inside a transaction it raises RuntimeError: a rollback would take a charge back that a real gateway has made, and
    tests would pass that life does not.
    """
    return transaction.atomic(durable=True)


def first_times(key: str, times: int) -> bool:
    """Whether this is one of the first `times` calls under that key; counts the call, across processes."""
    with own_commit():
        insert_missing(SandboxMishap(key=key))
        return bool(SandboxMishap.objects.filter(key=key, count__lt=times).update(count=F("count") + 1))
