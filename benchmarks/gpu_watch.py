"""How much of the time a GPU computes, as nvidia-smi counts it."""

from __future__ import annotations

import subprocess
import threading
import time
from typing import IO

import torch

PERIOD = 100  # milliseconds between two readings
WINDOW = 0.5  # seconds that a reading may look back


class GpuWatch:
    """Reads the first CUDA device's load while it is open."""

    def __init__(self) -> None:
        self.readings: list[tuple[float, float]] = []
        self.process: subprocess.Popen[str] | None = None
        self.reader: threading.Thread

    def __enter__(self) -> GpuWatch:
        uuid = torch.cuda.get_device_properties(0).uuid
        words = [
            "nvidia-smi", f"--id=GPU-{uuid}", "--query-gpu=utilization.gpu",
            "--format=csv,noheader,nounits", f"--loop-ms={PERIOD}",
        ]  # fmt: skip
        try:
            self.process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)  # noqa: S603
        except FileNotFoundError:
            return self
        self.reader = threading.Thread(target=self._read, args=(self.process.stdout,), daemon=True)
        self.reader.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.process is not None:
            self.process.terminate()
            self.reader.join()
            with self.process:  # waits, and closes its pipe
                pass

    def _read(self, lines: IO[str]) -> None:
        for line in lines:
            if line.strip().isdigit():
                self.readings.append((time.perf_counter(), int(line) / 100))

    def busy(self, stretches: list[tuple[float, float]]) -> float | None:
        """Mean share of time within these stretches (start, end); None where nothing was read."""
        inside = [
            share for when, share in list(self.readings)
            if any(start + WINDOW < when <= end for start, end in stretches)
        ]  # fmt: skip
        return sum(inside) / len(inside) if inside else None
