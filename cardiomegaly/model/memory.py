"""How a process that computes on the processor gets its memory."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's malloc.h


def keep_freed_memory() -> None:
    """Let this process keep the memory of freed tensors for the next ones.

    By default glibc returns large blocks to the kernel, which clears each page anew when the next
    tensor of that size is written: on the processor that takes up to half of a forward pass. The
    process then holds on to the most that it needed. Elsewhere than on glibc nothing happens.

    Source: mallopt(3).
    """
    try:
        c = ctypes.CDLL(None)
        c.mallopt(M_TRIM_THRESHOLD, -1)
        c.mallopt(M_MMAP_MAX, 0)
    except (AttributeError, OSError, TypeError):  # another C library, or Windows
        return
