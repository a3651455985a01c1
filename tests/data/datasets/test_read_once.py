"""Between hold and release, a dataset is read once and is in all else what it was."""

import pytest
from detectron2.data import DatasetCatalog, get_detection_dataset_dicts

from retinanet_ext.data.datasets.read_once import hold_datasets, release_datasets


class Source:
    """A dataset that counts how often it is read."""

    builtin = True

    def __init__(self):
        self.reads = 0

    def __call__(self):
        self.reads += 1
        return [{"image_id": i, "annotations": []} for i in range(3)]


@pytest.fixture
def source(clean_catalogs):
    source = Source()
    DatasetCatalog.register("held", source)
    return source


def test_readers_share_one_reading(source):
    hold_datasets(["held", "not_registered"])
    first = DatasetCatalog.get("held")
    again = get_detection_dataset_dicts("held", filter_empty=False, check_consistency=False)
    assert source.reads == 1 and first == again


def test_nothing_is_read_before_someone_asks(source):
    hold_datasets(["held"])
    assert source.reads == 0


def test_a_reader_may_reorder_its_list(source):
    hold_datasets(["held"])
    DatasetCatalog.get("held").clear()
    assert len(DatasetCatalog.get("held")) == 3


def test_attributes_are_those_of_the_dataset(source):
    hold_datasets(["held"])
    assert DatasetCatalog["held"].builtin and not hasattr(DatasetCatalog["held"], "class_names")


def test_released_datasets_are_read_again_and_the_catalog_is_as_before(source):
    before = list(DatasetCatalog)
    hold_datasets(["held"])
    hold_datasets(["held"])
    DatasetCatalog.get("held")
    release_datasets()
    assert DatasetCatalog["held"] is source and list(DatasetCatalog) == before
    DatasetCatalog.get("held")
    assert source.reads == 2


def test_a_dataset_that_was_registered_meanwhile_stays(source):
    hold_datasets(["held"])
    DatasetCatalog.pop("held")
    other = Source()
    DatasetCatalog.register("held", other)
    release_datasets()
    assert DatasetCatalog["held"] is other
