"""Dataset names: registering twice, moving the built-in ones, and errors that say where to look."""

from __future__ import annotations

import importlib
import json
import os
from typing import Any

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog, get_detection_dataset_dicts
from detectron2.data.datasets import register_coco_instances

from retinanet_ext.data.datasets import register
from retinanet_ext.data.datasets.register import (
    load_class_names,
    register_builtin_datasets,
    register_coco_dataset,
)
from retinanet_ext.data.quickstart import dataset
from retinanet_ext.data.quickstart.dataset import CLASS_NAMES
from retinanet_ext.protocols import LazyDataset
from tests.helpers.coco_file import coco_file

BUILTIN = [f"{name}_{split}" for name in ("quickstart", "bccd", "dice") for split in dataset.SPLITS]


pytestmark = pytest.mark.usefixtures("clean_catalogs")


def write_coco(folder, split="train", categories=((1, "cat"), (2, "dog")), category_id=2):
    """A COCO json with one image and one box; returns its path and the image folder."""
    path = folder / "annotations" / f"instances_{split}.json"
    box = {"image_id": 7, "category_id": category_id, "bbox": [1, 2, 3, 4]}
    coco_file(path, {"a.png": (20, 10)}, [box], dict(categories), first_id=7)
    (folder / split).mkdir(exist_ok=True)
    return path, folder / split


def test_a_registered_json_loads_with_contiguous_ids_and_metadata(tmp_path):
    path, images = write_coco(tmp_path, categories=((9, "dog"), (4, "cat")), category_id=9)
    register_coco_dataset("mine", path, images, colour="red")
    (record,) = DatasetCatalog.get("mine")
    assert record["file_name"] == str(images / "a.png")
    assert (record["height"], record["width"], record["image_id"]) == (10, 20, 7)
    assert record["annotations"][0]["category_id"] == 1  # the second after cat, id 4
    metadata = MetadataCatalog.get("mine")
    assert metadata.thing_classes == ["cat", "dog"]
    assert metadata.thing_dataset_id_to_contiguous_id == {4: 0, 9: 1}
    assert (metadata.json_file, metadata.image_root) == (str(path), str(images))
    assert (metadata.evaluator_type, metadata.colour) == ("coco", "red")


def test_the_same_entry_again_changes_nothing(tmp_path):
    path, images = write_coco(tmp_path)
    register_coco_dataset("mine", path, images, thing_classes=("cat", "dog"))
    DatasetCatalog.get("mine")
    source = DatasetCatalog["mine"]
    register_coco_dataset("mine", str(path), str(images), thing_classes=["cat", "dog"])
    assert DatasetCatalog["mine"] is source


@pytest.mark.parametrize(
    "change", [{"json_file": "b.json"}, {"image_root": "b"}, {"thing_classes": ["bird"]}]
)
def test_another_entry_under_a_known_name_is_refused(change):
    entry: dict[str, Any] = {"json_file": "a.json", "image_root": "a", "thing_classes": ["cat"]}
    register_coco_dataset("mine", **entry)
    with pytest.raises(ValueError, match=rf"'mine' is already.*{next(iter(change))}.*remove\("):
        register_coco_dataset("mine", **{**entry, **change})
    assert MetadataCatalog.get("mine").json_file == os.path.abspath("a.json")


def test_a_removed_name_can_be_registered_with_other_files(tmp_path):
    path, images = write_coco(tmp_path / "old")
    register_coco_dataset("mine", path, images)
    DatasetCatalog.get("mine")
    DatasetCatalog.remove("mine")
    path, images = write_coco(tmp_path / "new", categories=((1, "bird"),), category_id=1)
    register_coco_dataset("mine", path, images)
    DatasetCatalog.get("mine")
    assert MetadataCatalog.get("mine").thing_classes == ["bird"]


def test_metadata_set_before_registering_is_kept(tmp_path):
    MetadataCatalog.get("mine").thing_colors = [(1, 2, 3)]
    register_coco_dataset("mine", "a.json", "a")
    assert MetadataCatalog.get("mine").thing_colors == [(1, 2, 3)]


def test_a_relative_path_survives_a_change_of_folder(tmp_path, monkeypatch):
    write_coco(tmp_path)
    monkeypatch.chdir(tmp_path)
    register_coco_dataset("mine", "annotations/instances_train.json", "train")
    monkeypatch.chdir("/")
    assert len(DatasetCatalog.get("mine")) == 1


def test_urls_are_left_as_they_are():
    register_coco_dataset("mine", "https://example.org/a.json", "s3://bucket/images")
    assert MetadataCatalog.get("mine").json_file == "https://example.org/a.json"
    assert MetadataCatalog.get("mine").image_root == "s3://bucket/images"


def test_missing_files_are_named(tmp_path):
    path, images = write_coco(tmp_path)
    images.rmdir()
    register_coco_dataset("mine", path, images)
    with pytest.raises(FileNotFoundError, match=rf"'mine'.*{images}"):
        DatasetCatalog.get("mine")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=rf"'mine'.*{path}"):
        load_class_names("mine")


def spoil_json(path):
    path.write_text("{")


def unknown_category(path):
    path.write_text(path.read_text().replace('"category_id": 2', '"category_id": 3'))


def no_categories(path):
    path.write_text(json.dumps({**json.loads(path.read_text()), "categories": []}))


def same_id_twice(path):
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, "annotations": data["annotations"] * 2}))


@pytest.mark.parametrize("damage", [spoil_json, unknown_category, no_categories, same_id_twice])
def test_a_broken_json_is_named_in_one_line(damage, tmp_path):
    path, images = write_coco(tmp_path)
    damage(path)
    register_coco_dataset("mine", path, images)
    with pytest.raises(ValueError) as error:
        DatasetCatalog.get("mine")
    assert "'mine'" in str(error.value) and str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_class_names_that_differ_from_the_json_are_refused(tmp_path):
    path, images = write_coco(tmp_path)
    register_coco_dataset("mine", path, images, thing_classes=["dog", "cat"])
    with pytest.raises(ValueError, match=r"'mine'.*thing_classes.*different"):
        DatasetCatalog.get("mine")


# Class names.


def test_class_names_come_from_the_json_without_loading_the_dataset(tmp_path, monkeypatch):
    path, images = write_coco(tmp_path, categories=((9, "dog"), (4, "cat")), category_id=9)
    register_coco_dataset("mine", path, images)
    monkeypatch.setattr(register, "load_coco_json", lambda *_: pytest.fail("loaded"))
    assert load_class_names("mine") == ["cat", "dog"]


def test_class_names_of_someone_elses_dataset(tmp_path):
    path, images = write_coco(tmp_path)
    register_coco_instances("theirs", {}, str(path), str(images))
    assert load_class_names("theirs") == ["cat", "dog"]
    DatasetCatalog.register("bare", lambda: [])
    assert load_class_names("bare") is None
    with pytest.raises(KeyError, match="nobodys"):
        load_class_names("nobodys")
    assert "nobodys" not in MetadataCatalog


def test_a_json_without_categories_key_is_named(tmp_path):
    (tmp_path / "a.json").write_text("[]")
    register_coco_dataset("mine", tmp_path / "a.json", tmp_path)
    with pytest.raises(ValueError, match=r"'mine'.*a\.json"):
        load_class_names("mine")


# The built-in names.


def test_builtin_names_have_files_below_the_root(tmp_path):
    register_builtin_datasets(tmp_path)
    for name in BUILTIN:
        dataset, split = name.split("_")
        folder = tmp_path / {"quickstart": "quickstart_v1"}.get(dataset, dataset)
        metadata = MetadataCatalog.get(name)
        assert metadata.json_file == str(folder / "annotations" / f"instances_{split}.json")
        assert metadata.image_root == str(folder / split)
        assert metadata.evaluator_type == "coco"


def test_importing_the_package_registers_them():
    import retinanet_ext  # noqa: F401

    assert set(BUILTIN) <= set(DatasetCatalog.list())
    for split in dataset.SPLITS:
        assert MetadataCatalog.get(f"quickstart_{split}").thing_classes == list(CLASS_NAMES)


@pytest.mark.parametrize("value, folder", [("here", "here"), (None, "datasets"), ("", "datasets")])
def test_the_root_comes_from_the_environment(value, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DETECTRON2_DATASETS", raising=False)
    if value is not None:
        monkeypatch.setenv("DETECTRON2_DATASETS", value)
    register_builtin_datasets()
    assert MetadataCatalog.get("bccd_val").image_root == str(tmp_path / folder / "bccd" / "val")


def test_another_root_moves_the_names_with_their_classes(tmp_path):
    for root, names in (("a", ("cat", "dog")), ("b", ("bird", "bee"))):
        write_coco(tmp_path / root / "bccd", categories=tuple(enumerate(names, start=1)))
        register_builtin_datasets(tmp_path / root)
        (record,) = DatasetCatalog.get("bccd_train")
        assert record["file_name"].startswith(str(tmp_path / root))
        assert MetadataCatalog.get("bccd_train").thing_classes == list(names)


def test_the_same_root_again_keeps_entries_and_metadata(tmp_path):
    register_builtin_datasets(tmp_path)
    source, metadata = DatasetCatalog["dice_val"], MetadataCatalog.get("dice_val")
    metadata.mark = 1
    register_builtin_datasets(str(tmp_path))
    assert DatasetCatalog["dice_val"] is source
    assert MetadataCatalog.get("dice_val").mark == 1


def test_a_reloaded_module_registers_again_without_error(tmp_path):
    register_builtin_datasets(tmp_path / "a")
    try:
        reloaded = importlib.reload(register)
        reloaded.register_builtin_datasets(tmp_path / "a")
        reloaded.register_builtin_datasets(tmp_path / "b")
        assert MetadataCatalog.get("dice_val").image_root == str(tmp_path / "b" / "dice" / "val")
    finally:
        # Other tests hold the functions of the first load; they look up their globals here.
        importlib.reload(register)


def test_a_name_that_someone_else_took_is_left_alone(tmp_path):
    for name in BUILTIN:
        DatasetCatalog.pop(name, None)
        MetadataCatalog.pop(name, None)
    register_coco_instances("bccd_train", {}, "their.json", "theirs")
    register_builtin_datasets(tmp_path)
    assert MetadataCatalog.get("bccd_train").json_file == "their.json"
    assert "bccd_val" in DatasetCatalog


def test_a_missing_builtin_dataset_says_where_it_was_looked_for(tmp_path):
    register_builtin_datasets(tmp_path)
    with pytest.raises(FileNotFoundError) as error:
        DatasetCatalog.get("bccd_train")
    path = str(tmp_path / "bccd" / "annotations" / "instances_train.json")
    for words in ("'bccd_train'", path, "DETECTRON2_DATASETS", "--data-root", "'bccd/'"):
        assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_quickstart_is_generated_when_it_is_first_loaded(tmp_path, monkeypatch):
    def small(root, name):
        return dataset.ensure_quickstart(root, num_train=3, num_val=2, name=name)

    monkeypatch.setattr(register, "ensure_quickstart", small)
    register_builtin_datasets(tmp_path)
    assert list(tmp_path.iterdir()) == []
    dicts = get_detection_dataset_dicts(["quickstart_train"], filter_empty=False)
    assert len(dicts) == 3 and all(os.path.isfile(record["file_name"]) for record in dicts)
    assert len(DatasetCatalog.get("quickstart_val")) == 2
    metadata = MetadataCatalog.get("quickstart_val")
    assert metadata.thing_dataset_id_to_contiguous_id == {i + 1: i for i in range(5)}
    assert load_class_names("quickstart_val") == list(CLASS_NAMES)
    assert len(DatasetCatalog.get("quickstart_hard_train")) == 3
    assert {path.name for path in tmp_path.iterdir() if path.is_dir()} == {
        "quickstart_v1",
        "quickstart_hard_v1",
    }


@pytest.mark.parametrize("name, images, boxes", [("bccd_val", 73, 920), ("dice_train", 200, 1415)])
def test_real_datasets_load(name, images, boxes, shared_datasets):
    register_builtin_datasets(shared_datasets)
    dicts = DatasetCatalog.get(name)
    assert len(dicts) == images
    assert sum(len(record["annotations"]) for record in dicts) == boxes
    assert all(os.path.isfile(record["file_name"]) for record in dicts)


class OwnDataset:
    """Someone else's dataset that says what it holds without being loaded."""

    def __init__(self):
        self.checked = 0

    def __call__(self):
        raise AssertionError("loaded")

    def class_names(self):
        return ["cat", "dog"]

    def require_files(self):
        self.checked += 1


def test_a_lazy_dataset_of_ones_own_is_not_loaded_for_its_classes():
    DatasetCatalog.register("own", OwnDataset())
    assert load_class_names("own") == ["cat", "dog"]


def test_the_datasets_of_this_package_are_lazy_and_a_function_is_not(tmp_path):
    register_coco_dataset("mine", *write_coco(tmp_path))
    register_builtin_datasets(tmp_path)
    assert isinstance(DatasetCatalog["mine"], LazyDataset)
    assert isinstance(DatasetCatalog["quickstart_train"], LazyDataset)
    assert DatasetCatalog["mine"].origin == "user"
    assert DatasetCatalog["quickstart_train"].origin == "builtin"
    assert isinstance(OwnDataset(), LazyDataset)
    assert not isinstance(lambda: [], LazyDataset)


@pytest.mark.parametrize(
    ("where", "changes", "words"),
    [
        ("annotations", {"category_id": {}}, "annotation 1: category_id is {}"),
        ("annotations", {"bbox": []}, r"annotation 1: bbox is \[\]"),
        ("images", {"id": [1]}, r"entry 0 of 'images': id is \[1\]"),
        ("images", {"width": "wide"}, r"0\.png: width is 'wide'"),
        ("annotations", {"segmentation": 7}, "cannot use .*TypeError"),
    ],
)
def test_faults_of_a_json_are_one_sentence_with_the_place(tmp_path, where, changes, words):
    boxes = [{"image_id": 1, "category_id": 1, "bbox": [2, 3, 10, 10]}]
    path = coco_file(tmp_path / "a.json", {"0.png": (40, 30)}, boxes)
    content = json.loads(path.read_text())
    content[where][0].update(changes)
    path.write_text(json.dumps(content))
    register_coco_dataset("faulty", path, tmp_path)
    with pytest.raises(ValueError, match=f"dataset 'faulty'.*{words}") as error:
        DatasetCatalog.get("faulty")
    assert "\n" not in str(error.value)
