"""The doctor: reads all of a data set before a training, and says what is wrong with it.

One family of checks a file: ``files``, ``boxes``, ``classes``, ``sizes``, ``leaks``.
"""

from __future__ import annotations
