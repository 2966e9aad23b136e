"""The user's own pictures."""

import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image, features

from kdutils.data import Dataset, Stream, image_folder, stream_folder
from kdutils.data.pictures import FORMATS, endings


def save(path, color=(255, 0, 0), size=(8, 8), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, color).save(path, **options)


@pytest.fixture
def pets(tmp_path):
    """Two classes; one of the pictures in a folder below its class."""
    save(tmp_path / "pets" / "dog" / "b.png", (0, 255, 0))
    save(tmp_path / "pets" / "dog" / "a.png", (0, 0, 255))
    save(tmp_path / "pets" / "cat" / "more" / "c.JPG", (255, 0, 0), quality=100)
    return tmp_path / "pets"


def test_classes_are_the_sorted_folders_and_pictures_their_samples(pets):
    data = image_folder(pets, size=8)
    assert data.classes == ("cat", "dog")
    assert data.labels.tolist() == [0, 1, 1]
    assert data.name == "pets"
    colors = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, 1, 0]])
    torch.testing.assert_close(data.images, colors.view(3, 3, 1, 1).expand(-1, -1, 8, 8), atol=0.02, rtol=0)


def test_pictures_are_gray_on_request_and_of_the_size_asked(pets):
    data = image_folder(str(pets), size=(6, 4), channels=1)
    assert data.images.shape == (3, 1, 6, 4)
    assert data.images[1].mean().item() == pytest.approx(0.114, abs=0.01)  # the luma of blue


def test_a_picture_is_cropped_about_its_center_not_squeezed(tmp_path):
    pixels = np.zeros((10, 30, 3), dtype=np.uint8)
    pixels[:, 10:20] = 255
    (tmp_path / "one").mkdir()
    Image.fromarray(pixels).save(tmp_path / "one" / "wide.png")
    assert image_folder(tmp_path, size=10).images.min() == 1


def test_a_picture_is_turned_as_its_camera_says(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter, clockwise
    pixels = np.zeros((10, 10, 3), dtype=np.uint8)
    pixels[:, :5] = 255
    (tmp_path / "one").mkdir()
    Image.fromarray(pixels).save(tmp_path / "one" / "turned.png", exif=exif)
    image = image_folder(tmp_path, size=10).images[0, 0]
    assert image[:5].min() == 1
    assert image[5:].max() == 0


@pytest.mark.parametrize("kind", ["png", "tif", "32-bit.tif"])
def test_pictures_with_16_bits_keep_their_grays(tmp_path, kind):
    ramp = np.arange(256, dtype=np.uint16).reshape(16, 16) * 257
    (tmp_path / "one").mkdir()
    Image.fromarray(ramp.astype(np.int32) if "32" in kind else ramp).save(tmp_path / "one" / f"ramp.{kind}")
    for channels in (1, 3):
        images = image_folder(tmp_path, size=16, channels=channels).images
        assert torch.equal(images * 255, torch.arange(256.0).view(1, 1, 16, 16).expand_as(images))


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.array([[0.5]], dtype=np.float32), "floating-point numbers, of unknown range"),
        (np.array([[0, 70000]], dtype=np.int32), "0 to 70000, not numbers of 8 or 16 bits"),
        (np.array([[-5, 300]], dtype=np.int32), "-5 to 300, not"),
    ],
)
def test_pictures_whose_white_is_unknown_are_named(tmp_path, pixels, message):
    (tmp_path / "one").mkdir()
    Image.fromarray(pixels).save(tmp_path / "one" / "odd.tif")
    with pytest.raises(OSError, match=rf"picture '.*odd\.tif' cannot be read \(its pixels are {message}"):
        image_folder(tmp_path, size=1)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L"])
@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_pictures_stand_on_white(tmp_path, mode, channels):
    (tmp_path / "one").mkdir()
    file = tmp_path / "one" / "picture.png"
    shades = np.array([[0, 50, 200]], dtype=np.uint8)
    if mode in {"RGBA", "LA"}:
        picture = Image.fromarray(shades).convert(mode)
        picture.putalpha(Image.fromarray(np.array([[0, 51, 255]], dtype=np.uint8)))
        picture.save(file)
        expected = [255, 255 - 41, 200]  # a fifth of 50 upon white
    else:  # one color stands for nothing
        picture = Image.fromarray(shades).convert(mode)
        picture.save(file, transparency=(0, 0, 0) if mode == "RGB" else 0)
        expected = [255, 50, 200]
    images = image_folder(tmp_path, size=(1, 3), channels=channels).images
    assert (images * 255).round().view(channels, 3).tolist() == [expected] * channels


def test_hidden_files_are_passed_over_in_silence(pets):
    (pets / ".ipynb_checkpoints").mkdir()
    (pets / "dog" / ".hidden.png").write_bytes(b"")
    save(pets / "dog" / ".ipynb_checkpoints" / "b-checkpoint.png")
    save(pets / "dog" / "more" / ".thumbnails" / "b.png")
    (pets / "README").write_text("pets")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(image_folder(pets, size=8)) == 3


@pytest.mark.parametrize("load", [image_folder, stream_folder])
def test_what_is_passed_over_is_counted_and_named_once(pets, load):
    for number in range(4):
        (pets / "dog" / f"notes{number}.txt").write_text("woof")
    (pets / "cat" / "phone.heic").write_bytes(b"")
    (pets / "cat" / "gone.png").symlink_to(pets / "nowhere.png")
    with pytest.warns(
        UserWarning, match=r"6 files or links in .*pets' were passed over.*'cat/gone.png'.* and 3 more"
    ) as said:
        assert len(load(pets, size=8)) == 3
    assert len(said) == 1
    assert said[0].filename == __file__


KINDS = {".jfif": "JPEG", ".jpe": "JPEG", ".tga": "TGA", ".pbm": "PPM", ".jp2": "JPEG2000", ".avif": "AVIF"}


@pytest.mark.parametrize("ending", KINDS)
def test_pictures_of_every_format_that_pillow_reads_are_read(tmp_path, ending):
    if ending in (".jp2", ".avif") and not features.check({".jp2": "jpg_2000", ".avif": "avif"}[ending]):
        pytest.skip("this Pillow cannot write the format")
    save(tmp_path / "one" / "a.png")
    Image.new("1" if ending == ".pbm" else "RGB", (8, 8)).save(tmp_path / "one" / f"b{ending.upper()}", KINDS[ending])
    assert len(image_folder(tmp_path, size=8)) == 2
    assert ending in endings()


def test_linked_folders_are_read_once_and_loops_end(tmp_path):
    root = tmp_path / "train"
    save(root / "a" / "0.png")
    save(root / "b" / "0.png")
    save(tmp_path / "elsewhere" / "1.png")
    save(tmp_path / "elsewhere" / "deeper" / "2.png")
    (root / "a" / "more").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "more again").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "self").symlink_to(root / "a")
    (tmp_path / "elsewhere" / "deeper" / "back").symlink_to(tmp_path / "elsewhere")
    (root / "b" / "up").symlink_to(root)
    with pytest.warns(UserWarning, match="1 files or links .*: 'b/up'"):
        data = image_folder(root, size=8)
    assert torch.bincount(data.labels).tolist() == [3, 1]


def test_a_class_folder_may_be_a_link(tmp_path):
    save(tmp_path / "elsewhere" / "1.png")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "a").symlink_to(tmp_path / "elsewhere")
    assert len(image_folder(tmp_path / "train", size=8)) == 1


EPS = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 8 8
%%EndComments
{} loop
%%EOF
"""


@pytest.mark.parametrize(
    "load", [image_folder, lambda path, size: list(stream_folder(path, size, workers=0).batches(1))]
)
def test_a_picture_runs_no_program_whatever_its_name(tmp_path, load, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a program was started")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "a.png").write_bytes(EPS)
    with Image.open(tmp_path / "cat" / "a.png") as picture:
        assert picture.format == "EPS", "without a list of formats, Pillow takes the program for a picture"
    with pytest.raises(OSError, match=r"picture '.*a\.png' cannot be read \(cannot identify image file"):
        load(tmp_path, 8)


def test_no_format_that_is_read_starts_programs():
    program = (
        "import sys, importlib; before = {*sys.modules}; import kdutils.data.pictures as p; p.endings(); "
        "print([kind for kind in ('EPS', 'WMF', 'FPX', 'MIC', 'HDF5', 'GRIB', 'BUFR') if kind in p._formats()])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
    assert "EPS" not in FORMATS


@pytest.mark.parametrize("load", [image_folder, stream_folder])
def test_a_picture_with_too_many_pixels_is_named_before_it_is_decoded(tmp_path, load, monkeypatch):
    save(tmp_path / "cat" / "wide.png", size=(40, 30))
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    message = r"picture '.*wide\.png' cannot be read \(it has 40×30 = 1,200 pixels, more than most_pixels=1,199\)"
    with pytest.raises(OSError, match=message):
        load(tmp_path, 8, most_pixels=1199)


def test_a_picture_of_the_most_pixels_is_read_and_the_usual_limit_holds(tmp_path):
    save(tmp_path / "cat" / "wide.png", size=(40, 30))
    assert len(image_folder(tmp_path, 8, most_pixels=1200)) == 1
    Image.new("1", (8001, 8001)).save(tmp_path / "cat" / "wide.png")
    with pytest.raises(OSError, match=r"8,001×8,001 = 64,016,001 pixels, more than most_pixels=64,000,000"):
        image_folder(tmp_path, 8)


def test_names_that_no_record_can_hold_are_refused_when_the_data_is_loaded(tmp_path):
    try:
        os.mkdir(os.fsencode(tmp_path) + b"/caf\xe9")
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    broken = os.fsdecode(b"caf\xe9")
    save(tmp_path / broken / "0.png")
    save(tmp_path / "tea" / "0.png")
    for load in (image_folder, stream_folder):
        with pytest.raises(ValueError, match=r"class name 'caf\\udce9' is not UTF-8, and no record can hold it"):
            load(tmp_path, size=8)
    save(tmp_path / broken / "cat" / "0.png")
    with pytest.raises(ValueError, match=r"name 'caf\\udce9' is not UTF-8"):
        image_folder(tmp_path / broken, size=8, classes=("cat",))
    for make in (
        lambda names: Dataset(torch.zeros(1, 1, 2, 2), None, names),
        lambda names: Stream([(torch.zeros(1, 2, 2), 0)], names, workers=0),
    ):
        with pytest.raises(ValueError, match="is not UTF-8"):
            make((broken,))


def test_a_file_whose_name_is_not_utf8_is_read_and_told_apart(tmp_path):
    save(tmp_path / "cat" / "0.png")
    try:
        os.rename(tmp_path / "cat" / "0.png", os.fsencode(tmp_path / "cat") + b"/caf\xe9.png")
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    stream = stream_folder(tmp_path, 8, workers=0)
    assert stream.fingerprint.encode()
    assert len(next(stream.batches(1))) == 1


def test_a_folder_below_a_hidden_one_is_read(tmp_path):
    save(tmp_path / ".cache" / "pets" / "cat" / "a.png")
    assert len(image_folder(tmp_path / ".cache" / "pets", size=8)) == 1


def test_a_test_set_gets_the_labels_of_its_training_set(pets):
    assert image_folder(pets, size=8, classes=("dog", "cat")).labels.tolist() == [0, 0, 1]
    with pytest.raises(ValueError, match=r"missing \['fish'\], not a class \['dog'\]"):
        image_folder(pets, size=8, classes=("cat", "fish"))


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"path='.*nowhere' is not a folder"):
        image_folder(tmp_path / "nowhere", size=8)


def test_a_folder_without_class_folders_is_refused(tmp_path):
    save(tmp_path / "flat" / "a.png")
    with pytest.raises(ValueError, match=r"flat' has no class folders; wanted such as '.*cat/1.jpg'"):
        image_folder(tmp_path / "flat", size=8)


def test_a_class_without_pictures_is_named(pets):
    (pets / "fish").mkdir()
    with pytest.raises(ValueError, match="fish' has no pictures"):
        image_folder(pets, size=8)


def test_train_and_test_folders_are_not_taken_for_classes(tmp_path):
    save(tmp_path / "train" / "cat" / "a.png")
    save(tmp_path / "test" / "cat" / "a.png")
    with pytest.raises(ValueError, match=r"holds the parts test, train, not classes; pass one: '.*test'"):
        image_folder(tmp_path, size=8)
    assert len(image_folder(tmp_path / "train", size=8)) == 1


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_an_unreadable_picture_is_named(pets, damage):
    file = pets / "dog" / "b.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(file)
    content = file.read_bytes()
    file.write_bytes({"truncated": content[: len(content) // 2], "text": b"no picture", "empty": b""}[damage])
    with pytest.raises(OSError, match=r"picture '.*dog/b.png' cannot be read"):
        image_folder(pets, size=8)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"size": 0}, "size must be at least 1 pixel"), ({"size": 8, "channels": 4}, "channels must be 3 .*; got 4")],
)
def test_impossible_pictures_are_refused(pets, options, message):
    with pytest.raises(ValueError, match=message):
        image_folder(pets, **options)
