"""What is spelt like what: the one rule behind every "did you mean"."""

from pathlib import Path

from panic.errors import nearest, nearest_path
from tests.rights import folder_of_others, without_rights


def test_the_nearest_spelling_whatever_the_case() -> None:
    assert nearest("pocketcaptoner", ["PocketDiffusion", "PocketCaptioner"]) == ["PocketCaptioner"]
    assert nearest("zzz", ["PocketDiffusion", "PocketCaptioner"]) == []
    assert nearest("pair", ["pairs", "hair", "walk", "zoo"], most=3) == ["pairs", "hair"]


def test_the_nearest_path_is_one_that_fits_and_of_a_folder_that_may_be_listed() -> None:
    def is_csv(path: Path) -> bool:
        return path.suffix == ".csv"

    with folder_of_others() as folder:
        for name in ("x.csv", "xx.csv.bak"):
            (folder / name).touch()
        assert nearest_path(folder / "xx.csv.ba", is_csv) == folder / "x.csv"
        assert nearest_path(folder / "xx.csv.ba", lambda path: True) == folder / "xx.csv.bak"
        assert nearest_path(folder / "none" / "xx.csv.ba", is_csv) is None
        folder.chmod(0o311)  # it may be entered, and not listed
        with without_rights():
            assert nearest_path(folder / "xx.csv.ba", is_csv) is None
