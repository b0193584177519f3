"""Which outputs an inference request wants, and how they are written."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from squeezedet.serving.problems import ProblemError

OUTPUTS = {"boxes": "FP32", "scores": "FP32", "class_ids": "INT64"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a request says beside its tensor.

    Attributes:
        id: to be repeated; None if there was none.
        score: lowest score to report; None for the model's own.
        binary: output -> whether it goes as bytes; in the order of the answer.
    """

    id: str | None
    score: float | None
    binary: Mapping[str, bool]


def wanted(request: Mapping[str, Any]) -> Wanted:
    """Read the fields that ``prepare.from_tensors`` kept.

    Raises:
        ProblemError: an output is unknown, or a parameter is no good.
    """
    parameters = request.get("parameters", {})
    as_bytes = _flag(parameters, "binary_data_output", False)
    outputs = request.get("outputs") or [{"name": name} for name in OUTPUTS]
    unknown = [output for output in outputs if output["name"] not in OUTPUTS]
    if unknown:
        raise ProblemError(400, f"the outputs are {', '.join(OUTPUTS)}; no others", "malformed")
    binary = {
        output["name"]: _flag(output.get("parameters", {}), "binary_data", as_bytes)
        for output in outputs
    }
    return Wanted(id=request.get("id"), score=_score(parameters), binary=binary)


def encode(
    head: Mapping[str, Any], outputs: Wanted, arrays: Mapping[str, NDArray[Any]]
) -> tuple[bytes, int | None]:
    """The body of the answer, and the length of its JSON if bytes follow (else None).

    Args:
        head: first fields of the JSON.
        outputs: what is wanted.
        arrays: every output, little-endian.
    """
    answer = dict(head)
    if outputs.id is not None:
        answer["id"] = outputs.id
    tail: list[bytes] = []
    answer["outputs"] = []
    for name, binary in outputs.binary.items():
        array = arrays[name]
        tensor: dict[str, Any] = {
            "name": name,
            "datatype": OUTPUTS[name],
            "shape": list(array.shape),
        }
        if binary:
            tail.append(array.tobytes())
            tensor["parameters"] = {"binary_data_size": array.nbytes}
        else:
            tensor["data"] = array.ravel().tolist()
        answer["outputs"].append(tensor)
    text = json.dumps(answer).encode()
    return b"".join((text, *tail)), len(text) if tail else None


def _flag(parameters: Mapping[str, Any], name: str, default: bool) -> bool:
    flag = parameters.get(name, default)
    if not isinstance(flag, bool):
        raise ProblemError(400, f"the parameter {name} must be true or false", "malformed")
    return flag


def _score(parameters: Mapping[str, Any]) -> float | None:
    if "score" not in parameters:
        return None
    score = parameters["score"]
    if isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1:
        raise ProblemError(400, "the parameter score must be a number of 0 to 1", "malformed")
    return float(score)
