"""What is stored, judged by rules: findings, availability, the case of an attempt, a dossier."""

from pipeline.audit.availability import ACCOUNTING_RULE, Availability
from pipeline.audit.cases import find_case
from pipeline.audit.dossier import Dossier, compile_dossier, request_ids
from pipeline.audit.examination import Examination, examine

__all__ = [
    "ACCOUNTING_RULE",
    "Availability",
    "Dossier",
    "Examination",
    "compile_dossier",
    "examine",
    "find_case",
    "request_ids",
]
