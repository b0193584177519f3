"""Which channels go: the arithmetic, on a table where the answer is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from squeezedet.compression.slim import FACTORS, REST, Table, chain, choose_widths, counts_of, measure_table, work_of
from squeezedet.errors import UsageError
from squeezedet.models.squeezedet import ConvDet, ConvDetConfig

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
