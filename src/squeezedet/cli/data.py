"""``squeezedet data``: verbs for labelled images, one file each."""

from __future__ import annotations

import typer

from squeezedet.cli import data_anchors, data_convert, data_doctor, data_synthesize

EXAMPLES = """\
  squeezedet data doctor roads
  squeezedet data convert roads roads-yolo --to yolo
  squeezedet data anchors data.yaml -k 12
  squeezedet data synthesize scenes --count 100
"""

data = typer.Typer(
    rich_markup_mode=None,
    add_completion=False,
    no_args_is_help=True,
    help="Examine, convert and make labelled images: KITTI, VOC, COCO and YOLO.",
    epilog=f"\b\nExamples:\n{EXAMPLES}",
)
for verb, module in (
    (data_doctor.doctor, data_doctor),
    (data_convert.convert, data_convert),
    (data_anchors.anchors, data_anchors),
    (data_synthesize.synthesize, data_synthesize),
):
    data.command(epilog=f"\b\nExamples:\n{module.EXAMPLES}")(verb)
