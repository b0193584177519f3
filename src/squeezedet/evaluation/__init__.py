"""The protocols of KITTI, VOC and COCO, one per file."""
