"""How a provider says that it did not go well. The class tells what to do next.

ProviderError
├── Declined          a business no: the same call will never succeed
├── Unavailable       it did not happen, and may be sent again with the same key
│   └── Postponed     it was not even asked: its limit is reached, or it is known to be down
└── OutcomeUnknown    it may have happened: ask by key before anything else
"""

from __future__ import annotations

from datetime import timedelta


class ProviderError(Exception):
    """The root. `message` is fit to be shown to people; it never holds credentials or card data.

    `retry_after` is what the other side said of when to come again, if it said so.
    """

    def __init__(
        self,
        message: str,
        *,
        provider: str,
        operation: str,
        code: str = "",
        provider_id: str = "",
        retry_after: timedelta | None = None,
    ) -> None:
        self.message = message
        self.provider = provider
        self.operation = operation
        self.code = code or self.default_code
        self.provider_id = provider_id
        self.retry_after = retry_after
        super().__init__(message)

    default_code = "provider_error"

    def __str__(self) -> str:
        return f"{self.provider} {self.operation}: {self.message} ({self.code})"


class Declined(ProviderError):
    """A business no."""

    default_code = "declined"


class Unavailable(ProviderError):
    """It did not happen, and may be sent again. What is given up on then is not undone."""

    default_code = "unavailable"


class Postponed(Unavailable):
    """Not asked at all, or not to be had before something else has come to its end; `retry_after` says when to ask
    again. That is no failure: it costs none of a step's tries."""

    default_code = "postponed"


NOT_SEEN = "not_seen"
"""The code of an earlier call whose answer was lost and whose effect the other side, well as it is, does not show."""


class OutcomeUnknown(ProviderError):
    """It may have happened."""

    default_code = "answer_lost"
