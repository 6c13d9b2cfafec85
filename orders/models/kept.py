"""Rows that are only added: what happened to stock and money is never edited."""

from __future__ import annotations

from typing import Any

from django.db import models

from orders.exceptions import HistoryIsKept


class KeptRow(models.Model):
    """A row that can be added, and neither changed nor deleted."""

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise HistoryIsKept(f"{self._meta.verbose_name} {self.pk}")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        raise HistoryIsKept(f"{self._meta.verbose_name} {self.pk}")
