"""``pipeline report``: the history of the runs, one run whole, and figures over time."""

from pipeline.cli.asking import check_source, reading
from pipeline.cli.report.app import report_app

__all__ = ["check_source", "reading", "report_app"]
