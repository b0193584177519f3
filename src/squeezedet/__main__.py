"""The command ``squeezedet``, also as ``python -m squeezedet``."""

import os
import signal
from types import FrameType


def _leave(number: int, frame: FrameType | None) -> None:
    os.write(2, b"squeezedet: interrupted\n")
    os._exit(130)


def main() -> None:
    """Entry point: an interrupt while Python still imports the command shows no traceback."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from squeezedet.cli.main import main as run

    run()


if __name__ == "__main__":
    main()
