"""What is shipped for whoever tests a saga, used as docs/sagas.md says, and refusing to call well what is not."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sagas import Saga, Step, StepContext, StepRefused, StepUnavailable, StepUnknown
from sagas.contract import ProviderContract
from sagas.fakes import FakeProvider
from sagas.services import start
from sagas.testing import Crashed, FrozenClock, crash_after, drive_once, run_inline, run_to_end

pytestmark = pytest.mark.django_db
pytest_plugins = ["sagas.pytest_plugin"]

PAGE = (Path(__file__).parents[2] / "docs" / "sagas.md").read_text(encoding="utf-8")
Register = Callable[[Saga], Saga]


@pytest.fixture
def stay(fake_provider: FakeProvider, registered_saga: Register) -> Saga:
    def does(what: str) -> Any:
        def act(ctx: StepContext) -> dict[str, Any]:
            return fake_provider.call(what, ctx.key)

        return act

    def found(ctx: StepContext) -> dict[str, Any] | None:
        return fake_provider.find("hold", ctx.key)

    hold = Step(name="hold", action=does("hold"), compensation=does("release"), look_up=found)
    pay = Step(name="pay", action=does("charge"), compensation=does("refund"))
    return registered_saga(Saga(name="kit_stay", version=1, steps=(hold, pay)))


def test_the_example_in_the_docs_runs(fake_provider: FakeProvider, registered_saga: Register) -> None:
    (example,) = re.findall(r"```python\n(from sagas import Saga, Step\nfrom sagas.testing.*?)```", PAGE, re.S)
    names: dict[str, Any] = {}
    exec(example, names)  # noqa: S102  (the very lines that the page shows)

    names["test_a_lost_answer_is_not_sent_twice"](fake_provider, registered_saga)


def test_a_refusal_undoes_what_was_done(stay: Saga, fake_provider: FakeProvider) -> None:
    fake_provider.refuse("charge", code="declined")

    report = run_inline(stay)

    assert (report.status.value, report.error_code) == ("compensated", "declined")
    report.assert_done(["hold"])
    report.assert_undone(["hold"])
    fake_provider.assert_done_once("release")
    with pytest.raises(AssertionError, match="Undone were"):
        report.assert_undone([])
    with pytest.raises(AssertionError, match="Done were"):
        report.assert_done(["hold", "pay"])


def test_a_worker_that_dies_after_a_step_does_it_once(
    stay: Saga, fake_provider: FakeProvider, saga_clock: FrozenClock
) -> None:
    run = start(saga=stay, business_key="K-1", input={}, ring=False)
    with crash_after("hold"), pytest.raises(Crashed):
        drive_once(run, clock=saga_clock)

    report = run_to_end(run, clock=saga_clock)

    report.assert_done(["hold", "pay"])
    fake_provider.assert_called_once("hold", key=f"{run.pk}:hold:action")
    fake_provider.assert_not_called("refund")


class TestTheFake:
    def test_it_does_as_planned_and_then_as_usual(self) -> None:
        fake = FakeProvider("bank")
        fake.fail("charge", times=2)
        fake.refuse("charge", code="declined")
        fake.lose_answer("charge")

        with pytest.raises(StepUnavailable, match="bank is away"):
            fake.call("charge", "k")
        with pytest.raises(StepUnavailable):
            fake.call("charge", "k")
        with pytest.raises(StepRefused) as refused:
            fake.call("charge", "k")
        assert fake.find("charge", "k") is None
        with pytest.raises(StepUnknown):
            fake.call("charge", "k")
        assert fake.call("charge", "k") == fake.find("charge", "k") == {"id": "charge-1"}
        assert refused.value.code == "declined"
        fake.assert_done_once("charge")

    def test_it_does_not_say_that_all_is_well_when_it_is_not(self) -> None:
        fake = FakeProvider()
        with pytest.raises(AssertionError, match="0 times"):
            fake.assert_called_once("charge")
        with pytest.raises(AssertionError, match="0 times"):
            fake.assert_done_once("charge")
        fake.call("charge", "k-1")
        with pytest.raises(AssertionError, match="k-2"):
            fake.assert_called_once("charge", key="k-2")
        with pytest.raises(AssertionError, match="no call was expected"):
            fake.assert_not_called("charge")
        fake.call("charge", "k-1")
        with pytest.raises(AssertionError, match="2 times"):
            fake.assert_called_once("charge")


class TestTheContractOfTheFake(ProviderContract):
    @pytest.fixture(autouse=True)
    def outside(self) -> None:
        self.fake = FakeProvider()

    def do(self, key: str) -> str:
        return str(self.fake.call("hold", key)["id"])

    def find(self, key: str) -> str | None:
        found = self.fake.find("hold", key)
        return str(found["id"]) if found else None

    def undo(self, key: str) -> None:
        self.fake.call("release", key)

    def count(self) -> int:
        released = {key for what, key in self.fake.done if what == "release"}
        return len({key for what, key in self.fake.done if what == "hold"} - released)

    def lose_answer(self) -> None:
        self.fake.lose_answer("hold")


class Forgetful(ProviderContract):
    """A provider that does it again each time."""

    def __init__(self) -> None:
        self.effects: list[str] = []

    def do(self, key: str) -> str:
        self.effects.append(key)
        return f"H-{len(self.effects)}"

    def find(self, key: str) -> str | None:
        return "H-1" if key in self.effects else None

    def undo(self, key: str) -> None:
        self.effects.pop()

    def count(self) -> int:
        return len(self.effects)

    def lose_answer(self) -> None:
        """It loses none."""


@pytest.mark.parametrize("name", [name for name in vars(ProviderContract) if name.startswith("test_")])
def test_a_provider_that_does_things_twice_does_not_pass(name: str) -> None:
    fine = {"test_another_key_is_another_effect", "test_what_happened_is_found_and_what_did_not_is_not"}
    if name in fine:
        getattr(Forgetful(), name)()
    else:
        with pytest.raises(AssertionError):
            getattr(Forgetful(), name)()


def test_the_packages_are_typed() -> None:
    import orders
    import sagas

    for package in (orders, sagas):
        assert (Path(str(package.__file__)).parent / "py.typed").exists()
