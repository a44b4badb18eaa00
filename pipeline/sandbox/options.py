"""What can be chosen about a sandbox; each default is written here and nowhere else."""

from dataclasses import dataclass
from enum import StrEnum


class RandomNumberApiMode(StrEnum):
    """The three published generations of randomnumberapi.com's server."""

    FLASK = "flask"
    GO2023 = "go2023"
    GO2026 = "go2026"


class TlsMode(StrEnum):
    """Which certificate the sandbox shows."""

    VALID = "valid"
    EXPIRED = "expired"
    WRONG_HOST = "wrong_host"
    UNKNOWN_ISSUER = "unknown_issuer"


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxOptions:
    """How the sandbox behaves.

    Attributes:
        port: on 127.0.0.1; 0 takes a free one.
        latency_seconds: added before the first byte of every answer.
        faults: ``NAME``, ``NAME=VALUE`` or ``KIND:NAME=VALUE``; see ``faults.FAULTS``.
        rules: whether limits, quotas and keys are enforced; False imitates the wire format only.
        anu_refusal_status: 500 and 200 were both seen with ANU's plain-text refusal.
        json_error_status: of the errors of LfD and csrng.net, whose status nobody recorded.
        advisory_delay_ms: what random.org's JSON-RPC asks for; 40 to 90 ms were recorded.
        tls: serve https with such a certificate; None serves http.
    """

    port: int = 0
    latency_seconds: float = 0.0
    faults: tuple[str, ...] = ()
    rules: bool = True
    anu_refusal_status: int = 500
    json_error_status: int = 200
    random_number_api_mode: RandomNumberApiMode = RandomNumberApiMode.GO2023
    advisory_delay_ms: int = 60
    tls: TlsMode | None = None
