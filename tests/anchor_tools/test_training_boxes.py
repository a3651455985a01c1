"""The objects as the network sees them, against Detectron2's own resizing and mapping."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from detectron2.data import detection_utils as utils
from detectron2.data import transforms as T
from detectron2.structures import BoxMode

from retinanet_ext.anchor_tools import resized_boxes, sampled_boxes
from tests.helpers.anchor_scenes import random_images, table_of


@pytest.mark.parametrize("size", [(333, 251), (640, 97)])  # the second one hits the longer side
def test_resized_boxes_are_those_of_detectron2(size):
    table = table_of([[(10, 20, 50, 61)], [(3, 4, 30, 90), (5, 5, 9, 9)]], *size)
    found = resized_boxes(table, (200, 128), 320)
    assert found.view_of.tolist() == [0, 1, 1, 2, 3, 3]
    assert found.rows.tolist() == [0, 1, 2] * 2
    for short, part in ((200, slice(0, 3)), (128, slice(3, 6))):
        transform = T.ResizeShortestEdge(short, 320).get_transform(np.zeros((size[1], size[0], 3)))
        np.testing.assert_allclose(found.boxes[part], transform.apply_box(table.xyxy), rtol=1e-12)
        padded = [-(-x // 32) * 32 for x in (transform.new_w, transform.new_h)]
        assert found.sizes_of_boxes[part].tolist() == [padded] * 3


def test_size_0_leaves_images_as_they_are():
    table = table_of([[(10, 20, 50, 61)]], 333, 251)
    found = resized_boxes(table, (0,), 100)
    assert found.boxes.tolist() == [[10, 20, 50, 61]] and found.sizes.tolist() == [[352, 256]]


def test_crowds_and_images_without_objects_are_left_out():
    table = table_of([[], [(1, 1, 9, 9), (2, 2, 50, 50)], []])
    table.is_crowd[0] = True
    found = resized_boxes(table, (240,), 1000)
    assert found.rows.tolist() == [1] and len(found.sizes) == 1
    assert found.classes.tolist() == [1]
    table.is_crowd[:] = True
    with pytest.raises(ValueError, match="dataset 'pets' has no objects"):
        resized_boxes(table, (240,), 1000)


def records_of(*images):
    return [
        {
            "image": np.zeros((240, 320, 3), np.uint8),
            "annotations": [
                {"bbox": list(x), "bbox_mode": BoxMode.XYXY_ABS, "category_id": 1} for x in boxes
            ],
        }
        for boxes in images
    ]


def mapper_of(*augmentations):
    """A mapper that takes its pixels from the dict."""
    every = T.AugmentationList(list(augmentations))

    def mapper(record):
        sample = T.AugInput(record["image"])
        transforms = every(sample)
        size = sample.image.shape[:2]
        annotations = [
            utils.transform_instance_annotations(dict(x), transforms, size)
            for x in record["annotations"]
        ]
        instances = utils.annotations_to_instances(annotations, size)
        image = torch.as_tensor(sample.image.transpose(2, 0, 1).copy())
        return {"image": image, "instances": utils.filter_empty_instances(instances)}

    return mapper


class LeftHalf(T.Augmentation):
    def get_transform(self, image):
        return T.CropTransform(0, 0, 160, 240)


def test_samples_are_what_the_mapper_makes_of_images_with_objects():
    records = records_of([], [(0, 0, 320, 230), (300, 0, 320, 20)], [])
    mapper = mapper_of(LeftHalf(), T.RandomFlip(prob=1.0))
    found = sampled_boxes(records, ["cat", "dog"], mapper, 2)
    assert found.boxes.tolist() == [[0, 0, 160, 230]] * 2  # the other box lies outside
    assert found.classes.tolist() == [1, 1] and found.class_names == ["cat", "dog"]
    assert found.view_of.tolist() == [0, 1] and found.rows.tolist() == [-1, -1]
    assert found.sizes.tolist() == [[160, 256]] * 2


def test_samples_follow_the_seed_alone():
    records = records_of(*random_images(5, (0.5, 2.0)))
    mapper = mapper_of(T.ResizeShortestEdge((100, 300), 500, "range"), T.RandomFlip())
    first = sampled_boxes(records, ["cat", "dog"], mapper, 6, seed=3)
    np.random.seed(9)
    before = random.getstate(), np.random.get_state()[1].tolist()
    again = sampled_boxes(records, ["cat", "dog"], mapper, 6, seed=3)
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before
    np.testing.assert_array_equal(first.boxes, again.boxes)
    other = sampled_boxes(records, ["cat", "dog"], mapper, 6, seed=4)
    assert first.boxes.tolist() != other.boxes.tolist()


def test_nothing_to_draw_or_nothing_left_is_an_error():
    with pytest.raises(ValueError, match="has no objects"):
        sampled_boxes(records_of([]), ["cat"], mapper_of(), 2)
    with pytest.raises(ValueError, match="leave no object in 2 samples"):
        sampled_boxes(records_of([(200, 100, 220, 120)]), ["cat"], mapper_of(LeftHalf()), 2)
