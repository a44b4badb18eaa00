"""Verify all proofs again, without asking anybody: with the keys that are pinned in the program."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.errors import SourceError
from pipeline.extras import how_to_install
from pipeline.models import ProofWord
from pipeline.rendering.progress import progress
from pipeline.rendering.words import count_of
from pipeline.scope import open_to_read
from pipeline.settings import Settings
from pipeline.sources.bls import find_curve
from pipeline.sources.proofs import Course, judge, numbers_of
from pipeline.sources.rsa import RsaKey, read_keys
from pipeline.store.integrity.checks import Problem
from pipeline.store.numbers import digest_of, pack
from pipeline.store.proofs import Proved, count_proofs, count_unsigned, read_proved

PACKAGES = ("cryptography", "py-arkworks-bls12381")  # of the extra `proof`
COUNTED = {
    "verified": ProofWord.VERIFIED,
    "chained": ProofWord.CHAINED,
    "not_verifiable": ProofWord.UNVERIFIABLE,
    "unsigned": ProofWord.UNSIGNED,
}


@dataclass(slots=True)
class ProofCheck:
    """What became of the proofs.

    Attributes:
        batches: how many collected batches each word is true of, now and here.
    """

    batches: Counter[ProofWord] = field(
        default_factory=lambda: Counter(dict.fromkeys(ProofWord, 0))
    )
    problems: list[Problem] = field(default_factory=list)
    courses: defaultdict[tuple[str, bool], Course] = field(
        default_factory=lambda: defaultdict(Course), repr=False
    )  # by source, and whether the sandbox played it

    def look_at(self, proved: Proved, keys: Sequence[RsaKey]) -> None:
        """Verify one proof with the *keys* of its source, and hold its batches to it."""
        proof, fetch = proved.proof, proved.fetch
        place = f"run {fetch.run}, proof {proof.serial} of {proved.source}"
        try:
            word = judge(proof, fetch, keys)
            numbers = numbers_of(proof, fetch)
        except SourceError as exc:
            self.problems.append(Problem(text=f"{place}: {exc.detail}", run=fetch.run))
            return
        is_sandbox = any(batch.is_sandbox for batch in fetch.batches)
        if what := self.courses[proved.source, is_sandbox].contradiction(proof):
            self.problems.append(Problem(text=f"{place}: {what}", run=fetch.run))
        self.batches[word] += len(fetch.batches)
        offset = 0
        for batch, digest in zip(fetch.batches, proved.digests, strict=True):
            own = numbers[offset : offset + batch.n]
            offset += batch.n
            if digest != digest_of(pack(own, batch.min, batch.max), batch.n, batch.min, batch.max):
                text = f"run {fetch.run} {batch.name}: its numbers do not follow from its proof"
                self.problems.append(Problem(text=text, run=fetch.run, batch=batch.name))

    def counts(self) -> dict[str, int]:
        """Count by word."""
        return {name: self.batches[word] for name, word in COUNTED.items()}

    def tell(self) -> Iterator[str]:
        """Sum it up; each word for itself."""
        told = ", ".join(f"{count} {word}" for word, count in self.batches.items())
        yield f"Proofs, by {count_of(self.batches.total(), 'batch')}: {told}."
        if self.batches[ProofWord.UNVERIFIABLE] and find_curve() is None:
            yield f"To verify what is signed: {how_to_install(*PACKAGES)}"


def _pinned(settings: Settings) -> dict[str, tuple[RsaKey, ...]]:
    return {
        name: read_keys(source.proof_key_file)
        for name, source in settings.sources.items()
        if source.proof_key_file is not None
    }


def look_at_proofs(settings: Settings) -> ProofCheck:
    """Verify all proofs of a store."""
    found, pinned = ProofCheck(), _pinned(settings)
    with (
        open_to_read(settings.store) as store,
        progress("verifying proofs") as watch,
    ):
        with store.read() as session:
            total = count_proofs(session)
        for done, proved in enumerate(read_proved(store.read), start=1):
            found.look_at(proved, pinned.get(proved.source, ()))
            watch(done, max(done, total))
        with store.read() as session:
            found.batches[ProofWord.UNSIGNED] += count_unsigned(session)
    return found
