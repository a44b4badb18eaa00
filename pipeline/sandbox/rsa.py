"""Signatures by the sandbox's own RSA key of 4096 bits: PKCS #1 v1.5 with SHA-512 (RFC 8017).

The key stands here for everybody to read, so it proves nothing but that the sandbox has signed. Its
certificate names nobody but the sandbox.
"""

from base64 import b64decode
from functools import lru_cache
from hashlib import sha512

EXPONENT = 65537
BYTES = 512
_OF_SHA512 = bytes.fromhex("3051300d060960864801650304020305000440")
_P = int(
    "f63887280f5cccca961fa0abff00f8b195f739c82e9d5da1f1d45e539a2e4ae7"
    "42f93e17f5cbf62e0bdf03a14f6c76c257c859e3be13ed500d1c33331a2b16cb"
    "08bace65b890bb80ca082a1f19dcae56733bd1a75e36f4cf1f054df056aa4c7f"
    "8923cc75e966754d9f2be22f2d76101f31d0e4207b5899fd2b36799cc14d2f4a"
    "84d289e2e075b1b5f3ee82b7f78f7f5c142267c890a5d9398a2cb7e597f47f7c"
    "d65e01f232ab7f3903a6e3ee74f3882529d66e7ca5a7a3cb9de6ca4360aeafd6"
    "952b1c592e24a5fb3a4c6860efef56af7ea6491ceafd5719902da52bf8cb2ded"
    "a7c877fbd102c00dbf46d482811c5a64febad15bcf4b5c535c5d954f794073b1",
    16,
)
_Q = int(
    "e529610af2331cedf892f11c075cc56c4e31c2e42b2fbbb16dfd1b524796093a"
    "2f33a0839cc2e48a071a90b7de87390de145986635ec29f18ccd57b4fe9a3cf7"
    "8e67b7e86def59352c4b7735a6a30bb10637a8b18dc982d12d406fe4667527ae"
    "c276c0e9e093c6b25274f8d698ea56fe20f1bb009dcabf19eed609ef2ce8e03b"
    "036151f5ea8e00fc5bfe698148c078a6d663b041f4c82852912e5c5e65f7d122"
    "c00f011982b9c0f957aebe920d1fc061e6e18c90b0ccae7c6b137c180ce3277d"
    "a794cb653702bd8a069241e93af607e2de7f37840a31b9178c1e1decb63481ff"
    "ade7af1d9fc383237800c4f626a6381e12c600d694471be6674ca47aabfa09d7",
    16,
)
MODULUS = _P * _Q
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIEsTCCApmgAwIBAgIBATANBgkqhkiG9w0BAQ0FADAbMRkwFwYDVQQDDBBwaXBl
bGluZSBzYW5kYm94MCAXDTIwMDEwMTAwMDAwMFoYDzIxMjAwMTAxMDAwMDAwWjAb
MRkwFwYDVQQDDBBwaXBlbGluZSBzYW5kYm94MIICIjANBgkqhkiG9w0BAQEFAAOC
Ag8AMIICCgKCAgEA3GhdSm2Gh0qjp3qBLZWkK3vTz75Ns+hPI3pIZhaqBLEZPGj7
z4TKSBc4602igmJ06kTO7L9syI+gKF8oetMJGPiWglbarpXor2azlGwpAffuEwAi
IciDLoIBMxI6TLH7oykRQWPSjppRfOzzzJ3So1bS4qDX7lf0djDN1/Gv5as9gK2v
Nu8u4qj9XucXXdUK0aCHCfVDbFXC/ffSjeGjTGgc2VlbQ6mFk8ySGbFge4vZrftr
ndpnyFyTP0uHTTUugZQUAeybDw2DJZdPLyYnesocGBHwvRpvyGqHtJizPalSS47I
ZE+nbx9YwPUqHxOz4wke903CS0cf2wBSmeOWJBME9KbvTMvHHJt/gUGZRF+l/Hrg
LH5jlvNz0tJgE50CJXVKoAppJzDqGV/h8HU1+vFozChH9DIMhpviHzufiBA6Kbfo
kjJ2GlJ8fBGL/lw96VNvxDTpmTL+2Y2HKsf8JTojzIlOyVV7ntHLpXbXL4ITSkD7
ysoJe/CReTRI+WqZZmm5FB1Vcex6fkKm/maTGknXrvi848wRwxQI14V6BKy1ro2R
/UQTiJrrV2tISADL3qP2K3oGf3P8FxEYEq/grtaWksmBCk2QqKPweQhLfKf2JcU5
x9dx5oCLVjv8kqACYqT/c46VbIL/Z3NNNGZUM8oYb1MCd8mjZNMtlE8MYqcCAwEA
ATANBgkqhkiG9w0BAQ0FAAOCAgEACJdI/9H5PWj/b1sHKm0tUzYRWoSzjHpiWgQi
y137HeWvfL0i7lQaiHLXtcWm60X89YVmTgt3cimr6a0bkwuEV2paEBfxXUwIVXOq
FI94DNsXdST9IxxLl4KKxHrNRruARX5vFVRMOxXFgdq7eVIoQppwBLXS7028keCg
q0VdtRL8+XADCQf72hk1lfY8brWe3VLW9qhyOlfklSue8//XwMtM5PoTP9vqcAYT
G3PzWVzlk894QHQXM+Hja2M6t3lpYqC5GlstIOhkFrhIwOjrmmdupvj3oEoQp6KU
G24iKjGG3IL3dvRhuSDFdNGP9q2ZITNtupvytCOkY6V3YCUwe7P1ktgpIR6uAOIc
dtyjkzE5Ba+SpSG17y51BNSsO/edBX53gmz2qNGcCbC/ZbbMpLdQyf5gmuAlT1aW
n/hcEgkJuxPp1arJ5A5K2zAhjQcUwtF0IoC71kyLArN/hsCtG/pPAXta0dtn8pM3
ERvpsVsvYCO8lZ7Ib/nM3wy/9Vgs8du/GxmoIACEPzem7UHv62Wz/rlg90qcDOs3
FZ4vBtbNvDu5lOoaQooS5hO79EkXNP38kSirZ03eAI0pF79K2skCIKCZN/0vElnz
Xr8MJfLaBQW8BrdGMfdSkL6TwrmQM2jrfeI2qfaJAWHWUrKKMxLVuim6tLZayNxu
Je4MH4k=
-----END CERTIFICATE-----
"""
CERTIFICATE_DER = b64decode("".join(CERTIFICATE.splitlines()[1:-1]))


@lru_cache(maxsize=64)
def sign(message: bytes) -> bytes:
    """Sign *message*: with each prime by itself, which takes a quarter of the time."""
    ending = b"\x00" + _OF_SHA512 + sha512(message).digest()
    padded = int.from_bytes(b"\x00\x01" + b"\xff" * (BYTES - 2 - len(ending)) + ending)
    private = pow(EXPONENT, -1, (_P - 1) * (_Q - 1))
    by_p, by_q = pow(padded, private % (_P - 1), _P), pow(padded, private % (_Q - 1), _Q)
    signed = by_q + (by_p - by_q) * pow(_Q, -1, _P) % _P * _Q
    return signed.to_bytes(BYTES)
