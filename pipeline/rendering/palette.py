"""The colours of cells and bars, the same in every shape, and safe for colour-blind readers.

They are those of Okabe and Ito, "Color Universal Design" (2008). A wait for permission is grey:
nothing happens meanwhile.
"""

from pipeline.errors import Phase

# By phase its colour, and the letter that stands for it where there are no colours.
PHASES = {
    Phase.WAIT: ("#999999", "."),
    Phase.DNS: ("#cc79a7", "d"),
    Phase.CONNECT: ("#e69f00", "c"),
    Phase.TLS: ("#f0e442", "t"),
    Phase.SEND: ("#56b4e9", "s"),
    Phase.FIRST_BYTE: ("#0072b2", "f"),
    Phase.BODY: ("#009e73", "b"),
    Phase.CHECK: ("#d55e00", "k"),
}

# What is drawn for the colours that words of ours have in a table, and for all other words.
TONE_COLOURS = {
    "green": "#009e73",
    "yellow": "#e69f00",
    "red": "#d55e00",
    "cyan": "#56b4e9",
    "": "#999999",
}

# Words of ours and the colour each is shown in, in every shape of an answer that has colours.
STYLES = {
    "ok": "green",
    "collected": "green",
    "ran": "green",
    "up": "green",
    "partial": "yellow",
    "deferred": "yellow",
    "late": "yellow",
    "skipped": "yellow",
    "warning": "yellow",
    "running": "cyan",
    "note": "cyan",
    "suspicious": "yellow",
    "nothing found": "green",
    "failed": "red",
    "interrupted": "red",
    "cancelled": "red",
    "missed": "red",
    "down": "red",
    "error": "red",
    "critical": "red",
    "info": "cyan",
}


def style_of(text: str) -> str:
    """Name the colour of a cell that begins with a word of ours, or nothing."""
    return STYLES.get(text.partition(":")[0], "")
