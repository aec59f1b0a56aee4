"""What the answers of one engine mean: the rules from checks to a state.

Owns: how many bad answers make an engine suspect or down, when it counts as hung, when a canary
is due, what an engine must show to come back. Pure: no I/O, time comes from the clock.
Not here: asking (engine_probe.py), the loops (health_watch.py).
"""

from __future__ import annotations

from collections.abc import Callable

from gateway.ejection import Outcome
from gateway.engine import Engine, EngineState
from gateway.engine_probe import Answer, Look, Reading

#: Of the time from a hang to its streams' move: up to 1 s until the next look, and a look more.
LOOKS_SECONDS = 2.0
SUSPECT_MISSES = 2
DOWN_MISSES = 3
GOOD_TO_RETURN = 2
CANARY_EVERY_SECONDS = 10.0
CANARY_AGAIN_SECONDS = 2.0
STUCK_SECONDS = 2.0
CANARY_FAILURES = 2
FORGIVEN_LATENESS = 3

_NEVER = float("-inf")


def hang_seconds(stall_seconds: float) -> float:
    """How long an engine with work may make no step, so that its streams move within that time,
    with a look a second. `stall_seconds` is 4 at least.

    8 s leave 6; the longest honest step of a GPU, 4096 tokens at the end of a 128K prompt, is
    reckoned at 2. On few CPU cores a step takes longer, and STALL_SECONDS has to be more.
    """
    return stall_seconds - LOOKS_SECONDS


HANG_SECONDS = hang_seconds(8.0)


class Verdict:
    """The judge of one engine."""

    def __init__(
        self, engine: Engine, clock: Callable[[], float], hang_seconds: float = HANG_SECONDS
    ) -> None:
        self.engine = engine
        self.proven = False
        self._clock = clock
        self._hang_seconds = hang_seconds
        self._signs: tuple[float, ...] | None = None
        self._idle = True
        self._answers = False
        self._misses = 0
        self._refusals = 0
        self._good = 0
        self._forgiven = 0
        self._canary_at = _NEVER
        self._canary_failures = 0

    # Looks -------------------------------------------------------------------------------

    def nobody_looked(self, seconds: float) -> None:
        """This process itself stood still: that time says nothing about the engine."""
        self.engine.steps_at = min(self._clock(), self.engine.steps_at + seconds)

    def look(self, look: Look, own_fault: bool = False) -> bool:
        """Judge one check; true when there is no hurry to repeat it."""
        if look.answer is Answer.BUSY:
            return True  # this gateway had no connection to spare: nothing was learnt
        self._answers = look.answer is Answer.GOOD
        if self._answers:
            self._looks_good(look.reading)
            return True
        if look.answer is Answer.LATE and own_fault and self._forgiven < FORGIVEN_LATENESS:
            self._forgiven += 1
            return False
        self._forgiven = 0
        self._good = 0
        if look.answer is Answer.BAD:
            self._down(f"its health check answered {look.status}")
        elif look.answer is Answer.REFUSED:
            self._refused()
        else:
            self._missed()
        return False

    def _looks_good(self, reading: Reading | None) -> None:
        self._misses = self._refusals = self._forgiven = 0
        self._good += 1
        if reading is not None:
            self._note(reading)
            if self._stands_still():
                self._hung()
                return
        state = self.engine.observed
        if state is EngineState.STARTING or (
            state is EngineState.SUSPECT and self._canary_failures == 0
        ):
            self.engine.observe(EngineState.HEALTHY)
        elif state is EngineState.DOWN and self.proven and self._good >= GOOD_TO_RETURN:
            self.engine.observe(EngineState.HEALTHY)

    def _note(self, reading: Reading) -> None:
        engine = self.engine
        engine.running, engine.waiting = reading.running, reading.waiting
        engine.kv_cache = reading.kv_cache
        self._idle = reading.running == 0 and reading.waiting == 0
        if reading.signs == self._signs:
            return
        # The first reading is no sign of life, it only starts the clock of standing still.
        moved = self._signs is not None
        self._signs = reading.signs
        engine.saw_progress(reading.steps)
        if moved:
            self.proven = True

    def _stands_still(self) -> bool:
        return not self._idle and not self.engine.progressing(self._hang_seconds)

    def _hung(self) -> None:
        self.proven = False
        self._good = 0
        self.engine.observe(EngineState.DOWN, "hung")

    def _refused(self) -> None:
        self._refusals += 1
        if self._refusals >= 2 or self.engine.in_flight == 0:
            self._down("it refuses connections")
        else:
            self._suspect("it refused a connection")

    def _missed(self) -> None:
        self._misses += 1
        if self._misses >= DOWN_MISSES:
            self._down("it does not answer its checks")
        elif self._misses >= SUSPECT_MISSES:
            self._suspect("it was slow to answer its checks")

    def _suspect(self, reason: str) -> None:
        if self.engine.observed in (EngineState.HEALTHY, EngineState.SUSPECT):
            self.engine.observe(EngineState.SUSPECT, reason)

    def _down(self, reason: str) -> None:
        """Out; an engine that was never seen healthy goes on starting."""
        self._good = 0
        self._canary_failures = 0
        self.proven = False
        self._signs = None
        self.engine.running = self.engine.waiting = 0
        self.engine.kv_cache = 0.0
        if self.engine.observed is not EngineState.STARTING:
            self.engine.observe(EngineState.DOWN, reason)

    # Canaries ----------------------------------------------------------------------------

    def canary_due(self) -> bool:
        """A canary is for engines whose metrics say nothing: idle ones, and those coming back."""
        since = self._clock() - self._canary_at
        engine = self.engine
        if engine.observed is EngineState.STARTING or not self._answers:
            return False
        if engine.observed is EngineState.DOWN:
            return since >= CANARY_AGAIN_SECONDS
        if not self._idle:
            return False
        if self._canary_failures or engine.ejection.half_open or self._stuck():
            return since >= CANARY_AGAIN_SECONDS
        return since >= CANARY_EVERY_SECONDS

    def _stuck(self) -> bool:
        """Our requests are there, yet it reports no work: its numbers may be frozen."""
        engine = self.engine
        quiet = self._clock() - max(engine.steps_at, engine.in_flight_since)
        return engine.in_flight > 0 and quiet >= STUCK_SECONDS

    def canary_sent(self) -> None:
        self._canary_at = self._clock()

    def canary(self, answer: Answer, started: float, own_fault: bool = False) -> None:
        """Judge a canary that was sent at `started`."""
        if answer is Answer.GOOD:
            self._canary_answered()
        elif answer is Answer.BUSY or own_fault or self.engine.steps_at > started:
            return
        else:
            self._canary_failed(answer, started)

    def _canary_answered(self) -> None:
        engine = self.engine
        self.proven = True
        self._canary_failures = 0
        engine.saw_progress(engine.steps)
        if engine.ejection.half_open:
            engine.report(Outcome.OK)
        if engine.observed is EngineState.SUSPECT and self._misses == self._refusals == 0:
            engine.observe(EngineState.HEALTHY)

    def _canary_failed(self, answer: Answer, started: float) -> None:
        self._canary_failures += 1
        engine = self.engine
        waited_too = engine.in_flight > 0 and engine.in_flight_since <= started
        if engine.observed is EngineState.DOWN:
            return
        if answer is Answer.LATE and (waited_too or self._canary_failures >= CANARY_FAILURES):
            self._hung()
        elif self._canary_failures >= CANARY_FAILURES:
            self._down("it cannot produce a token")
        else:
            self._suspect("it did not produce a token")
