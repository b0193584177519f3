from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from squeezedet.errors import DataError
from squeezedet.media.images import frame_of, read_image

WIDTH, HEIGHT = 40, 30
GRADIENT = np.linspace(0, 255, WIDTH).astype(np.uint8)[None, :, None].repeat(HEIGHT, 0).repeat(3, 2)
"""Grey from black at the left to white at the right."""


def encode(picture: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def png_of_size(width: int, height: int, bits: int = 8, rows: bytes = b"\0", color: int = 2) -> bytes:
    """A PNG, in color, whose header announces the size and that holds no pixels worth the name, or these rows."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, 0)
    pixels = zlib.compress(rows)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def close_to_gradient(pixels: NDArray[np.uint8], tolerance: int) -> bool:
    assert pixels.dtype == np.uint8
    assert pixels.shape == (HEIGHT, WIDTH, 3)
    return bool(np.abs(pixels.astype(int) - GRADIENT).max() <= tolerance)


# ------------------------------------------------------------------ what can be read


@pytest.mark.parametrize(
    ("form", "mode", "tolerance"),
    [
        ("JPEG", "RGB", 6),
        ("JPEG", "L", 6),
        ("JPEG", "CMYK", 6),
        ("PNG", "RGB", 0),
        ("PNG", "L", 0),
        ("PNG", "LA", 0),
        ("PNG", "RGBA", 0),
        ("WEBP", "RGB", 6),
        ("GIF", "L", 0),
        ("BMP", "RGB", 0),
        ("TIFF", "CMYK", 1),
        ("PPM", "RGB", 0),
    ],
)
def test_every_mode_becomes_rgb(form: str, mode: str, tolerance: int) -> None:
    frame = read_image(encode(Image.fromarray(GRADIENT).convert(mode), form), "it")
    assert close_to_gradient(frame.pixels, tolerance)
    assert frame.name == "it"
    assert frame.notes == ()
    assert frame.load_ms > 0


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_16_bit_grey_keeps_its_upper_byte(form: str) -> None:
    sixteen = Image.fromarray(GRADIENT[..., 0].astype(np.uint16) * 256 + 77)
    assert close_to_gradient(read_image(encode(sixteen, form)).pixels, 0)


def test_palette() -> None:
    content = encode(Image.fromarray(GRADIENT).quantize(64), "PNG")
    assert Image.open(io.BytesIO(content)).mode == "P"
    assert close_to_gradient(read_image(content).pixels, 4)


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_transparency_is_laid_on_white(form: str) -> None:
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    assert (read_image(encode(clear, form)).pixels == 255).all()


def test_transparent_colour_of_a_palette_is_laid_on_white() -> None:
    picture = Image.new("P", (4, 4), 0)
    picture.putpalette([9, 9, 9, 250, 10, 20])
    assert (read_image(encode(picture, "PNG", transparency=0)).pixels == 255).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation_is_undone(orientation: int) -> None:
    marked = np.full((16, 24, 3), 255, np.uint8)
    marked[:8, :8] = (255, 0, 0)  # upright, red is at the top left
    stored = {
        1: marked,
        2: marked[:, ::-1],
        3: marked[::-1, ::-1],
        4: marked[::-1],
        5: marked.transpose(1, 0, 2),
        6: marked.transpose(1, 0, 2)[::-1],
        7: marked.transpose(1, 0, 2)[::-1, ::-1],
        8: marked.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = Image.fromarray(np.ascontiguousarray(stored))
    assert (read_image(encode(picture, "PNG", exif=exif)).pixels == marked).all()


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_an_open_picture_has_the_pixels_of_its_file(form: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = encode(Image.fromarray(GRADIENT), form, exif=exif)
    with Image.open(io.BytesIO(content)) as picture:
        frame = frame_of(picture)
    file = read_image(content)
    assert file.pixels.shape == (WIDTH, HEIGHT, 3)
    assert np.array_equal(frame.pixels, file.pixels)
    assert (frame.name, frame.notes) == ("", ())


def test_an_open_picture_stays_as_it_is() -> None:
    picture = Image.new("RGBA", (4, 2), (0, 0, 0, 0))
    picture.getexif()[0x0112] = 6
    assert (frame_of(picture).pixels == 255).all()
    assert frame_of(picture).pixels.shape == (4, 2, 3)
    assert (picture.size, picture.mode) == ((4, 2), "RGBA")
    assert picture.getexif()[0x0112] == 6


def test_closed_picture_is_refused(tmp_path: Path) -> None:
    Image.fromarray(GRADIENT).save(tmp_path / "a.png")
    picture = Image.open(tmp_path / "a.png")
    picture.close()
    with pytest.raises(DataError, match="it: the image is damaged"):
        frame_of(picture, "it")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_exif_is_ignored() -> None:
    picture = Image.fromarray(GRADIENT)
    content = encode(picture, "JPEG", exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x02\x01\x12\0\x03")
    assert close_to_gradient(read_image(content).pixels, 6)


def test_one_pixel() -> None:
    assert read_image(encode(Image.new("RGB", (1, 1), (1, 2, 3)), "PNG")).pixels.tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ("GIF", "it: an animation, the first of several frames is used"),
        ("WEBP", "it: an animation, the first of several frames is used"),
        ("PNG", "it: an animation, the first of several frames is used"),
        ("TIFF", "it: a document, the first of several pages is used"),
    ],
)
def test_first_of_several_frames_and_a_note(form: str, says: str) -> None:
    first, *others = (Image.new("RGB", (20, 10), c) for c in ("red", "green", "blue"))
    options = {"lossless": True} if form == "WEBP" else {}
    content = encode(first, form, save_all=True, append_images=others, **options)
    frame = read_image(content, "it")
    assert (frame.pixels == (255, 0, 0)).all()
    assert frame.notes == (says,)


# ------------------------------------------------------------------ what cannot


def refuses(source: Path | bytes, **options: int) -> str:
    """The sentence with which ``source`` is refused."""
    with pytest.raises(DataError) as caught:
        read_image(source, **options)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def test_missing_file(tmp_path: Path) -> None:
    assert refuses(tmp_path / "no.jpg") == f"{tmp_path / 'no.jpg'}: no such file"


def test_folder_in_place_of_a_file(tmp_path: Path) -> None:
    assert "is a folder" in refuses(tmp_path)


def test_path_that_no_file_can_have() -> None:
    assert "null" in refuses(Path("a\0b.jpg"))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read all")
def test_forbidden_file(tmp_path: Path) -> None:
    path = tmp_path / "secret.png"
    path.touch(mode=0)
    assert "permission denied" in refuses(path)


def test_empty(tmp_path: Path) -> None:
    path = tmp_path / "empty.jpg"
    path.touch()
    assert refuses(path) == f"{path}: the file is empty"
    assert "empty" in refuses(b"")


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM"])
def test_truncated(tmp_path: Path, form: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    content = encode(Image.fromarray(noise), form)
    path = tmp_path / f"half.{form.lower()}"
    path.write_bytes(content[: len(content) // 2])
    assert refuses(path).startswith(f"{path}: ")


def test_text_with_the_name_of_an_image(tmp_path: Path) -> None:
    path = tmp_path / "letter.jpg"
    path.write_text("Dear Sir or Madam")
    assert "not an image that can be read (JPEG, PNG" in refuses(path)


def test_formats_that_could_run_a_program_are_not_read() -> None:
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n"
    assert "not an image" in refuses(postscript)


def test_pixels_of_32_bits_are_refused() -> None:
    for kind in (np.float32, np.int32):
        picture = Image.fromarray(np.zeros((4, 4), kind))
        assert "8 or 16 bits" in refuses(encode(picture, "TIFF"))


def test_too_large_is_refused_by_its_header() -> None:
    assert "pixels" in refuses(png_of_size(20_000, 20_000))
    assert "more than `max_pixels`, 80000000" in refuses(png_of_size(20_000, 20_000))
    assert "9000x9000" in refuses(png_of_size(9_000, 9_000))


def test_raised_limit_also_lifts_pillows_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    content = encode(Image.new("L", (100, 50)), "PNG")
    assert "`max_pixels`, 4999" in refuses(content, max_pixels=4999)
    assert read_image(content, max_pixels=5000).pixels.shape == (50, 100, 3)


@pytest.mark.skipif(not Path("/dev/fd").exists(), reason="no /dev/fd here")
def test_a_pipe_of_the_user_is_read_to_its_end_and_a_pipe_in_a_folder_refused(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "wb") as file:
        file.write(encode(Image.fromarray(GRADIENT), "PNG"))
    assert close_to_gradient(read_image(Path(f"/dev/fd/{reading}")).pixels, 0)
    os.close(reading)
    os.mkfifo(tmp_path / "pipe.jpg")
    assert "not a regular file" in refuses(tmp_path / "pipe.jpg")


EXIF = Image.Exif()
EXIF[0x0112] = 6
SMALL = Image.fromarray(GRADIENT[:12, :16])
SEEDS = [
    encode(SMALL, "JPEG", exif=EXIF),
    encode(SMALL, "PNG", exif=EXIF),
    encode(SMALL.quantize(16), "PNG", transparency=0),
    encode(SMALL, "WEBP", exif=EXIF),
    encode(SMALL, "GIF", save_all=True, append_images=[SMALL.rotate(90)]),
    encode(SMALL, "BMP"),
    encode(SMALL, "TIFF", compression="tiff_lzw"),
    encode(SMALL, "PPM"),
]


@pytest.mark.filterwarnings("ignore::Warning:PIL")
@settings(max_examples=300)
@given(
    seed=st.sampled_from(SEEDS),
    cut=st.floats(0.1, 1),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=8),
)
def test_damaged_bytes_are_read_or_refused(seed: bytes, cut: float, changes: list[tuple[float, int]]) -> None:
    content = bytearray(seed[: int(len(seed) * cut)])
    for where, value in changes:
        content[int(where * len(content))] = value
    try:
        pixels = read_image(bytes(content), max_pixels=100_000).pixels
    except DataError:
        return
    assert pixels.ndim == 3
    assert pixels.shape[2] == 3
    assert pixels.dtype == np.uint8


# ------------------------------------------------------------------ 16 bits, end markers, limits


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
@pytest.mark.parametrize(("low", "factor"), [(21000, 3), (0, 1), (0, 16), (60000, 8)])
def test_a_narrow_range_of_16_bits_is_stretched(form: str, low: int, factor: int) -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint16), (64, 1))
    values = (low + factor * ramp).astype(np.uint16)
    values[0, 0], values[5, 5] = 65535, 0  # a hot and a dead pixel
    frame = read_image(encode(Image.fromarray(values), form), "it")
    difference = frame.pixels[10, :, 0].astype(int) - ramp[10]
    assert np.abs(difference).max() <= 2
    (note,) = frame.notes
    assert note.startswith("it: 16-bit pixels of a narrow range, ")


def test_a_wide_range_of_16_bits_is_read_by_its_upper_byte() -> None:
    values = np.tile(np.arange(0, 65536, 256, dtype=np.uint16), (4, 1))
    frame = read_image(encode(Image.fromarray(values), "PNG"))
    assert (frame.pixels[0, :, 0] == np.arange(256)).all()
    assert frame.notes == ()
    flat = np.full((4, 4), 21000, np.uint16)
    assert (read_image(encode(Image.fromarray(flat), "PNG")).pixels == 21000 >> 8).all()


@pytest.mark.parametrize(("step", "flat"), [(1, True), (200, False)])
def test_16_bit_colors_of_a_narrow_range_are_told(step: int, flat: bool) -> None:
    values = (21000 + step * np.arange(256)).astype(">u2")
    rows = b"\0" + values.repeat(3).tobytes()  # one, without a filter
    frame = read_image(png_of_size(256, 1, 16, rows), "it")
    assert frame.notes == ("it: 16-bit pixels of a narrow range: the picture looks flat",) * flat


@pytest.mark.parametrize(("color", "samples"), [(4, 2), (6, 4)])
def test_16_bits_with_transparency_are_told_too(color: int, samples: int) -> None:
    values = (21000 + np.arange(256)).astype(">u2").repeat(samples).reshape(256, samples)
    values[:, -1] = 65535
    frame = read_image(png_of_size(256, 1, 16, b"\0" + values.tobytes(), color), "it")
    assert frame.notes == ("it: 16-bit pixels of a narrow range: the picture looks flat",)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("cut", [1, 2])
def test_a_jpeg_that_lacks_its_end_marker_only(progressive: bool, cut: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    content = encode(Image.fromarray(noise), "JPEG", progressive=progressive)
    frame = read_image(content[:-cut], "it")
    assert np.array_equal(frame.pixels, read_image(content).pixels)
    assert frame.notes == ("it: the JPEG has no end marker; all pixels are there",)
    for more in (60, len(content) // 2):
        assert "truncated" in refuses(content[:-more])


def test_a_jpeg_of_thousands_of_scans_is_refused_before_it_is_decoded() -> None:
    content = encode(Image.fromarray(GRADIENT), "JPEG", progressive=True)
    scan = content.rfind(b"\xff\xda")
    many = content[:-2] + 2000 * content[scan:-2] + b"\xff\xd9"
    assert "a JPEG of 20" in refuses(many)
    assert read_image(content).notes == ()


def test_a_document_of_many_pages_is_not_counted() -> None:
    first = Image.new("L", (8, 8))
    content = encode(first, "TIFF", save_all=True, append_images=[first] * 300)
    (note,) = read_image(content, "it").notes
    assert note == "it: a document, the first of several pages is used"
