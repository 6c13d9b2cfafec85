"""Who may do what: customers see and cancel their own orders, viewers see all, agents help, supervisors set right."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from django.contrib.auth import get_user_model
from django.core.exceptions import PermissionDenied
from django.db.models import Q

VIEWER = "viewer"
AGENT = "agent"
SUPERVISOR = "supervisor"
GROUPS = (VIEWER, AGENT, SUPERVISOR)

ONLY_LOOKS = "Your role, viewer, sees everything and changes nothing. Ask an agent or a supervisor to do it."


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
    IMPORT = "import"
    HAND_OVER = "hand_over"
    STOCK = "stock"


VIEWER_ACTS = frozenset({Act.SEE_RUNS})
AGENT_ACTS = VIEWER_ACTS | frozenset({Act.CANCEL, Act.RETRY, Act.ASSIGN})
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
    """Staff who helps orders on: an agent, or whoever stands above one."""
    return is_supervisor(user) or AGENT in roles_of(user)


def is_staff(user: Any) -> bool:
    """Who sees every order: a viewer, or whoever stands above one."""
    return is_agent(user) or VIEWER in roles_of(user)


def only_looks(user: Any) -> bool:
    """A viewer who is nothing more: sees everything, and changes nothing but how they look at it."""
    return is_staff(user) and not is_agent(user)


def can(user: Any, act: str) -> bool:
    """Whether the user's role allows `act` on any order. A customer's cancelling of their own is not asked here."""
    if act not in SUPERVISOR_ACTS:
        return False
    if is_supervisor(user):
        return True
    return (is_agent(user) and act in AGENT_ACTS) or (is_staff(user) and act in VIEWER_ACTS)


def owners() -> list[str]:
    """Everybody who may look after an order, by name, as the history names people."""
    helpers = Q(is_superuser=True) | Q(groups__name__in=[AGENT, SUPERVISOR])
    users = get_user_model().objects.filter(helpers, is_active=True).distinct().order_by("username")
    return [f"user:{name}" for name in users.values_list("username", flat=True)]


def refusal(user: Any, act: str) -> str:
    """Why the user may not do `act`, and whom to ask, for whoever is turned away from it."""
    if only_looks(user):
        return ONLY_LOOKS
    needed = AGENT if act in AGENT_ACTS else SUPERVISOR
    article = "an" if needed == AGENT else "a"
    if not is_staff(user):
        return f"This is for the shop's people, and takes {article} {needed}. Ask the shop to do it."
    return f"This takes {article} {needed}, and your role is {AGENT}. Ask {article} {needed} to do it."


def require(user: Any, act: str) -> None:
    """Raises PermissionDenied, with the role that it takes, unless the user's role allows `act`."""
    if not can(user, act):
        raise PermissionDenied(refusal(user, act))


def actor_of(user: Any) -> str:
    """How the user is named in events: user:<name> for staff, customer:<name> for customers."""
    name = user.get_username() if getattr(user, "is_authenticated", False) else "anonymous"
    return f"user:{name}" if is_staff(user) else f"customer:{name}"
