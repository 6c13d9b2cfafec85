"""What templates say of runs: states, instants and the ladder of steps."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from typing import Any

from django import template
from django.conf import settings
from django.urls import NoReverseMatch, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString

from sagas.models import RunEvent, SagaRun
from sagas.presentation import (
    EVENT_WORDS,
    OUTCOME_BADGES,
    RUN_LOOKS,
    Badge,
    amount_text,
    ladder,
    run_badge,
    seconds_text,
)
from sagas.selectors import STATUS_WORDS, AttemptView, RunView
from sagas.states import RunStatus

register = template.Library()


@register.inclusion_tag("sagas/_status.html")
def saga_status(view: RunView) -> dict[str, Any]:
    """A run's state as a word: sagas/_status.html."""
    return {"badge": run_badge(view)}


@register.inclusion_tag("sagas/_status.html")
def badge(of: Badge) -> dict[str, Any]:
    """A state as a word: sagas/_status.html."""
    return {"badge": of}


@register.inclusion_tag("sagas/_status.html")
def status_badge(status: str, word: str) -> dict[str, Any]:
    """A run's state where only its name is at hand: sagas/_status.html."""
    return {"badge": Badge(word=word, look=RUN_LOOKS[RunStatus(status)])}


@register.inclusion_tag("sagas/_status.html")
def run_state(status: str) -> dict[str, Any]:
    """A run's state by its stored name, in its usual word: sagas/_status.html."""
    return {"badge": Badge(word=STATUS_WORDS[RunStatus(status)], look=RUN_LOOKS[RunStatus(status)])}


@register.inclusion_tag("sagas/_timeline.html", takes_context=True)
def saga_timeline(context: Mapping[str, Any], view: RunView) -> dict[str, Any]:
    """The steps of a run beside their undos: sagas/_timeline.html."""
    return {
        "rows": ladder(view, timezone.now()),
        "run": view.run,
        "may": context.get("may", frozenset()),
        "back": context.get("back", ""),
    }


@register.filter
def outcome_badge(attempt: AttemptView) -> Badge:
    return OUTCOME_BADGES[attempt.outcome]


@register.filter
def event_words(event: RunEvent) -> str:
    """What happened, in words."""
    words = EVENT_WORDS.get(event.kind, event.kind.replace("_", " ").capitalize())
    if event.kind == "snoozed":
        with suppress(KeyError, TypeError, ValueError):  # one from a file may say anything
            until = timezone.localtime(datetime.fromisoformat(event.data["until"]))
            words += f" until {until:%Y-%m-%d %H:%M %Z}"
    owner = event.data.get("owner", "")
    if event.kind == "assigned" and owner != event.actor:
        words = f"Handed to {person(owner)}"
    if event.step and not event.reason:
        what = "the undo of " if event.direction == "compensation" else ""
        words += f": {what}{event.step.replace('_', ' ')}"
    return words


@register.simple_tag
def moment(at: datetime | None) -> SafeString | str:
    """An instant: how long ago, with the exact time for whoever wants it."""
    if at is None:
        return "–"
    past = (timezone.now() - at).total_seconds()
    text = f"{seconds_text(past)} ago" if past >= 0 else f"in {seconds_text(past)}"
    exact = timezone.localtime(at).strftime("%Y-%m-%d %H:%M:%S %Z")
    return format_html('<time datetime="{}" title="{}">{}</time>', at.isoformat(), exact, text)


@register.simple_tag
def countdown(at: datetime) -> SafeString:
    """An instant to come, counted down by live.js."""
    left = max((at - timezone.now()).total_seconds(), 0)
    return format_html(
        '<time datetime="{}" data-countdown>{}</time>', at.isoformat(), f"in {seconds_text(left)}" if left else "now"
    )


@register.simple_tag
def copy(text: object, what: str) -> SafeString:
    """A button that copies `text`, shown where scripts run; `what` names it for whoever does not see its place."""
    return format_html(
        '<button type="button" class="btn tiny copy" data-copy="{0}" hidden>'
        'Copy<span class="hidden-text"> {1} {0}</span></button>',
        text,
        what,
    )


@register.simple_tag
def copy_as(words: str, text: str) -> SafeString:
    """A button named `words` that copies `text`, shown where scripts run."""
    return format_html(
        '<button type="button" class="btn tiny copy" data-copy="{1}" hidden>{0}</button>',
        words,
        text,
    )


@register.filter
def amounts(of: Mapping[str, Decimal]) -> str:
    """Money by currency, as people read it: "60.00 EUR, 12.50 USD"; none is a dash."""
    return ", ".join(amount_text(amount, currency) for currency, amount in of.items()) or "–"


@register.filter
def pretty_json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, sort_keys=True)


@register.filter
def seconds_short(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds:.2f} s" if seconds < 10 else seconds_text(seconds)


@register.filter
def seconds_fine(seconds: float | None) -> str:
    """As `seconds_short`, with milliseconds where that is what it takes; – of nothing."""
    if seconds is None:
        return "–"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else seconds_short(seconds)


@register.simple_tag
def subject_page(run: SagaRun) -> str:
    """The page of what the run was started for, by settings.SAGA_SUBJECT_PAGES; its own where there is none here."""
    pages: Mapping[str, str] = getattr(settings, "SAGA_SUBJECT_PAGES", {})
    if run.saga in pages and run.imported_at is None:
        with suppress(NoReverseMatch):  # a key may be of another shape than such a page has
            return reverse(pages[run.saga], args=[run.business_key])
    return reverse("run_detail", args=[run.pk])


@register.simple_tag
def logs_link(run: SagaRun) -> str:
    """Where the log's lines of the run are to be read, by settings.SAGA_LOGS_LINK; empty: nobody said where."""
    return str(getattr(settings, "SAGA_LOGS_LINK", "")).replace("{run}", str(run.pk))


@register.simple_tag
def trace_link(run: SagaRun) -> str:
    """Where the trace of the run is to be seen, by settings.SAGA_TRACE_LINK; empty: nobody said where."""
    link = str(getattr(settings, "SAGA_TRACE_LINK", "")) if run.trace_id else ""
    return link.replace("{trace}", run.trace_id).replace("{run}", str(run.pk))


@register.filter
def person(actor: str) -> str:
    """Somebody as people call them: user:sam is sam; whose name says more is kept whole."""
    return actor.removeprefix("user:")


@register.filter
def of(values: Mapping[Any, Any], key: Any) -> Any:
    """values[key]."""
    return values.get(key, "")
