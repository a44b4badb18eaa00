"""Everything that knows an upstream: adapters without I/O, and the one place that talks HTTP."""
