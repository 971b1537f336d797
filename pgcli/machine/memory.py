"""How much memory there is."""

from __future__ import annotations

import os

GIB = 2**30


def total() -> int:
    """Bytes of this machine; where it does not tell, as many as nobody has."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return 2**62
