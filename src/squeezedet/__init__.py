"""Small, fast, frugal object detectors for cameras on the road.

>>> import squeezedet
>>> detector = squeezedet.load()
>>> detections = detector("street.jpg")  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

from squeezedet.version import __version__

if TYPE_CHECKING:
    from squeezedet.detections import Detection, Detections
    from squeezedet.evaluation.evaluate import evaluate
    from squeezedet.runtime.detector import Detector, load

__all__ = ["Detection", "Detections", "Detector", "__version__", "evaluate", "load"]

_HOME = {
    "Detection": "squeezedet.detections",
    "Detections": "squeezedet.detections",
    "Detector": "squeezedet.runtime.detector",
    "evaluate": "squeezedet.evaluation.evaluate",
    "load": "squeezedet.runtime.detector",
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used, so that the import itself is quick."""
    if name not in _HOME:
        raise AttributeError(f"module 'squeezedet' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return __all__
