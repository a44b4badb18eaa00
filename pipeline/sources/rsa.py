"""RSA signatures as random.org and NIST make them: PKCS #1 v1.5 with SHA-512 (RFC 8017, 8.2.2)."""

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha512
from pathlib import Path

from pipeline.errors import ConfigError
from pipeline.extras import how_to_install
from pipeline.files import read_bytes

_OF_SHA512 = bytes.fromhex("3051300d060960864801650304020305000440")
_BEGIN, _END = "-----BEGIN", "-----END"
_MOST_BYTES = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class RsaKey:
    """A public key.

    Attributes:
        id: SHA-512 of the certificate (DER) that it stands in, in hex.
        text_ids: the same of its text (PEM), which some take instead, by each way to end lines.
    """

    id: str
    modulus: int
    exponent: int = 65537
    text_ids: frozenset[str] = frozenset()

    def is_called(self, id_: str) -> bool:
        """Tell whether its certificate goes by this name."""
        return id_ == self.id or id_ in self.text_ids

    @property
    def bytes(self) -> int:
        """Count the bytes of its signatures."""
        return (self.modulus.bit_length() + 7) // 8


# The sandbox's. Everybody knows its secret, so it is trusted for what the sandbox has played only.
SANDBOX_KEY = RsaKey(
    id=(
        "a4efd717393eaa1054319a9d2b7bd542115cbb2d5daf15433af320d17d509a9a"
        "f612da23bca35feb0cbd27c83ace0e85d59b294b82e49e298ec9ac659a71cdfb"
    ),
    text_ids=frozenset(
        [
            (
                "63fe9e10d7dc3ee15e146f698145c63825974eb77a62d09a48b80de8a0111ea1"
                "19a653d9d3a258ce59592c7e92345b4b78862d44d68bd5331c67971dbee27a4b"
            )
        ]
    ),
    modulus=int(
        "dc685d4a6d86874aa3a77a812d95a42b7bd3cfbe4db3e84f237a486616aa04b1"
        "193c68fbcf84ca481738eb4da2826274ea44ceecbf6cc88fa0285f287ad30918"
        "f8968256daae95e8af66b3946c2901f7ee13002221c8832e820133123a4cb1fb"
        "a329114163d28e9a517cecf3cc9dd2a356d2e2a0d7ee57f47630cdd7f1afe5ab"
        "3d80adaf36ef2ee2a8fd5ee7175dd50ad1a08709f5436c55c2fdf7d28de1a34c"
        "681cd9595b43a98593cc9219b1607b8bd9adfb6b9dda67c85c933f4b874d352e"
        "81941401ec9b0f0d8325974f2f26277aca1c1811f0bd1a6fc86a87b498b33da9"
        "524b8ec8644fa76f1f58c0f52a1f13b3e3091ef74dc24b471fdb005299e39624"
        "1304f4a6ef4ccbc71c9b7f814199445fa5fc7ae02c7e6396f373d2d260139d02"
        "25754aa00a692730ea195fe1f07535faf168cc2847f4320c869be21f3b9f8810"
        "3a29b7e89232761a527c7c118bfe5c3de9536fc434e99932fed98d872ac7fc25"
        "3a23cc894ec9557b9ed1cba576d72f82134a40fbcaca097bf091793448f96a99"
        "6669b9141d5571ec7a7e42a6fe66931a49d7aef8bce3cc11c31408d7857a04ac"
        "b5ae8d91fd4413889aeb576b484800cbdea3f62b7a067f73fc17111812afe0ae"
        "d69692c9810a4d90a8a3f079084b7ca7f625c539c7d771e6808b563bfc92a002"
        "62a4ff738e956c82ff67734d34665433ca186f530277c9a364d32d944f0c62a7",
        16,
    ),
)


def is_signed(key: RsaKey, message: bytes, signature: bytes) -> bool:
    """Tell whether *key* signed *message*."""
    ending = b"\x00" + _OF_SHA512 + sha512(message).digest()
    padded = b"\x00\x01" + b"\xff" * (key.bytes - 2 - len(ending)) + ending
    number = int.from_bytes(signature)
    if len(signature) != key.bytes or number >= key.modulus:
        return False
    return pow(number, key.exponent, key.modulus).to_bytes(key.bytes) == padded


def read_keys(file: str) -> tuple[RsaKey, ...]:
    """Read the certificates in *file* (PEM), one or more.

    Raises:
        ConfigError: it cannot be read, holds none or others than of RSA, or the package that
            reads them is not installed.
    """
    try:
        from cryptography import x509  # noqa: PLC0415 - of the extra `proof`
        from cryptography.hazmat.primitives.asymmetric import rsa  # noqa: PLC0415
        from cryptography.hazmat.primitives.serialization import Encoding  # noqa: PLC0415
    except ImportError:
        install = how_to_install("cryptography")
        raise ConfigError(f"proof_key_file needs cryptography: {install}") from None
    keys: list[RsaKey] = []
    try:
        for block in _blocks(read_bytes(Path(file), _MOST_BYTES).decode("ascii")):
            certificate = x509.load_pem_x509_certificate(block.encode())
            public = certificate.public_key()
            if not isinstance(public, rsa.RSAPublicKey):
                raise ConfigError(f"proof_key_file {file}: a certificate that is not of RSA")
            found = public.public_numbers()
            identity = sha512(certificate.public_bytes(Encoding.DER)).hexdigest()
            texts = _text_ids(block)
            keys.append(RsaKey(id=identity, modulus=found.n, exponent=found.e, text_ids=texts))
    except OSError as exc:
        raise ConfigError(f"proof_key_file {file}: {exc.strerror}") from exc
    except ValueError as exc:
        raise ConfigError(f"proof_key_file {file}: holds no certificate that can be read") from exc
    if not keys:
        raise ConfigError(f"proof_key_file {file}: holds no certificate")
    return tuple(keys)


def _blocks(text: str) -> Iterator[str]:
    """Cut a file into certificates, each with the line ends that it must have."""
    block: list[str] = []
    for line in map(str.strip, text.splitlines()):
        block = [line] if line.startswith(_BEGIN) else [*block, line]
        if line.startswith(_END):
            yield "\n".join([*block, ""])


def _text_ids(block: str) -> frozenset[str]:
    spellings = (block, block.rstrip("\n"))
    return frozenset(
        sha512(text.replace("\n", end).encode()).hexdigest()
        for text in spellings
        for end in ("\n", "\r\n")
    )
