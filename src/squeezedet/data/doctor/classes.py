"""Classes: too few objects, only in one split, or unknown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from squeezedet.data.doctor.finding import Finding, Level, some
from squeezedet.data.doctor.survey import Survey

MANY_TIMES = 10
"""A class with so many times fewer objects than the largest is rare."""


def check(survey: Survey) -> list[Finding]:
    """All findings about the balance of classes."""
    learned = {split: learned_counts(survey, split) for split in survey.splits}
    return [*_balance(survey, learned), *_one_sided(survey, learned), *_background(survey)]


def type_counts(survey: Survey, split: str) -> Counter[str]:
    """Boxes of each type as the labels write it."""
    return Counter(t for sample in survey.splits[split] for t in sample.objects.types)


def learned_counts(survey: Survey, split: str) -> Counter[str]:
    """Objects of each class that is learned."""
    counts: Counter[str] = Counter()
    names = survey.class_map.names
    for sample in survey.splits[split]:
        class_id = survey.class_map.class_ids(sample.objects.types)
        counts.update(names[c] for c in class_id[survey.learned(sample)].tolist())
    return counts


def training_split(survey: Survey) -> str:
    """``train`` if there is one, else the first."""
    return "train" if "train" in survey.splits else next(iter(survey.splits))


def _balance(survey: Survey, learned: dict[str, Counter[str]]) -> Iterator[Finding]:
    split = training_split(survey)
    counts = learned[split]
    most = max(counts.values(), default=0)
    if not most:
        yield Finding(
            Level.error,
            "no-objects",
            (),
            0,
            f"split {split!r} has no object of any class: nothing can be learned",
        )
        return
    rare = {n: counts[n] for n in survey.class_map.names if counts[n] * MANY_TIMES <= most}
    if rare:
        largest = counts.most_common(1)[0][0]
        few = ", ".join(f"{name} {number:,}" for name, number in rare.items())
        yield Finding(
            Level.warning,
            "imbalance",
            (),
            len(rare),
            f"{some(len(rare), 'class', 'classes')} with a tenth or less of the {most:,} objects "
            f"of {largest} in split {split!r}: {few}; expect a low recall there, add images "
            "of them or drop the class",
        )


def _one_sided(survey: Survey, learned: dict[str, Counter[str]]) -> Iterator[Finding]:
    """Classes that are judged and not learned, or learned and not judged."""
    train = training_split(survey)
    for split, counts in learned.items():
        if split == train:
            continue
        unseen = [name for name in counts if not learned[train][name]]
        silent = [name for name in learned[train] if not counts[name]]
        for names, sentence in (
            (unseen, f"in split {split!r} and not in {train!r}: it is judged and never learned"),
            (silent, f"in split {train!r} and not in {split!r}: nothing judges it there"),
        ):
            if names and counts:
                which = f"{some(len(names), 'class', 'classes')} ({', '.join(names)})"
                yield Finding(Level.warning, "one-sided", (), len(names), f"{which} {sentence}")


def _background(survey: Survey) -> Iterator[Finding]:
    """Types that are neither a class nor a region."""
    counts = sum((type_counts(survey, split) for split in survey.splits), Counter[str]())
    types = tuple(counts)
    other = [
        name
        for name, class_id, region in zip(
            types,
            survey.class_map.class_ids(types).tolist(),
            survey.class_map.is_region(types).tolist(),
            strict=True,
        )
        if class_id < 0 and not region
    ]
    if other:
        total = sum(counts[name] for name in other)
        yield Finding(
            Level.note,
            "background",
            (),
            total,
            f"{some(total, 'box', 'boxes')} of types that are no class, learned as background: "
            + ", ".join(f"{name} {counts[name]:,}" for name in sorted(other)),
        )
