"""An object store behind the real protocol: moto's server speaks S3 over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pyarrow as pa
import pytest
from moto.server import ThreadedMotoServer
from typer.testing import CliRunner, Result

from squeezedet.cli.main import app
from squeezedet.fleet.labels import LabelSet
from squeezedet.fleet.store import Store, file_system

pytestmark = pytest.mark.slow


def label(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["label", *map(str, arguments)])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedMotoServer]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "me")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    type(file_system("s3://fleet/")[0]).clear_instance_cache()
    yield server
    server.stop()


@pytest.fixture
def bucket(server: ThreadedMotoServer, pictures: Path) -> str:
    host, port = server.get_host_and_port()
    urlopen(f"http://{host}:{port}/moto-api/reset", data=b"")  # its buckets are of the process
    found, _ = file_system("s3://fleet/")
    found.mkdir("fleet")
    found.put(str(pictures), "fleet/pictures", recursive=True)
    return "s3://fleet"


def test_from_a_bucket_into_a_bucket(bucket: str, pictures: Path, model: Path, tmp_path: Path) -> None:
    options = ("--model", model, "--score", 0.02)
    result = label(f"{bucket}/pictures", "--out", f"{bucket}/labels", *options)
    assert result.exit_code == 0 and "6 frames of 7 inputs" in result.output, result.output
    assert label(pictures, "--out", tmp_path / "labels", *options).exit_code == 0
    there, here = LabelSet(f"{bucket}/labels").read(0), LabelSet(str(tmp_path / "labels")).read(0)
    assert there.drop_columns(["path", "error"]).equals(here.drop_columns(["path", "error"]))
    assert there["path"][0].as_py() == f"{bucket}/pictures/day0/0.png"
    assert Store(f"{bucket}/labels").names() == {"dataset.json", "inputs.parquet", "labels"}
    again = label(f"{bucket}/pictures", "--out", f"{bucket}/labels", *options)
    assert again.exit_code == 2 and "holds labels already" in again.output
    with Store(f"{bucket}/labels").lock():
        again = label(f"{bucket}/pictures", "--out", f"{bucket}/labels", *options, "--resume")
    assert again.exit_code == 2 and "another job is at work there" in again.output
    pattern = label(f"{bucket}/pictures/*/[0-3].png", "--out", tmp_path / "some", "--model", model)
    assert pattern.exit_code == 0 and "4 frames of 4 inputs" in pattern.output, pattern.output


def test_a_video_in_a_bucket(bucket: str, model: Path, tmp_path: Path) -> None:
    pytest.importorskip("av")
    import numpy as np
    from PIL import Image

    from squeezedet.media.video import VideoFile

    with VideoFile(tmp_path / "drive.mp4") as file:
        for number in range(3):
            file.write(Image.fromarray(np.full((48, 64, 3), 80 * number, np.uint8)), number / 8)
    file_system(bucket)[0].put(str(tmp_path / "drive.mp4"), "fleet/drive.mp4")
    result = label(f"{bucket}/drive.mp4", "--out", tmp_path / "labels", "--model", model)
    assert result.exit_code == 0 and "3 frames of 1 input" in result.output, result.output
    assert set(LabelSet(str(tmp_path / "labels")).read(0)["path"].to_pylist()) == {f"{bucket}/drive.mp4"}


def test_a_store_that_half_answers(bucket: str, model: Path, tmp_path: Path) -> None:
    """A list names what is not there: rows. A bucket that is not there: nothing begins."""
    import pyarrow.parquet as pq

    names = [f"{bucket}/pictures/day0/0.png", f"{bucket}/pictures/gone.png", "s3://elsewhere/1.png"]
    pq.write_table(pa.table({"path": names}), tmp_path / "list.parquet")
    result = label(tmp_path / "list.parquet", "--out", tmp_path / "labels", "--model", model)
    assert result.exit_code == 0, result.output
    table = LabelSet(str(tmp_path / "labels")).read(0)
    errors = dict(zip(table["path"].to_pylist(), table["error"].to_pylist(), strict=True))
    assert [errors[name] is None for name in names] == [True, False, False]
    result = label("s3://elsewhere/pictures", "--out", tmp_path / "more", "--model", model)
    assert result.exit_code == 3 and "there is no such file or folder" in result.output
    assert not (tmp_path / "more").exists()


def test_a_store_that_stops_answering(
    bucket: str, server: ThreadedMotoServer, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends the job; it does not make every input an error."""
    import squeezedet.fleet.label as fleet

    asked: list[int] = []
    read = fleet.read_file

    def read_and_stop(path: str) -> bytes:
        asked.append(1)
        if len(asked) == 3:
            server.stop()
        return read(path)

    monkeypatch.setattr(fleet, "read_file", read_and_stop)
    monkeypatch.setattr(fleet, "READERS", 1)
    result = label(f"{bucket}/pictures", "--out", tmp_path / "labels", "--model", model)
    assert result.exit_code == 1 and "the store does not answer" in result.output, result.output
    assert not LabelSet(str(tmp_path / "labels")).done()
    result = label(f"{bucket}/pictures", "--out", tmp_path / "more", "--model", model)
    assert result.exit_code == 1 and "s3://fleet/pictures: the store does not answer" in result.output, result.output
    assert not (tmp_path / "more").exists()
