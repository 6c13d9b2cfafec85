"""Who may do what: customers see and cancel their own orders, agents help them, supervisors set right by hand."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

AGENT = "agent"
SUPERVISOR = "supervisor"
GROUPS = (AGENT, SUPERVISOR)


class Act(StrEnum):
    """What a role may do beyond looking."""

    SEE_RUNS = "see_runs"
    CANCEL = "cancel"
    RETRY = "retry"
    ASSIGN = "assign"
    BULK = "bulk"
    SKIP = "skip"
    RESOLVE = "resolve"
    ABANDON = "abandon"
    HAND_OVER = "hand_over"
    STOCK = "stock"


AGENT_ACTS = frozenset({Act.SEE_RUNS, Act.CANCEL, Act.RETRY, Act.ASSIGN})
SUPERVISOR_ACTS = frozenset(Act)


def roles_of(user: Any) -> frozenset[str]:
    """The names of the user's groups, read once per user object: a page asks many times."""
    if not getattr(user, "is_active", False):
        return frozenset()
    known: frozenset[str] | None = getattr(user, "_order_roles", None)
    if known is None:
        known = frozenset(user.groups.values_list("name", flat=True))
        user._order_roles = known
    return known


def is_supervisor(user: Any) -> bool:
    """A supervisor, or a superuser, who may do everything anyway."""
    return bool(getattr(user, "is_active", False) and getattr(user, "is_superuser", False)) or (
        SUPERVISOR in roles_of(user)
    )


def is_agent(user: Any) -> bool:
    """Staff who sees every order: an agent, or whoever stands above one."""
    return is_supervisor(user) or AGENT in roles_of(user)


def can(user: Any, act: str) -> bool:
    """Whether the user's role allows `act` on any order. A customer's cancelling of their own is not asked here."""
    if act not in SUPERVISOR_ACTS:
        return False
    return is_supervisor(user) or (is_agent(user) and act in AGENT_ACTS)


def actor_of(user: Any) -> str:
    """How the user is named in events: user:<name> for staff, customer:<name> for customers."""
    name = user.get_username() if getattr(user, "is_authenticated", False) else "anonymous"
    return f"user:{name}" if is_agent(user) else f"customer:{name}"
