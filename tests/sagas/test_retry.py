"""When to try again."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sagas import DefinitionError, RetryPolicy

SECOND = timedelta(seconds=1)


def test_the_wait_doubles_up_to_the_cap() -> None:
    policy = RetryPolicy(first=SECOND, factor=2, cap=timedelta(seconds=10), jitter=False)

    waits = [policy.delay_after(n, draw=0.5).total_seconds() for n in range(1, 7)]

    assert waits == [1, 2, 4, 8, 10, 10]


def test_jitter_draws_from_the_whole_range() -> None:
    policy = RetryPolicy(first=timedelta(seconds=8), cap=timedelta(minutes=5))

    assert policy.delay_after(2, draw=0.0) == timedelta(0)
    assert policy.delay_after(2, draw=0.25) == timedelta(seconds=4)
    assert policy.delay_after(2, draw=0.999) < timedelta(seconds=16)


def test_a_first_wait_above_the_cap_is_the_cap() -> None:
    policy = RetryPolicy(first=timedelta(hours=1), cap=SECOND, jitter=False)

    assert policy.delay_after(1, draw=0) == SECOND


@given(
    failures=st.integers(1, 10_000),
    draw=st.floats(0, 1, exclude_max=True),
    factor=st.floats(1, 1e300),
    first=st.integers(0, 10**6),
    cap=st.integers(0, 10**6),
)
def test_no_number_of_failures_makes_a_wait_that_is_none(
    failures: int, draw: float, factor: float, first: int, cap: int
) -> None:
    policy = RetryPolicy(first=timedelta(milliseconds=first), factor=factor, cap=timedelta(seconds=cap))

    assert timedelta(0) <= policy.delay_after(failures, draw=draw) <= policy.cap


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attempts": 0}, "RetryPolicy.attempts is 0; it takes at least 1."),
        ({"factor": 0.5}, "RetryPolicy.factor is 0.5; it takes at least 1."),
        ({"first": timedelta(seconds=-1)}, "RetryPolicy.first and .cap cannot be negative."),
        ({"cap": timedelta(seconds=-1)}, "RetryPolicy.first and .cap cannot be negative."),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        RetryPolicy(**fields)

    assert str(refused.value) == message
