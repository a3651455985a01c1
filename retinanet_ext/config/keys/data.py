"""The config keys of the data: DATASETS, INPUT, DATALOADER."""

from __future__ import annotations

from .key import Section

datasets = Section("DATASETS")
inputs = Section("INPUT")
loader = Section("DATALOADER")

# Datasets by path, to be named in TRAIN and TEST; --train and --val write entries of their own.
# Each is a dict with NAME, ANNOTATIONS (file or folder) and where needed IMAGES (folder),
# FORMAT (coco, voc, yolo, csv; else found out), CLASSES (file with a row "name" or "name,id"
# per class, for VOC and CSV), SUBSET (of a YOLO data.yaml or a folder: train, val, test), SPLIT
# (train or val: a fraction of the images), ONE_BASED (False: VOC coordinates are pixel edges from
# 0).
datasets.add("EXTRA", [])
# Read for EXTRA, in this order. Lists of a new name and the old ones: [[cell, RBC, WBC]].
datasets.add("MERGE_CLASSES", [])
# Names whose boxes are left out, and become background.
datasets.add("DROP_CLASSES", [])
# The model's classes in their order, others are left out; [] takes all that the data has.
datasets.add("CLASSES", [])
# Share of the images with SPLIT: val, in [0, 1), chosen by file name and seed; with 0, only
# --train trains on all and evaluates nothing.
datasets.add(
    "VAL_FRACTION", 0.2, at_least=0, below=1, meaning="the fraction of the images to validate on"
)
datasets.add("SPLIT_SEED", 0)
# Whether pictures that are the same or nearly so are on one side of SPLIT, for which each is opened
# once: by a difference hash of 256 bits, see data/datasets/similar.py. False: only names count.
datasets.add("SPLIT_SIMILAR_TOGETHER", True)
# Folder for annotations that were read; "" is ~/.cache/retinanet_ext (or $XDG_CACHE_HOME),
# "none" keeps none.
datasets.add("CACHE_DIR", "")

# Augmentations of training, in their order: names, or dicts {NAME: ..., PROB: ..., ...}, as in
# [{NAME: Mosaic, PROB: 0.5}, Default, RandomBrightness]. "Default" is what Detectron2 does by
# itself: INPUT.CROP, resize, flip; a list without it does neither. See data/augment/ops.py.
inputs.add("AUG", ["Default"])
# [height, width] that every picture is resized to in evaluation and prediction, its shape not kept
# (SSD, YOLO); [] is MIN_SIZE_TEST and MAX_SIZE_TEST. In training that is {NAME: Resize} in AUG.
inputs.add("SIZE_TEST", [])
# Pictures of 16 bits, int32 or floats (one channel), which Pillow would clip to 0..255: "full"
# scales 0..65535 (floats: 0..1) to 0..255, the same for all pictures, and refuses others; "minmax"
# scales the range of each picture. "" refuses such pictures.
inputs.add("SIXTEEN_BIT", "", choices=("", "full", "minmax"))
# Boxes of which less than this fraction of the area is left, after crops, become background; in
# [0, 1). 0, as in Detectron2, drops only those that are gone.
inputs.add(
    "AUG_MIN_VISIBLE",
    0.0,
    at_least=0,
    below=1,
    meaning="the fraction of a box's area that must be left for it to be kept",
)

# What training does with an image that cannot be loaded: "fail" stops at the first one; "skip"
# logs it and takes another at random, and stops if more than 1% are bad (and at least 10
# files), counted in each worker. Evaluation always stops.
loader.add("ON_ERROR", "fail", choices=("fail", "skip"))
