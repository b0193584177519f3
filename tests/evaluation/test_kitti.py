"""The KITTI protocol against the referee's own tools, by hand and by property."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from squeezedet.data.kitti import read_labels
from squeezedet.data.sample import Objects
from squeezedet.detections import Detections
from squeezedet.errors import DataError, UsageError
from squeezedet.evaluation.kitti import ClassRule, KittiResult, LevelResult, evaluate, read_results

from .scenes import found, labels, perfect, scenes, shift

RULES = ("paper", "current")
CAR = (100.0, 100.0, 200.0, 160.0)


@pytest.mark.shared
@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("name", ["medium_3dec", "small_ties", "no_cyclist"])
def test_every_precision_is_the_referees(shared: Path, name: str, rules: str) -> None:
    folder = shared / "vectors" / name
    expected = json.loads((folder / "expected.json").read_text())[rules]
    ids = (folder / "ids.txt").read_text().split()
    truth = [read_labels(folder / "label_2" / f"{i}.txt") for i in ids]
    result = evaluate(truth, read_results(folder / "data", ids), rules).to_dict()["results"]
    assert result.keys() == expected.keys()
    for class_name, levels in expected.items():
        if levels is None:
            assert result[class_name] is None
            continue
        for level in ("easy", "moderate", "hard"):
            for figure in ("ap11", "ap40", "precision41"):
                np.testing.assert_allclose(result[class_name][level][figure], levels[level][figure], rtol=0, atol=1e-6)


def judged(truth: Objects, detections: Detections, rules: str = "paper", name: str = "car") -> dict[str, LevelResult]:
    levels = evaluate([truth], [detections], rules).results[name]
    assert levels is not None
    return dict(levels)


def test_precision_and_recall_at_a_score() -> None:
    others = [shift(CAR, 250 * k) for k in (1, 2)]
    truth = labels(("Car", CAR), ("Car", others[0]))
    detections = found(("car", 0.9, CAR), ("car", 0.5, others[1]), ("car", 0.3, others[0]), ("cyclist", 0.2, CAR))

    def at(score: float, name: str = "car") -> tuple[float | None, float | None]:
        levels = evaluate([truth], [detections], score=score).results[name]
        assert levels
        return levels["moderate"].precision, levels["moderate"].recall

    assert at(0.4) == (0.5, 0.5)
    assert at(0.3) == (2 / 3, 1.0)
    assert at(0.95) == (None, 0.0)
    assert at(0.1, "cyclist") == (0.0, None)
    assert judged(truth, detections)["moderate"].precision is None


@pytest.mark.parametrize("rules", RULES)
def test_a_car_found_on_a_van_is_no_mistake(rules: str) -> None:
    van = shift(CAR, 300)
    truth = labels(("Car", CAR), ("Van", van))
    result = judged(truth, found(("car", 0.9, van), ("car", 0.8, CAR)), rules)
    assert result["easy"].precision41[0] == 1


@pytest.mark.parametrize("rules", RULES)
def test_a_car_found_on_a_truck_is_a_mistake(rules: str) -> None:
    truck = shift(CAR, 300)
    truth = labels(("Car", CAR), ("Truck", truck))
    result = judged(truth, found(("car", 0.9, truck), ("car", 0.8, CAR)), rules)
    assert result["easy"].precision41[0] == 0.5


def test_the_first_pass_takes_the_highest_score_and_the_second_the_largest_overlap() -> None:
    # Two detections of one car. The sharp one scores lower and lies in a DontCare area, so only
    # the blunt one can be a false alarm; a second car, far away, gives the low threshold.
    blunt, sharp, far = shift(CAR, 12), CAR, shift(CAR, 300)
    region = (100.0, 100.0, 175.0, 160.0)
    truth = labels(("Car", CAR), ("Car", far), ("DontCare", region))
    result = judged(truth, found(("car", 0.9, blunt), ("car", 0.5, sharp), ("car", 0.4, far)))
    # Thresholds 0.9 (blunt, by score) and 0.4. At 0.9 blunt is a hit; at 0.4 sharp is the hit
    # (by overlap) and blunt a false alarm. By score twice: 1, 1. By overlap twice: 2/3, 2/3.
    assert result["easy"].precision41[:3].tolist() == [1, 2 / 3, 0]


@pytest.mark.parametrize("rules", RULES)
def test_a_box_inside_dontcare_is_no_mistake_and_one_half_inside_is(rules: str) -> None:
    region = (300.0, 90.0, 500.0, 200.0)
    truth = labels(("Car", CAR), ("DontCare", region))
    inside, outside = (310.0, 100.0, 410.0, 160.0), (440.0, 100.0, 540.0, 160.0)
    clean = judged(truth, found(("car", 0.9, inside), ("car", 0.8, CAR)), rules)
    assert clean["easy"].precision41[0] == 1
    dirty = judged(truth, found(("car", 0.9, outside), ("car", 0.8, CAR)), rules)
    assert dirty["easy"].precision41[0] == 0.5


@pytest.mark.parametrize(("rules", "objects"), [("paper", 1), ("current", 0)])
def test_a_labelled_box_of_exactly_the_minimum_height(rules: str, objects: int) -> None:
    # 200.10 - 175.10 is no exact 25 in float32: labels are compared as the decimals they are.
    box = (100.0, 175.1, 200.0, 200.1)
    result = judged(labels(("Car", box)), found(("car", 0.9, box)), rules)
    assert result["moderate"].objects == objects
    assert result["easy"].objects == 0


@pytest.mark.parametrize(("rules", "precision"), [("paper", 0.5), ("current", 1)])
def test_a_false_box_below_the_minimum_height(rules: str, precision: float) -> None:
    low = (300.0, 100.0, 360.0, 124.9)
    result = judged(labels(("Car", CAR)), found(("car", 0.9, low), ("car", 0.8, CAR)), rules)
    assert result["hard"].precision41[0] == precision


def test_a_low_detection_spares_a_labelled_box_only_when_there_is_no_other() -> None:
    # 24.9 px are cut to 24: ignored. The labelled box is neither found nor missed by it.
    truth = labels(("Car", (100.0, 100.0, 200.0, 126.0)))
    low, high = (100.0, 100.0, 200.0, 124.9), (100.0, 100.0, 200.0, 130.0)
    only_low = judged(truth, found(("car", 0.9, low)), "current")["hard"]
    assert (only_low.objects, only_low.found, only_low.ap40) == (1, 0, 0)
    both = judged(truth, found(("car", 0.7, low), ("car", 0.9, high)), "current")["hard"]
    assert (both.found, both.precision41[0]) == (1, 1)


def test_a_low_detection_of_another_class_can_take_a_labelled_box() -> None:
    # An oddity of the server's tool: low detections of every class take part in the first
    # pass, so this pedestrian of a higher score takes the car from the car's own detection.
    box = (100.0, 100.0, 200.0, 126.0)
    low = (100.0, 100.0, 200.0, 124.9)
    detections = found(("pedestrian", 0.9, low), ("car", 0.8, box))
    assert judged(labels(("Car", box)), detections, "current")["hard"].found == 0
    assert judged(labels(("Car", box)), detections, "paper")["hard"].found == 1


def test_limits_of_occlusion_and_truncation_are_inclusive() -> None:
    at_limit = labels(("Car", CAR), truncated=0.3, occluded=1)
    result = judged(at_limit, perfect(at_limit))
    assert [result[level].objects for level in ("easy", "moderate", "hard")] == [0, 1, 1]


def test_a_class_that_was_never_detected_has_no_result_and_counts_nothing() -> None:
    truth = labels(("Car", CAR), ("Cyclist", shift(CAR, 300)))
    result = evaluate([truth], [found(("car", 0.9, CAR))])
    assert result.results["cyclist"] is None
    assert result.map11 == pytest.approx(3 * (1 / 11) / 6)  # no pedestrian is there
    assert json.loads(json.dumps(result.to_dict()))["results"]["cyclist"] is None


def test_fewer_than_forty_objects_fill_only_as_many_recalls() -> None:
    truth = labels(*(("Car", shift(CAR, 0, 100 * k)) for k in range(4)))
    result = judged(truth, perfect(truth))["easy"]
    # Four hits give four thresholds; the rest of the curve stays 0, as the tool leaves it.
    assert result.precision41.tolist() == [1] * 4 + [0] * 37
    assert result.ap11 == pytest.approx(1 / 11)
    assert result.ap40 == pytest.approx(3 / 40)


def test_other_classes_with_a_table_of_their_own() -> None:
    names = ("tram", "car")
    truth = labels(("Tram", CAR))
    table = (ClassRule("Tram", 0.9),)
    close, exact = (found(("tram", 0.9, shift(CAR, 8)), names=names), found(("tram", 0.9, CAR), names=names))
    assert evaluate([truth], [exact], classes=table).results["Tram"]["hard"].found == 1
    assert evaluate([truth], [close], classes=table).results["Tram"]["hard"].found == 0


def test_counts_say_what_was_judged() -> None:
    truth = labels(("Car", CAR), ("Car", (0.0, 0.0, 50.0, 20.0)), ("Van", CAR), ("DontCare", CAR), ("Tram", CAR))
    names = ("car", "bus")
    detections = found(("car", 0.9, CAR), ("bus", 0.8, CAR), names=names)
    counts = evaluate([truth], [detections]).counts
    assert (counts["images"], counts["objects"], counts["ignored"]) == (1, 1, 3)
    assert (counts["detections"], counts["other_detections"]) == (1, 1)


def test_mistakes_are_said() -> None:
    truth = labels(("Car", CAR))
    with pytest.raises(DataError, match="1 labelled images against detections of 0"):
        evaluate([truth], [])
    with pytest.raises(DataError, match="not finite"):
        evaluate([truth], [found(("car", float("nan"), CAR))])
    with pytest.raises(UsageError, match="'paper' or 'current'"):
        evaluate([truth], [found()], "devkit")  # type: ignore[arg-type]


def test_no_images_at_all() -> None:
    assert evaluate([], []).to_dict()["results"] == dict.fromkeys(("car", "pedestrian", "cyclist"))


# ------------------------------------------------------------------ properties


def curves(result: KittiResult) -> dict[str, list[list[float]] | None]:
    return {
        name: levels and [r.precision41.tolist() for r in levels.values()] for name, levels in result.results.items()
    }


@given(scenes(), st.randoms(use_true_random=False), st.sampled_from(RULES))
def test_the_order_of_images_and_detections_does_not_matter(scene, random, rules) -> None:
    truth, detections = scene
    images = list(range(len(truth)))
    random.shuffle(images)
    mixed = [d[random.sample(range(len(d)), len(d))] for d in detections]
    shuffled = evaluate([truth[i] for i in images], [mixed[i] for i in images], rules)
    if rules == "paper" and not _equal_overlaps(truth, detections):
        assert curves(shuffled) == curves(evaluate(truth, detections, rules))
    unmixed = evaluate([truth[i] for i in images], [detections[i] for i in images], rules)
    assert curves(unmixed) == curves(evaluate(truth, detections, rules))


def _equal_overlaps(truth: list[Objects], detections: list[Detections]) -> bool:
    from squeezedet.boxes import iou

    for objects, found_ in zip(truth, detections, strict=True):
        for row in iou(objects.xyxy, found_.xyxy):
            positive = row[row > 0].round(5)
            if len(np.unique(positive)) < len(positive):
                return True
    return False


@given(st.lists(scenes(), min_size=1, max_size=3), st.sampled_from(RULES))
def test_a_perfect_detector_is_perfect(several, rules) -> None:
    # Forty copies in images of their own: enough objects for every recall.
    truth = [o for scene, _ in several for o in scene]
    truth = [_one_of_a_kind(o) for o in truth] * 41
    result = evaluate(truth, [perfect(o) for o in truth], rules)
    for levels in result.results.values():
        for level in (levels or {}).values():
            if level.objects:
                assert (level.found, level.ap11, level.ap40) == (level.objects, 1, 1)


def _one_of_a_kind(objects: Objects) -> Objects:
    """Without objects that overlap: there a perfect box may be taken by the wrong one."""
    from squeezedet.boxes import iou

    overlap = np.triu(iou(objects.xyxy, objects.xyxy), 1) > 0.3
    keep = ~overlap.any(axis=0)
    return replace(
        objects,
        types=tuple(t for t, k in zip(objects.types, keep, strict=True) if k),
        xyxy=objects.xyxy[keep],
        truncated=objects.truncated[keep],
        occluded=objects.occluded[keep],
    )


@given(scenes(), st.sampled_from(RULES))
def test_one_more_detection_below_all_others_raises_no_precision_at_recalls_reached(scene, rules):
    truth, detections = scene
    before = evaluate(truth, detections, rules)
    lowest = found(*((name, 0.001, (400.0, 0.0, 460.0, 60.0)) for name in ("car", "pedestrian")))
    both = replace(
        detections[0],
        xyxy=np.concatenate([detections[0].xyxy, lowest.xyxy]),
        score=np.concatenate([detections[0].score, lowest.score]),
        class_id=np.concatenate([detections[0].class_id, lowest.class_id]),
    )
    after = evaluate(truth, [both, *detections[1:]], rules)
    for name, levels in before.results.items():
        for level, result in (levels or {}).items():
            assert (after.results[name][level].precision41 <= result.precision41).all()


# ---------------------------------------------------------------- result files

LINE = "Car -1 -1 -10 100.25 100 200 160 -1 -1 -1 -1000 -1000 -1000 -10 0.875"


def test_files_are_read_in_the_order_of_the_ids(tmp_path: Path) -> None:
    (tmp_path / "b.txt").write_text(LINE.replace("Car", "PEDESTRIAN") + "\n\n" + LINE)
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + LINE.encode() + b"\r\n")
    missing, b, a = read_results(tmp_path, ["none", "b", "a"])
    assert (len(missing), len(b), len(a)) == (0, 2, 1)
    assert [d.name for d in b] == ["pedestrian", "car"]
    assert (a[0].score, a[0].xyxy) == (0.875, (100.25, 100, 200, 160))


def test_the_folder_of_the_tool_is_found(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.txt").write_text("")
    assert [len(d) for d in read_results(tmp_path, ["a"])] == [0]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        (LINE.rsplit(" ", 2)[0], r"a\.txt:2: a result has 16 fields.* has 14"),
        (LINE + " 1", r"a\.txt:2: a result has 16 fields.* has 17"),
        (LINE.replace("0.875", "nan"), r"a\.txt:2: nan is not finite"),
        (LINE.replace("160", "inf"), r"a\.txt:2: inf is not finite"),
        (LINE.replace("160", "x160"), r"a\.txt:2: 'x160' is not a number"),
        (LINE.replace(" 200 ", " 90 "), r"a\.txt:2: the box .* x2 < x1"),
        (LINE.replace("Car", "Auto"), r"a\.txt:2: unknown class 'Auto'; known are car"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, sentence: str) -> None:
    (tmp_path / "a.txt").write_text(f"{LINE}\n{line}\n")
    with pytest.raises(DataError, match=sentence):
        read_results(tmp_path, ["a"])


def test_a_bad_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        read_results(tmp_path / "none", ["a"])
    with pytest.raises(DataError, match="no result files"):
        read_results(tmp_path, ["a"])
    (tmp_path / "c.txt").write_text("")
    with pytest.raises(DataError, match=r"c\.txt: detections for an image without labels \(1 of 1"):
        read_results(tmp_path, ["a"])
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="is not text"):
        read_results(tmp_path, ["c"])
