"""The doctor: reads all of a data set before a training, and says what is wrong with it.

Labels are read tolerantly, each image is looked at once, then every check is run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from squeezedet.data.dataset import class_map_for, read_datasets
from squeezedet.data.doctor import checks, leaks
from squeezedet.data.doctor.survey import Finding, Level, Survey, look_at_all
from squeezedet.data.sample import DONT_CARE, ClassMap
from squeezedet.errors import DataError
from squeezedet.preprocess import InputRule

ORDER = (Level.error, Level.warning, Level.note)


@dataclass(frozen=True, slots=True, eq=False)
class Diagnosis:
    """What the doctor found.

    Attributes:
        survey: what was looked at.
        findings: errors first, then warnings, then notes.
    """

    survey: Survey
    findings: Sequence[Finding]

    def count(self, level: Level) -> int:
        """How many findings of a level there are."""
        return sum(finding.level is level for finding in self.findings)


def examine(
    data: Path | Sequence[Path],
    rule: InputRule,
    classes: Sequence[str] | None = None,
    mapping: Mapping[str, str] | None = None,
) -> Diagnosis:
    """Read every label and decode every image of a data set, and run all checks.

    Args:
        data: folder or file of a data set in any of the layouts; or several, which are
            examined as one.
        rule: which input size an image gets.
        classes: see ``class_map_for``.
        mapping: see ``class_map_for``.

    Raises:
        UsageError: see ``class_map_for`` and ``read_datasets``.
        DataError: nothing at all can be read: no data set, no image.
    """
    paths = [data] if isinstance(data, Path) else list(data)
    dataset = read_datasets(paths, strict=False, max_skipped=1.0)
    try:
        class_map = class_map_for(dataset, classes, mapping)
    except DataError:
        if not dataset.skipped:  # else the findings say why there is no class
            raise
        class_map = ClassMap((), regions=(DONT_CARE,))
    looks = look_at_all(sample.image for sample in dataset.samples())
    survey = Survey(dataset, class_map, rule, looks)
    families = (checks.check_files, checks.check_boxes, checks.check_classes, checks.check_sizes, leaks.check_leaks)
    findings = [finding for check in families for finding in check(survey)]
    return Diagnosis(survey, sorted(findings, key=lambda finding: ORDER.index(finding.level)))
