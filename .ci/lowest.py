"""Print pip constraints: the lowest allowed version of each direct base dependency."""

import re
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
for requirement in project["dependencies"]:
    name, lowest = re.match(r"([\w.-]+).*?>=([\w.]+)", requirement).groups()
    print(f"{name}=={lowest}")
