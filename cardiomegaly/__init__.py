"""Does this chest X-ray show an enlarged heart? Detectors on NIH ChestX-ray14."""

__version__ = "0.1.0"
