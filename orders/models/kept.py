"""Rows that are only added: what happened to stock and money is never edited.

This turns away mistakes in our own code; the database's triggers turn away everything else.
"""

from __future__ import annotations

from typing import Any, NoReturn, TypeVar

from django.db import models

from orders.exceptions import HistoryIsKept

Row = TypeVar("Row", bound=models.Model)


class KeptRows(models.QuerySet[Row]):
    """Many rows at a time can be added and read."""

    def update(self, **changes: Any) -> NoReturn:
        raise HistoryIsKept(str(self.model._meta.verbose_name_plural))

    def delete(self) -> NoReturn:
        raise HistoryIsKept(str(self.model._meta.verbose_name_plural))


class KeptRow(models.Model):
    """A row that can be added, and neither changed nor deleted."""

    objects = KeptRows.as_manager()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise HistoryIsKept(f"{self._meta.verbose_name} {self.pk}")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise HistoryIsKept(f"{self._meta.verbose_name} {self.pk}")
