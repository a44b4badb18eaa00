"""An unattended collector of random numbers from rate-limited, flaky HTTP APIs.

From Python: ``open`` reads a store, ``load_settings`` and ``collect`` make a run. No other name is
promised. They stand in ``pipeline.library``, which is imported when one of them is used: every
command begins here, and help must be quick.
"""

from importlib import import_module

__version__ = "0.1.0"
__all__ = ["__version__", "collect", "load_settings", "open"]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("pipeline.library"), name)
