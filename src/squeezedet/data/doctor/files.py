"""Files: labels and images that cannot be used, that lack their other half, that no split names."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from squeezedet.data.dataset import MAX_SKIPPED, Skipped
from squeezedet.data.doctor.finding import Finding, Level, Place, some
from squeezedet.data.doctor.survey import Survey, place
from squeezedet.media.images import SUFFIXES

MALFORMED = "malformed"
LEFT_OUT = "training leaves them out"
# What one is called, what many are, and what is wrong with them.
KINDS: dict[str, tuple[str, str, str]] = {
    MALFORMED: ("label", "labels", "malformed: training stops there; mend or remove them"),
    "no-area": ("box", "boxes", f"without width or height: {LEFT_OUT}"),
    "no-label": ("image", "images", f"without a label: {LEFT_OUT}"),
    "no-image": ("label file", "label files", f"without an image: {LEFT_OUT}"),
    "left-out": ("label", "labels", f"of no use: {LEFT_OUT}"),
}


def check(survey: Survey) -> list[Finding]:
    """All findings about files."""
    return [
        *_undecodable(survey),
        *_left_out(survey),
        *_unlisted(survey),
        *_empty(survey),
    ]


def _undecodable(survey: Survey) -> Iterator[Finding]:
    """Images that cannot be decoded; the place is the sentence, which names the file."""
    found = [
        Place(reason)
        for _, sample in survey.samples()
        for reason in [survey.looks[sample.image]]
        if isinstance(reason, str)
    ]
    if found:
        yield Finding(
            Level.error,
            "unreadable-image",
            tuple(found),
            len(found),
            f"{some(len(found), 'image')} that cannot be decoded; replace or remove them",
        )


def _left_out(survey: Survey) -> Iterator[Finding]:
    """What the reader left out, by kind."""
    kinds: dict[str, list[Skipped]] = defaultdict(list)
    for entry in survey.dataset.skipped:
        kinds[_kind(entry)].append(entry)
    labels = sum(len(sample.objects) for _, sample in survey.samples())
    useless = sum(len(entries) for kind, entries in kinds.items() if kind != MALFORMED)
    too_many = useless > MAX_SKIPPED * (labels + useless)
    for kind, entries in kinds.items():
        one, many, wrong = KINDS[kind]
        sentence = f"{some(len(entries), one, many)} {wrong}"
        if too_many and kind != MALFORMED:
            sentence += f"; more than {MAX_SKIPPED:.0%} of all labels: training refuses the data"
        yield Finding(
            Level.error if too_many or kind == MALFORMED else Level.warning,
            kind,
            tuple(Place(str(entry)) for entry in entries),
            len(entries),
            sentence,
        )


def _kind(entry: Skipped) -> str:
    """The check that an entry of the reader's list belongs to."""
    if entry.malformed:
        return MALFORMED
    if entry.file.suffix.lower() in SUFFIXES:
        return "no-label"
    if "no area" in entry.reason:
        return "no-area"
    return "no-image" if "no image" in entry.reason else "left-out"


def _unlisted(survey: Survey) -> Iterator[Finding]:
    """Images beside those of the data that neither a split nor the reader's list names."""
    known = {sample.image.resolve() for _, sample in survey.samples()}
    known |= {entry.file.resolve() for entry in survey.dataset.skipped}
    folders = sorted({sample.image.parent for _, sample in survey.samples()})
    found = [
        Place(str(path))
        for folder in folders
        if folder.is_dir()
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in SUFFIXES and path.resolve() not in known
    ]
    if found:
        yield Finding(
            Level.warning,
            "unlisted-image",
            tuple(found),
            len(found),
            f"{some(len(found), 'image')} beside the others without a label, or in no split; "
            "they take no part in training",
        )


def _empty(survey: Survey) -> Iterator[Finding]:
    """Images without any box: background, which is of use if it is true."""
    found = [place(split, s) for split, s in survey.samples() if not len(s.objects)]
    if found:
        yield Finding(
            Level.note,
            "background-image",
            tuple(found),
            len(found),
            f"{some(len(found), 'image')} without any box: learned as background; "
            "make sure that nothing in them was forgotten",
        )
