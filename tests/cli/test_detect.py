from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from squeezedet.cli.main import app

RUN = "from squeezedet.cli.main import main; main()"
STAGES = ["load", "preprocess", "network", "postprocess"]


def detect(*arguments: str | Path, stdin: bytes | None = None) -> Result:
    """Run the command with one thread on whatever the tests draw."""
    given = ["detect", *map(str, arguments), "--threads", "1"]
    return CliRunner().invoke(app, given, input=stdin, catch_exceptions=False)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with two images; what the model sees in them does not matter."""
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "a.png")
    Image.fromarray(noise[::-1, :32]).save(folder / "b.jpg")
    return folder


def test_table(photos: Path) -> None:
    result = detect(photos, "--score", "0")
    assert result.exit_code == 0
    assert result.stderr.startswith("squeezedet: 2 images: ")
    lines = result.stdout.splitlines()
    heads = [line for line in lines if not line.startswith(" ")]
    assert heads[0].startswith(f"{photos / 'a.png'}  64x48  ")
    assert heads[1].startswith(f"{photos / 'b.jpg'}  32x48  ")
    assert lines[1].split() == ["class", "score", "x1", "y1", "x2", "y2"]
    assert len(lines[2].split()) == 6


def test_no_boxes_at_the_highest_score(photos: Path) -> None:
    result = detect(photos / "a.png", "--score", "1")
    assert (result.exit_code, result.stdout) == (0, f"{photos / 'a.png'}  64x48  no boxes\n")


def test_record(photos: Path, tmp_path: Path) -> None:
    path = tmp_path / "boxes.json"
    result = detect(photos, "--out", path, "--score", "0", "--quiet")
    assert (result.exit_code, result.output) == (0, "")
    first, second = json.loads(path.read_text())
    assert list(first) == ["image", "width", "height", "detections", "timing_ms"]
    assert (first["image"], first["width"], first["height"]) == (str(photos / "a.png"), 64, 48)
    assert second["image"] == str(photos / "b.jpg")
    assert list(first["timing_ms"]) == STAGES
    assert list(first["detections"][0]) == ["class", "score", "xyxy"]
    x1, y1, x2, y2 = first["detections"][0]["xyxy"]
    assert 0 <= x1 <= x2 <= 64
    assert 0 <= y1 <= y2 <= 48


def test_records_on_standard_output_replace_the_table(photos: Path) -> None:
    result = detect(photos, "--out", "-")
    assert [r["width"] for r in json.loads(result.stdout)] == [64, 32]


def test_format_alone_goes_to_standard_output(photos: Path) -> None:
    result = detect(photos, "--format", "csv", "--score", "0")
    rows = list(csv.reader(io.StringIO(result.stdout)))
    assert rows[0][0] == "image"
    assert {row[0] for row in rows[1:]} == {str(photos / "a.png"), str(photos / "b.jpg")}


def test_kitti_folder_has_a_file_for_each_image(photos: Path, tmp_path: Path) -> None:
    result = detect(photos, "--format", "kitti", "--out", tmp_path / "out", "--score", "1")
    assert result.exit_code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.txt", "b.txt"]


def test_annotated_pictures(photos: Path, tmp_path: Path) -> None:
    result = detect(photos, photos / "a.png", "--save", tmp_path / "out", "--score", "0")
    assert result.exit_code == 0
    pictures = sorted((tmp_path / "out").iterdir())
    assert [p.name for p in pictures] == ["a-2.jpg", "a.jpg", "b.jpg"]
    with Image.open(pictures[1]) as picture:
        assert picture.size == (64, 48)


def test_bad_images_are_named_and_the_others_go_on(photos: Path, tmp_path: Path) -> None:
    (photos / "empty.png").touch()
    (photos / "letter.jpg").write_text("Dear Sir or Madam")
    content = (photos / "b.jpg").read_bytes()
    (photos / "cut.jpg").write_bytes(content[: len(content) // 2])
    missing = tmp_path / "missing.png"
    bare = tmp_path / "bare"
    bare.mkdir()
    result = detect(missing, bare, photos, "--out", "-", "--score", "1")
    assert result.exit_code == 3
    assert [Path(r["image"]).name for r in json.loads(result.stdout)] == ["a.png", "b.jpg"]
    named = [line.removeprefix("squeezedet: ").split(": ")[0] for line in result.stderr.splitlines()[:-1]]
    expected = [photos / n for n in ("cut.jpg", "empty.png", "letter.jpg")]
    assert named == [str(p) for p in (missing, bare, *expected)]


def test_quiet_still_names_failures(tmp_path: Path) -> None:
    path = tmp_path / "missing.png"
    result = detect(path, "--quiet")
    assert (result.exit_code, result.output) == (3, f"squeezedet: {path}: no such file\n")


def test_note_of_an_animation(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    frames = [Image.new("RGB", (32, 32), c) for c in ("red", "blue")]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    says = f"squeezedet: {path}: an animation, the first of several frames is used\n"
    assert detect(path, "--score", "1").stderr == says
    assert detect(path, "--score", "1", "--quiet").stderr == ""


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (17, 5)])
def test_tiny_images_and_strips(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", size).save(path)
    result = detect(path, "--score", "0", "--out", "-")
    assert result.exit_code == 0
    (record,) = json.loads(result.stdout)
    assert (record["width"], record["height"]) == size
    for box in record["detections"]:
        x1, y1, x2, y2 = box["xyxy"]
        assert 0 <= x1 <= x2 <= size[0]
        assert 0 <= y1 <= y2 <= size[1]


def test_limit_of_pixels(photos: Path) -> None:
    refused = detect(photos / "a.png", "--max-pixels", str(64 * 48 - 1))
    assert refused.exit_code == 3
    assert "64x48 pixels are more than --max-pixels, 3071" in refused.stderr
    assert detect(photos / "a.png", "--max-pixels", str(64 * 48)).exit_code == 0


def test_standard_input(photos: Path) -> None:
    result = detect("-", "--score", "1", stdin=(photos / "a.png").read_bytes())
    assert (result.exit_code, result.stdout) == (0, "standard input  64x48  no boxes\n")
    record = detect("-", "--format", "jsonl", stdin=(photos / "a.png").read_bytes())
    assert json.loads(record.stdout)["image"] == "-"


def test_source_is_not_overwritten(photos: Path) -> None:
    before = {path.name: path.read_bytes() for path in photos.iterdir()}
    result = detect(photos, "--save", photos)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "into another folder" in result.stderr
    assert {path.name: path.read_bytes() for path in photos.iterdir()} == before


def test_sources_that_are_no_files_do_not_claim_their_folder(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bare").mkdir()
    result = detect("-", "bare", "--save", ".", stdin=(photos / "a.png").read_bytes())
    assert result.exit_code == 3
    assert (tmp_path / "stdin.jpg").is_file()


def test_kitti_needs_a_folder(photos: Path) -> None:
    result = detect(photos, "--format", "kitti")
    assert result.exit_code == 2
    assert "one file per image: name a folder for them" in result.stderr


def test_one_picture_is_saved_to_one_file(photos: Path, tmp_path: Path) -> None:
    for name in ("boxes.jpg", "boxes.png"):
        assert detect(photos / "a.png", "--save", tmp_path / name, "-q").exit_code == 0
        with Image.open(tmp_path / name) as picture:
            assert picture.size == (64, 48)
    for source, name, says in (
        (photos, "boxes.jpg", "takes one picture"),
        (photos / "a.png", "boxes.gif", "a picture is written as"),
        (photos / "a.png", photos / "a.png", "is read"),
    ):
        refused = detect(source, "--save", tmp_path / name)
        assert (refused.exit_code, says in refused.stderr) == (2, True)


def test_classes_are_chosen(photos: Path) -> None:
    result = detect(photos, "--score", "0", "--classes", "car, cyclist", "--out", "-")
    found = {box["class"] for record in json.loads(result.stdout) for box in record["detections"]}
    assert found == {"car", "cyclist"}
    refused = detect(photos, "--classes", "lorry")
    assert refused.exit_code == 2
    assert "--classes: the model has no class 'lorry'" in refused.stderr


def test_the_suffix_decides_the_format(photos: Path, tmp_path: Path) -> None:
    assert detect(photos, "-o", tmp_path / "x.csv", "-q").exit_code == 0
    assert (tmp_path / "x.csv").read_text().startswith("image,class,score,")
    refused = detect(photos, "-o", tmp_path / "x.txt")
    assert (refused.exit_code, ".txt" in refused.stderr) == (2, True)
    refused = detect(photos, "-o", tmp_path / "y.csv", "--format", "json")
    assert (refused.exit_code, ".csv is csv, and --format says json" in refused.stderr) == (2, True)


def test_unknown_model(photos: Path) -> None:
    result = detect(photos, "--model", "squeezenot")
    assert result.exit_code == 2
    assert "squeezenot" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_damaged_model_leaves_the_old_records(photos: Path, tmp_path: Path) -> None:
    model, boxes = tmp_path / "x.bundle", tmp_path / "boxes.json"
    model.write_bytes(b"PK\3\4 half a bundle")
    boxes.write_text("old")
    result = detect(photos, "--model", model, "--out", boxes)
    assert result.exit_code == 4
    assert result.stderr.startswith(f"squeezedet: {model}: ")
    assert len(result.stderr.splitlines()) == 1
    assert boxes.read_text() == "old"


@pytest.mark.skipif(sys.platform != "linux", reason="file names are bytes on Linux only")
def test_file_name_that_is_no_text(photos: Path, tmp_path: Path) -> None:
    path = os.fsencode(tmp_path) + b"/stra\xdfe.png"
    (photos / "a.png").rename(os.fsdecode(path))
    boxes = tmp_path / "boxes.json"
    command = [sys.executable, "-c", RUN, "detect", path, "--score", "1", "--save", tmp_path / "out"]
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run([*command, "-o", boxes], capture_output=True, env=strict, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.endswith(b"64x48  no boxes\n")
    (record,) = json.loads(boxes.read_text())
    assert os.fsencode(record["image"]) == path
    assert (tmp_path / "out" / os.fsdecode(b"stra\xdfe.jpg")).exists()


@pytest.mark.skipif(os.name == "nt", reason="terminals of Unix")
def test_progress_bar_on_a_terminal_only(photos: Path) -> None:
    import pty  # Unix only

    sources = [str(photos / "a.png")] * 5
    command = [sys.executable, "-c", RUN, "detect", *sources, "--format", "jsonl"]
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, env=environment) as process:
        os.close(theirs)
        seen = b""
        try:
            while chunk := os.read(ours, 4096):
                seen += chunk
        except OSError:  # Linux says so when the other side is closed
            pass
        records = process.stdout.read().splitlines()
    os.close(ours)
    assert process.returncode == 0
    assert b"5/5" in seen
    assert [json.loads(line)["width"] for line in records] == [64] * 5
    assert "5/5" not in detect(*sources).stderr


def test_detecting_never_imports_torch(photos: Path) -> None:
    code = (
        "import sys\nfrom squeezedet.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        "print([m for m in ('torch', 'onnx', 'matplotlib', 'rich', 'squeezedet.ota') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code, "detect", str(photos), "--quiet"]
    assert subprocess.run(command, capture_output=True, text=True, check=False).stdout == "[]\n"


@pytest.mark.shared
def test_a_real_street(shared: Path) -> None:
    """Whatever is shipped finds something in most of the real streets."""
    images = sorted((shared / "data" / "roads" / "image_2").glob("kitti_*"))[:10]
    result = detect(*images, "--out", "-")
    assert result.exit_code == 0
    found = [len(record["detections"]) for record in json.loads(result.stdout)]
    assert sum(n > 0 for n in found) >= 7


EARLY = """
import builtins, os, signal
from squeezedet.__main__ import main
load = builtins.__import__
def interrupted(name, *more, **options):
    if name.split(".")[0] == "typer":
        os.kill(os.getpid(), signal.SIGINT)
    return load(name, *more, **options)
builtins.__import__ = interrupted
main()
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of Unix")
def test_interrupt_before_the_command_is_loaded() -> None:
    done = subprocess.run([sys.executable, "-c", EARLY], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "squeezedet: interrupted\n")


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="signals of Unix")
def test_the_end_of_the_terminal_leaves_no_temporary_file(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from squeezedet import files\nimport squeezedet.cli.main as command\n"
        "def work(**options):\n"
        "    with files.replacing(Path(sys.argv[1])):\n"
        "        os.kill(os.getpid(), signal.SIGHUP)\n"
        "        signal.pause()\n"
        "command.app = work\ncommand.main()\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "a.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (130, "squeezedet: interrupted\n")
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_is_too_long_is_one_sentence(tmp_path: Path) -> None:
    for name in ("x" * 300 + ".jpg", "x" * 300, "y" * 5000 + "/*.jpg", "z" * 300 + ".mp4"):
        result = detect(tmp_path / name)
        assert (result.exit_code, len(result.stderr.splitlines())) == (3, 1)
    for option in ("--save", "--out"):
        result = detect(tmp_path, option, tmp_path / ("x" * 300))
        assert (result.exit_code, len(result.stderr.splitlines())) == (2, 1)
