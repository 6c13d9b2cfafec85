"""What can go wrong, as a tree. The class tells the caller what to do next.

SagaError
├── DefinitionError            the saga was built wrongly: mend the definition
├── UnknownSaga                no definition is registered under that name and version
├── ActRefused                 a person asked for something that the run's state does not allow
├── InvalidOperation           an act on many runs was asked for wrongly
├── InvalidInput             a file is not what a run of its kind begins with
├── InvalidExport              a file is no export of a run, or of one that is here
├── DuplicateRun               the business key already has a live run with another input
└── StepError                  raised by actions and compensations: how an attempt ended
    ├── StepRefused            a business no: never retried, what was done is undone
    ├── StepUnavailable        it did not happen: retried with the same key, and nothing to undo
    ├── StepPostponed          it was not even asked: comes again later, and costs no try
    └── StepUnknown            it may have happened: looked up before anything else
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta


class SagaError(Exception):
    """The root: everything this engine raises on purpose."""


class DefinitionError(SagaError, ValueError):
    """A saga or a step was built wrongly. The message names the saga, the step and the way out."""


class UnknownSaga(SagaError, LookupError):
    """No definition is registered under this name and version."""

    def __init__(self, name: str, version: int | None = None) -> None:
        self.name = name
        self.version = version
        wanted = name if version is None else f"{name} version {version}"
        super().__init__(f"No saga {wanted} is registered. Register its definition in an AppConfig.ready().")


class DuplicateRun(SagaError):
    """The business key already has a run, and that run was started with another input."""

    def __init__(self, saga: str, business_key: str, differing: Sequence[str]) -> None:
        self.saga = saga
        self.business_key = business_key
        self.differing = tuple(differing)
        super().__init__(
            f"{saga} {business_key} was already started with another {', '.join(differing)}. "
            "Use a new business key, or send what was sent the first time."
        )


class ActRefused(SagaError):
    """An operator's act makes no sense in the state the run is in; nothing was changed."""

    def __init__(self, act: str, state: str, reason: str, possible: Sequence[str] = ()) -> None:
        self.act = act
        self.state = state
        self.reason = reason
        self.possible = tuple(possible)
        instead = f" Possible now: {', '.join(possible)}." if possible else " Nothing can be done to it now."
        super().__init__(f"Cannot {act} while {state.replace('_', ' ')}: {reason}.{instead}")


class InvalidOperation(SagaError, ValueError):
    """An act on many runs was asked for wrongly; nothing was stored. `field` is what is wrong."""

    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(message)


class InvalidInput(SagaError, ValueError):
    """What was given is not what a run of this kind begins with; nothing was stored. Named by SAGA_STARTERS."""


class InvalidExport(SagaError, ValueError):
    """A file is no export of a run, or is of one that is here already; nothing was stored."""


class StepError(SagaError):
    """How an attempt ended, told by an action or a compensation.

    `code` is short and stable (card_declined), the message is for people; `provider` and `provider_id` say
    whose answer it was. `retry_after` overrides the policy's delay where the other side named one.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        provider: str = "",
        provider_id: str = "",
        retry_after: timedelta | None = None,
    ) -> None:
        self.code = code or self.default_code
        self.provider = provider
        self.provider_id = provider_id
        self.retry_after = retry_after
        super().__init__(message)

    default_code = "step_error"


class StepRefused(StepError):
    """A business no. It did not happen and never will: no retry."""

    default_code = "refused"


class StepUnavailable(StepError):
    """It did not happen, and may be sent again. Given up on, it is not undone: where it may have happened, say so."""

    default_code = "unavailable"


class StepPostponed(StepError):
    """The other side was not asked at all, since it is known to be down or at its limit. Not a failure: the attempt
    ends by waiting `retry_after`, and no try is used up. Also for look-ups, whose question then stays open."""

    default_code = "postponed"

    def __init__(self, message: str, *, retry_after: timedelta, code: str = "", provider: str = "") -> None:
        super().__init__(message, code=code, provider=provider, retry_after=retry_after)


class StepUnknown(StepError):
    """It may have happened: the answer was lost."""

    default_code = "unknown"
