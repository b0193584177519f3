"""What a frame costs in joules: one meter per file, and the power-curve method of the paper.

``meter.choose`` gives a meter, ``with meter.measure() as block: ...`` watches some code, and
``block.reading(frames=n)`` is the result with its source and its idle power.
"""
