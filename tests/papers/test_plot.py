from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from squeezedet.cost.layers import MIB
from squeezedet.papers.memory_plan import MemoryPlan, MemoryStep, memory_chart

SVG = "{http://www.w3.org/2000/svg}"


@pytest.mark.parametrize("moments", [1, 36, 2000])
def test_bars_stand_on_each_other_and_are_as_high_as_they_say(moments: int) -> None:
    part = MemoryStep("a<b>&", reads=10 * MIB, writes=20 * MIB, kept=2 * MIB)
    chart = ET.fromstring(memory_chart("<title>", MemoryPlan((part,) * moments, exact=True)))
    bars = [r for r in chart.iter(f"{SVG}rect") if r.find(f"{SVG}title") is not None]
    assert len(bars) == 3 * moments
    read, written, kept = (float(bar.attrib["height"]) for bar in bars[:3])
    assert written == pytest.approx(2 * read, abs=0.2)
    assert kept == pytest.approx(read / 5, abs=0.2)
    tops = [float(bar.attrib["y"]) for bar in bars[:3]]
    assert tops[0] - tops[1] == pytest.approx(written, abs=0.2)
    assert "a<b>&: 32.00 MiB" in {bar.findtext(f"{SVG}title") for bar in bars}
    assert float(chart.attrib["width"]) < 2000
