"""What a device takes and what it refuses, and that nothing it keeps is ever half a thing."""

from __future__ import annotations
