"""Many rows in one statement.

Django's bulk_update writes CASE expressions, and both it and bulk_create ask each field of each row how its value is
stored; for the journal's batches that took longer than the database itself. PostgreSQL gets a batch as one JSON
document, which both sides read and write at the speed of C; SQLite gets its rows one by one in one call.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any, cast
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, connections, models
from django.db.backends.base.base import BaseDatabaseWrapper

Field = models.Field[Any, Any]


def lock_many(model: type[models.Model], keys: Iterable[UUID], names: Sequence[str]) -> dict[UUID, list[Any]]:
    """The fields `names` of the rows of those keys, by key; locked in the order of the keys where databases do that."""
    connection = connections[DEFAULT_DB_ALIAS]
    statement, converters = _lock_statement(model, tuple(names), connection.vendor)
    wanted = [key.hex for key in keys]
    listed = "{" + ",".join(wanted) + "}" if connection.vendor == "postgresql" else json.dumps(wanted)
    rows: dict[UUID, list[Any]] = {}
    with connection.cursor() as cursor:
        cursor.execute(statement, [listed])
        for row in cursor.fetchall():
            key, *values = [convert(value) for convert, value in zip(converters, row, strict=True)]
            rows[key] = values
    return rows


def update_many(
    model: type[models.Model], rows: Sequence[Any], names: Sequence[str], *, guard: str, guarded: Callable[[Any], Any]
) -> None:
    """Store the fields `names` of `rows`, of each only if its field `guard` is stored as `guarded(row)`.

    Raises RuntimeError if one was not: the caller holds the rows' locks, so nobody can have changed it.
    """
    if not rows:
        return
    connection = connections[DEFAULT_DB_ALIAS]  # the real one: the proxy looks it up at each use
    statement, every = _update_statement(model, tuple(names), guard, connection.vendor)
    values = [[getattr(row, item.attname) for row in rows] for item in every[:-1]]
    values.append([guarded(row) for row in rows])
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(statement, [_document(values)])
        else:
            cursor.executemany(statement, list(_stored(every, values, connection)))
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
    table = connection.ops.quote_name(model._meta.db_table)
    columns = ", ".join(_column(item, connection) for item in fields)
    key = _column(_field(model, "pk"), connection)
    most = len(rows)
    if connection.vendor != "postgresql":
        most = max((connection.features.max_query_params or len(rows) * len(fields)) // len(fields), 1)
    with connection.cursor() as cursor:
        for begin in range(0, len(rows), most):
            part = rows[begin : begin + most]
            values = [[getattr(row, item.attname) for row in part] for item in fields]
            if connection.vendor == "postgresql":
                cursor.execute(
                    f"INSERT INTO {table} ({columns}) SELECT * FROM {_rows(fields, connection)} RETURNING {key}",  # noqa: S608
                    [_document(values)],
                )
            else:
                places = ", ".join([f"({', '.join(['%s'] * len(fields))})"] * len(part))
                cursor.execute(
                    f"INSERT INTO {table} ({columns}) VALUES {places} RETURNING {key}",  # noqa: S608
                    [value for row in _stored(fields, values, connection) for value in row],
                )
            for row, (pk,) in zip(part, cursor.fetchall(), strict=True):
                row.pk = pk
                row._state.adding = False


def insert_missing(row: models.Model) -> bool:
    """Add `row` unless its unique values are taken, and say whether it was added; waits for whoever is taking them.

    One statement. What get_or_create does by itself are four, because a failed INSERT needs a savepoint.
    """
    connection = connections[DEFAULT_DB_ALIAS]
    # A key that the database gives is left out; one that is there already goes along.
    statement, fields = _insert_statement(type(row), row.pk is not None, connection.vendor)
    values = [item.get_db_prep_save(item.pre_save(row, add=True), connection=connection) for item in fields]
    with connection.cursor() as cursor:
        cursor.execute(statement, values)
        added = cursor.fetchone()
    if added is None:
        return False
    if row.pk is None:
        (row.pk,) = added
    row._state.adding = False
    return True


@cache
def _lock_statement(
    model: type[models.Model], names: tuple[str, ...], vendor: str
) -> tuple[str, list[Callable[[Any], Any]]]:
    """The statement of lock_many, and what makes of each column it returns what a model's instance would hold."""
    connection = connections[DEFAULT_DB_ALIAS]
    fields = [_field(model, name) for name in ("pk", *names)]
    key, *_ = columns = [_column(item, connection) for item in fields]
    table = connection.ops.quote_name(model._meta.db_table)
    chosen, lock = "IN (SELECT value FROM json_each(%s))", ""
    if vendor == "postgresql":
        chosen, lock = "= ANY(%s::uuid[])", "FOR UPDATE"
    statement = f"SELECT {', '.join(columns)} FROM {table} WHERE {key} {chosen} ORDER BY {key} {lock}"  # noqa: S608
    return statement, [_converter(item, connection) for item in fields]


def _converter(item: Field, connection: BaseDatabaseWrapper) -> Callable[[Any], Any]:
    expression = item.get_col(item.model._meta.db_table)
    steps = [*connection.ops.get_db_converters(expression), *expression.get_db_converters(connection)]

    def convert(value: Any) -> Any:
        for step in steps:
            value = step(value, expression, connection)
        return value

    return convert


@cache
def _update_statement(
    model: type[models.Model], names: tuple[str, ...], guard: str, vendor: str
) -> tuple[str, Sequence[Field]]:
    """The statement of update_many and the fields whose values it takes: `names`, the key, the guard."""
    connection = connections[DEFAULT_DB_ALIAS]
    every = [_field(model, name) for name in (*names, "pk", guard)]
    *columns, key, guarding = [_column(item, connection) for item in every]
    table = connection.ops.quote_name(model._meta.db_table)
    if vendor == "postgresql":
        sets = ", ".join(f"{column} = new.v{n}" for n, column in enumerate(columns))
        statement = (
            f"UPDATE {table} SET {sets} FROM {_rows(every, connection)} "  # noqa: S608  (names from our own models)
            f"WHERE {table}.{key} = new.v{len(columns)} AND {table}.{guarding} = new.v{len(columns) + 1}"
        )
    else:
        sets = ", ".join(f"{column} = %s" for column in columns)
        statement = f"UPDATE {table} SET {sets} WHERE {key} = %s AND {guarding} = %s"  # noqa: S608
    return statement, every


@cache
def _insert_statement(model: type[models.Model], with_key: bool, vendor: str) -> tuple[str, Sequence[Field]]:
    """The statement of insert_missing and the fields it takes; written once for each kind of row and database."""
    connection = connections[DEFAULT_DB_ALIAS]
    fields = [item for item in model._meta.concrete_fields if (with_key or not item.primary_key) and not item.generated]
    table = connection.ops.quote_name(model._meta.db_table)
    columns = ", ".join(_column(item, connection) for item in fields)
    places = ", ".join(["%s"] * len(fields))
    key = _column(_field(model, "pk"), connection)
    statement = f"INSERT INTO {table} ({columns}) VALUES ({places}) ON CONFLICT DO NOTHING RETURNING {key}"  # noqa: S608  (names from our own models)
    return statement, fields


def _field(model: type[models.Model], name: str) -> Field:
    return cast(Field, model._meta.pk if name == "pk" else model._meta.get_field(name))


def _column(item: Field, connection: BaseDatabaseWrapper) -> str:
    return str(connection.ops.quote_name(item.column or ""))


def _rows(fields: Sequence[Field], connection: BaseDatabaseWrapper) -> str:
    """PostgreSQL's reading of a document: columns v0, v1 … of the fields' own types."""
    types = ", ".join(f"v{n} {item.db_type(connection)}" for n, item in enumerate(fields))
    return f"json_to_recordset(%s::json) AS new({types})"


def _document(values: Sequence[Sequence[Any]]) -> str:
    """The rows, of columns, as PostgreSQL reads them; times and ids as their texts."""
    names = [f"v{n}" for n in range(len(values))]
    texts: dict[int, str] = {}

    def text(value: object) -> str:
        # A batch's rows share their moments: each is written out once. `values` keeps them, so no id is used again.
        known = texts.get(id(value))
        if known is None:
            known = texts[id(value)] = str(value)
        return known

    return json.dumps([dict(zip(names, row, strict=True)) for row in zip(*values, strict=True)], default=text)


def _stored(
    fields: Sequence[Field], values: Sequence[Sequence[Any]], connection: BaseDatabaseWrapper
) -> Iterable[tuple[Any, ...]]:
    """The rows, of columns, as SQLite's driver takes them. Most kinds of value go as they are."""
    ops = connection.ops
    columns: list[Sequence[Any]] = []
    for item, column in zip(fields, values, strict=True):
        target = item.target_field if isinstance(item, models.ForeignKey) else item
        if isinstance(target, models.JSONField):
            column = [None if value is None else ops.adapt_json_value(value, target.encoder) for value in column]
        elif isinstance(target, models.DateTimeField):
            column = [ops.adapt_datetimefield_value(value) for value in column]
        elif isinstance(target, models.UUIDField):
            column = [None if value is None else value.hex for value in column]
        columns.append(column)
    return zip(*columns, strict=True)
