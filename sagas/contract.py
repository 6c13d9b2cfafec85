"""What every outside system has to keep for a saga's sake, as tests to be inherited.

class TestTheBank(ProviderContract):
    def do(self, key): return self.bank.charge(key=key).id
    def find(self, key): ...
    def undo(self, key): ...
    def count(self): return len(self.bank.charges_that_stand())
"""

from __future__ import annotations

from contextlib import suppress

from sagas.exceptions import StepUnknown


class ProviderContract:
    """Sending twice is sending once, what happened can be found, and undoing is harmless however often."""

    def do(self, key: str) -> str:
        """Have the effect under this key; return the provider's reference."""
        raise NotImplementedError

    def find(self, key: str) -> str | None:
        """The reference of what happened under this key; None: certainly nothing."""
        raise NotImplementedError

    def undo(self, key: str) -> None:
        """Take back what happened under this key, if anything did."""
        raise NotImplementedError

    def count(self) -> int:
        """How many effects stand now."""
        raise NotImplementedError

    def lose_answer(self) -> None:
        """Let the next effect happen, and its answer be lost: `do` raises StepUnknown."""
        raise NotImplementedError

    def test_the_same_key_twice_is_one_effect_and_one_reference(self) -> None:
        assert self.do("k-1") == self.do("k-1")
        assert self.count() == 1

    def test_another_key_is_another_effect(self) -> None:
        assert self.do("k-1") != self.do("k-2")
        assert self.count() == 2

    def test_what_happened_is_found_and_what_did_not_is_not(self) -> None:
        reference = self.do("k-1")

        assert (self.find("k-1"), self.find("k-2")) == (reference, None)

    def test_what_happened_is_found_also_when_its_answer_was_lost(self) -> None:
        self.lose_answer()
        with suppress(StepUnknown):
            self.do("k-1")

        assert self.find("k-1") is not None
        assert self.do("k-1") == self.find("k-1")
        assert self.count() == 1

    def test_undone_twice_is_undone_once(self) -> None:
        self.do("k-1")
        self.do("k-2")

        self.undo("k-1")
        self.undo("k-1")

        assert self.count() == 1

    def test_what_never_happened_is_undone_harmlessly(self) -> None:
        self.do("k-2")

        self.undo("k-1")

        assert (self.count(), self.find("k-1")) == (1, None)
