"""Findings as an audit gives them: ordered at once, and made when somebody looks."""

from pipeline.audit.findings import Findings
from pipeline.audit.incidents import find_incidents
from pipeline.audit.observations import observe
from pipeline.audit.stretches import join
from pipeline.models import Severity
from tests.audit.histories import History, after


def findings_of(**sources: str) -> Findings:
    """Find the incidents of a history that is written in words."""
    history = History(**sources)
    return Findings(find_incidents(join(observe(history.tallies, history.losses))))


def test_what_goes_on_comes_first_and_then_the_newest() -> None:
    """Of ten thousand a page shows those at the top."""
    found = findings_of(coin=". http_5xx . http_5xx .", dice=". . http_5xx http_5xx http_5xx")

    assert [(each.sources, each.until) for each in found] == [
        (("dice",), None),
        (("coin",), after(5)),
        (("coin",), after(3)),
    ]


def test_some_of_them_are_the_same_as_all_of_them() -> None:
    """Whoever takes a dozen must not be told another story."""
    found = findings_of(coin=". http_5xx . range .", dice=". dns dns .")

    assert found[:2] == [*found][:2]
    assert found[-1] == [*found][-1]
    assert len(found) == len([*found])


def test_only_what_is_worse_than_a_remark_is_alarming() -> None:
    """One run that failed and is over is a glitch; as long as it goes on it is none."""
    assert not findings_of(dice=". http_5xx .").are_alarming
    assert findings_of(dice=". http_5xx").are_alarming
    assert [each.severity for each in findings_of(dice=". http_5xx .")] == [Severity.INFO]
