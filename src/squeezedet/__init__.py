"""Small, fast, frugal object detectors for cameras on the road.

>>> import squeezedet
>>> detector = squeezedet.load()
>>> detections = detector("street.jpg")  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

from squeezedet.version import __version__

if TYPE_CHECKING:
    from squeezedet.compression.pipeline import compress
    from squeezedet.detections import Detection, Detections
    from squeezedet.evaluation.evaluate import evaluate
    from squeezedet.exporting.convert import export
    from squeezedet.runtime.detector import Detector, load
    from squeezedet.training.train import train

__all__ = ["Detection", "Detections", "Detector", "__version__", "compress", "evaluate", "export", "load", "train"]

_HOME = {
    "Detection": "squeezedet.detections",
    "Detections": "squeezedet.detections",
    "Detector": "squeezedet.runtime.detector",
    "compress": "squeezedet.compression.pipeline",
    "evaluate": "squeezedet.evaluation.evaluate",
    "export": "squeezedet.exporting.convert",
    "load": "squeezedet.runtime.detector",
    "train": "squeezedet.training.train",
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used, so that the import itself is quick."""
    if name not in _HOME:
        raise AttributeError(f"module 'squeezedet' has no attribute {name!r}")
    from importlib import import_module

    try:
        return getattr(import_module(_HOME[name]), name)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "squeezedet":
            raise
        from squeezedet.errors import MissingExtraError

        raise MissingExtraError(f"squeezedet.{name}", "train") from error


def __dir__() -> list[str]:
    return __all__
