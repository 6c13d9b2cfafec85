"""A durable saga engine for Django. This module needs no Django: it holds what a definition is written with."""

from __future__ import annotations

from sagas.definition import Kind, Result, Saga, Step, StepContext, WaitFor, step_key
from sagas.exceptions import (
    ActRefused,
    DefinitionError,
    DuplicateRun,
    InvalidInput,
    InvalidOperation,
    SagaError,
    StepError,
    StepPostponed,
    StepRefused,
    StepUnavailable,
    StepUnknown,
    UnknownSaga,
)
from sagas.registry import register
from sagas.retry import RetryPolicy
from sagas.states import Direction, Outcome, RunStatus, StepState, UndoState

__all__ = [
    "ActRefused",
    "DefinitionError",
    "Direction",
    "DuplicateRun",
    "InvalidInput",
    "InvalidOperation",
    "Kind",
    "Outcome",
    "Result",
    "RetryPolicy",
    "RunStatus",
    "Saga",
    "SagaError",
    "Step",
    "StepContext",
    "StepError",
    "StepPostponed",
    "StepRefused",
    "StepState",
    "StepUnavailable",
    "StepUnknown",
    "UndoState",
    "UnknownSaga",
    "WaitFor",
    "register",
    "step_key",
]
