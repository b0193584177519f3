"""Every network by one name each; torch is imported when one is built."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from operator import attrgetter
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from squeezedet.data.anchors import ANCHORS_B
from squeezedet.errors import ModelError, UsageError
from squeezedet.runtime.engines import first_line

if TYPE_CHECKING:
    from torch import nn


# The class of a detector by its ``kind``, as checkpoints name it.
KINDS: Mapping[str, str] = MappingProxyType(
    {
        "convdet": "squeezedet.models.squeezedet:ConvDet",
        "two-scale": "squeezedet.models.two_scale:TwoScale",
        "squeezenet": "squeezedet.models.squeezenet:SqueezeNet",
        "tiny-ssd": "squeezedet.models.tiny_ssd:TinySSD",
        "yolo-v1": "squeezedet.papers.yolo_v1:YoloV1",
        "tiny-yolo-v2": "squeezedet.papers.tiny_yolo_v2:TinyYoloV2",
        "faster-rcnn": "squeezedet.papers.faster_rcnn:FasterRCNN",
    }
)

# The shapes of the paper's variant of 16 anchors were never published. These are ours: k-means by the paper's method on
# the 37,770 cars, vans, pedestrians and cyclists of KITTI's labels, at 1248x384.
ANCHORS_16: tuple[tuple[int, int], ...] = (
    (30, 27), (30, 74), (57, 39), (86, 53), (126, 54), (57, 134), (123, 93), (177, 78),
    (90, 199), (182, 134), (251, 104), (195, 214), (257, 170), (324, 178), (405, 194), (352, 341),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Entry:
    """A network that can be built by name.

    Attributes:
        kind: key of ``KINDS``.
        parameters: trainable numbers with the default classes.
        source: where it comes from.
        changes: fields of its configuration that differ from the defaults.
        task: what comes out.
        counting: how the figure that its source quotes counts parameters, see ``cost.layers``.
    """

    kind: str
    parameters: int
    source: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    task: Literal["detect", "classify"] = "detect"
    counting: Literal["module", "stored", "layers", "paper"] = "module"


SQUEEZEDET_PAPER = "SqueezeDet, arXiv 1612.01051"
SQUEEZENET_PAPER = "SqueezeNet, arXiv 1602.07360"
RCNN_PAPER = "Faster R-CNN, arXiv 1506.01497"

# Channels of the convolutions before ConvDet that were left by ``squeezedet slim``.
SLIM_WIDTHS = (
    64, 16, 64, 56, 16, 64, 64, 32, 128, 128, 32, 128, 128, 48, 192, 184, 48, 176, 176,
    64, 104, 208, 64, 136, 96, 80, 56, 120, 72, 72, 136,
)  # fmt: skip

BYPASS = f"{SQUEEZENET_PAPER}, section 6"

NETWORKS: Mapping[str, Entry] = MappingProxyType(
    {
        "squeezedet": Entry("convdet", 2_082_120, SQUEEZEDET_PAPER),
        "squeezedet-plus": Entry("convdet", 7_021_640, SQUEEZEDET_PAPER, {"backbone": "squeezedet-plus"}),
        "squeezedet-slim": Entry(
            "convdet", 907_920, f"{SQUEEZEDET_PAPER}, slimmed by measured latency", {"widths": SLIM_WIDTHS}
        ),
        "squeezedet-16": Entry("convdet", 2_469_248, f"{SQUEEZEDET_PAPER}, 16 anchors", {"anchors": ANCHORS_16}),
        "squeezedet-two-scale": Entry("two-scale", 928_888, "ours: squeezedet-slim with a second ConvDet at stride 8"),
        "vgg16-convdet": Entry("convdet", 15_046_536, SQUEEZEDET_PAPER, {"backbone": "vgg16"}),
        "resnet50-convdet": Entry(
            "convdet", 9_206_984, SQUEEZEDET_PAPER, {"backbone": "resnet50", "anchors": ANCHORS_B}, counting="paper"
        ),
        "squeezenet-1.0": Entry("squeezenet", 1_248_424, SQUEEZENET_PAPER, {}, "classify"),
        "squeezenet-1.1": Entry(
            "squeezenet", 1_235_496, "SqueezeNet v1.1, the authors' repository", {"version": "1.1"}, "classify"
        ),
        "squeezenet-1.0-simple": Entry("squeezenet", 1_248_424, BYPASS, {"bypass": "simple"}, "classify"),
        "squeezenet-1.0-complex": Entry("squeezenet", 1_589_672, BYPASS, {"bypass": "complex"}, "classify"),
        "tiny-ssd": Entry("tiny-ssd", 1_134_272, "Tiny SSD, arXiv 1802.06488", counting="layers"),
        "yolo-v1": Entry("yolo-v1", 271_703_550, "YOLO, arXiv 1506.02640"),
        "yolo-v1-local": Entry(
            "yolo-v1", 197_301_875, "YOLO v1, darknet's yolov1.cfg", {"head": "local"}, counting="stored"
        ),
        "tiny-yolo-v2": Entry("tiny-yolo-v2", 15_861_773, "YOLO9000, arXiv 1612.08242", counting="stored"),
        "faster-rcnn-vgg16": Entry("faster-rcnn", 136_729_994, RCNN_PAPER),
        "faster-rcnn-alexnet": Entry("faster-rcnn", 57_554_122, RCNN_PAPER, {"backbone": "alexnet"}),
    }
)


_own: dict[str, Any] = {}
"""Classes of the user's own by their ``kind``, once ``own_network`` has imported them."""


def find(name: str) -> Entry:
    """The entry of a name of ``NETWORKS``, or of ``package.module:Class``, which is imported.

    Raises:
        UsageError: there is no such network; names the closest and all.
    """
    if name in NETWORKS:
        return NETWORKS[name]
    if ":" in name:
        return own_network(name)
    raise unknown(name)


def unknown(name: str) -> UsageError:
    """The error of a name that is none; it says the closest and all."""
    close = get_close_matches(name, NETWORKS, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return UsageError(
        f"no network {name!r}{hint or '.'} There are: {', '.join(NETWORKS)}, and your own as package.module:Class"
    )


def import_code(place: str) -> Any:
    """What stands at ``package.module:name``, which runs that code; a UsageError where there is nothing.

    The current folder is searched after the installed packages.
    """
    package, _, name = place.partition(":")
    here = str(Path.cwd())
    sys.path.append(here)
    try:
        return attrgetter(name)(import_module(package))
    except Exception as error:  # it is the user's code: anything can come
        raise UsageError(f"{place}: cannot be imported: {first_line(error)}") from error
    finally:
        sys.path.remove(here)


def own_network(path: str) -> Entry:
    """Import a ``DetectionNetwork`` of the user's own, ``package.module:Class``, and take it up as one more kind.

    Only a name that the user gives is imported: a file that names a class of somebody's own can be read when the user
    has named it, too.

    Raises:
        UsageError: there is no such class, or it does not keep the contract.
    """
    from squeezedet.models.network import DetectionNetwork

    made = import_code(path)
    if not (isinstance(made, type) and issubclass(made, DetectionNetwork)):
        raise UsageError(f"network {path!r} must be a subclass of DetectionNetwork")
    kind, config = getattr(made, "kind", ""), getattr(made, "config_type", None)
    if not kind or kind in KINDS or not is_dataclass(config):
        raise UsageError(
            f"network {path!r} needs a `kind` of its own, a text, and a `config_type`, a frozen "
            "dataclass with a field `classes`"
        )
    if "classes" not in {field.name for field in fields(config)}:
        raise UsageError(f"the config_type of network {path!r} has no field `classes`")
    _own[kind] = made
    return Entry(kind=kind, parameters=0, source=path)


def class_of(kind: str) -> Any:
    """The class of a kind of network; a ModelError where this version knows none."""
    if kind in _own:
        return _own[kind]
    if kind not in KINDS:
        raise ModelError(
            f"no kind of network {kind!r}; this version knows {', '.join(KINDS)}, and your own "
            "when it is named as package.module:Class"
        )
    module, name = KINDS[kind].split(":")
    return getattr(import_module(module), name)


def create(kind: str, config: Any) -> Any:
    """The network of a kind and a configuration, with random weights; errors as ``class_of``."""
    made = class_of(kind)
    return getattr(made, "from_config", made)(config)


def config_of(name: str, **changes: Any) -> Any:
    """The configuration of a network, with some fields changed; errors as ``find``."""
    entry = find(name)
    return replace(class_of(entry.kind).config_type(**entry.changes), **changes)


def build(name: str, **changes: Any) -> nn.Module:
    """Build a network with random weights; ``changes`` are fields of its configuration.

    Raises:
        UsageError: there is no such network.
        TypeError: it has no such field.
    """
    network: nn.Module = create(find(name).kind, config_of(name, **changes))
    return network
