"""Which definitions exist: (name, version) -> Saga. Filled at start-up, by each app's ready()."""

from __future__ import annotations

from sagas.definition import Saga
from sagas.exceptions import DefinitionError, UnknownSaga

_sagas: dict[tuple[str, int], Saga] = {}


_variants: set[tuple[str, int]] = set()


def register(saga: Saga, *, is_variant: bool = False) -> Saga:
    """Make `saga` known. The same object twice is harmless; another one under the same name and version is not.

    A variant is a version that some runs go by, and that does not take the place of the others: never the newest.
    """
    known = _sagas.setdefault((saga.name, saga.version), saga)
    if known is not saga and known != saga:
        raise DefinitionError(f"Saga {saga.name} version {saga.version} is registered already. Raise its version.")
    if is_variant:
        _variants.add((saga.name, saga.version))
    return saga


def forget(saga: Saga) -> None:
    """Take a definition out again: for tests."""
    _sagas.pop((saga.name, saga.version), None)
    _variants.discard((saga.name, saga.version))


def get(name: str, version: int) -> Saga:
    """The definition a run began with. Raises UnknownSaga."""
    try:
        return _sagas[name, version]
    except KeyError:
        raise UnknownSaga(name, version) from None


def newest(name: str) -> Saga:
    """The highest version of that name which is no variant. Raises UnknownSaga."""
    versions = [version for known, version in _sagas if known == name and (known, version) not in _variants]
    if not versions:
        raise UnknownSaga(name)
    return _sagas[name, max(versions)]


def names() -> list[tuple[str, int]]:
    """Every name and version, sorted."""
    return sorted(_sagas)
