"""An unattended collector of random numbers from rate-limited, flaky HTTP APIs."""

__version__ = "0.1.0"
