"""What the paper prints of detectors: its Tables 2 and 3, and Table 2 of its supplement.

SqueezeDet, arXiv 1612.01051. AP is the 11-point one of KITTI's tool of 2016 on the authors' own
half of KITTI's labels (3,741 images) for their models and on KITTI's server for the others; speed
and power are those of a TITAN X at batch 1; MB are 2^20 bytes, FLOPs those of the paper's counter.
"""

from __future__ import annotations

from squeezedet.latency.comparison import LEVELS, Row

CLASSES = ("car", "cyclist", "pedestrian")
"""In the paper's order."""
SCALE_UP, SCALE_DOWN = "SqueezeDet x1.5", "SqueezeDet x0.75"


def _row(
    name: str,
    tables: str,
    ap: tuple[float, ...] = (),
    *,
    mean: float | None = None,
    size: float | None = None,
    flops: float | None = None,
    activations: float | None = None,
    watts: float | None = None,
    fps: float | None = None,
    joules: float | None = None,
) -> Row:
    n = len(LEVELS)
    return Row(
        name=name,
        quoted=f"quoted: {tables}",
        ap={CLASSES[k]: ap[n * k : n * k + n] for k in range(len(ap) // n)},
        mean_ap=mean,
        ap_source="the paper's" if ap or mean else "",
        size_mib=size,
        flops_e9=flops,
        activation_mib=activations,
        power_w=watts,
        frames_per_s=fps,
        energy_j=joules,
        energy_source="NVML, TITAN X, idle not subtracted" if watts else "",
    )


ALL, DETECTORS = "Tables 2, 3, supplement 2", "Table 2, supplement 2"
VARIANTS, OTHERS, YOLO = "Table 3, supplement 2", "Table 2", "supplement 2"
ROWS = (
    _row("SubCNN", OTHERS, (90.8, 89.0, 79.3, 79.5, 71.1, 62.7, 83.3, 71.3, 66.4),
         mean=77.0, fps=0.2),
    _row("MS-CNN", OTHERS, (90.0, 89.0, 76.1, 84.1, 75.5, 66.1, 83.9, 73.7, 68.3),
         mean=78.5, fps=2.5),
    _row("PNET", OTHERS, (81.8, 83.6, 74.2, 74.3, 58.6, 51.7, 77.2, 64.7, 60.4),
         mean=69.6, fps=10),
    _row("Pie", OTHERS, (89.4, 89.2, 74.2, 84.6, 76.3, 67.6, 84.9, 73.2, 67.6),
         mean=78.6, fps=0.83),
    _row("Faster R-CNN + VGG16", DETECTORS, (92.9, 87.9, 77.3),
         size=485, watts=200.1, fps=1.7, joules=117.7),
    _row("Faster R-CNN + AlexNet", DETECTORS, (94.7, 84.8, 68.3),
         size=240, watts=143.1, fps=2.9, joules=49.3),
    _row("YOLO", YOLO, size=753, watts=187.3, fps=25.8, joules=7.3),
    _row("SqueezeDet", ALL, (90.2, 84.7, 73.9, 82.9, 75.4, 72.1, 77.1, 68.3, 65.8), mean=76.7,
         size=7.9, flops=9.7, activations=117.0, watts=80.9, fps=57.2, joules=1.4),
    _row(SCALE_UP, VARIANTS, mean=72.4,
         size=7.9, flops=22.5, activations=263.3, watts=89.9, fps=31.3, joules=2.9),
    _row(SCALE_DOWN, VARIANTS, mean=73.2,
         size=7.9, flops=5.3, activations=65.8, watts=77.8, fps=92.5, joules=0.84),
    _row("SqueezeDet, 16 anchors", VARIANTS, mean=66.9,
         size=9.4, flops=11.0, activations=117.4, watts=82.9, fps=51.4, joules=1.6),
    _row("SqueezeDet+", ALL, (90.4, 87.1, 78.9, 87.6, 80.3, 78.1, 81.4, 71.3, 68.5), mean=80.4,
         size=26.8, flops=77.2, activations=252.7, watts=128.3, fps=32.1, joules=4.0),
    _row("VGG16+ConvDet", DETECTORS, (93.5, 88.1, 79.2, 85.2, 78.4, 75.2, 77.9, 69.1, 65.1),
         mean=79.1, size=57.4, flops=288.4, activations=540.4, watts=153.9, fps=16.6, joules=9.3),
    _row("ResNet50+ConvDet", DETECTORS, (92.9, 87.9, 79.4, 85.0, 78.5, 76.6, 67.3, 61.6, 55.6),
         mean=76.1, size=35.1, flops=61.3, activations=369.0, watts=95.4, fps=22.5, joules=4.2),
)  # fmt: skip
