"""Examine a data set: read it tolerantly, look at each image once, run every check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from squeezedet.data.anchors import SizeRule
from squeezedet.data.dataset import Layout, class_map_for, read_dataset
from squeezedet.data.doctor import checks, leaks
from squeezedet.data.doctor.survey import Finding, Level, Survey, look_at_all

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


def examine(path: Path, rule: SizeRule, layout: Layout | None = None) -> Diagnosis:
    """Read every label and decode every image of a data set, and run all checks.

    Args:
        path: folder or file of a data set in any of the layouts.
        rule: which input size an image gets.
        layout: its layout, when it shall not be found out.

    Raises:
        DataError: nothing at all can be read: no data set, no image, no class.
    """
    dataset = read_dataset(path, layout=layout, strict=False, max_skipped=1.0)
    looks = look_at_all(sample.image for sample in dataset.samples())
    survey = Survey(dataset, class_map_for(dataset), rule, looks)
    families = (
        checks.check_files,
        checks.check_boxes,
        checks.check_classes,
        checks.check_sizes,
        leaks.check_leaks,
    )
    findings = [finding for check in families for finding in check(survey)]
    return Diagnosis(survey, sorted(findings, key=lambda finding: ORDER.index(finding.level)))
