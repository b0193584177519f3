"""Published detectors of the small class, run from their published ONNX files to compare with.

Each is one file: the pixels it wants, and what its numbers mean. All learnt from COCO's
118,000 images and 80 classes. ``person`` counts as pedestrian, ``car`` as car; COCO has no
cyclist (a bicycle and a person on it are two boxes), so that class is not compared.
"""

from peers.fastestdet import FASTESTDET
from peers.nanodet import NANODET_M
from peers.picodet import PICODET_S
from peers.yolox import YOLOX_NANO

PEERS = (PICODET_S, YOLOX_NANO, NANODET_M, FASTESTDET)

__all__ = ["FASTESTDET", "NANODET_M", "PEERS", "PICODET_S", "YOLOX_NANO"]
