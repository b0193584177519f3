"""A vendor with keys, three versions of one network, and their packages."""

from __future__ import annotations

import pytest

from squeezedet.ota import delta, package
from squeezedet.runtime import bundle

from .vendor import NOW, Fleet, moved

pytest.importorskip("cryptography")


@pytest.fixture(scope="session")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Fleet:
    folder = tmp_path_factory.mktemp("fleet")
    package.keygen(folder / "root", now=NOW)
    package.keygen(folder / "release", folder / "root.pem", now=NOW)
    first = bundle.plain_parts(bundle.find("street"))
    second = moved(first, "second", 0.2)
    versions = [first, second, moved(second, "third", 0.5, only="convdet")]
    models, whole, deltas = [], [], []
    for number, parts in enumerate(versions, 1):
        models.append(folder / f"{number}.bundle")
        models[-1].write_bytes(bundle.plain_bytes(parts))
        for base, made in ((None, whole), (models[-2] if number > 1 else None, deltas)):
            made.append(folder / f"{number}{'-delta' if base else ''}.ota")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(delta, "FILTERS", delta.ROUGH)  # fast
                package.pack(models[-1], made[-1], folder / "release.pem", version=number, base=base, now=NOW)
    return Fleet(folder, models, whole, deltas)
