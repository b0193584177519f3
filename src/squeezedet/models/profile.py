"""What a network weighs: its graph from a name, a file or code, counted layer by layer; nothing is computed.

A torch module runs once on fake tensors, which have shapes but no numbers; one whose shapes depend on numbers runs on
zeros. Every operation below autograd is seen, so functional pools, concatenation and ReLU are too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from squeezedet.cost import onnx
from squeezedet.cost.graph import Graph, Kind, Step, Stored, UniqueNames, Value
from squeezedet.cost.layers import Cost, Counting, MemoryPlan, count, memory_of
from squeezedet.errors import ModelError, UsageError
from squeezedet.files import read_regular
from squeezedet.models import registry
from squeezedet.runtime import bundle
from squeezedet.runtime.engines import first_line

CROP_SIZE = (227, 227)
"""What a classifier gets by default: SqueezeNet's crop."""
FILES = (".bundle", ".sqz", ".safetensors", ".onnx")
CODE = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
"""package.module:callable"""
MAX_ONNX_BYTES = 2**30


@dataclass(frozen=True, slots=True)
class Profile:
    """A network's cost and memory.

    Attributes:
        name: as it was asked for.
        cost: parameters, MACs, FLOPs and activations, layer by layer.
        memory: what is live while each layer runs.
        unsized: results that count as nothing, as their size depends on the data.
    """

    name: str
    cost: Cost
    memory: MemoryPlan
    unsized: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """All numbers; sizes in bytes, ``flops`` is 2 x ``macs``."""
        cost, memory = self.cost, self.memory
        return {
            "name": self.name,
            "input": list(cost.input),
            "counting": cost.counting,
            "parameters": cost.parameters,
            "parameters_by_counting": cost.by_counting,
            "size_bytes": cost.size_bytes,
            "macs": cost.macs,
            "macs_with_norm": cost.macs + cost.norm_elements,
            "flops": cost.flops,
            "flops_paper": cost.flops_paper,
            "activation_bytes": cost.activation_bytes,
            "intensity": cost.intensity,
            "peak_live_bytes": memory.peak.live,
            "peak_live_layer": memory.peak.name,
            "largest_pair_bytes": memory.largest_pair.pair,
            "largest_pair_layer": memory.largest_pair.name,
            "layers": [{**asdict(layer), "flops": layer.flops, "intensity": layer.intensity} for layer in cost.layers],
            "schedule": [{**asdict(moment), "live": moment.live} for moment in memory.moments],
        }


def profile(
    model: str,
    *,
    size: tuple[int, int] | None = None,
    geometry: Literal["default", "paper"] | None = None,
    counting: Counting | None = None,
) -> Profile:
    """Count a network.

    Args:
        model: a network's name (these come first), a checkpoint, bundle or ONNX file, or ``package.module:callable``,
            which runs that code.
        size: (width, height) of the input in pixels; by default the network's own.
        geometry: of a ConvDet network by name; ``paper`` is 1242x375 unless ``size`` is given.
        counting: see ``cost.layers.COUNTINGS``; by default as the network's source counts, and every learned number of
            anything else.

    Raises:
        UsageError: there is no such network, or it does not take these values.
        ModelError: the file is damaged, or the network does not run at this size.
        MissingExtraError: an ONNX graph is to be read without onnx.
    """
    graph = _graph(model, size, geometry)
    if counting is None:
        known = registry.NETWORKS.get(model)
        counting = known.counting if known else "module"
    return Profile(model, count(graph, counting), memory_of(graph), graph.unsized)


def _graph(model: str, size: tuple[int, int] | None, geometry: str | None) -> Graph:
    if model in registry.NETWORKS:
        return _graph_of_network(model, size, geometry)
    path = Path(model)
    if geometry:
        raise UsageError("geometry: is for networks by name; a file or code has its own")
    if path.is_file():
        return _graph_of_file(path, size)
    if CODE.fullmatch(model):
        return _graph_of_module(_from_code(model), size, model)
    if path.suffix in FILES or len(path.parts) > 1:
        raise UsageError(f"{model}: no such file")
    raise registry.unknown(model)


def _graph_of_network(model: str, size: tuple[int, int] | None, geometry: str | None) -> Graph:
    entry = registry.find(model)
    known = {field.name for field in fields(registry.class_of(entry.kind).config_type)}
    changes: dict[str, Any] = {}
    if geometry:
        if "geometry" not in known:
            raise UsageError(f"geometry: {model} has only one; leave it out")
        changes["geometry"] = geometry
    if geometry == "paper":
        from squeezedet.models.squeezedet import PAPER_SIZE

        changes["size"] = size or PAPER_SIZE
    elif size and "size" in known:
        changes["size"] = size
    try:
        with torch.device("meta"):  # no memory, no random numbers
            network = registry.build(model, **changes)
    except ValueError as error:
        raise UsageError(f"{model}: {error}") from error
    return _graph_of_module(network, size or (CROP_SIZE if entry.task == "classify" else None), model)


def _graph_of_module(module: nn.Module, size: tuple[int, int] | None, name: str) -> Graph:
    rule: Any = getattr(module, "input_rule", None)
    if size is None and rule is not None:
        size = (rule.width, rule.height)
    if size is None:
        raise UsageError(f"{name}: takes any size; give size in pixels")
    return trace(module, (1, 3, size[1], size[0]))


def _graph_of_file(path: Path, size: tuple[int, int] | None) -> Graph:
    if path.suffix in bundle.SUFFIXES:
        found = bundle.read(path)
        rule = found.card.input
        return onnx.read(found.graph, str(path), size or (rule.width, rule.height))
    if path.suffix == ".safetensors":
        from squeezedet.training.checkpoint import read_detector

        return _graph_of_module(read_detector(path)[0], size, str(path))
    if path.suffix != ".onnx":
        raise ModelError(f"{path}: none of the files that can be counted: {', '.join(FILES)}")
    return onnx.read(read_regular(path, MAX_ONNX_BYTES, what="model", error=ModelError), str(path), size)


def _from_code(place: str) -> nn.Module:
    """The module at ``package.module:name``, or what the callable there returns."""
    made = registry.import_code(place)
    if not isinstance(made, nn.Module):
        try:
            made = made()
        except Exception as error:  # it is the user's code: anything can come
            raise UsageError(f"{place}: gives no network: {first_line(error)}") from error
    if not isinstance(made, nn.Module):
        raise UsageError(f"{place}: gives a {type(made).__name__}, not a torch module")
    return made


# ------------------------------------------------------------ operations of torch

aten = torch.ops.aten
# Product -> position of the first of its two factors.
PRODUCTS = {aten.mm: 0, aten.bmm: 0, aten.addmm: 1, aten.baddbmm: 1}
WINDOWED = {aten.max_pool2d_with_indices, aten.max_pool3d_with_indices, aten.avg_pool2d, aten.avg_pool3d}
KINDS: dict[Kind, set[Any]] = {
    "pool": WINDOWED | {aten.adaptive_max_pool2d, aten._adaptive_avg_pool2d},
    "norm": {
        aten.native_batch_norm,
        aten._native_batch_norm_legit_no_training,
        aten._native_batch_norm_legit,
        aten.native_group_norm,
        aten.native_layer_norm,
    },
    "relu": {
        aten.relu,
        aten.relu_,
        aten.leaky_relu,
        aten.leaky_relu_,
        aten.hardtanh,
        aten.hardtanh_,
        aten._prelu_kernel,
    },
    "concat": {aten.cat},
}
SHORT = {"max_pool2d_with_indices": "max_pool2d", "cat": "concat", "_adaptive_avg_pool2d": "pool"}
"""Operation -> what a person calls it."""


def work_of(func: Any, args: Sequence[Any], out: Any, is_constant: Callable[[Tensor], bool]) -> dict[str, Any]:
    """The fields of a ``Step`` that a call below autograd alone determines.

    ``is_constant`` tells a tensor made of parameters and constants alone.
    """
    packet = func.overloadpacket
    if packet is aten.convolution:
        return _convolution(args, out, is_constant)
    if packet in PRODUCTS:
        return _product(args[PRODUCTS[packet] :][:2], out, is_constant)
    if str(packet).startswith("aten._scaled_dot_product"):
        return {"kind": "matmul", "macs": _attention(*args[:3])}
    if packet in WINDOWED and not _is_response_norm(args):
        window = tuple(args[1])
        return {"kind": "pool", "window": window, "stride": tuple(args[2]) if args[2:3] else window}
    return {"kind": _kind(func, args)}


def _is_response_norm(args: Sequence[Any]) -> bool:
    """Whether a pool is the mean over channels inside ``local_response_norm``."""
    images, window = args[:2]
    return len(window) == 3 and images.shape[-4] == 1 and tuple(window[1:]) == (1, 1)


def _kind(func: Any, args: Sequence[Any]) -> Kind:
    packet = func.overloadpacket
    if packet is aten.avg_pool3d and _is_response_norm(args):
        return "other"
    for kind, packets in KINDS.items():
        if packet in packets:
            return kind
    if packet is aten.mean and len(args) > 1 and _over_pixels(args[0], args[1]):
        return "pool"  # what adaptive pooling to one cell becomes
    return "pointwise" if torch.Tag.pointwise in func.tags else "other"


def _convolution(args: Sequence[Any], out: Tensor, is_constant: Callable[[Tensor], bool]) -> dict[str, Any]:
    images, kernel, stride, transposed, groups = args[0], args[1], args[3], args[6], args[8]
    spatial = (images if transposed else out).shape[2:]
    macs = out.shape[0] * math.prod(kernel.shape) * math.prod(spatial)
    if not is_constant(kernel):
        return {"kind": "matmul", "macs": macs}
    units = kernel.shape[1] * groups if transposed else kernel.shape[0]
    window = {"window": tuple(kernel.shape[2:]), "stride": tuple(stride)}
    return {"kind": "conv", "macs": macs, "weight": kernel.numel(), "units": units, **window}


def _product(factors: Sequence[Tensor], out: Tensor, is_constant: Callable[[Tensor], bool]) -> dict[str, Any]:
    inner = factors[0].shape[-1]
    macs = out.numel() * inner
    weight = next((_distinct(factor) for factor in factors if is_constant(factor)), 0)
    if not weight:
        return {"kind": "matmul", "macs": macs}
    return {"kind": "linear", "macs": macs, "weight": weight, "units": weight // inner}


def _distinct(tensor: Tensor) -> int:
    """How many numbers a tensor holds; one that is expanded holds the same ones many times."""
    sides = zip(tensor.shape, tensor.stride(), strict=True)
    return math.prod(side for side, stride in sides if stride)


def _attention(query: Tensor, key: Tensor, value: Tensor) -> int:
    """(..., L, E), (..., S, E) and (..., S, V): the two products, masked or not."""
    return query.numel() * key.shape[-2] + query.shape[:-1].numel() * value.shape[-2:].numel()


def _over_pixels(tensor: Tensor, dims: Sequence[int]) -> bool:
    """Whether ``dims`` are all dimensions behind batch and channels."""
    return tensor.ndim > 2 and {d % tensor.ndim for d in dims} == set(range(2, tensor.ndim))


# ------------------------------------------------------------ the trace


def trace(module: nn.Module, shape: Sequence[int]) -> Graph:
    """The graph of ``module(zeros(shape))`` in evaluation mode.

    A module that keeps tensors of one run for the next may keep fake ones: count a fresh one.

    Args:
        module: with weights or, as nothing is computed, on the meta device.
        shape: of the one input, batch first: (1, 3, height, width) for images.

    Raises:
        ModelError: the module does not run on such an input.
    """
    training = {m: m.training for m in module.modules()}
    module.eval()
    try:
        try:
            return _record(module, shape, fake=True)
        except Exception:  # whatever the module raises, it may run on numbers
            if any(tensor.is_meta for tensor in (*module.parameters(), *module.buffers())):
                raise
            return _record(module, shape, fake=False)
    except Exception as error:
        size = "x".join(map(str, shape))
        raise ModelError(f"{type(module).__name__} does not run on an input of {size}: {first_line(error)}") from error
    finally:
        for part, mode in training.items():
            part.training = mode


def _record(module: nn.Module, shape: Sequence[int], fake: bool) -> Graph:
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    fastpath = torch.backends.mha.set_fastpath_enabled
    with ExitStack() as stack:
        stack.enter_context(torch.no_grad())
        if fake:
            stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        images = torch.zeros(tuple(shape), device=device)
        recorder = Recorder(module, images)
        stack.enter_context(recorder.layers(module))
        stack.callback(fastpath, torch.backends.mha.get_fastpath_enabled())
        fastpath(False)  # it hides its products
        with recorder:
            answer = module(images)
    return recorder.graph(answer)


@dataclass(frozen=True, slots=True)
class Place:
    """What a storage holds: an activation, or (``value`` None) a constant made of parameters."""

    value: int | None
    parameters: tuple[str, ...] = ()


class Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every operation and keeps what it reads and writes."""

    def __init__(self, module: nn.Module, images: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.values: list[Value] = []
        self.steps: list[Step] = []
        self.stored: dict[str, Stored] = {}
        self.places: dict[StorageWeakRef, Place] = {}
        self.unique = UniqueNames()
        self.stack: list[tuple[str, bool]] = [("", False)]  # (layer, is it without children)
        persistent = module.state_dict(keep_vars=True)
        parameters = dict(module.named_parameters())
        for name, tensor in (*parameters.items(), *module.named_buffers()):
            if name in persistent and tensor.is_floating_point():
                self.stored[name] = Stored(tensor.numel(), name in parameters)
                self.places[_key(tensor)] = Place(None, (name,))
        self.inputs = (self._new(images),)

    @contextmanager
    def layers(self, module: nn.Module) -> Iterator[None]:
        with ExitStack() as stack:
            for name, part in module.named_modules():
                if name:
                    leaf = next(part.children(), None) is None
                    before = part.register_forward_pre_hook(self._entered(name, leaf))
                    after = part.register_forward_hook(self._left, always_call=True)
                    stack.callback(before.remove)
                    stack.callback(after.remove)
            yield

    def _entered(self, name: str, leaf: bool) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            self.stack.append((name, leaf))

        return hook

    def _left(self, *_: Any) -> None:
        self.stack.pop()

    def _name(self, operation: str) -> str:
        layer, leaf = self.stack[-1]
        if leaf:  # the first operation of a leaf is the layer, a second one something beside it
            self.stack[-1] = (layer, False)
            return self.unique(layer)
        return self.unique(f"{layer}.{operation}" if layer else operation)

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not torch.ops.prim.device.default:
            with self:  # a composite operation is seen as its parts
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        self._note(func, args, kwargs, out)
        return out

    def _note(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        if not made:
            return
        places = [self.places.get(_key(tensor), Place(None)) for tensor in tensors]
        # Some operations give their input back without saying so (``_unsafe_view``).
        hidden = not func._schema.is_mutable and tensors and _key(made[0]) == _key(tensors[0])
        if func.is_view or hidden:
            for tensor in made:
                self.places[_key(tensor)] = places[0]
            return
        reads = tuple(dict.fromkeys(p.value for p in places if p.value is not None))
        parameters = tuple(dict.fromkeys(name for p in places for name in p.parameters))
        if not reads:
            for tensor in made:
                self.places[_key(tensor)] = Place(None, parameters)
            return
        work = work_of(func, args, out, self._is_constant)
        name = str(func.overloadpacket).removeprefix("aten.").rstrip("_")
        step = Step(
            name=self._name(SHORT.get(name, name)),
            reads=reads,
            writes=tuple(self._new(tensor) for tensor in made),
            parameters=parameters,
            **work,
        )
        self.steps.append(step)

    def _is_constant(self, tensor: Tensor) -> bool:
        return self.places.get(_key(tensor), Place(None)).value is None

    def _new(self, tensor: Tensor) -> int:
        """A new activation; a storage that is written in place holds a new one from then on."""
        size = tensor.untyped_storage().nbytes()
        whole = size == tensor.numel() * tensor.element_size()
        shape = tuple(tensor.shape) if whole else (1, size // tensor.element_size())
        self.values.append(Value(shape, size))
        self.places[_key(tensor)] = Place(len(self.values) - 1)
        return len(self.values) - 1

    def graph(self, answer: Any) -> Graph:
        """All that was recorded, with what the module returned as outputs."""
        made = [leaf for leaf in tree_leaves(_plain(answer)) if isinstance(leaf, Tensor)]
        found = (self.places.get(_key(tensor), Place(None)).value for tensor in made)
        outputs = tuple(dict.fromkeys(value for value in found if value is not None))
        return Graph(tuple(self.values), tuple(_without_unread(self.steps, outputs)), self.inputs, outputs, self.stored)


def _key(tensor: Tensor) -> StorageWeakRef:
    """What tells storages apart; as long as it is held no other storage gets the same one."""
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]


def _plain(answer: Any) -> Any:
    """A dataclass, which pytree takes for a leaf, as the values of its fields."""
    fields = getattr(answer, "__dataclass_fields__", None)
    return [getattr(answer, name) for name in fields] if fields else answer


def _without_unread(steps: Sequence[Step], outputs: tuple[int, ...]) -> Iterator[Step]:
    """Drop second results that nobody reads: indices of a pool, statistics of a norm."""
    read = {value for step in steps for value in step.reads} | set(outputs)
    for step in steps:
        writes = tuple(v for i, v in enumerate(step.writes) if i == 0 or v in read)
        yield replace(step, writes=writes)
