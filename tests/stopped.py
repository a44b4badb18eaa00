"""Let a process believe that it is some other time, and that this does not pass.

``python -m tests.stopped 2027-06-01T00:00+00:00 report`` is ``pipeline report`` at that moment.
"""

import ctypes
import gc
import sys
from datetime import datetime, tzinfo


def stop_the_clock(moment: datetime) -> None:
    """Let every ``datetime.now()`` of this process give *moment*; clocks that measure go on.

    The method of the class itself is replaced, because every module has the class already, and a
    subclass in its place would be another type to all who look at types.
    """

    def now(cls: type[datetime], tz: tzinfo | None = None) -> datetime:
        del cls
        return moment.astimezone(tz) if tz else moment.astimezone().replace(tzinfo=None)

    namespace = gc.get_referents(datetime.__dict__)[0]
    namespace["now"] = classmethod(now)
    ctypes.pythonapi.PyType_Modified(ctypes.py_object(datetime))


if __name__ == "__main__":
    from pipeline.cli.app import main

    stop_the_clock(datetime.fromisoformat(sys.argv.pop(1)))
    main()
