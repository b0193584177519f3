"""What happens to labels that cannot be used: an error, or an entry in a list."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from squeezedet.data.sample import Sample
from squeezedet.errors import DataError

LIMIT = 1_000_000
"""No number of a label is larger."""
SPLIT_NAMES = {"valid": "val", "validation": "val", "training": "train", "testing": "test"}


def number(text: str, where: str) -> float:
    """A finite number that a label may hold.

    Raises:
        DataError: it is none, or beyond ``LIMIT``.
    """
    try:
        if "_" in text:  # Python's 1_000
            raise ValueError
        value = float(text)
    except ValueError:
        raise DataError(f"{where}: {text!r} is not a number") from None
    if not math.isfinite(value):
        raise DataError(f"{where}: {text} is not finite")
    if abs(value) > LIMIT:
        raise DataError(f"{where}: {text} is beyond {LIMIT}")
    return value


def split_name(text: str) -> str:
    """The name that a split has here: others' ``valid`` is ``val``."""
    return SPLIT_NAMES.get(text.lower(), text)


def types_by_frequency(samples: Iterable[Sample]) -> list[str]:
    """The type names of samples by falling frequency, then by name."""
    count = Counter(t for sample in samples for t in sample.objects.types)
    return sorted(count, key=lambda t: (-count[t], t))


@dataclass(frozen=True, slots=True)
class Skipped:
    """A label or an image that a reader left out.

    Attributes:
        file: the label file, or the image.
        line: line of the file, 1 for the first; 0 when it is about the whole file.
        reason: why, in a few words.
        malformed: it cannot be what its writer meant (a NaN, an unknown class); False for
            what is merely useless (a box without area, an unlabelled image).
    """

    file: Path
    line: int
    reason: str
    malformed: bool = False

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else f"{self.file}"
        return f"{where}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Found:
    """What a reader of one layout found.

    Attributes:
        splits: the samples of each split.
        types: type names in the order of ``Dataset.types``.
    """

    splits: Mapping[str, Sequence[Sample]]
    types: Sequence[str]


@dataclass(slots=True)
class Reading:
    """Collects, during one reading of a data set, what is left out and what is worth a note.

    Attributes:
        strict: ``refuse`` raises.
        skipped: what was left out.
        remarks: what is worth a note -> of how many labels or files; 0 for a whole sentence.
    """

    strict: bool = True
    skipped: list[Skipped] = field(default_factory=list)
    remarks: Counter[str] = field(default_factory=Counter)

    def skip(self, file: Path, line: int, reason: str) -> None:
        """Leave out what is useless."""
        self.skipped.append(Skipped(file, line, reason))

    def refuse(self, file: Path, line: int, reason: str) -> None:
        """Leave out what is malformed.

        Raises:
            DataError: the reading is strict.
        """
        entry = Skipped(file, line, reason, malformed=True)
        if self.strict:
            raise DataError(str(entry))
        self.skipped.append(entry)

    @contextmanager
    def refusing(self, file: Path, line: int = 0) -> Iterator[None]:
        """Make a ``DataError`` of the block a refusal of this file and line."""
        try:
            yield
        except DataError as error:
            if self.strict:
                raise
            where = str(Skipped(file, line, ""))
            self.skipped.append(Skipped(file, line, str(error).removeprefix(where), malformed=True))

    def note(self, count: int, what: str) -> None:
        """Add to "WHAT: COUNT"; nothing for a count of 0."""
        if count:
            self.remarks[what] += count

    def say(self, sentence: str) -> None:
        """Add a sentence without a number."""
        self.remarks[sentence] = 0

    @property
    def notes(self) -> tuple[str, ...]:
        """The sentences, in the order in which they came up."""
        return tuple(f"{text}: {n:,}" if n else text for text, n in self.remarks.items())

    def reason(self) -> str:
        """The first thing left out, as the end of another sentence; "" if there is none."""
        return f"; the first left out: {self.skipped[0]}" if self.skipped else ""

    def check_limit(self, path: Path, labels: int, limit: float) -> None:
        """Compare what was left out with what was read.

        Raises:
            DataError: more than ``limit``, a share of the labels.
        """
        number = len(self.skipped)
        if number > limit * (labels + number):
            raise DataError(
                f"{path}: {number:,} of {labels + number:,} labels cannot be used, more than "
                f"{100 * limit:g} %{self.reason()}"
            )
