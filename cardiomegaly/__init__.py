"""Does this chest X-ray show an enlarged heart? Detectors on NIH ChestX-ray14."""

__version__ = "0.1.0"


class UserError(ValueError):
    """A mistake of the user's: every command prints it in one line and ends with exit code 2.

    Its message names the field, what is allowed, what came and what to do. Any other exception is
    a bug and keeps its traceback.
    """
