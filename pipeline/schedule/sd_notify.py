"""Tell systemd how the service is doing, by the protocol of ``sd_notify(3)``."""

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic_ns

MICROSECONDS = 1_000_000


class ServiceManager:
    """Tells systemd how the service is doing; says nothing where nobody listens."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        name = environ.get("NOTIFY_SOCKET", "")
        # A name that begins with @ is one of Linux's abstract sockets, whose first byte is zero.
        self._address = f"\0{name[1:]}" if name.startswith("@") else name
        is_ours = environ.get("WATCHDOG_PID") in (None, str(os.getpid()))
        usec = environ.get("WATCHDOG_USEC", "")
        self.watchdog_seconds = int(usec) / MICROSECONDS if is_ours and usec.isdecimal() else None

    def ready(self, status: str) -> None:
        """Say that the service is up, or up again, and what it waits for."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """Say that the configuration is being read again; ``ready`` is to follow."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={monotonic_ns() // 1000}")

    def stopping(self, status: str) -> None:
        """Say that the service is going down."""
        self._send(f"STOPPING=1\nSTATUS={status}")

    def alive(self, status: str) -> None:
        """Keep the watchdog quiet, and say what the service waits for."""
        self._send(f"WATCHDOG=1\nSTATUS={status}")

    def _send(self, words: str) -> None:
        if not self._address:
            return
        # A manager that has gone is no reason to stop collecting, and a full socket none to wait.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(0)
            sender.sendto(words.encode(), self._address)
