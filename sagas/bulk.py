"""Many rows in one statement.

Django's bulk_update writes CASE expressions, and both it and bulk_create ask each field of each row how its value is
stored; for the journal's batches that took longer than the database itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from django.db import DEFAULT_DB_ALIAS, connections, models
from django.db.backends.base.base import BaseDatabaseWrapper

Field = models.Field[Any, Any]


def update_many(
    model: type[models.Model], rows: Sequence[Any], names: Sequence[str], *, guard: str, guarded: Callable[[Any], Any]
) -> None:
    """Store the fields `names` of `rows`, of each only if its field `guard` is stored as `guarded(row)`.

    Raises RuntimeError if one was not: the caller holds the rows' locks, so nobody can have changed it.
    """
    if not rows:
        return
    connection = connections[DEFAULT_DB_ALIAS]  # the real one: the proxy looks it up at each use
    fields = [_field(model, name) for name in names]
    key, guarding = _field(model, "pk"), _field(model, guard)
    values = [_stored(item, [getattr(row, item.attname) for row in rows], connection) for item in (*fields, key)]
    values.append(_stored(guarding, [guarded(row) for row in rows], connection))
    quote = connection.ops.quote_name
    table = quote(model._meta.db_table)
    columns = [quote(item.column or "") for item in fields]
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            sets = ", ".join(f"{column} = new.v{n}" for n, column in enumerate(columns))
            names_of = ", ".join(f"v{n}" for n in range(len(values)))
            cursor.execute(
                f"UPDATE {table} SET {sets} FROM unnest({_arrays((*fields, key, guarding), connection)}) "  # noqa: S608
                f"AS new({names_of}) WHERE {table}.{quote(key.column or '')} = new.v{len(fields)} "
                f"AND {table}.{quote(guarding.column or '')} = new.v{len(fields) + 1}",
                values,
            )
        else:
            sets = ", ".join(f"{column} = %s" for column in columns)
            cursor.executemany(
                f"UPDATE {table} SET {sets} "  # noqa: S608  (names from our own models)
                f"WHERE {quote(key.column or '')} = %s AND {quote(guarding.column or '')} = %s",
                list(zip(*values, strict=True)),
            )
        if cursor.rowcount not in (-1, len(rows)):
            raise RuntimeError(
                f"{cursor.rowcount} of {len(rows)} rows of {model._meta.db_table} were there to be written: "
                "another writer got past the lock."
            )


def insert_many(model: type[models.Model], rows: Sequence[Any]) -> None:
    """Add `rows`, each with all its fields, and set the keys that the database gives them."""
    if not rows:
        return
    connection = connections[DEFAULT_DB_ALIAS]
    fields = [item for item in model._meta.concrete_fields if not item.primary_key]
    quote = connection.ops.quote_name
    columns = ", ".join(quote(item.column or "") for item in fields)
    head = f"INSERT INTO {quote(model._meta.db_table)} ({columns}) "
    tail = f" RETURNING {quote(_field(model, 'pk').column or '')}"
    most = len(rows)
    if connection.vendor != "postgresql":
        most = max((connection.features.max_query_params or len(rows) * len(fields)) // len(fields), 1)
    with connection.cursor() as cursor:
        for begin in range(0, len(rows), most):
            part = rows[begin : begin + most]
            values = [_stored(item, [getattr(row, item.attname) for row in part], connection) for item in fields]
            if connection.vendor == "postgresql":
                cursor.execute(f"{head}SELECT * FROM unnest({_arrays(fields, connection)}){tail}", values)  # noqa: S608
            else:
                places = f"({', '.join(['%s'] * len(fields))})"
                flat = [value for row in zip(*values, strict=True) for value in row]
                cursor.execute(f"{head}VALUES {', '.join([places] * len(part))}{tail}", flat)
            for row, (pk,) in zip(part, cursor.fetchall(), strict=True):
                row.pk = pk
                row._state.adding = False


def _field(model: type[models.Model], name: str) -> Field:
    return cast(Field, model._meta.pk if name == "pk" else model._meta.get_field(name))


def _arrays(fields: Sequence[Field], connection: BaseDatabaseWrapper) -> str:
    """One array for each column: the statement is the same for any number of rows, and is prepared once."""
    return ", ".join(f"%s::{item.db_type(connection)}[]" for item in fields)


def _stored(item: Field, values: list[Any], connection: BaseDatabaseWrapper) -> list[Any]:
    """The values of one column as the database takes them. Most kinds go as they are."""
    target = item.target_field if isinstance(item, models.ForeignKey) else item
    ops = connection.ops
    if isinstance(target, models.JSONField):
        return [None if value is None else ops.adapt_json_value(value, target.encoder) for value in values]
    if isinstance(target, models.DateTimeField):
        return [ops.adapt_datetimefield_value(value) for value in values]
    if isinstance(target, models.UUIDField) and not connection.features.has_native_uuid_field:
        return [None if value is None else value.hex for value in values]
    return values
