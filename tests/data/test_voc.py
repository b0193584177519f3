"""VOC annotations, good and bad."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from squeezedet.data.dataset import read_dataset
from squeezedet.data.sample import Objects, ReadResult, Sample
from squeezedet.data.voc import format_annotation, read_annotation
from squeezedet.errors import DataError

from .folders import HEIGHT, WIDTH, label_sets, picture, text, voc, voc_object, xml


def read(root: Path, *objects: str) -> Objects:
    voc(root, "a", xml(*objects))
    return read_dataset(root).samples()[0].objects


def test_an_annotation(tmp_path: Path) -> None:
    flags = "<truncated>1</truncated><difficult>1</difficult><occluded>1</occluded>"
    region = "<difficult>1</difficult>"
    found = read(
        tmp_path,
        voc_object("car", f"1 1 {WIDTH} {HEIGHT}", flags),
        voc_object("dog", "10.5 0 20 30", "<pose>Unspecified</pose><truncated>0</truncated>"),
        voc_object("DontCare", "5 5 5 5", region),
    )
    assert found.types == ("car", "dog", "DontCare")
    # The first is the whole image; a coordinate of 0 counts from 0; one pixel is an area.
    assert found.xyxy.tolist() == [[0, 0, WIDTH, HEIGHT], [9.5, 0, 20, 30], [4, 4, 5, 5]]
    assert found.truncated.tolist() == [0.5, 0, -1]
    assert found.occluded.tolist() == [1, 0, -1]
    assert found.ignored.tolist() == [True, False, False]


@given(label_sets())
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, sets: list[Objects]) -> None:
    folder = tmp_path_factory.mktemp("voc")
    for k, objects in enumerate(sets):
        image = Sample(f"i{k}", Path(f"i{k}.png"), objects, (WIDTH, HEIGHT))
        text(folder / "Annotations" / f"i{k}.xml", format_annotation(image))
        text(folder / "JPEGImages" / f"i{k}.png", "")  # no image is opened
    for sample, objects in zip(read_dataset(folder).samples(), sets, strict=True):
        again = sample.objects
        assert again.types == objects.types
        assert np.abs(again.xyxy - objects.xyxy).max(initial=0) <= 1e-4
        for field in ("truncated", "occluded", "ignored"):
            assert getattr(again, field).tolist() == getattr(objects, field).tolist()


def test_more_than_a_box_is_noted(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    voc(tmp_path, "a", xml(voc_object("person", extra=part), voc_object(extra="<pose>Left</pose>")))
    dataset = read_dataset(tmp_path)
    assert dataset.types == ("car", "person")
    assert dataset.notes == ("objects that say more than a box (pose, parts, polygon): 2",)


ENTITIES = '<!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;&b;&b;">]>\n<a>&c;</a>'
EXTERNAL = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>'


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("<annotation><object>", r"a\.xml: not an XML annotation: no element found"),
        (b"\xff\xfe\x00", r"a\.xml: not an XML annotation"),
        ("<?xml version='1.0' encoding='none'?><a/>", r"a\.xml: not an XML annotation"),
        ("<?xml version='1.0' encoding='utf-7'?><a/>", r"a\.xml: not an XML annotation"),
        ("", r"a\.xml: not an XML annotation: no element found"),
        (ENTITIES, r"a\.xml:1: an annotation declares no entities"),
        (EXTERNAL, r"a\.xml:1: an annotation declares no entities"),
        (xml(voc_object(), "<object><name>x</name></object>"), r"a\.xml:3: object 2 has no comple"),
        (xml(voc_object(" ")), r"a\.xml:2: object 1 has no name"),
        (xml(voc_object(box="nan 1 2 3")), r"a\.xml:2: nan is not finite"),
        (xml(voc_object(box="left 1 2 3")), r"a\.xml:2: 'left' is not a number"),
        (xml(voc_object(box="1 1 2 1e9")), r"a\.xml:2: 1e9 is beyond"),
        (xml(voc_object(box="9 1 2 3")), r"a\.xml:2: the box \(9, 1, 2, 3\) ends before it begins"),
        (xml(voc_object(extra="<difficult>2</difficult>")), r":2: object 1: difficult is '2', not"),
    ],
)
def test_a_malformed_annotation_is_named(tmp_path: Path, content: str | bytes, complaint: str) -> None:
    voc(tmp_path)
    text(tmp_path / "Annotations" / "a.xml", content)
    with pytest.raises(DataError, match=complaint):
        read_dataset(tmp_path)
    lax = read_dataset(tmp_path, strict=False, max_skipped=1)
    assert [s.malformed for s in lax.skipped] == [True]


def test_files_that_cannot_be_annotations(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_annotation(tmp_path / "a.xml", ReadResult())
    text(tmp_path / "a.xml", b" " * 20_000_001)
    with pytest.raises(DataError, match="more than 20 MB"):
        read_annotation(tmp_path / "a.xml", ReadResult())


def test_a_box_without_area_is_skipped(tmp_path: Path) -> None:
    voc(tmp_path, "a", xml(voc_object(), voc_object(box="8 7 7 9")))
    dataset = read_dataset(tmp_path, max_skipped=0.5)
    assert [str(s) for s in dataset.skipped] == [
        f"{tmp_path / 'Annotations' / 'a.xml'}:3: the box (8, 7, 7, 9) has no area"
    ]
    assert len(dataset.samples()[0].objects) == 1


def test_images_and_annotations_without_each_other(tmp_path: Path) -> None:
    voc(tmp_path, "abc")
    (tmp_path / "Annotations" / "b.xml").unlink()
    (tmp_path / "JPEGImages" / "c.jpg").unlink()
    dataset = read_dataset(tmp_path, max_skipped=1)
    assert [(s.file.name, s.reason.split(" in ")[0].split(" file")[0]) for s in dataset.skipped] == [
        ("b.jpg", "the image has no label"),
        ("c.xml", "there is no image of this label"),
    ]
    listing = tmp_path / "ImageSets" / "Main" / "train.txt"
    for i, complaint in (("b", "no such label file"), ("c", "no such image")):
        text(listing, f"a\n{i}\n")
        with pytest.raises(DataError, match=complaint):
            read_dataset(tmp_path)
    text(listing, "a\n")
    assert [s.id for s in read_dataset(tmp_path).splits["train"]] == ["a"]


def test_two_years_are_two_data_sets(tmp_path: Path) -> None:
    for year in ("VOC2007", "VOC2012"):
        voc(tmp_path / year)
    with pytest.raises(DataError, match="no data set of a known layout"):
        read_dataset(tmp_path)
    with pytest.raises(DataError, match="no VOC folder"):
        read_dataset(tmp_path, layout="voc")
    assert len(read_dataset(tmp_path / "VOC2012").samples()) == 2


def test_an_image_of_two_suffixes(tmp_path: Path) -> None:
    voc(tmp_path)
    picture(tmp_path / "JPEGImages" / "a.png")
    with pytest.raises(DataError, match=r"a\.jpg and a\.png have the same id"):
        read_dataset(tmp_path)
