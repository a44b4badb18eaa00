"""From what is wanted to what is asked: batches, and the fetches that serve them. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.errors import ConfigError
from pipeline.models import Batch, Fetch


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

    Raises:
        ConfigError: a batch is larger than one request; the caller says of which source.
    """

    source: str
    sizes: Sequence[int]
    min: int
    max: int
    first: int
    max_numbers: int
    is_merged: bool

    def __post_init__(self) -> None:
        largest = max(self.sizes)
        if largest > self.max_numbers:
            raise ConfigError(
                f"a batch of {largest} is more than the {self.max_numbers} numbers in"
                f" [{self.min}, {self.max}] that one request brings; order several smaller ones"
            )

    def batches(self) -> Iterator[Batch]:
        """Walk over the batches, in order."""
        for number, n in enumerate(self.sizes, self.first):
            yield Batch(number=number, source=self.source, n=n, min=self.min, max=self.max)

    def fetches(self) -> Iterator[Fetch]:
        """Walk over the fetches: each is numbered as its first batch is."""
        shared: list[Batch] = []
        room = self.max_numbers if self.is_merged else 0
        for batch in self.batches():
            if shared and batch.n > room:
                yield Fetch(number=shared[0].number, batches=tuple(shared))
                shared, room = [], self.max_numbers if self.is_merged else 0
            shared.append(batch)
            room -= batch.n
        yield Fetch(number=shared[0].number, batches=tuple(shared))
