"""The most that this machine computes: matrix products in float32 and int8, timed.

It runs in a process of its own, as the number of NumPy's threads is settled when it is imported::

    OPENBLAS_NUM_THREADS=2 python -m squeezedet.benchmark.peak 2 1.5 2048
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from squeezedet.benchmark.machine import usable_cores
from squeezedet.errors import SqueezeDetError

# ---- matmul_graph: An ONNX file of one integer matrix product, written by hand: the base install

VARINT, BYTES = 0, 2
UINT8, INT8, INT32 = 2, 3, 6
IR_VERSION, OPSET = 8, 13
INPUT, OUTPUT, WEIGHT = "a", "y", "b"


def integer_product(rows: int, weight: NDArray[np.int8]) -> bytes:
    """A model of ``y = a b``: a (rows, K) uint8, b (K, N) int8 inside the file, y (rows, N) int32.

    Args:
        rows: of the input.
        weight: b.
    """
    inner, columns = weight.shape
    node = _field(1, INPUT) + _field(1, WEIGHT) + _field(2, OUTPUT) + _field(4, "MatMulInteger")
    tensor = b"".join(_field(1, side) for side in weight.shape)
    tensor += _field(2, INT8) + _field(8, WEIGHT) + _field(9, weight.tobytes())
    graph = (
        _field(1, node)
        + _field(2, "product")
        + _field(5, tensor)
        + _field(11, _value(INPUT, UINT8, rows, inner))
        + _field(12, _value(OUTPUT, INT32, rows, columns))
    )
    return _field(1, IR_VERSION) + _field(7, graph) + _field(8, _field(1, "") + _field(2, OPSET))


def _value(name: str, kind: int, *shape: int) -> bytes:
    sides = b"".join(_field(1, _field(1, side)) for side in shape)
    tensor = _field(1, kind) + _field(2, sides)
    return _field(1, name) + _field(2, _field(1, tensor))


def _field(number: int, content: int | str | bytes) -> bytes:
    if isinstance(content, int):
        return _varint(number << 3 | VARINT) + _varint(content)
    data = content.encode() if isinstance(content, str) else content
    return _varint(number << 3 | BYTES) + _varint(len(data)) + data


def _varint(number: int) -> bytes:
    """Seven bits a byte, the lowest first; the eighth says that there are more."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


# ---- peak: The most that this machine computes: matrix products in float32 and int8, timed.

SIDE = 2048
"""Of the square matrices: 17 x 10^9 operations, long against every start-up."""
SECONDS = 1.5
FEWEST = 4
THREAD_VARIABLES = (
    *("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"),
    *("BLIS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"),
)
LONGEST_S = 120


@dataclass(frozen=True, slots=True)
class Peak:
    """Operations a second of the fastest product, two for each multiply-accumulate.

    Attributes:
        float32: NumPy's product, that is its BLAS.
        int8: onnxruntime's product of uint8 and int8 with int32 sums.
        threads: of both.
    """

    float32: float
    int8: float
    threads: int

    def faster(self, other: Peak) -> Peak:
        """The better of two looks at the same machine."""
        return Peak(max(self.float32, other.float32), max(self.int8, other.int8), self.threads)


def peak(threads: int | None = None, seconds: float = SECONDS, side: int = SIDE) -> Peak:
    """Measure in a process of its own.

    Args:
        threads: None for all usable cores.
        seconds: how long; four products of each kind at least.
        side: of the matrices.

    Raises:
        SqueezeDetError: the process fails, with what it said last.
    """
    count = threads or usable_cores()
    asked = (str(number) for number in (count, seconds, side))
    command = [sys.executable, "-m", "squeezedet.benchmark.peak", *asked]
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(count))}
    try:
        done = subprocess.run(  # noqa: S603 - this very module
            command, env=environment, capture_output=True, text=True, timeout=LONGEST_S, check=True
        )
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines() or [str(error)]
        raise SqueezeDetError(f"the machine's peak cannot be measured: {said[-1]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SqueezeDetError(f"the machine's peak cannot be measured: {error}") from error
    rates = json.loads(done.stdout)
    return Peak(rates["float32"], rates["int8"], count)


def measure(threads: int, seconds: float, side: int) -> dict[str, float]:
    """Operations a second of the fastest product of each kind, by turns, in this process."""
    products = {"float32": _float_product(side), "int8": _integer_product(side, threads)}
    best = dict.fromkeys(products, float("inf"))
    for product in products.values():
        product()
    end, turn = time.perf_counter() + seconds, 0
    while turn < FEWEST or time.perf_counter() < end:
        for name, product in products.items():
            start = time.perf_counter()
            product()
            best[name] = min(best[name], time.perf_counter() - start)
        turn += 1
    return {name: 2 * side**3 / taken for name, taken in best.items()}


def _float_product(side: int) -> Callable[[], object]:
    import numpy as np

    random = np.random.default_rng(0)
    left, right = random.random((2, side, side), dtype=np.float32)
    result = np.empty((side, side), np.float32)
    return lambda: np.matmul(left, right, out=result)


def _integer_product(side: int, threads: int) -> Callable[[], object]:
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # before the import, as in the engine
    import numpy as np

    from squeezedet.runtime.engines.onnxruntime import import_onnxruntime

    onnxruntime = import_onnxruntime()

    pass

    random = np.random.default_rng(0)
    weight = random.integers(-127, 128, (side, side), dtype=np.int8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        integer_product(side, weight), options, providers=["CPUExecutionProvider"]
    )
    left = random.integers(0, 256, (side, side), dtype=np.uint8)
    return lambda: session.run([OUTPUT], {INPUT: left})


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]))))
