"""How long each phase of an attempt took: a stopwatch that books every moment once."""

from time import perf_counter_ns

from pipeline.errors import Phase
from pipeline.models import Timings

FIELDS = {phase: f"{phase}_us" for phase in Phase}  # of Timings


class PhaseClock:
    """A stopwatch for one attempt: each phase begins where the one before it ended.

    So the phases add up to the whole, without a gap and without an overlap.
    """

    __slots__ = ("_since", "_spent", "phase")

    def __init__(self) -> None:
        self.phase = Phase.WAIT
        self._spent: dict[Phase, int] = {}
        self._since = perf_counter_ns()

    def enter(self, phase: Phase) -> None:
        """End the current phase and begin *phase*; entering the current one changes nothing."""
        was = self.phase
        if phase is not was:
            now = perf_counter_ns()
            self._spent[was] = self._spent.get(was, 0) + now - self._since
            self._since, self.phase = now, phase

    def stop(self) -> None:
        """Book the time up to now on the current phase."""
        now = perf_counter_ns()
        self._spent[self.phase] = self._spent.get(self.phase, 0) + now - self._since
        self._since = now

    def timings(self) -> Timings:
        """Give what has been booked; a phase that was never entered is None."""
        return Timings(**{FIELDS[phase]: ns // 1000 for phase, ns in self._spent.items()})
