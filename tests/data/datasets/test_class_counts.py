"""Objects of each class, as class-balanced losses want them counted."""

from __future__ import annotations

import logging

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from retinanet_ext.data import count_classes


@pytest.fixture
def add_dataset():
    """Register datasets of one image whose annotations have the given classes; undo it after."""
    names = []

    def add(name, *category_ids, crowds=(), classes=("cat", "dog", "bird")):
        boxes = [(c, 0) for c in category_ids] + [(c, 1) for c in crowds]
        annotations = [
            {"category_id": c, "bbox": [0, 0, 5, 5], "iscrowd": crowd} for c, crowd in boxes
        ]
        DatasetCatalog.register(name, lambda: [{"file_name": "a.png", "annotations": annotations}])
        names.append(name)
        if classes:
            MetadataCatalog.get(name).thing_classes = list(classes)

    yield add
    for name in names:
        DatasetCatalog.remove(name)
        MetadataCatalog.pop(name, None)


def test_all_datasets_are_counted_in_the_order_of_classes(add_dataset, caplog):
    add_dataset("pets_a", 0, 2, 2)
    add_dataset("pets_b", 1, 2)
    assert count_classes(["pets_a", "pets_b"], 3) == [1, 1, 3]
    assert count_classes(["pets_a", "pets_b", "pets_b"], 3) == [1, 2, 4]
    assert not caplog.messages


def test_crowds_are_not_objects(add_dataset):
    add_dataset("pets_a", 0, 1, 2, crowds=(0, 0, 2))
    assert count_classes(["pets_a"], 3) == [1, 1, 1]


@pytest.mark.parametrize(("classes", "shown"), [(("cat", "dog", "bird"), "dog"), (None, "1")])
def test_a_class_without_objects_is_logged(add_dataset, caplog, classes, shown):
    add_dataset("pets_a", 0, 2, crowds=(1,), classes=classes)
    with caplog.at_level(logging.WARNING):
        assert count_classes(["pets_a"], 3) == [1, 0, 1]
    assert caplog.messages == [f"No object in 'pets_a' of the class(es) {shown}."]


def test_no_object_at_all_is_an_error(add_dataset):
    add_dataset("pets_a", crowds=(1,))
    with pytest.raises(ValueError, match=r"no object to count in dataset\(s\) 'pets_a'"):
        count_classes(["pets_a"], 3)


def test_a_class_out_of_range_is_named(add_dataset):
    add_dataset("pets_a", 3)
    with pytest.raises(ValueError, match=r"pets_a.*category_id is 3"):
        count_classes(["pets_a"], 3)
