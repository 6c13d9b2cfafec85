"""What a provider's answer means for a step: Declined refuses it, Unavailable has it tried again, Postponed has it wait
at no cost, OutcomeUnknown asks for a look-up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from orders.providers.errors import Declined, OutcomeUnknown, Postponed, ProviderError, Unavailable
from sagas import StepError, StepPostponed, StepRefused, StepUnavailable, StepUnknown

AT_ONCE = timedelta(seconds=1)


@contextmanager
def as_outcomes() -> Iterator[None]:
    """Turns a provider's errors into the engine's, and keeps whose answer it was, its code and its id."""
    try:
        yield
    except Declined as error:
        raise _told(StepRefused, error) from error
    except Postponed as error:
        raise StepPostponed(
            error.message, code=error.code, provider=error.provider, retry_after=error.retry_after or AT_ONCE
        ) from error
    except Unavailable as error:
        raise _told(StepUnavailable, error) from error
    except OutcomeUnknown as error:
        raise _told(StepUnknown, error) from error


def _told(kind: type[StepError], error: ProviderError) -> StepError:
    return kind(
        error.message,
        code=error.code,
        provider=error.provider,
        provider_id=error.provider_id,
        retry_after=error.retry_after,
    )
