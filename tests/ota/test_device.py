"""What a device takes and what it refuses, and that nothing it keeps is ever half a thing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from squeezedet.cli.main import app
from squeezedet.errors import ModelError, SqueezeDetError, UsageError
from squeezedet.files import lock
from squeezedet.ota import device, package
from squeezedet.runtime import bundle, signature
from squeezedet.runtime.detector import load
from tests_ota import NOW, moved  # type: ignore[import-not-found]
