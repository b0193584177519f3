"""Card: everything about a model that is not its graph."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from squeezedet.errors import ModelError
from squeezedet.runtime.postprocess import Selection
from squeezedet.runtime.preprocess import InputRule

FORMAT = "squeezedet bundle 1"
MAX_CLASSES = 10_000
MAX_SIDE = 16_384


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a bundle says of its model.

    Attributes:
        name: of the model.
        detector: of the network ("squeezedet").
        classes: class names; index = class id.
        input: which size an image gets.
        selection: top-N, NMS and score threshold.
        parameters: number of trainable numbers.
        licence: of the weights, with the reason.
        data: what it was trained on, with licences.
        training: how: steps, recipe, command, versions.
        results: measured accuracy, with protocol, images and objects.
        opset: ONNX operator set of the graph.
        graph_sha256: checksum of the graph's bytes.
    """

    name: str
    detector: str
    classes: tuple[str, ...]
    input: InputRule
    selection: Selection = field(default_factory=Selection)
    parameters: int
    licence: str
    data: str
    training: Mapping[str, Any]
    results: Mapping[str, Any]
    opset: int
    graph_sha256: str

    def to_json(self) -> str:
        """The card as it stands in a bundle."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: bytes, where: str) -> Card:
        """Read a card, strictly.

        Raises:
            ModelError: a field is missing, unknown or of the wrong kind.
        """
        try:
            values = json.loads(text)
        except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ModelError(f"{where}: the card is no JSON: {error}") from error
        if not isinstance(values, dict) or values.pop("format", None) != FORMAT:
            raise ModelError(f"{where}: the card does not say {FORMAT!r}")
        known = {f.name for f in fields(cls)}
        if values.keys() != known:
            wrong = ", ".join(sorted(values.keys() ^ known))
            raise ModelError(f"{where}: the card has missing or unknown fields: {wrong}")
        try:
            values["classes"] = _names(values["classes"])
            values["input"] = InputRule(**values["input"])
            values["selection"] = Selection(**values["selection"])
        except (TypeError, ValueError) as error:
            raise ModelError(f"{where}: the card has a malformed field: {error}") from error
        width, height = values["input"].width, values["input"].height
        if not (16 <= width <= MAX_SIDE and 16 <= height <= MAX_SIDE):
            raise ModelError(f"{where}: the card's input of {width}x{height} pixels makes no sense")
        return cls(**values)


def _names(value: Any) -> tuple[str, ...]:
    names = tuple(str(name) for name in value)
    if not 0 < len(names) <= MAX_CLASSES or len(set(names)) != len(names):
        raise ValueError("classes must be different names, at least one")
    return names
