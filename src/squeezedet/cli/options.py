"""Whose rules a command judges by."""

from __future__ import annotations

from enum import StrEnum


class Protocol(StrEnum):
    """The referees."""

    kitti = "kitti"
    voc = "voc"
    coco = "coco"


class RuleSet(StrEnum):
    """The rule sets of KITTI, see ``squeezedet.evaluation.kitti``."""

    paper = "paper"
    current = "current"
