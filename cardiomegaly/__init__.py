"""Does this chest X-ray show an enlarged heart? Detectors on NIH ChestX-ray14."""

__version__ = "0.1.0"


class UserError(ValueError):
    """A mistake of the user's: every command prints it in one line and ends with exit code 2.

    Its message names the field, what is allowed, what came and what to do. Any other exception is
    a bug and keeps its traceback.
    """

    exit_code = 2


class RunError(UserError):
    """What stops a run that was rightly begun: a loss that is not finite, a disk that is full.

    It is told in one line as a mistake is, and every command ends with exit code 1.
    """

    exit_code = 1
