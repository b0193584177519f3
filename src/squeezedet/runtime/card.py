"""Card: everything about a model that is not its graph."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from math import inf
from typing import Any

from squeezedet.errors import ModelError
from squeezedet.preprocess import InputRule
from squeezedet.runtime.postprocess import Selection

FORMAT = "squeezedet bundle 1"
CLASSIFIER_FORMAT = "squeezedet classifier 1"
"""Of the classifiers that squeezedet 0.1 compressed."""
CLASSIFIER = "squeezenet"
TASKS = ("detect", "classify")
MAX_CLASSES = 10_000
TEXTS = ("name", "detector", "licence", "data", "graph_sha256")
NUMBERS = ("parameters", "opset")
TABLES = ("training", "results")


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a bundle says of its model.

    Attributes:
        detector: kind of the network ("convdet", "tiny-ssd").
        classes: class names; index = class id. A classifier may have none: ImageNet's.
        input: which size an image gets.
        selection: top-N, NMS and score threshold.
        parameters: number of trainable numbers.
        licence: of the weights, with the reason.
        data: what it was trained on, with licences.
        training: how: steps, recipe, command, versions.
        results: measured accuracy, with protocol, images and objects.
        opset: ONNX operator set of the graph.
        graph_sha256: checksum of the graph's bytes.
        task: ``detect``, or ``classify`` for a SqueezeNet.

    Raises:
        ValueError: a field is of the wrong kind.
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
    task: str = "detect"

    def __post_init__(self) -> None:
        for kind, what, names in ((str, "text", TEXTS), (int, "an integer", NUMBERS), (Mapping, "a table", TABLES)):
            for name in names:
                value = getattr(self, name)
                if not isinstance(value, kind) or isinstance(value, bool):  # True is an int
                    raise ValueError(f"{name} must be {what}")
        if self.task not in TASKS:
            raise ValueError(f"task must be one of {', '.join(TASKS)}")
        _check_classes(self.classes, least=1 if self.task == "detect" else 0)
        _check_training(self.training)

    def to_json(self) -> str:
        """The card as it stands in a bundle."""
        values = asdict(self)
        if self.task == "detect":  # as ever, so that squeezedet 0.1 reads it, too
            del values["task"]
        return json.dumps({"format": FORMAT, **values}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, text: bytes, where: str) -> Card:
        """Read a card, strictly: a ModelError if a field is missing, unknown or of the wrong kind."""
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:  # ValueError: also of 5000 digits
            raise ModelError(f"{where}: the card is no JSON: {error}") from error
        form = values.pop("format", None) if isinstance(values, dict) else None
        if form == CLASSIFIER_FORMAT:
            values = _of_a_classifier(values)
        elif form != FORMAT:
            raise ModelError(f"{where}: the card does not say {FORMAT!r}")
        values.setdefault("task", "detect")
        known = {f.name for f in fields(cls)}
        if values.keys() != known:
            wrong = ", ".join(sorted(values.keys() ^ known))
            raise ModelError(f"{where}: the card has missing or unknown fields: {wrong}")
        try:
            if isinstance(values["classes"], list):
                values["classes"] = tuple(values["classes"])
            values["input"] = InputRule(**values["input"])
            values["selection"] = _selection(values["selection"], values["classes"])
            return cls(**values)
        except (TypeError, ValueError) as error:
            raise ModelError(f"{where}: the card has a malformed field: {error}") from error


def _selection(values: Any, classes: Sequence[str]) -> Selection:
    if not isinstance(values, dict):
        raise TypeError("selection must be an object")
    numbers: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    for name, value in numbers.items():
        per_class = isinstance(value, tuple) and not (name == "part_of" and not value)
        if per_class and len(value) != len(classes):
            raise ValueError(f"selection: {name} has {len(value)} numbers for {len(classes)} classes")
    return Selection(**numbers)


def _check_training(training: Mapping[str, Any]) -> None:
    """What is read again of how a model was made; a ValueError where it makes no sense."""
    if not isinstance(training.get("export") or {}, Mapping):
        raise ValueError("training: export must be a table")
    odds = training.get("score_odds") or ()
    if not (isinstance(odds, list | tuple) and all(isinstance(x, int | float) and 0 < x < inf for x in odds)):
        raise ValueError("training: score_odds must be numbers above 0")


def _check_classes(classes: object, least: int) -> None:
    if not isinstance(classes, tuple) or not least <= len(classes) <= MAX_CLASSES:
        raise ValueError(f"classes must be a list of {least} to {MAX_CLASSES} names")
    if not all(isinstance(name, str) and name and name.isprintable() for name in classes):
        raise ValueError("classes must be names that can be printed")
    if len(set(classes)) != len(classes):
        raise ValueError("classes must be different names")


def _of_a_classifier(old: Mapping[str, Any]) -> dict[str, Any]:
    """A classifier's card of squeezedet 0.1 with the fields of today."""
    same = ("name", "parameters", "licence", "data", "opset", "graph_sha256")
    return {name: old[name] for name in same if name in old} | {
        "detector": old.get("network"),
        "task": "classify",
        "classes": [],
        "input": {"width": 227, "height": 227, "fixed": True},
        "selection": {},
        "training": {name: old.get(name) for name in ("config", "compression")},
        "results": {},
    }
