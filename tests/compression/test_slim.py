"""A SqueezeDet with fewer channels: it computes the same, it is timed, and the right channels go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from squeezedet.compression import slim
from squeezedet.compression.slim import (
    FACTORS,
    REST,
    Table,
    chain,
    choose_widths,
    counts_of,
    layer_latency_ms,
    measure_table,
    narrowed,
    slim_network,
    work_of,
)
from squeezedet.data.dataset import read_split
from squeezedet.data.sample import KITTI_DEFAULT, ClassMap
from squeezedet.data.scenes import write_folder
from squeezedet.errors import DataError, ModelError, UsageError
from squeezedet.exporting.int8 import quantize
from squeezedet.models import registry
from squeezedet.models.squeezedet import SQUEEZEDET, ConvDet, ConvDetConfig, widths
from squeezedet.runtime import bundle
from squeezedet.training.batches import Examples, batches
from squeezedet.training.checkpoint import initialize, read_detector
from squeezedet.training.recipe import default_for

from ..conftest import SLIM

# ------------------------------------------------------------ what is left computes as the wide network does


@pytest.fixture(scope="module")
def wide() -> ConvDet:
    detector = initialize("convdet", ConvDetConfig(size=(128, 64)), seed=4).detector
    assert isinstance(detector, ConvDet)
    torch.nn.init.normal_(detector.convdet.weight, std=0.01)
    for name, bias in detector.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(bias, std=0.1)
    return detector.eval()


def test_the_narrow_network_is_the_wide_one_with_channels_at_zero(wide: ConvDet) -> None:
    rng = np.random.default_rng(5)
    kept, zeroed = {}, ConvDet(wide.config).eval()
    zeroed.load_state_dict(wide.state_dict())
    for reader in chain(wide)[:-1]:
        weight = zeroed.get_parameter(f"{reader.name}.weight")
        count = len(weight)
        stays = np.sort(rng.choice(count, count // 2, replace=False))
        gone = np.setdiff1d(np.arange(count), stays)
        with torch.no_grad():
            weight[gone] = 0
            zeroed.get_parameter(f"{reader.name}.bias")[gone] = 0
        kept[reader.name] = stays
    narrow = narrowed(wide, kept)
    images = torch.randint(0, 256, (2, 3, 64, 128))
    with torch.inference_mode():
        expected, found = zeroed(images), narrow(images)
    assert expected.std() > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert narrow.config.widths == tuple(c // 2 for c in widths(SQUEEZEDET))


def test_what_is_not_named_stays(wide: ConvDet) -> None:
    narrow = narrowed(wide, {})
    for name, tensor in wide.state_dict().items():
        assert torch.equal(narrow.state_dict()[name], tensor)


def test_a_layer_cannot_go(wide: ConvDet) -> None:
    with pytest.raises(UsageError, match=r"conv1: one channel at least"):
        narrowed(wide, {"backbone.conv1": np.empty(0, np.intp)})


def test_only_squeezedet_has_such_channels() -> None:
    with torch.device("meta"):
        network = registry.build("tiny-ssd")
    with pytest.raises(UsageError, match="not tiny-ssd"):
        chain(network)  # type: ignore[arg-type]


# ------------------------------------------------------------ each layer is timed


SIZE = (320, 192)


@pytest.mark.slow
def test_every_layer_is_timed_in_float_and_in_int8() -> None:
    model = bundle.read(SLIM)
    quantised = quantize(model, [Path(bundle.WEIGHTS / "demo.jpg")] * 16)
    for graph in (model.graph, quantised.graph):
        found = layer_latency_ms(graph, SIZE, rounds=3, threads=1)
        names = {name.removeprefix("backbone.") for name in found}
        fires = {f"fire{i}.{part}" for i in range(2, 12) for part in ("squeeze1x1", "expand3x3")}
        assert names >= fires | {"conv1", "convdet", REST}
        assert all(ms > 0 for ms in found.values())


def test_a_graph_that_cannot_run() -> None:
    with pytest.raises(ModelError, match="the layers cannot be timed"):
        layer_latency_ms(b"no graph", SIZE)


def test_a_guess_lies_between_the_measured_widths() -> None:
    table = Table({"a": (10.0, 20.0)}, {"a": (1.0, 3.0)})
    assert [table.predicted_ms("a", work) for work in (0, 5, 10, 15, 20)] == [0, 0.5, 1, 2, 3]


# ------------------------------------------------------------ which channels go, on a table where the answer is known


SLOW = "backbone.fire11.squeeze1x1"


@pytest.fixture(scope="module")
def network() -> ConvDet:
    with torch.device("meta"):
        return ConvDet(ConvDetConfig(size=(128, 64)))


def flat_table(network: ConvDet) -> Table:
    """Only one layer takes time: a millisecond for its whole width."""
    readers = chain(network)
    work = work_of(readers, counts_of(network, readers))
    return Table(
        {name: (size,) for name, size in work.items()}, {name: (1.0 if name == SLOW else 0.0,) for name in work}
    )


def importance(network: ConvDet) -> dict[str, np.ndarray]:
    """The first channels matter least."""
    counts = counts_of(network, chain(network))
    return {name: np.arange(1.0, n + 1) for name, n in counts.items() if name != "convdet"}


def test_channels_go_where_they_save_time(network: ConvDet) -> None:
    chosen, table = choose_widths(network, importance(network), flat_table(network), 0.5), flat_table(network)
    readers = chain(network)
    counts = counts_of(network, readers) | {name: len(kept) for name, kept in chosen.items()}
    assert sum(table.predicted_ms(name, work) for name, work in work_of(readers, counts).items()) <= 0.5
    # Time falls with what the slow layer gives, and with what it reads from fire10.
    touched = {name for name, kept in chosen.items() if len(kept) < len(importance(network)[name])}
    assert touched <= {SLOW, "backbone.fire10.expand1x1", "backbone.fire10.expand3x3"}
    assert SLOW in touched
    assert chosen[SLOW].tolist() == list(range(96 - len(chosen[SLOW]), 96))


def test_what_cannot_be_reached_is_said(network: ConvDet) -> None:
    with pytest.raises(UsageError, match=r"0 ms cannot be reached: the narrowest takes"):
        choose_widths(network, importance(network), flat_table(network), 0)


def test_the_table_is_measured_at_every_width(network: ConvDet) -> None:
    seen = []

    def latency_ms(narrow: ConvDet) -> dict[str, float]:
        seen.append(narrow.config.widths[0])
        return {"backbone.conv1": len(seen) * 2.0, REST: 1.0}

    table = measure_table(network, latency_ms)
    assert seen == [round(64 * factor) for factor in FACTORS]
    assert table.ms["backbone.conv1"] == (2.0, 4.0, 6.0, 8.0)
    assert table.work["backbone.conv1"] == (16.0, 32.0, 48.0, 64.0)
    assert table.predicted_ms("backbone.conv1", 40.0) == pytest.approx(5.0)
    assert table.predicted_ms("backbone.conv1", 8.0) == pytest.approx(1.0)


# ------------------------------------------------------------ all of it


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    write_folder(root, count=4, seed=3, width=192, height=96, val_fraction=0.25)
    return root


def test_a_dead_channel_is_worth_nothing(scenes: Path, wide: ConvDet) -> None:
    network = ConvDet(wide.config).eval()
    network.load_state_dict(wide.state_dict())
    with torch.no_grad():
        network.get_parameter("backbone.fire5.expand3x3.weight")[7] = 0
        network.get_parameter("backbone.fire5.expand3x3.bias")[7] = 0
    recipe = replace(default_for(network), steps=1, batch=2, workers=0)
    samples = Examples(read_split(scenes, "train"), KITTI_DEFAULT)
    worth = slim.importance(network, ["backbone.fire5.expand3x3"], batches(samples, network, recipe, 0))
    found = worth["backbone.fire5.expand3x3"]
    assert found.shape == (128,)
    assert found[7] == 0
    assert (found > 0).sum() > 100
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.slow
def test_a_network_is_cut_and_written(scenes: Path, wide: ConvDet, tmp_path: Path) -> None:
    samples = read_split(scenes, "train")
    made = slim_network(wide, samples, KITTI_DEFAULT, speed_up=2, batches=1, threads=1)
    assert made.predicted_ms <= made.before_ms / 2
    assert {row.name for row in made.rows} >= {"backbone.conv1", "convdet"}
    assert sum(row.ms for row in made.rows) == pytest.approx(made.before_ms)
    path = tmp_path / "slim.safetensors"
    made.write(path)
    network, _ = read_detector(path)
    assert network.config.widths == made.network.config.widths
    assert sum(p.numel() for p in network.parameters()) == made.parameters < 2_082_120


def test_other_classes_are_an_error(scenes: Path, wide: ConvDet) -> None:
    with pytest.raises(DataError, match="the network detects car, pedestrian, cyclist"):
        slim_network(wide, read_split(scenes, "train"), ClassMap(("sign",)), speed_up=2)
