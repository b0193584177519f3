"""Shipped models have names of their own; the names of before 0.2 open them with a note."""

from __future__ import annotations

import logging

import pytest

from squeezedet.models.registry import NETWORKS
from squeezedet.runtime import DEFAULT_MODEL, bundle


def test_the_default_is_shipped_and_no_network_has_its_name() -> None:
    assert DEFAULT_MODEL in bundle.shipped()
    assert not set(bundle.shipped()) & set(NETWORKS)


@pytest.mark.parametrize(("former", "name"), bundle.FORMER_NAMES.items())
def test_former_names(former: str, name: str, caplog: pytest.LogCaptureFixture) -> None:
    bundle._note_new_name.cache_clear()
    with caplog.at_level(logging.WARNING):
        assert bundle.find(former) == bundle.find(former) == bundle.find(name)
    assert bundle.read_card(bundle.find(former)).name == name
    (note,) = caplog.messages
    assert former in note
    assert name in note
