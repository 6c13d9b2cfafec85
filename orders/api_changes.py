"""What a new OpenAPI document takes from clients that were made from an old one.

Told are the changes that break a client: what it may send is refused, or what it reads is gone. New operations, members
and values of what we answer break nothing: clients are told to bear what they do not know.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Data = Mapping[str, Any]
DEEPEST = 20


def breaking_changes(old: Data, new: Data) -> list[str]:
    """Each in a sentence that names its place."""
    return list(dict.fromkeys(_paths(old, new)))


def _paths(old: Data, new: Data) -> Iterator[str]:
    for path, methods in old["paths"].items():
        for method, before in methods.items():
            place = f"{method.upper()} {path}"
            after = new["paths"].get(path, {}).get(method)
            if after is None:
                yield f"{place} is gone."
                continue
            yield from _parameters(place, before, after)
            yield from _bodies(place, before, after, old, new)
            yield from _answers(place, before, after, old, new)
    for name, before in old.get("webhooks", {}).items():
        after = new.get("webhooks", {}).get(name)
        if after is None:
            yield f"The webhook {name} is gone."
            continue
        was, now = (_content(one["post"].get("requestBody")) for one in (before, after))
        for kind in was.keys() & now.keys():
            yield from _shape(f"The webhook {name}", was[kind], now[kind], old, new, is_sent=False)


def _parameters(place: str, before: Data, after: Data) -> Iterator[str]:
    was = {(one["in"], one["name"]): one for one in before.get("parameters", [])}
    now = {(one["in"], one["name"]): one for one in after.get("parameters", [])}
    for key, one in was.items():
        if key not in now:
            yield f"{place}: the parameter {one['name']} is gone."
        else:
            yield from _values(
                f"{place}: the parameter {one['name']}", one.get("schema", {}), now[key].get("schema", {})
            )
    for key, one in now.items():
        if one.get("required") and not was.get(key, {}).get("required"):
            yield f"{place}: the parameter {one['name']} is needed now."


def _bodies(place: str, before: Data, after: Data, old: Data, new: Data) -> Iterator[str]:
    was, now = _content(before.get("requestBody")), _content(after.get("requestBody"))
    for kind, schema in was.items():
        if kind not in now:
            yield f"{place}: {kind} is not taken any more."
        else:
            yield from _shape(f"{place}: the body", schema, now[kind], old, new, is_sent=True)
    if now and not was:
        yield f"{place}: a body is needed now."


def _answers(place: str, before: Data, after: Data, old: Data, new: Data) -> Iterator[str]:
    for status, answer in before["responses"].items():
        if not status.startswith("2"):
            continue
        if status not in after["responses"]:
            yield f"{place}: it does not answer {status} any more."
            continue
        now = _content(after["responses"][status])
        for kind, schema in _content(answer).items():
            if kind in now:
                yield from _shape(f"{place}: the answer {status}", schema, now[kind], old, new, is_sent=False)


def _shape(
    place: str, before: Data, after: Data, old: Data, new: Data, *, is_sent: bool, seen: frozenset[str] = frozenset()
) -> Iterator[str]:
    name = before.get("$ref", "")
    if name in seen or len(seen) > DEEPEST:
        return
    deeper = seen | {name} if name else seen
    before, after = _resolved(before, old), _resolved(after, new)
    if _types(before) != _types(after) and _types(before) and _types(after):
        lost = _types(before) - _types(after) if is_sent else _types(after) - _types(before)
        if lost:
            yield f"{place} is {' or '.join(sorted(_types(after)))} and was {' or '.join(sorted(_types(before)))}."
    if is_sent:
        yield from _values(place, before, after)
    was, now = before.get("properties", {}), after.get("properties", {})
    for member, schema in was.items():
        if member not in now:
            yield f"{place} has no {member} any more."
        else:
            inner = f"{place}, {member}"
            yield from _shape(inner, schema, now[member], old, new, is_sent=is_sent, seen=deeper)
    needed, given = set(before.get("required", [])), set(after.get("required", []))
    if is_sent:
        yield from (f"{place} needs {member} now." for member in sorted(given - needed))
    else:
        yield from (f"{place} may lack {member} now." for member in sorted((needed - given) & set(now)))
    if "items" in before and "items" in after:
        yield from _shape(f"{place}, each", before["items"], after["items"], old, new, is_sent=is_sent, seen=deeper)


def _values(place: str, before: Data, after: Data) -> Iterator[str]:
    """What may be sent and is refused now."""
    gone = [value for value in before.get("enum", []) if "enum" in after and value not in after["enum"]]
    if gone:
        yield f"{place} does not take {', '.join(map(str, gone))} any more."
    for bound, is_tighter in (("maximum", -1), ("maxLength", -1), ("maxItems", -1), ("minimum", 1), ("minLength", 1)):
        if bound in after and (bound not in before or (after[bound] - before[bound]) * is_tighter > 0):
            yield f"{place} has {bound} {after[bound]} now."


def _content(part: Data | None) -> dict[str, Data]:
    return {kind: one.get("schema", {}) for kind, one in (part or {}).get("content", {}).items()}


def _resolved(schema: Data, document: Data) -> Data:
    """The schema with what it refers to in its place; of alternatives, what they have together."""
    if "$ref" in schema:
        return _resolved(_at(schema["$ref"], document), document)
    listed = next((schema[word] for word in ("oneOf", "anyOf", "allOf") if word in schema), None)
    if listed is None:
        return schema
    parts = [_resolved(one, document) for one in listed]
    whole: dict[str, Any] = {}
    for part in parts:
        whole |= part
    whole["type"] = sorted(frozenset[str]().union(*(_types(part) for part in parts)))
    enums = [part["enum"] for part in parts if "enum" in part]
    if enums:
        whole["enum"] = [value for enum in enums for value in enum]
    return whole


def _at(reference: str, document: Data) -> Data:
    found: Any = document
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return dict(found)


def _types(schema: Data) -> frozenset[str]:
    kind = schema.get("type", [])
    return frozenset([kind] if isinstance(kind, str) else kind)
