"""Any format and any name leads to the same table; COCO files keep their faults."""

from __future__ import annotations

import json

import numpy as np
import pytest

from retinanet_ext import get_cfg
from retinanet_ext.data import register_coco_dataset
from retinanet_ext.data.doctor import InputSize, examine, load_table, why_refused
from tests.helpers.broken import HEIGHT, WIDTH, edited, findings_of_table, good_content, write

pytestmark = pytest.mark.usefixtures("clean_catalogs")


def write_voc(folder, content, names):
    for image in content["images"]:
        boxes = [x for x in content["annotations"] if x["image_id"] == image["id"]]
        objects = "".join(
            "<object><name>{}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax>"
            "<ymax>{}</ymax></bndbox></object>".format(
                names[x["category_id"]],
                x["bbox"][0] + 1,
                x["bbox"][1] + 1,
                x["bbox"][0] + x["bbox"][2],
                x["bbox"][1] + x["bbox"][3],
            )
            for x in boxes
        )
        text = (
            f"<annotation><filename>{image['file_name']}</filename><size><width>{WIDTH}</width>"
            f"<height>{HEIGHT}</height></size>{objects}</annotation>"
        )
        (folder / f"{image['id']}.xml").write_text(text)


def write_csv(path, content, names):
    rows = []
    for x in content["annotations"]:
        a, b, w, h = x["bbox"]
        file = f"train/{x['image_id']}.png"
        rows.append(f"{file},{a},{b},{a + w},{b + h},{names[x['category_id']]}\n")
    path.write_text("".join(rows))


def write_yolo(folder, content):
    (folder / "data.yaml").write_text("train: train\nnames: [cat, dog]\n")
    for image in content["images"]:
        rows = ""
        for x in content["annotations"]:
            if x["image_id"] == image["id"]:
                a, b, w, h = x["bbox"]
                numbers = ((a + w / 2) / WIDTH, (b + h / 2) / HEIGHT, w / WIDTH, h / HEIGHT)
                rows += f"{(x['category_id'] - 3) // 4} {' '.join(map(str, numbers))}\n"
        (folder / "train" / f"{image['id']}.txt").write_text(rows)


def test_formats_give_the_same_boxes(tmp_path):
    json_file, image_root = write(tmp_path, good_content())
    names = {3: "cat", 7: "dog"}
    (tmp_path / "voc").mkdir()
    write_voc(tmp_path / "voc", good_content(), names)
    write_csv(tmp_path / "boxes.csv", good_content(), names)
    write_yolo(tmp_path, good_content())
    coco = load_table("train", f"{json_file}:{image_root}", get_cfg()).table
    for spec in (
        f"{tmp_path / 'voc'}:{image_root}",
        str(tmp_path / "boxes.csv"),
        str(tmp_path / "data.yaml"),
    ):
        loaded = load_table("train", spec, get_cfg())
        table = loaded.table
        assert loaded.json_file == "" and findings_of_table(table, read_images=True) == []
        np.testing.assert_allclose(table.xyxy, coco.xyxy, atol=1e-3)
        assert table.class_names == coco.class_names and table.files == coco.files
        assert (table.class_of == coco.class_of).all()


def test_faults_of_another_format_are_found(tmp_path):
    _, image_root = write(tmp_path, good_content())
    write_csv(tmp_path / "boxes.csv", edited(bbox=[80, 20, 40, 20]), {3: "cat", 7: "dog"})
    table = load_table("train", str(tmp_path / "boxes.csv"), get_cfg()).table
    (finding,) = findings_of_table(table)
    assert finding.code == "box_over_border" and finding.file == str(image_root / "1.png")


def test_images_of_a_json_are_found_beside_it(tmp_path):
    json_file, image_root = write(tmp_path, good_content())
    loaded = load_table("train", str(json_file), get_cfg())
    assert loaded.image_root == str(image_root) and loaded.table.knows_folder
    assert loaded.table.files[0] == str(image_root / "1.png")


def test_json_is_checked_without_images_and_says_that_none_was_found(tmp_path):
    (tmp_path / "a.json").write_text("\ufeff" + json.dumps(edited(bbox=[1, 2, 0, 4])))
    table = load_table("train", str(tmp_path / "a.json"), get_cfg()).table
    assert not table.knows_folder
    assert [x.code for x in findings_of_table(table)] == ["box_no_area", "no_images"]
    assert "image 1.png is in none of" in table.no_images


def test_names_of_the_config_and_the_catalog(tmp_path):
    json_file, image_root = write(tmp_path, edited(category_id=99))
    register_coco_dataset("doctor_pets", json_file, image_root)
    cfg = get_cfg()
    row = {"NAME": "doctor_extra", "ANNOTATIONS": str(json_file), "IMAGES": str(image_root)}
    write_csv(tmp_path / "boxes.csv", good_content(), {3: "cat", 7: "dog"})
    csv = {"NAME": "doctor_csv", "ANNOTATIONS": str(tmp_path / "boxes.csv"), "SPLIT": "train"}
    cfg.DATASETS.EXTRA = [row]
    cfg.DATASETS.VAL_FRACTION, cfg.DATASETS.CACHE_DIR = 0.5, "none"
    for name in ("doctor_pets", "doctor_extra"):
        loaded = load_table("train", name, cfg)
        assert loaded.json_file == str(json_file)
        assert [x.code for x in findings_of_table(loaded.table)] == ["unknown_category"]
    cfg.DATASETS.EXTRA = [csv]
    assert len(load_table("train", "doctor_csv", cfg).table.files) == 2  # its part of the split


def test_unknown_name_is_an_error_with_the_nearest(tmp_path):
    register_coco_dataset("doctor_pets", *write(tmp_path, good_content()))
    with pytest.raises(FileNotFoundError, match=r"'doctor_pet', .* Did you mean 'doctor_pets'\?"):
        load_table("val", "doctor_pet", get_cfg())


def test_training_is_asked_only_about_what_has_no_error(tmp_path):
    good = load_table("train", ":".join(map(str, write(tmp_path, good_content()))), get_cfg())
    faulty = load_table(
        "val", ":".join(map(str, write(tmp_path, edited(bbox=[1, 2, 0, 4]), "val"))), get_cfg()
    )
    assert why_refused(good) == why_refused(faulty) == ""
    asked = []

    def refusal(table):
        asked.append(table.name)
        return "for a reason"

    report = examine([good.table, faulty.table], InputSize(64, 1000), refusal=refusal)
    assert asked == ["train"]
    assert [x.message for x in report.findings if x.code == "refused"] == ["for a reason"]
    assert report.exit_code == 2
