"""How outside systems are, seen by all workers together: whether they answer, and how many calls are under way."""

from __future__ import annotations

from django.db import models


class ProviderHealth(models.Model):
    """A provider that has failed lately. No row: all is well."""

    name = models.CharField(max_length=100, unique=True)
    failures = models.PositiveIntegerField(default=0)
    """In a row."""
    opened_at = models.DateTimeField(null=True, blank=True)
    """Since when nobody calls it, but for one trial at a time."""
    trial_at = models.DateTimeField(null=True, blank=True)
    """When the next trial may be made."""
    trials = models.PositiveIntegerField(default=0)
    """How many of them have failed since it was opened."""
    last_error = models.CharField(max_length=300, blank=True, default="")
    updated_at = models.DateTimeField(auto_now=True)

    class Meta:
        verbose_name_plural = "provider health"

    def __str__(self) -> str:
        return f"{self.name}: {self.failures} failures"


class ProviderSlot(models.Model):
    """A place for one call at a time, of as many as a provider's limit gives."""

    name = models.CharField(max_length=100)
    number = models.PositiveIntegerField()
    taken_until = models.DateTimeField(null=True, blank=True)
    """The caller gives it back; should it die, the place is free then."""

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["name", "number"], name="orders_slot_once"),
        ]

    def __str__(self) -> str:
        return f"{self.name} {self.number}"


class ProviderChoice(models.Model):
    """Who was asked for one effect of ours, and why: where several providers share a kind of work."""

    class Outcome(models.TextChoices):
        ASKED = "asked", "asked"
        DONE = "done", "done"
        REFUSED = "refused", "refused"
        AWAY = "away", "away"

    kind = models.CharField(max_length=20)
    key = models.CharField(max_length=200)
    name = models.CharField(max_length=100)
    """The provider's, as the settings call it."""
    position = models.PositiveIntegerField()
    """1 is the first that was asked."""
    why = models.CharField(max_length=300)
    outcome = models.CharField(max_length=10, choices=Outcome.choices, default=Outcome.ASKED)
    message = models.CharField(max_length=300, blank=True, default="")
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["kind", "key", "name"], name="orders_choice_once"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} by {self.name}: {self.outcome}"
