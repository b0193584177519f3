"""Count the files, the lines, the importers and the walks of the package, for docs/architecture.md."""

from __future__ import annotations

import ast
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "src"
PICTURE = SOURCE.parent / "docs" / "pictures" / "detection.jpg"
SHORT = 60
OPTIMIZED = 1
"""Flag of the code of a function; that of a module or a class body lacks it."""
WALK = f"""
import sys, threading
entered = set()
def note(frame, event, arg):
    if event == "call" and frame.f_code.co_flags & {OPTIMIZED} and "/squeezedet/" in frame.f_code.co_filename:
        entered.add(frame.f_code.co_filename)
sys.setprofile(note), threading.setprofile(note)
from squeezedet.cli.main import main
try:
    main()
except SystemExit:
    sys.setprofile(None)
print(len(entered))
"""


def module_of(path: Path) -> str:
    """Dotted name of a file."""
    parts = path.relative_to(SOURCE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(path: Path, known: set[str]) -> set[str]:
    """The package's modules that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module}
    return (names & known) - {module_of(path)}


def walk(*arguments: str) -> int:
    """In how many of the package's files a command calls functions."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", WALK, *arguments]
        printed = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
    return int(printed.split()[-1])


def main() -> None:
    """Print one line for each count."""
    paths = sorted((SOURCE / "squeezedet").rglob("*.py"))
    known = {module_of(path) for path in paths}
    lines = [len(path.read_text(encoding="utf-8").splitlines()) for path in paths]
    importers = Counter(name for path in paths for name in imported(path, known))
    print(f"files {len(paths)}")
    print(f"lines {sum(lines)}")
    print(f"files under {SHORT} lines {sum(n < SHORT for n in lines)}")
    print(f"files with one importer {sum(n == 1 for n in importers.values())}")
    print(f"files that `detect --save` walks through {walk('detect', str(PICTURE), '--save', 'out')}")


if __name__ == "__main__":
    main()
