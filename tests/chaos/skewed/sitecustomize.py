"""Python imports this by itself in every daemon under test, which has this directory in PYTHONPATH.

The daemon's wall clock is then off by as many seconds as the file says that CHAOS_CLOCK names; a file that is not there is no
skew. Nothing of it is in the shipped code: `time.time` is what the clock port reads. OpenSSL's own look at the time, and the
monotonic clock, which no jump moves on a real machine either, stay as they are.
"""

import os
import time

_path = os.environ.get("CHAOS_CLOCK", "")
_true_time = time.time


def _skewed_time() -> float:
    try:
        with open(_path) as file:
            return _true_time() + float(file.read() or 0.0)
    except OSError:
        return _true_time()


if _path:
    time.time = _skewed_time
