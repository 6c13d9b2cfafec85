"""How the embedded outside systems write: as if they were somebody else's machines."""

from __future__ import annotations

from contextlib import AbstractContextManager

from django.db import models, transaction
from django.db.models import F

from orders.models import SandboxMishap
from sagas.barrier import insert_missing


def own_commit() -> AbstractContextManager[None]:
    """A transaction that joins none of the caller's: what an outside system did stays done, whatever becomes of us.

    Inside a transaction it raises RuntimeError: a rollback would take a charge back that a real gateway has made, and
    tests would pass that life does not.
    """
    return transaction.atomic(durable=True)


def added(row: models.Model) -> bool:
    """Store `row` in a commit of its own, unless its unique values are taken, and say whether it was."""
    if not transaction.get_connection().in_atomic_block:
        return insert_missing(row)  # one statement is a transaction by itself: two ways to the database less
    with own_commit():
        return insert_missing(row)


def first_times(key: str, times: int) -> bool:
    """Whether this is one of the first `times` calls under that key; counts the call, across processes."""
    with own_commit():
        insert_missing(SandboxMishap(key=key))
        return bool(SandboxMishap.objects.filter(key=key, count__lt=times).update(count=F("count") + 1))
