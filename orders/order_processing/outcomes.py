"""What a provider's answer means for a step: Declined refuses it, Unavailable postpones it, OutcomeUnknown asks for a
look-up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from orders.providers.errors import Declined, OutcomeUnknown, ProviderError, Unavailable
from sagas import StepError, StepRefused, StepUnavailable, StepUnknown


@contextmanager
def as_outcomes() -> Iterator[None]:
    """Turns a provider's errors into the engine's, and keeps whose answer it was, its code and its id."""
    try:
        yield
    except Declined as error:
        raise _told(StepRefused, error) from error
    except Unavailable as error:
        raise _told(StepUnavailable, error) from error
    except OutcomeUnknown as error:
        raise _told(StepUnknown, error) from error


def _told(kind: type[StepError], error: ProviderError) -> StepError:
    return kind(error.message, code=error.code, provider=error.provider, provider_id=error.provider_id)
