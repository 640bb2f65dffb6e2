"""Whoever is called is never called faster than it allows, whatever becomes of the calls."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.kit.decisions import Refused, Unanswered
from shared.kit.pacing import Allowance, Pacer

PAYER, SLOT = "acme", 7
ANSWER = object()
LOST = Unanswered("ReadTimeout")


class Seconds:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Paced:
    """One side and the calls of it."""

    def __init__(self, allowance: Allowance) -> None:
        self.seconds = Seconds()
        self.allowance = allowance
        self.pacer = Pacer(self.seconds)

    def begin(self, key: str = PAYER) -> float:
        return self.pacer.begin(key, SLOT, self.allowance)

    def end(self, outcome: object = ANSWER, key: str = PAYER) -> None:
        self.pacer.end(key, outcome, self.allowance)

    def begun(self, most: int = 100) -> int:
        """How many calls may begin now, one after the other."""
        return next(n for n in range(most + 1) if n == most or self.begin() > 0)

    def fail(self, times: int, outcome: object = LOST) -> None:
        """Call so often, each in vain, a second apart."""
        for _ in range(times):
            self.seconds.now += 1.0
            assert self.begin() == 0.0
            self.end(outcome)


def paced(rate: float = 1.0, burst: float = 1.0, concurrency: int = 100, failures: int = 3) -> Paced:
    return Paced(Allowance(rate, burst, concurrency, failures, cool_down=30.0))


def test_whoever_takes_over_begins_with_an_empty_bucket() -> None:
    side = paced(rate=2.0, burst=4.0)
    assert side.begin() == pytest.approx(0.5)
    side.seconds.now += 0.5
    assert side.begun() == 1


def test_after_a_pause_so_many_calls_may_begin_at_once_and_no_more() -> None:
    side = paced(rate=2.0, burst=4.0)
    side.begin()
    side.seconds.now += 3600
    assert side.begun() == 4
    assert side.begin() == pytest.approx(0.5)


def test_no_more_calls_are_in_flight_than_allowed() -> None:
    side = paced(rate=100.0, burst=50.0, concurrency=3)
    side.begin()
    side.seconds.now += 10
    assert side.begun() == 3
    side.end()
    assert side.begun() == 1


def test_a_call_that_was_not_made_costs_nothing() -> None:
    side = paced()
    side.begin()
    side.seconds.now += 1
    assert side.begin() == 0.0
    assert side.begin() > 0
    side.pacer.take_back(PAYER)
    assert side.begin() == 0.0


def test_sides_do_not_pay_for_one_another() -> None:
    side = paced(failures=1)
    side.begin()
    side.begin("other")
    side.seconds.now += 1
    assert side.begin() == 0.0
    side.end(LOST)
    assert side.begin("other") == 0.0


@pytest.mark.parametrize("outcome", [LOST, Refused("status-503")])
def test_who_does_not_answer_is_left_alone_then_probed_by_one_call(outcome: object) -> None:
    side = paced(burst=10.0)
    side.begin()
    side.fail(3, outcome)
    assert side.begin() == pytest.approx(30.0)
    side.seconds.now += 29.9
    assert side.begin() == pytest.approx(0.1)
    side.seconds.now += 0.2
    assert side.begun() == 1, "a probe, although the bucket is full"


def test_a_probe_that_is_answered_opens_the_way() -> None:
    side = paced(burst=10.0)
    side.begin()
    side.fail(3)
    side.seconds.now += 31
    assert side.begun() == 1
    side.end()
    assert side.begun() == 9


def test_a_probe_in_vain_makes_the_pause_longer_up_to_a_limit() -> None:
    side = paced()
    side.begin()
    side.fail(3)
    pauses = []
    for _ in range(7):
        pauses.append(side.begin())
        side.seconds.now += pauses[-1] + 0.001
        assert side.begin() == 0.0
        side.end(LOST)
    assert [round(pause) for pause in pauses] == [30, 60, 120, 240, 480, 480, 480]


def test_calls_that_were_out_when_it_closed_do_not_make_the_pause_longer() -> None:
    side = paced(rate=10.0, burst=10.0)
    side.begin()
    side.seconds.now += 10
    assert side.begun() == 10
    for _ in range(10):
        side.end(LOST)
    assert side.begin() == pytest.approx(30.0)


def test_now_and_then_a_failure_closes_nothing() -> None:
    side = paced()
    side.begin()
    for _ in range(10):
        side.fail(2)
        side.seconds.now += 1
        assert side.begin() == 0.0
        side.end()


def test_what_a_payer_named_is_waited_for() -> None:
    side = paced(burst=5.0)
    side.begin()
    side.seconds.now += 5
    assert side.begin() == 0.0
    side.end(Refused("status-429", retry_after=20.0))
    assert side.begin() == pytest.approx(20.0)
    side.seconds.now += 20.001
    assert side.begin() == 0.0


def test_whoever_is_in_no_slot_of_ours_is_forgotten_and_its_bucket_with_it() -> None:
    side = paced(burst=5.0)
    side.begin()
    side.seconds.now += 5
    side.pacer.retain({SLOT})
    assert side.begin() == 0.0
    side.end()
    side.pacer.retain({SLOT + 1})
    assert side.begin() > 0


def test_calls_that_outlive_the_loss_of_their_slot_count_when_it_comes_back() -> None:
    side = paced(rate=10.0, burst=10.0, concurrency=4)
    side.begin()
    side.seconds.now += 10
    assert side.begun() == 4
    side.pacer.retain(())
    assert side.begin() > 0, "empty, and full up"
    side.seconds.now += 10
    assert side.begin() > 0, "still four in flight"
    side.end()
    assert side.begun() == 1


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.1, 200.0), st.floats(1.0, 30.0), st.integers(1, 40))
def test_no_window_ever_holds_more_than_its_rate_and_the_burst(
    seed: int, rate: float, burst: float, concurrency: int
) -> None:
    chance = random.Random(seed)
    side = paced(rate, burst, concurrency, failures=3)
    begun: list[float] = []
    out = 0
    for _ in range(400):
        side.seconds.now += chance.choice((0.0, 0.0, 0.001, 0.5 / rate, 1.0 / rate, 20.0 / rate))
        what = chance.random()
        if out and what < 0.4:
            out -= 1
            outcomes = (ANSWER, ANSWER, ANSWER, ANSWER, LOST, Refused("status-429", retry_after=0.5 / rate))
            side.end(chance.choice(outcomes))
        elif out and what < 0.45 and begun and begun[-1] == side.seconds.now:
            out -= 1
            begun.pop()
            side.pacer.take_back(PAYER)
        elif what < 0.47:
            side.pacer.retain(())
        elif side.begin() == 0.0:
            out += 1
            begun.append(side.seconds.now)
        assert out <= concurrency
    for first, start in enumerate(begun):
        for last in range(first, len(begun)):
            held = last - first + 1
            assert held <= rate * (begun[last] - start) + burst + 1e-6
