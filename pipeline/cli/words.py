"""Words that go with a number."""


def count_of(n: int, noun: str) -> str:
    """Write a number and what it counts: ``1 batch``, ``2 batches``, ``3 retries``."""
    if n == 1:
        return f"1 {noun}"
    if noun.endswith("y"):
        return f"{n} {noun[:-1]}ies"
    return f"{n} {noun}{'es' if noun.endswith(('ch', 's')) else 's'}"
