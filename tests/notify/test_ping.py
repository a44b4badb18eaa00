"""Pings: what a monitor hears, and that nothing it does can hurt."""

import socket
from collections.abc import Iterator

import pytest

import pipeline
from pipeline.notify.ping import MOST_TEXT, ping_end, ping_start
from tests.notify.listening import Listener, listening
from tests.notify.runs import RID, UID

SECRET = "/ping/s3cret-4711"


@pytest.fixture
def monitor() -> Iterator[Listener]:
    """Listen like healthchecks.io."""
    with listening() as listener:
        yield listener


def end(url: str, exit_status: int = 0, text: str = "all well", seconds: float = 5.0) -> str | None:
    """Ping the end of a run."""
    return ping_end(url, uid=UID, exit_status=exit_status, text=text, seconds=seconds)


def test_a_start_and_an_end_have_the_runs_id(monitor: Listener) -> None:
    """By it the monitor measures how long the run took, also where two overlap."""
    url = monitor.url + SECRET

    assert ping_start(url, uid=UID) is None
    assert end(url) is None

    assert monitor.heard == [
        ("GET", f"{SECRET}/start?rid={RID}", b""),
        ("POST", f"{SECRET}?rid={RID}", b"all well"),
    ]
    assert set(monitor.agents) == {f"pipeline/{pipeline.__version__}"}


def test_a_failure_has_the_exit_status_and_the_verdict(monitor: Listener) -> None:
    """So that who is woken knows what for."""
    assert end(monitor.url + SECRET, 3, "run 7 partial: 3 of 4 batches collected") is None

    assert monitor.heard == [
        ("POST", f"{SECRET}/3?rid={RID}", b"run 7 partial: 3 of 4 batches collected")
    ]


def test_a_slash_at_the_end_does_no_harm(monitor: Listener) -> None:
    """It is copied from a browser."""
    end(f"{monitor.url}{SECRET}/", 4)

    assert monitor.heard[0][1] == f"{SECRET}/4?rid={RID}"


def test_the_text_is_short_and_cannot_steer_a_terminal(monitor: Listener) -> None:
    """It is shown in mails and on other people's screens."""
    end(monitor.url, text="\x1b[2J" + "x" * 2 * MOST_TEXT)

    body = monitor.heard[0][2]
    assert len(body) == MOST_TEXT
    assert body.startswith(b"\\x1b[2J")


@pytest.mark.parametrize("status", [302, 404, 500])
def test_another_answer_is_a_complaint(monitor: Listener, status: int) -> None:
    """A redirect is not followed: it could lead the secret anywhere."""
    monitor.status = status

    complaint = end(monitor.url + SECRET)

    assert complaint == f"the ping to 127.0.0.1 was answered with {status}"
    assert len(monitor.heard) == 1


def test_a_monitor_that_hangs_costs_the_time_it_is_given(monitor: Listener) -> None:
    """And no more than that."""
    monitor.status = None

    complaint = end(monitor.url + SECRET, seconds=0.05)

    assert complaint in {
        "the ping was not done within 0.05 s",
        "the ping to 127.0.0.1 failed: timed out",
    }


def test_a_monitor_that_is_not_there_is_a_complaint() -> None:
    """In the system's words, and without the secret."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}{SECRET}"

        complaint = end(url)

    assert complaint == "the ping to 127.0.0.1 failed: Connection refused"


def test_a_certificate_that_is_not_trusted_is_a_complaint(monitor: Listener) -> None:
    """Here the other side does not even speak TLS."""
    complaint = end(monitor.url.replace("http:", "https:") + SECRET)

    assert complaint is not None
    assert complaint.startswith("the ping to 127.0.0.1 failed: ")
    assert "s3cret" not in complaint


def test_what_the_environment_says_of_proxies_is_not_heeded(
    monitor: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with every other request of ours."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")

    assert end(monitor.url) is None
    assert len(monitor.heard) == 1


@pytest.mark.parametrize(("url", "uid"), [("http://[::1", UID), ("http://127.0.0.1", "no id")])
def test_nonsense_is_a_complaint(url: str, uid: str) -> None:
    """Nothing is ever raised."""
    complaint = ping_start(url, uid=uid)

    assert complaint is not None
    assert complaint.startswith("the ping failed: ")
