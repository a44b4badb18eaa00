"""Signatures on BLS12-381 as drand makes them; the curve itself is a package that not all want."""

from dataclasses import dataclass
from hashlib import sha256
from types import ModuleType

G1_TAG = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_"
G2_TAG = b"BLS_SIG_BLS12381G2_XMD:SHA-256_SSWU_RO_NUL_"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlsKey:
    """A public key, compressed, and which of the two groups its signatures are in.

    Attributes:
        is_short: signatures are in G1 (48 bytes) and the key in G2, else the reverse.
    """

    public: bytes
    is_short: bool

    @property
    def signature_bytes(self) -> int:
        """Count the bytes of its signatures."""
        return 48 if self.is_short else 96


def find_curve() -> ModuleType | None:
    """Find the package that knows the curve; None: it is not installed."""
    try:
        import py_arkworks_bls12381  # noqa: PLC0415 - of the extra `proof`
    except ImportError:
        return None
    return py_arkworks_bls12381


def is_signed(key: BlsKey, message: bytes, signature: bytes) -> bool | None:
    """Tell whether *key* signed the SHA-256 of *message*; None: there is no package to tell."""
    curve = find_curve()
    if curve is None:
        return None
    digest = sha256(message).digest()
    g1, g2 = curve.G1Point, curve.G2Point
    try:
        if key.is_short:
            signed = g1.from_compressed_bytes(signature)
            hashed = g1.hash_to_curve(digest, G1_TAG)
            pairs = [signed, -hashed], [g2(), g2.from_compressed_bytes(key.public)]
        else:
            signed = g2.from_compressed_bytes(signature)
            hashed = g2.hash_to_curve(digest, G2_TAG)
            pairs = [g1(), -g1.from_compressed_bytes(key.public)], [signed, hashed]
    except ValueError:  # no point of the curve, or not of the right group
        return False
    return bool(curve.GT.pairing_check(*pairs))
