"""Static quantisation of a model's ONNX graph to int8; with onnx, without torch."""

from squeezedet.errors import MissingExtraError

try:
    import onnx  # noqa: F401
except ImportError as error:
    raise MissingExtraError("quantisation to int8", "int8") from error

from squeezedet.export.int8.quantise import quantise
from squeezedet.export.int8.scan import scan

__all__ = ["quantise", "scan"]
