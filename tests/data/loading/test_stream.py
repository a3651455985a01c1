"""The stream of training images: the same whatever loads it, and exact when it is continued."""

import itertools
import logging
import random

import numpy as np
import pytest
import torch
from detectron2.data import DatasetCatalog, DatasetFromList, build_detection_train_loader
from detectron2.utils import comm
from detectron2.utils.serialize import PicklableWrapper
from torch.utils.data import IterableDataset

from retinanet_ext.data.augment import build_train_mapper
from retinanet_ext.data.datasets.register import register_coco_dataset
from retinanet_ext.data.loading.bad_images import LoadOrSkip
from retinanet_ext.data.loading.build_stream import build_train_stream
from retinanet_ext.data.loading.stream import TrainStream
from tests.helpers.tiny import tiny_cfg, write_dataset

NUM_IMAGES = 23
AUG = [
    {"NAME": "Mosaic", "PROB": 0.7, "SIZE": [64, 96]},
    {"NAME": "MinIoURandomCrop", "PROB": 0.5},
    {"NAME": "LargeScaleJitter", "SIZE": [64, 64], "SCALE": [0.5, 1.5]},
    {"NAME": "RandomFlip"},
    "RandomContrast",
    "RandomLighting",
    "RandomNoise",
]
SAMPLERS = [
    "TrainingSampler",
    "RepeatFactorTrainingSampler",
    "RandomSubsetTrainingSampler",
    "WeightedTrainingSampler",
    "WeightedCategoryTrainingSampler",
]


@pytest.fixture(scope="module")
def name(tmp_path_factory):
    """Name of a dataset of 12 images of 64 x 64 pixels."""
    root = write_dataset(tmp_path_factory.mktemp("stream")) / "bccd"
    register_coco_dataset(
        "stream_train", root / "annotations" / "instances_train.json", root / "train"
    )
    return "stream_train"


@pytest.fixture
def cfg(name, tmp_path):
    cfg = tiny_cfg(tmp_path)
    cfg.DATASETS.TRAIN = (name,)
    return cfg


def entries(number=NUM_IMAGES):
    """Dataset dicts of images of which two thirds are wide, and a quarter has a rare class."""
    return [
        {
            "image_id": i,
            "width": 8 + i % 3,
            "height": 8,
            "annotations": [{"category_id": int(i % 4 == 0)}],
        }
        for i in range(number)
    ]


def numbers_of(entry):
    """A mapper: the image's id and one number of each generator."""
    numbers = random.random(), float(np.random.rand()), float(torch.rand(()))
    return {"image_id": entry["image_id"], "numbers": numbers}


def stream_of(cfg, seed=5, number=NUM_IMAGES, mapper=numbers_of, **changes):
    for key, value in changes.items():
        cfg.DATALOADER[key] = value
    return build_train_stream(cfg, mapper, entries(number), seed=seed)


def take(stream, number):
    found = list(itertools.islice(stream, number))
    stream.close()
    return found


def ids(batches):
    return [[x["image_id"] for x in batch] for batch in batches]


def as_rank(monkeypatch, rank, world_size):
    monkeypatch.setattr(comm, "get_rank", lambda: rank)
    monkeypatch.setattr(comm, "get_world_size", lambda: world_size)
    # The name that this package and Detectron2's loader took from it.
    monkeypatch.setattr("detectron2.data.build.get_world_size", lambda: world_size)
    monkeypatch.setattr(comm, "all_gather", lambda x: [x] * world_size)


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_order_is_that_of_detectron2(cfg, name, sampler, group):
    cfg.DATALOADER.SAMPLER_TRAIN, cfg.DATALOADER.ASPECT_RATIO_GROUPING = sampler, group
    cfg.DATALOADER.REPEAT_THRESHOLD, cfg.DATALOADER.RANDOM_SUBSET_RATIO = 0.9, 0.5
    cfg.DATASETS.TRAIN_REPEAT_FACTOR = [(name, 2.0)]
    # The weighted samplers read the images of DATASETS.TRAIN.
    dataset = None if sampler.startswith("Weighted") else entries()
    seeded = cfg.clone()
    # Detectron2's samplers draw their seed, and newer ones take that of the config.
    np.random.seed(5)
    seeded.SEED = int(np.random.randint(2**31))
    np.random.seed(5)
    loader = build_detection_train_loader(seeded, mapper=dict, dataset=dataset)
    expected = ids(itertools.islice(loader, 15))
    assert ids(take(build_train_stream(cfg, dict, dataset, seed=5), 15)) == expected
    # The seed of the run decides, whatever the config says.
    assert ids(take(build_train_stream(cfg, dict, dataset, seed=6), 15)) != expected
    cfg.SEED = -1
    assert ids(take(build_train_stream(cfg, dict, dataset, seed=5), 15)) == expected
    assert ids(take(build_train_stream(cfg, dict, dataset, seed=6), 15)) != expected


@pytest.mark.parametrize("sampler", ["TrainingSampler", "RepeatFactorTrainingSampler"])
def test_samplers_that_take_the_seed_of_the_config_give_the_same_order(cfg, monkeypatch, sampler):
    """As in versions of Detectron2 after 0.6: there and here, one run has one order."""
    cfg.DATALOADER.SAMPLER_TRAIN, cfg.DATALOADER.REPEAT_THRESHOLD = sampler, 0.9
    expected = {seed: ids(take(stream_of(cfg, seed), 15)) for seed in (5, 6)}
    assert expected[5] != expected[6]
    build = build_detection_train_loader

    def build_as_later(of_samplers, **arguments):
        def take_seed() -> int:
            np.random.seed(0)  # nothing is drawn
            return of_samplers.SEED

        monkeypatch.setattr(comm, "shared_random_seed", take_seed)
        return build(of_samplers, **arguments)

    monkeypatch.setattr(
        "retinanet_ext.data.loading.build_stream.build_detection_train_loader", build_as_later
    )
    for of_config in (7, -1):
        cfg.SEED = of_config
        for seed in (5, 6):
            assert ids(take(stream_of(cfg, seed), 15)) == expected[seed]


@pytest.mark.parametrize(
    "changes",
    [
        {"ASPECT_RATIO_GROUPING": False},
        {"ASPECT_RATIO_GROUPING": True},
        {"SAMPLER_TRAIN": "RepeatFactorTrainingSampler", "REPEAT_THRESHOLD": 0.9},
    ],
)
def test_batches_do_not_depend_on_the_number_of_workers(cfg, changes):
    expected, one, three = (
        take(stream_of(cfg, **changes, NUM_WORKERS=workers), 14) for workers in (0, 1, 3)
    )
    assert one == expected and three == expected
    assert len({x["numbers"] for batch in expected for x in batch}) == 14 * 4


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"ASPECT_RATIO_GROUPING": True},
        {"SAMPLER_TRAIN": "RepeatFactorTrainingSampler", "REPEAT_THRESHOLD": 0.9},
        {"ASPECT_RATIO_GROUPING": True, "NUM_WORKERS": 2},
    ],
)
def test_a_resumed_stream_gives_the_next_batches(cfg, changes):
    whole = take(stream_of(cfg, **changes), 16)
    stream = stream_of(cfg, **changes)
    states = [stream.state_dict()]
    for _ in itertools.islice(stream, 12):
        states.append(stream.state_dict())
    stream.close()
    for done in (0, 5, 12):  # an epoch ends in the sixth batch
        assert states[done]["images"] == 4 * done
        resumed = stream_of(cfg, seed=99, **changes)
        resumed.load_state_dict(states[done])
        assert take(resumed, 4) == whole[done : done + 4]


def test_a_new_iterator_goes_on_where_the_last_one_was(cfg):
    whole = take(stream_of(cfg), 6)
    stream = stream_of(cfg, NUM_WORKERS=1)
    first = iter(stream)
    found = [next(first), next(first)]
    found += itertools.islice(stream, 3)
    assert found == whole[:5] and stream.images == 20
    with pytest.raises(StopIteration):
        next(first)
    last = iter(stream)
    next(last)
    stream.load_state_dict({"images": 4, "seed": 5})
    with pytest.raises(StopIteration):
        next(last)
    assert next(iter(stream)) == whole[1]
    stream.close()


def test_the_seed_of_the_state_wins_over_that_of_batches_drawn_before(cfg):
    stream = stream_of(cfg, seed=5)
    take(stream, 2)
    stream.load_state_dict(stream_of(cfg, seed=6).state_dict())
    assert take(stream, 3) == take(stream_of(cfg, seed=6), 3) and stream.seed == 6


@pytest.mark.parametrize("workers", [0, 2])
def test_generators_of_the_process_stay_untouched(cfg, workers):
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    stream = stream_of(cfg, NUM_WORKERS=workers)
    take(stream, 2)
    stream.load_state_dict({"images": 40, "seed": 1})
    take(stream, 2)
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert after == before


def test_processes_together_draw_the_images_of_one(cfg, monkeypatch):
    whole = take(stream_of(cfg), 9)
    parts = []
    for rank in range(2):
        as_rank(monkeypatch, rank, 2)
        stream = stream_of(cfg)
        parts.append(take(stream, 9))
        assert (stream.batch_size, stream.total_batch_size, stream.images) == (2, 4, 36)
    for batch, *shares in zip(whole, *parts, strict=True):
        assert [x for pair in zip(*shares, strict=True) for x in pair] == batch


@pytest.mark.parametrize("group", [False, True])
def test_each_process_resumes_its_own_share(cfg, monkeypatch, group):
    for rank in range(2):
        as_rank(monkeypatch, rank, 2)
        stream = stream_of(cfg, ASPECT_RATIO_GROUPING=group)
        whole = take(stream, 9)
        resumed = stream_of(cfg, ASPECT_RATIO_GROUPING=group)
        resumed.load_state_dict({**stream.state_dict(), "images": 4 * 6})
        assert take(resumed, 3) == whole[6:]


def test_another_batch_size_goes_on_after_as_many_images_and_says_so(cfg, caplog):
    stream = stream_of(cfg)
    images = [x for batch in take(stream, 12) for x in batch]
    cfg.SOLVER.IMS_PER_BATCH = 3
    other = stream_of(cfg)
    with caplog.at_level(logging.WARNING):
        other.load_state_dict({**stream.state_dict(), "images": 16})
    assert other.images == 15
    assert "4 images per batch before and 3 now" in caplog.text and "after 15 images" in caplog.text
    assert take(other, 2) == [images[15:18], images[18:21]]


def test_an_equal_job_is_resumed_without_a_warning(cfg, caplog, monkeypatch):
    state = stream_of(cfg).state_dict()
    with caplog.at_level(logging.WARNING):
        stream_of(cfg, seed=1).load_state_dict(state)
        assert not caplog.messages
        stream_of(cfg, number=9).load_state_dict(state)
        assert "23 images in the dataset before and 9 now" in caplog.messages[-1]
        as_rank(monkeypatch, 0, 2)
        stream_of(cfg).load_state_dict(state)
        assert "1 processes before and 2 now" in caplog.messages[-1]


def test_an_image_is_augmented_anew_in_each_epoch(cfg):
    batches = take(stream_of(cfg, number=8), 4)
    numbers = [{x["image_id"]: x["numbers"] for x in sum(batches[i : i + 2], [])} for i in (0, 2)]
    assert set(numbers[0]) == set(numbers[1]) == set(range(8))
    assert all(numbers[0][i] != numbers[1][i] for i in range(8))


def plain(sample):
    """What the model sees of a sample, as something that == compares."""
    boxes, image = sample["instances"], sample["image"]
    return image.shape, image.numpy().tobytes(), str(boxes.gt_boxes), str(boxes.gt_classes)


def test_real_augmentations_are_exact_too(cfg):
    cfg.INPUT.AUG, cfg.INPUT.AUG_MIN_VISIBLE, cfg.SOLVER.IMS_PER_BATCH = AUG, 0.1, 2
    dataset = DatasetFromList(DatasetCatalog.get(cfg.DATASETS.TRAIN[0]), copy=False)

    def start(workers):
        cfg.DATALOADER.NUM_WORKERS = workers
        # The mosaic takes further images, and what is in the place of a bad image is random too.
        mapper = LoadOrSkip(FailsSometimes(build_train_mapper(cfg, dataset)), dataset)
        return build_train_stream(cfg, mapper, dataset, seed=3)

    whole = [[plain(x) for x in batch] for batch in take(start(0), 5)]
    resumed = start(2)
    resumed.load_state_dict({"images": 4, "seed": 3})
    assert [[plain(x) for x in batch] for batch in take(resumed, 3)] == whole[2:]
    assert len({x for batch in whole for x in batch}) == 10


class FailsSometimes:
    """A mapper that cannot load every third image."""

    def __init__(self, mapper):
        self.mapper = mapper

    def __call__(self, entry):
        if entry["image_id"] % 3 == 0:
            raise OSError("cut short")
        return self.mapper(entry)


def test_sizes_are_read_once_and_only_to_group(cfg):
    class Counted(DatasetFromList):
        reads = 0

        def __getitem__(self, index):
            Counted.reads += 1
            return super().__getitem__(index)

    for group, expected in ((False, 0), (True, NUM_IMAGES)):
        cfg.DATALOADER.ASPECT_RATIO_GROUPING, Counted.reads = group, 0
        stream = build_train_stream(cfg, numbers_of, Counted(entries()))
        assert Counted.reads == 0
        take(stream, 2)
        assert Counted.reads == expected + 8
        take(stream, 2)
        assert Counted.reads == expected + 16


def test_the_dataset_of_the_config_is_used_and_its_size_known(cfg):
    stream = build_train_stream(cfg, numbers_of)
    assert stream.dataset_size == 12
    assert sorted(sum(ids(take(stream, 3)), [])) == list(range(1, 13))
    with pytest.raises(TypeError):
        len(stream)


def test_what_cannot_work_is_refused(cfg, monkeypatch):
    class Endless(IterableDataset):
        def __iter__(self):
            return itertools.count()

    with pytest.raises(ValueError, match="IterableDataset, which cannot be resumed"):
        build_train_stream(cfg, numbers_of, Endless())
    as_rank(monkeypatch, 0, 3)
    with pytest.raises(ValueError, match=r"IMS_PER_BATCH is 4 but the number of processes is 3"):
        stream_of(cfg)


def test_a_sampler_that_ends_ends_the_stream():
    stream = TrainStream(range(9), PicklableWrapper(str), lambda seed: range(9), 4)
    assert list(stream) == [["0", "1", "2", "3"], ["4", "5", "6", "7"]]
