from __future__ import annotations

import pytest
import torch

from squeezedet.cost.layers import FLOAT_BYTES, MIB, Cost, count
from squeezedet.models import registry
from squeezedet.models.profile import trace
from squeezedet.papers import supplement


@pytest.fixture(scope="module")
def cost() -> Cost:
    with torch.device("meta"):
        network = registry.build("squeezedet", geometry="paper", size=(1242, 375))
    return count(trace(network, (1, 3, 375, 1242)))


def test_the_rows_are_the_printed_ones(cost: Cost) -> None:
    assert supplement.describes(cost)
    rows = supplement.rows(cost)
    assert [row.name for row in rows] == list(supplement.PRINTED)
    parameters = {row.name: row.parameters for row in rows if row.parameters}
    assert parameters == {
        "conv1": 1_792,
        "fire2": 11_408,
        "fire3": 12_432,
        "fire4": 45_344,
        "fire5": 49_440,
        "fire6": 104_880,
        "fire7": 111_024,
        "fire8": 188_992,
        "fire9": 197_184,
        "fire10": 418_656,
        "fire11": 443_232,
        "convdet": 497_736,
        "total": 2_082_120,
    }
    sizes = {row.name: row.output for row in rows}
    assert sizes["conv1"] == (64, 187, 620) and sizes["maxpool5"] == (256, 22, 76)
    fire4 = next(row for row in rows if row.name == "fire4")
    assert fire4.filters == (32, 128, 128)
    assert [f"{n / MIB:.3f}" for n in fire4.activation_bytes] == ["0.865", "6.918"]


def test_the_misprints_are_found_and_nothing_else(cost: Cost) -> None:
    rows = supplement.rows(cost)
    misprinted = [row.name for row in rows if row.differs]
    assert misprinted == ["fire2", "fire3", "maxpool3", "total"]
    assert all(row.printed.note for row in rows if row.differs)
    assert not any(row.printed.note for row in rows if not row.differs)
    # the printed total is the sum of what is printed above it
    printed = [float(n) for row in rows[:-1] for n in row.printed.activation]
    assert f"{sum(printed):.1f}" == rows[-1].printed.activation[0]
    by_name = {row.name: FLOAT_BYTES * row.parameters / MIB for row in rows}
    assert by_name["fire2"] == pytest.approx(0.043, abs=1e-3)
    assert by_name["fire3"] == pytest.approx(0.048, abs=1e-3)


def test_another_network_is_not_the_tables(cost: Cost) -> None:
    with torch.device("meta"):
        network = registry.build("squeezedet")
    assert not supplement.describes(count(trace(network, (1, 3, 384, 1248))))


def test_the_table_as_cells(cost: Cost) -> None:
    table = supplement.supplement_table(cost)
    fire2 = next(line for line in table if line[0] == "fire2")
    assert (*fire2[1:2], *fire2[3:6]) == ("309x93x128", "16", "64", "64")
    assert fire2[8:11] == ("11,408", "0.0435", "0.048") and "swapped" in fire2[11]
    assert (table[-1][6], *table[-1][8:10]) == ("117.219", "2,082,120", "7.9427")


def test_table_1_of_the_paper() -> None:
    rows = {row.name: row for row in supplement.table1()}
    counted = {name: row.counted for name, row in rows.items()}
    assert counted == {"RPN": 51_200, "RPN as in Fig. 3a": 10_240, "ConvDet": 460_800, "FcDet": 211_542_016}
    assert all(row.parameters == row.counted for row in rows.values())
    assert round(counted["FcDet"] / counted["ConvDet"], -1) == 460
    assert rows["FcDet"].with_biases - counted["FcDet"] == 4096 + 7 * 7 * 30
    classifies = [line[2] for line in supplement.detection_table(list(rows.values()))]
    assert classifies == ["cls", "no", "no", "yes", "yes"]
