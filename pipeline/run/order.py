"""The batches that a source is to bring, and the fetches (requests) that serve them. Pure."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

from pipeline.errors import ConfigError, UsageError
from pipeline.models import Batch, Fetch
from pipeline.settings.sizes import GivenSizes, draw_sizes


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What one source is to bring in one run.

    Batches and fetches are made as they are walked over, so that an order of a hundred thousand
    takes no more memory than one of ten.

    Attributes:
        sizes: how many integers each batch wants.
        first: the number of the first batch within the run.
        max_numbers: what one request can bring.
        is_merged: whether batches share a request as long as they fit.
        is_sandbox: whether the sandbox plays the source.
        turns: the places in *sizes* in the order in which they are asked for; empty: as they are.

    Raises:
        ConfigError: a batch is larger than one request; the caller says of which source.
        UsageError: so is one that was given on the command line.
    """

    source: str
    sizes: Sequence[int]
    min: int
    max: int
    first: int
    max_numbers: int
    is_merged: bool
    is_sandbox: bool = False
    turns: Sequence[int] = ()

    def __post_init__(self) -> None:
        largest = max(self.sizes)
        if largest > self.max_numbers:
            problem = (
                f"a batch of {largest} is more than the {self.max_numbers} numbers in"
                f" [{self.min}, {self.max}] that one request brings; order several smaller ones"
            )
            if isinstance(self.sizes, GivenSizes):
                raise UsageError(f"--batches: sources.{self.source}: {problem}")
            raise ConfigError(problem)

    def drawn(self) -> "Order":
        """Draw the sizes of one run, where the file leaves them to chance."""
        return replace(self, sizes=draw_sizes(self.sizes))

    def batches(self) -> Iterator[Batch]:
        """Walk over the batches, in order."""
        return map(self._batch, range(len(self.sizes)))

    def _batch(self, place: int) -> Batch:
        return Batch(
            number=self.first + place,
            source=self.source,
            n=self.sizes[place],
            min=self.min,
            max=self.max,
            is_sandbox=self.is_sandbox,
        )

    def smallest_fetch(self) -> Fetch:
        """Make the fetch that asks for the least."""
        return Fetch(number=self.first, batches=(min(self.batches(), key=attrgetter("n")),))

    def fetches(self, run_id: int = 0) -> Iterator[Fetch]:
        """Walk over the fetches in turn: each is numbered as its first batch is."""
        shared: list[Batch] = []
        room = self.max_numbers if self.is_merged else 0
        for batch in map(self._batch, self.turns or range(len(self.sizes))):
            if shared and batch.n > room:
                yield _fetch(shared, run_id)
                shared, room = [], self.max_numbers if self.is_merged else 0
            shared.append(batch)
            room -= batch.n
        yield _fetch(shared, run_id)


def _fetch(batches: Iterable[Batch], run_id: int) -> Fetch:
    in_order = tuple(sorted(batches, key=attrgetter("number")))
    return Fetch(number=in_order[0].number, batches=in_order, run=run_id)
