"""APIs that are known: what their ``api`` table says where the file does not. Facts and no code.

What is not certain of them is marked, and a line in the file's own ``api`` table changes it.
"""

from collections.abc import Mapping
from functools import lru_cache

from pipeline.settings.api import ApiSettings

JSON_API = "json_api"  # the kind without a preset: its table says all

PRESETS: dict[str, Mapping[str, object]] = {
    # Bytes in hex from a card by ID Quantique. Errors come as JSON, their status is not known.
    "lfd": {
        "path": "/qrng_api/qrng?length={bytes}&format=HEX",
        "numbers": "/qrn",
        "encoding": "hex",
        "values": "bytes",
        "most": 1024,  # the documented limit is 2**31 - 1; what clients ask for
        "errors": [
            {"field": "/error", "text": "device", "error": "refused", "wait_seconds": 60},
            {"field": "/error", "error": "refused"},
        ],
    },
    # How many bytes it gives at most, and how it refuses, is not known.
    "padova": {
        "path": "/api/get_string_get?string_length={bytes}",
        "numbers": "/string",
        "encoding": "base64",
        "values": "bytes",
        "most": 256,
        "errors": [{"field": "/error", "error": "refused"}],
    },
    # One number per request. Codes other than 5 exist and are not known.
    "csrng": {
        "path": "/csrng/csrng.php?min={min}&max={max}",
        "numbers": "/0/random",
        "bounds": "0..9007199254740991",
        "most": 1,
        "errors": [
            {
                "field": "/0/reason",
                "text": "Reached maximum queries",
                "error": "rate_limited",
                "wait_seconds": 1,
            },
            {"field": "/0/status", "equals": "error", "error": "refused"},
        ],
    },
    # Blocks of as many bits as the range takes. The words of its refusals are those that clients
    # look for; its bodies are not known.
    "outshift": {
        "method": "POST",
        "path": "/api/v1/random_numbers",
        "headers": {"x-id-api-key": "{key}", "Content-Type": "application/json"},
        "body": '{"encoding":"raw","format":"all","bits_per_block":{bits},"number_of_blocks":{n}}',
        "numbers": "/random_numbers/*/decimal",
        "encoding": "decimal",
        "values": "bits",
        "most": 1000,
        "errors": [
            {
                "status": [400, 403, 429],
                "text": ["daily limit", "exceeds your", "usage", "quota"],
                "error": "quota_exhausted",
                "until": "day",
            },
        ],
    },
    # The largest n and the lowest and highest number are what clients asked for with success.
    "qrandom": {
        "path": "/api/random/ints?min={min}&max={max}&n={n}",
        "numbers": "/numbers",
        "bounds": "-2147483648..2147483647",
        "most": 1000,
    },
    # Its status lies about the cause: 401 may mean credits, 404 an empty pool. The largest count
    # and the unit of min_entropy are not known.
    "quandela": {
        "path": "/qt/qrng/ints?count={n}&type={type}",
        "headers": {"Authorization": "Bearer {key}"},
        "numbers": "/jobs/*/ints",
        "values": "uint16",
        "most": 1000,
        "errors": [
            {
                "status": 401,
                "text": "Not enough credits",
                "error": "quota_exhausted",
                "until": "day",
            },
            {
                "status": 404,
                "text": "Entropy Pool empty",
                "error": "rate_limited",
                "wait_seconds": 60,
            },
        ],
        "measures": [
            # Up to 2 a device without quantum correlations could reach as well (CHSH inequality).
            {"name": "chsh", "field": "/jobs/*/chsh", "at_least": 2.0},
            {"name": "min_entropy", "field": "/jobs/*/min_entropy"},
        ],
    },
}
API_KINDS = (*PRESETS, JSON_API)


@lru_cache
def find_preset(kind: str) -> ApiSettings:
    """Give the ``api`` table of a *kind* that is known."""
    return ApiSettings.model_validate(PRESETS[kind])
