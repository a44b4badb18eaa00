"""The values that the program talks about: frozen, checked before they are built, no I/O."""

from pipeline.models.asking import (
    Attempt,
    Batch,
    Evidence,
    Fetch,
    Measure,
    Outcome,
    Proof,
    Request,
    Timings,
    WeakMeasure,
)
from pipeline.models.records import (
    AttemptCase,
    AttemptRecord,
    BatchRecord,
    Gap,
    Late,
    Member,
    Overdue,
    PortionRecord,
    RunSummary,
    SlotClaim,
    SlotDay,
    SlotRecord,
    StoredAnswer,
)
from pipeline.models.sums import ContractSpan, Finding, Loss, PhaseTotals, Tally, Totals
from pipeline.models.words import (
    Aspect,
    Fate,
    FindingKind,
    Overlap,
    ProofWord,
    RunStatus,
    Severity,
    SlotChoice,
    Step,
    Verdict,
)
