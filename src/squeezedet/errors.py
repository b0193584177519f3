"""The package's own errors. Each message says what is wrong, where, and what to do.

A command that ends with one of them prints the message as one line and exits
with its ``exit_code``: 1 run time, 2 usage, 3 data, 4 model.
"""


class SqueezeDetError(Exception):
    """Base of every error that the package raises on purpose."""

    exit_code = 1


class UsageError(SqueezeDetError):
    """The call asks for something that does not exist or does not fit."""

    exit_code = 2


class MissingExtraError(UsageError):
    """The call needs an optional dependency that is not installed."""

    def __init__(self, need: str, extra: str) -> None:
        super().__init__(f"{need} needs an optional dependency: pip install 'squeezedet[{extra}]'")


class DataError(SqueezeDetError):
    """An image, a label or a folder cannot be used."""

    exit_code = 3


class SourceEndedError(DataError):
    """A live source, which should go on, sends no more: try again."""

    exit_code = 1


class ModelError(SqueezeDetError):
    """A model file cannot be used."""

    exit_code = 4
