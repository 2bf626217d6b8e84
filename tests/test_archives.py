"""The user's own zip, hostile zips, links and folders of others; and what the two data sets of Kaggle are made into."""

import io
import os
import stat
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from kaggle_server import files_below, isolate, make_zip
from limits import needs_links, needs_users, nobody
from PIL import Image
from test_download import CORRUPT, FILES, MIB, SLUG, ZIP, Usage, assert_untouched, on_disk, staged_zip

from unet_helpers import download
from unet_helpers.datasets import check_pairs, load_dataset
from unet_helpers.download import DownloadError, download_dataset


@pytest.fixture(autouse=True)
def _no_network(tmp_path, monkeypatch):
    isolate(tmp_path / "home", monkeypatch)
    monkeypatch.setattr(download, "fetch_zip", lambda *_: pytest.fail("it asks Kaggle"))


@pytest.fixture
def dest(tmp_path):
    return tmp_path / "data" / "roads"


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def refuse(dest: Path, content: bytes) -> str:
    """What is said of a zip from which nothing may be written."""
    mine = write(dest.parents[1] / "mine.zip", content)
    before = files_below(dest.parents[1])
    with pytest.raises(DownloadError) as caught:
        download_dataset(dest, SLUG, archive=mine)
    assert files_below(dest.parents[1]) == before
    assert_untouched(dest)
    return str(caught.value)


def test_the_users_own_zip_needs_no_network(dest, tmp_path):
    files = FILES | {".hidden": b"", "a b/ü.png": b"1"}
    mine = write(tmp_path / "archive.zip", content := make_zip(files | {"empty/": b"", f"a/{download.MARKER}": b"x"}))
    assert download_dataset(dest, SLUG, archive=mine) == dest
    assert on_disk(dest) == files
    assert [path.name for path in dest.parent.iterdir()] == [dest.name]
    assert mine.read_bytes() == content


WRONG = [
    (CORRUPT, r"(?s)archive\.zip is damaged: a/two\.bin.*as ARCHIVE\.\nIt was not changed"),
    (make_zip({"holiday.jpg": b"beach"}), "archive.zip does not hold the folders of someone/road-scenes"),
    (None, r"ARCHIVE: there is no file .*archive\.zip"),
]


@pytest.mark.parametrize(("content", "message"), WRONG, ids=["corrupt", "another zip", "no file"])
def test_a_wrong_zip_of_the_users_is_named_and_kept(dest, tmp_path, content, message):
    mine = tmp_path / "archive.zip"
    if content:
        write(mine, content)
    with pytest.raises(DownloadError, match=message):
        download_dataset(dest, SLUG, archive=mine, has_layout=lambda folder: (folder / "one.bin").is_file())
    assert content is None or mine.read_bytes() == content
    assert_untouched(dest)


@pytest.mark.parametrize("folder", ["roads", "roads.partial"])
def test_the_users_zip_in_a_folder_that_is_made_anew_is_refused(dest, folder):
    mine = write(dest.with_name(folder) / "road-scenes.zip", ZIP)
    with pytest.raises(DownloadError, match=r"ARCHIVE: .*road-scenes\.zip.*\nMove it"):
        download_dataset(dest, SLUG, archive=mine)
    assert files_below(dest.parent) == {f"{folder}/road-scenes.zip": ZIP}


def test_files_of_others_are_never_touched(dest, tmp_path):
    mine = write(tmp_path / "archive.zip", ZIP)
    write(dest / "photo.jpg", b"mine")
    for archive in (None, mine):
        with pytest.raises(DownloadError, match="roads exists and was not made by this"):
            download_dataset(dest, SLUG, archive=archive)
        write(dest / download.MARKER, b"someone/another-set")
    assert files_below(dest) == {"photo.jpg": b"mine", download.MARKER: b"someone/another-set"}


@needs_links
@pytest.mark.parametrize("name", ["", "road-scenes.zip", "tree"])
def test_links_in_the_place_of_the_unfinished_files_are_refused(dest, tmp_path, name):
    mine = tmp_path / "mine"
    write(mine if ".zip" in name else mine / "tree" / "photo.jpg", ZIP[:MIB])  # a client would resume it
    archive, link = write(tmp_path / "archive.zip", ZIP), staged_zip(dest).parent / name
    before = files_below(tmp_path)
    link.parent.mkdir(parents=True)
    link.symlink_to(mine)
    for source in (None, archive):
        with pytest.raises(DownloadError, match=f"{link} is a link.\nDelete the link"):
            download_dataset(dest, SLUG, archive=source)
        assert not dest.exists()
    link.unlink()
    assert before.items() <= files_below(tmp_path).items()


def test_nothing_is_written_outside_the_folder(dest, tmp_path):
    """zipfile sees to it; a link becomes a file that holds its target."""
    link = zipfile.ZipInfo("link")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    names = ["../1.txt", "a/../../2.txt", "/3.txt", str(tmp_path / "4.txt"), "C:/5.txt", "..\\6.txt"]
    mine = write(tmp_path / "mine.zip", make_zip({link: str(tmp_path).encode()} | dict.fromkeys(names, b"x")))
    download_dataset(dest, SLUG, archive=mine)
    assert len(on_disk(dest)) == 7
    assert not any(path.is_symlink() for path in dest.rglob("*"))
    outside = {name for name in files_below(tmp_path) if not name.startswith("data/roads/")}
    assert outside == {"mine.zip"}
    other = dest.with_name("other")
    with pytest.raises(DownloadError, match="link"):  # a file in the way, not a link that is followed
        download_dataset(other, SLUG, archive=write(mine, make_zip({link: str(tmp_path).encode(), "link/7.txt": b"x"})))
    assert {name for name in files_below(tmp_path) if not name.startswith("data/roads/")} == {"mine.zip"}
    assert not other.exists()


def test_a_zip_that_unpacks_to_far_more_than_it_says_or_than_the_disk_has(dest, monkeypatch):
    bomb = make_zip({"zeros.bin": bytes(101 * 10**6)}, zipfile.ZIP_DEFLATED)
    assert "not unpacked: it would become 101.0 MB, 20 times its size" in refuse(dest, bomb)
    content = make_zip({"zeros.bin": bytes(5 * MIB)}, zipfile.ZIP_DEFLATED)
    size, lie = (5 * MIB).to_bytes(4, "little"), (1000).to_bytes(4, "little")
    assert "damaged: zeros.bin: Bad CRC-32" in refuse(dest, content.replace(size, lie))
    monkeypatch.setattr(download.shutil, "disk_usage", lambda _: Usage(0, 0, 3 * MIB))
    assert "3 files, 4.2 MB to unpack; 3.1 MB are free" in refuse(dest, ZIP)


def png(array) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.uint8(array)).save(file, "PNG")
    return file.getvalue()


def lyft_files() -> dict[str, bytes]:
    image, mask = png(np.full((6, 8, 3), 90)), png(np.full((6, 8, 3), (7, 0, 0)))
    files = {}
    for letter, stem in (("A", "02_00_010"), ("B", "09_00_012"), ("E", "F1-9")):
        for camera, content in (("CameraRGB", image), ("CameraSeg", mask)):
            files[f"data{letter}/data{letter}/{camera}/{stem}.png"] = content
    return files


def test_lyft_is_unpacked_without_its_lower_case_copy_and_used_only_while_it_is_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the folder data is made
    copy = {name.lower(): content for name, content in lyft_files().items()}
    load_dataset("lyft", archive=write(tmp_path / "archive.zip", make_zip(lyft_files() | copy)))
    dataset, root = load_dataset("lyft"), Path("data") / "lyft"
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [1, 1, 1]
    assert check_pairs(dataset.train, dataset.labels)[7] == 48
    assert {name for name in files_below(root) if name.endswith(".png")} == lyft_files().keys()
    mine = write(root / "mine.txt", b"mine")
    assert load_dataset("lyft") == dataset
    for path in (*dataset.test[0], mine):
        path.unlink()
    before = files_below(root)
    with pytest.raises(DownloadError, match=r"lyft: it holds only 4 of the 6 files.*\nMove it away"):
        load_dataset("lyft")
    assert files_below(root) == before
    (root / download.MARKER).unlink()  # says that the rest is to be used
    (root / "dataE").rename(tmp_path / "dataE")
    assert len(load_dataset("lyft").train) == 1


NAMES = (
    "Animal Archway Bicyclist Bridge Building Car CartLuggagePram Child Column_Pole Fence LaneMkgsDriv LaneMkgsNonDriv "
    "Misc_Text MotorcycleScooter OtherMoving ParkingBlock Pedestrian Road RoadShoulder Sidewalk SignSymbol Sky "
    "SUVPickupTruck TrafficCone TrafficLight Train Tree Truck_Bus Tunnel VegetationMisc Void Wall"
)
COLORS = {name: (64 * (n % 4), 64 * (n // 4 % 4), 64 * (n // 16)) for n, name in enumerate(NAMES.split())}
CSV = "name, r, g, b\n" + "".join(f"{name},{r}, {g} ,{b}\n" for name, (r, g, b) in COLORS.items())
SHARES = [1, 5, 2, 3, 3, 2, 3, 1, 5, 4, 2]  # classes of the 32: sky 1, building 5, pole 2, road 3, ...


def camvid_files(folder: str = "") -> dict[str, bytes]:
    rng = np.random.default_rng(0)
    files = {f"{folder}class_dict.csv": CSV.encode()}
    for split, count in (("train", 3), ("val", 1), ("test", 2)):
        for n in range(count):
            stem = f"0001TP_00{n}{len(split)}"
            # one column for each class, in the order of the list, then a void one
            values = np.array([*COLORS.values(), COLORS["Void"]])[None].repeat(8, 0)
            files[f"{folder}{split}/{stem}.png"] = png(rng.integers(0, 255, (8, 33, 3)))
            files[f"{folder}{split}_labels/{stem}_L.png"] = png(values)
    return files


def put(files: dict[str, bytes], folder: Path) -> Path:
    for name, content in files.items():
        write(folder / name, content)
    return folder


def test_kaggles_camvid_loads_with_the_eleven_classes(tmp_path):
    mine, data_dir = write(tmp_path / "archive.zip", make_zip(camvid_files("CamVid/"))), tmp_path / "data"
    data_dir.mkdir()
    dataset = load_dataset("camvid", data_dir, archive=mine)
    assert [len(split) for split in (dataset.train, dataset.validation, dataset.test)] == [3, 1, 2]
    assert (check_pairs(dataset.train, dataset.labels) / 24).tolist() == SHARES  # 8 rows, 3 images
    values = np.asarray(Image.open(dataset.test[0].mask))[0]
    names = dict(zip(COLORS, values, strict=False))
    expected = {"Sky": 0, "Wall": 1, "LaneMkgsDriv": 3, "Truck_Bus": 8, "Child": 9, "Void": 255}
    assert {name: names[name] for name in expected} == expected
    assert load_dataset("camvid", data_dir) == dataset
    assert sorted(path.name for path in data_dir.iterdir()) == ["camvid", "camvid.prepared"]
    assert {path.parents[1] for path in (dataset.train[0].mask, dataset.test[0].mask)} == {data_dir / "camvid.prepared"}


@needs_users
def test_camvid_in_a_read_only_folder_gets_its_ids_in_the_working_folder(tmp_path, monkeypatch):
    """As on Kaggle. Permissions do not stop root, so root becomes nobody, who may not look into tmp_path."""
    warm = load_dataset("camvid", put(camvid_files(), tmp_path / "warm"))
    assert files_below(tmp_path / "warm") == camvid_files()
    check_pairs(warm.train, warm.labels)  # nobody may be unable to import what is imported where it is used
    with tempfile.TemporaryDirectory() as folder, monkeypatch.context() as patch:
        os.chmod(folder, 0o755)
        root, here = put(camvid_files("input/camvid/CamVid/"), Path(folder)) / "input", Path(folder) / "here"
        here.mkdir()
        patch.chdir(here)  # is undone before the folder is deleted
        patch.setattr(download, "KAGGLE_INPUT", root)
        before = files_below(root)
        with nobody(here):
            here.chmod(0o555)
            with pytest.raises(ValueError, match="make one of these writable"):
                load_dataset("camvid")
            here.chmod(0o755)
            dataset = load_dataset("camvid")
            assert root in dataset.train[0].image.parents
            assert (check_pairs(dataset.train, dataset.labels) / 24).tolist() == SHARES
            assert dataset.train[0].mask.is_relative_to("data/camvid.prepared")
            assert files_below(root) == before
