from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from squeezedet.papers.supplement import Setting, table1


def test_table_1_of_the_paper() -> None:
    rows = {row.name: row for row in table1()}
    counted = {name: row.counted for name, row in rows.items()}
    assert counted == {"RPN": 51_200, "RPN as in Fig. 3a": 10_240, "ConvDet": 460_800, "FcDet": 211_542_016}
    assert round(counted["FcDet"] / counted["ConvDet"], -1) == 460
    assert rows["FcDet"].with_biases - counted["FcDet"] == 4096 + 7 * 7 * 30
    assert [row.classifies for row in rows.values()] == [False, False, True, True]


@settings(max_examples=10)  # each counts four networks
@given(
    st.builds(
        Setting,
        rows=st.integers(1, 9),
        columns=st.integers(1, 9),
        channels=st.integers(1, 64),
        anchors=st.integers(1, 5),
        classes=st.integers(1, 20),
        kernel=st.sampled_from([1, 3, 5]),
        hidden=st.integers(1, 64),
    )
)
def test_formulas_are_what_the_modules_hold(setting: Setting) -> None:
    for row in table1(setting):
        assert row.parameters == row.counted
