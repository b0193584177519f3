"""Whether the network gains by batches on a processor: why the server builds none.

    python benchmarks/serve_batch.py --threads 2 --runs 25

The shipped graph is cut behind its last convolution, where its batch is fixed, and run with 1, 2
and 4 images in turn. Needs onnx (extra ``int8``). Milliseconds an image, smallest and median.
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import numpy as np
import onnx
import onnxruntime

from squeezedet.runtime import bundle

BATCHES = (1, 2, 4)


def convolutions(graph: bytes) -> bytes:
    """The graph up to its last convolution, for any number of images."""
    model = onnx.load_from_string(graph)
    nodes = list(model.graph.node)
    last = [node.output[0] for node in nodes if node.op_type == "Conv"][-1]
    needed, kept = {last}, []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(node.input)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    del model.graph.node[:], model.graph.output[:], model.graph.value_info[:]
    model.graph.node.extend(reversed(kept))
    kind = onnx.TensorProto.FLOAT
    model.graph.output.append(onnx.helper.make_tensor_value_info(last, kind, None))
    content: bytes = model.SerializeToString()
    return content


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=25)
    given = parser.parse_args()
    model = bundle.read(bundle.find("street"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = given.threads
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(convolutions(model.graph), options, providers=["CPUExecutionProvider"])
    size = (model.card.input.height, model.card.input.width, 3)
    pixels = np.random.default_rng(0).integers(0, 256, (max(BATCHES), *size), dtype=np.uint8)
    times: dict[int, list[float]] = {batch: [] for batch in BATCHES}
    for _ in range(given.runs):  # in turn, so that what else the machine does hits all of them
        for batch in BATCHES:
            start = time.perf_counter()
            session.run(None, {"images": pixels[:batch]})
            times[batch].append((time.perf_counter() - start) * 1000 / batch)
    for batch, ms in times.items():
        print(f"batch {batch}: {min(ms):6.1f} ms an image at best, {median(ms):6.1f} in the middle")


if __name__ == "__main__":
    main()
