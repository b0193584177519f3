"""The machine's peak, and the model that was written by hand for it."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from squeezedet.benchmark import peak as module
from squeezedet.benchmark.peak import INPUT, OUTPUT, Peak, integer_product, measure, peak
from squeezedet.errors import SqueezeDetError


def test_the_hand_written_model_multiplies_integers() -> None:
    import onnxruntime

    random = np.random.default_rng(1)
    weight = random.integers(-128, 128, (200, 30), dtype=np.int8)
    left = random.integers(0, 256, (17, 200), dtype=np.uint8)
    session = onnxruntime.InferenceSession(
        integer_product(17, weight), providers=["CPUExecutionProvider"]
    )
    (found,) = session.run([OUTPUT], {INPUT: left})
    assert found.dtype == np.int32
    assert (found == left.astype(np.int32) @ weight.astype(np.int32)).all()


def test_the_hand_written_model_is_valid_onnx() -> None:
    onnx = pytest.importorskip("onnx")
    model = onnx.load_from_string(integer_product(300, np.ones((128, 5), np.int8)))
    onnx.checker.check_model(model, full_check=True)
    shapes = [
        [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    ]
    assert shapes == [[300, 128], [300, 5]]


def test_rates_are_two_operations_for_each_product(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(float(s) for s in range(1000))
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(seconds)))
    rates = measure(threads=1, seconds=0.0, side=16)  # each product takes one tick of that clock
    assert rates == {"float32": 2 * 16**3, "int8": 2 * 16**3}


def test_a_process_of_its_own_measures() -> None:
    found = peak(threads=1, seconds=0.01, side=64)
    assert found.threads == 1 and found.float32 > 1e6 and found.int8 > 1e6


def test_a_process_that_fails_says_why() -> None:
    with pytest.raises(SqueezeDetError, match=r"peak cannot be measured: .*negative"):
        peak(threads=1, seconds=0.01, side=-1)


def test_of_two_looks_the_better_counts() -> None:
    assert Peak(3.0, 9.0, 2).faster(Peak(4.0, 8.0, 2)) == Peak(4.0, 9.0, 2)
