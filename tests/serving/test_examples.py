"""The examples of ``examples/docker`` and ``examples/systemd``: they say what is there."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.testing import CliRunner

from squeezedet.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
DOCKER = ROOT / "examples/docker/Dockerfile"
UNIT = ROOT / "examples/systemd/squeezedet.service"


def options(text: str) -> set[str]:
    return set(re.findall(r"--[a-z-]+", text))


@pytest.fixture(scope="module")
def known() -> set[str]:
    return options(CliRunner().invoke(app, ["serve", "--help"]).stdout)


def test_dockerfile(known: set[str]) -> None:
    text = DOCKER.read_text()
    instructions = [line for line in text.splitlines() if re.match("[A-Z]+ ", line)]
    last = {line.split()[0]: line for line in instructions}
    assert options(last["ENTRYPOINT"] + last["CMD"]) <= known
    assert last["USER"] == "USER 10001"
    assert "'.[serve]'" in text
    assert "torch" not in "".join(instructions)
    for line in instructions:
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (ROOT / source).exists()
    check = re.search(r'CMD \["[^"]+", "-c", "([^"]+)"\]', text)
    assert check
    compile(check[1], "health check", "exec")
    assert "http://127.0.0.1:8000/v2/health/ready" in check[1]


def test_the_image_is_built_from_little() -> None:
    kept = {
        line.removeprefix("!")
        for line in DOCKER.with_name("Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    }
    copied = {
        source
        for line in DOCKER.read_text().splitlines()
        if line.startswith("COPY ") and "--from" not in line
        for source in line.split()[1:-1]
    }
    assert kept == copied


def test_unit(known: set[str], tmp_path: Path) -> None:
    text = UNIT.read_text()
    starts = re.findall(r"^#?ExecStart=(.*)$", text, re.MULTILINE)
    assert len(starts) == 2
    assert options(" ".join(starts)) <= known
    assert {"DynamicUser=yes", "NoNewPrivileges=yes", "ProtectSystem=strict"} <= set(text.splitlines())
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze here")
    copy = tmp_path / UNIT.name
    copy.write_text(text.replace("/opt/squeezedet/bin/squeezedet", "/bin/true"))
    done = subprocess.run([analyze, "verify", copy], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
