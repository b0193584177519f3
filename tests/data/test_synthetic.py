from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from squeezedet.data.kitti import LABEL_FIELDS, read_folder
from squeezedet.data.sample import Objects
from squeezedet.data.synthetic import SyntheticConfig, generate, write_folder
from squeezedet.data.synthetic.camera import Camera, Pose
from squeezedet.data.synthetic.people import random_person
from squeezedet.data.synthetic.render import actor_patches, cut_out, render
from squeezedet.data.synthetic.scene import Actor, DrawnScene, random_scene
from squeezedet.data.synthetic.vehicles import random_vehicle
from squeezedet.errors import UsageError

WIDTH, HEIGHT = 416, 128
CAMERA = Camera(width=800, height=300, focal=460, centre_x=400, horizon=140, eye=1.65)
KINDS = ("Car", "Van", "Pedestrian", "Cyclist")


def actor(kind: str, x: float, z: float, yaw: float = 0.0, seed: int = 0) -> Actor:
    rng = np.random.default_rng(seed)
    look = random_vehicle(rng, kind) if kind in ("Car", "Van") else random_person(rng, kind)
    return Actor(kind, Pose(x, 0.0, z, yaw), look)


def scene_of(*actors: Actor) -> DrawnScene:
    rng = np.random.default_rng(5)
    scene = random_scene(rng, CAMERA.width, CAMERA.height, SyntheticConfig())
    return replace(scene, camera=CAMERA, actors=actors)


def labels_of(*actors: Actor) -> Objects:
    return render(np.random.default_rng(5), scene_of(*actors), SyntheticConfig())[1]


def digest(seed: int) -> str:
    image, objects = generate(seed, WIDTH, HEIGHT)
    hashed = hashlib.sha256(image.tobytes())
    for part in (objects.xyxy, objects.truncated, objects.occluded):
        hashed.update(part.tobytes())
    return hashed.hexdigest() + ",".join(objects.types)


def test_the_seed_decides_every_pixel_and_box() -> None:
    first = [digest(seed) for seed in range(4)]
    assert [digest(seed) for seed in reversed(range(4))] == first[::-1]
    assert len(set(first)) == 4


@settings(max_examples=25)
@given(st.integers(0, 2**40), st.integers(64, 500), st.integers(32, 220))
def test_any_seed_and_size_gives_a_picture_with_boxes_inside(
    seed: int, width: int, height: int
) -> None:
    image, objects = generate(seed, width, height)
    assert image.shape == (height, width, 3)
    assert image.dtype == np.uint8
    assert image.std() > 5
    assert objects.xyxy.shape == (len(objects), 4)
    assert (objects.xyxy >= 0).all()
    assert (objects.xyxy <= [width, height, width, height]).all()
    assert (objects.xyxy[:, 2:] > objects.xyxy[:, :2]).all()
    region = np.array([t == "DontCare" for t in objects.types], dtype=bool)
    assert set(objects.types) <= {*KINDS, "DontCare"}
    assert (objects.truncated[region] == -1).all()
    assert (objects.occluded[region] == -1).all()
    assert ((objects.truncated[~region] >= 0) & (objects.truncated[~region] < 1)).all()
    assert np.isin(objects.occluded[~region], (0, 1, 2)).all()


@settings(max_examples=40)
@given(
    st.sampled_from(KINDS),
    st.floats(-4, 4),
    st.floats(9, 60),
    st.floats(0, 6.3),
    st.integers(0, 50),
)
def test_a_box_is_tight_to_the_silhouette(
    kind: str, x: float, z: float, yaw: float, seed: int
) -> None:
    light = scene_of().light
    cutout = cut_out(actor_patches(actor(kind, x, z, yaw, seed), CAMERA, light), CAMERA)
    assert cutout.xyxy is not None
    # Whole in the picture, the pixels drawn reach as far as the geometry says, to the
    # raster of half a pixel that an outline is drawn on, and its rounding.
    np.testing.assert_allclose(cutout.xyxy, cutout.full, atol=0.8)
    rows, columns = np.nonzero(cutout.layer[..., 3] > 0)
    left, top = cutout.corner
    pixels = [
        columns.min() + left,
        rows.min() + top,
        columns.max() + left + 1,
        rows.max() + top + 1,
    ]
    np.testing.assert_array_less(np.abs(cutout.xyxy - pixels), 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_box_is_as_high_as_the_thing_at_its_distance(kind: str) -> None:
    someone = actor(kind, 0.0, 15.0, yaw=np.pi / 2)
    objects = labels_of(someone)
    height = float(objects.xyxy[0, 3] - objects.xyxy[0, 1]) * 15.0 / CAMERA.focal
    true = getattr(someone.look, "height", None) or someone.look.shape.height  # type: ignore[union-attr]
    # A rider sits about as high as he stands; the near side of a vehicle looks larger.
    assert height == pytest.approx(true, rel=0.12)
    assert objects.types == (kind,)


def test_truncation_is_the_share_of_the_box_outside() -> None:
    inside = labels_of(actor("Car", 0.0, 12.0))
    assert inside.truncated[0] == 0
    # The middle of a car seen from behind on the edge: half of it is outside.
    half = labels_of(actor("Car", -400 / CAMERA.focal * 12.0, 12.0, yaw=np.arctan(-400 / 460)))
    assert half.truncated[0] == pytest.approx(0.5, abs=0.12)
    assert half.xyxy[0, 0] == 0
    beyond = labels_of(actor("Car", -30.0, 12.0))
    assert len(beyond) == 0


def test_occlusion_follows_the_pixels_that_are_seen() -> None:
    near, far = actor("Car", 0.0, 10.0), actor("Car", 0.0, 24.0, seed=1)
    assert labels_of(far).occluded.tolist() == [0]
    hidden = labels_of(far, near)
    assert hidden.types == ("Car", "DontCare")
    partly = labels_of(replace(far, pose=Pose(1.7, 0.0, 24.0, 0.0)), near)
    assert partly.types == ("Car", "Car")
    assert partly.occluded[0] == 0
    assert partly.occluded[1] in (1, 2)
    # The box holds what is hidden, too.
    alone = labels_of(replace(far, pose=Pose(1.7, 0.0, 24.0, 0.0)))
    np.testing.assert_array_equal(partly.xyxy[1], alone.xyxy[0])


def test_what_is_too_small_to_learn_is_a_region() -> None:
    objects = labels_of(actor("Car", 0.0, 90.0))
    assert objects.types == ("DontCare",)
    assert objects.occluded.tolist() == [-1]


def test_scenes_are_as_varied_as_streets_are() -> None:
    config = SyntheticConfig()
    scenes = [random_scene(np.random.default_rng(s), 1248, 384, config) for s in range(400)]
    counts = np.array([len(scene.actors) for scene in scenes])
    assert 0.01 < (counts == 0).mean() < 0.06
    assert counts.max() <= config.max_objects
    assert 3 < counts.mean() < 7
    kinds = [a.kind for scene in scenes for a in scene.actors]
    share = {kind: kinds.count(kind) / len(kinds) for kind in KINDS}
    assert 0.4 < share["Car"] < 0.75
    assert min(share.values()) > 0.03


def test_the_config_is_obeyed() -> None:
    empty = SyntheticConfig(empty_fraction=1.0)
    assert all(len(generate(seed, WIDTH, HEIGHT, empty)[1]) == 0 for seed in range(3))
    one = SyntheticConfig(max_objects=1, empty_fraction=0.0)
    assert all(len(generate(seed, WIDTH, HEIGHT, one)[1]) <= 1 for seed in range(5))
    large = SyntheticConfig(min_height=1000.0)
    assert set(generate(2, WIDTH, HEIGHT, large)[1].types) <= {"DontCare"}


def test_a_folder_is_read_back_as_it_was_drawn(tmp_path: Path) -> None:
    write_folder(str(tmp_path), 5, seed=11, width=WIDTH, height=HEIGHT, val_fraction=0.2)
    train, val = read_folder(tmp_path, "train"), read_folder(tmp_path, "val")
    assert [sample.id for sample in train + val] == [f"{i:06d}" for i in range(5)]
    assert len(val) == 1
    for i, sample in enumerate(train + val):
        image, objects = generate(11 + i, WIDTH, HEIGHT)
        assert sample.objects.types == objects.types
        np.testing.assert_allclose(sample.objects.xyxy, objects.xyxy, atol=0.006)
        np.testing.assert_allclose(sample.objects.truncated, objects.truncated, atol=0.006)
        np.testing.assert_array_equal(sample.objects.occluded, objects.occluded)
        read = np.asarray(Image.open(sample.image), dtype=float)
        assert np.abs(read - image).mean() < 6
        for line in (tmp_path / "label_2" / f"{sample.id}.txt").read_text().splitlines():
            assert len(line.split()) == LABEL_FIELDS
    assert not list(tmp_path.rglob("*.part"))


def test_what_cannot_be_drawn_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="seed"):
        generate(-1)
    with pytest.raises(UsageError, match="64x32"):
        generate(0, 20, 20)
    with pytest.raises(UsageError, match="at least one"):
        write_folder(tmp_path, 0)
    with pytest.raises(UsageError, match="val fraction"):
        write_folder(tmp_path, 1, val_fraction=1.5)
