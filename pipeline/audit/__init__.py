"""What is stored, judged by rules: findings, availability, failures and the case of one attempt."""

from pipeline.audit.availability import ACCOUNTING_RULE, Availability
from pipeline.audit.cases import find_case
from pipeline.audit.examination import Examination, check_source, examine

__all__ = [
    "ACCOUNTING_RULE",
    "Availability",
    "Examination",
    "check_source",
    "examine",
    "find_case",
]
