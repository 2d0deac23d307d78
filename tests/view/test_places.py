"""Finished stores where nothing can be written: read-only mounts and folders, network file systems."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from panic.store import Store
from panic.store.snapshot import snapshot
from tests.store import sample
from tests.view.conftest import Served, serving

Known = tuple[Path, sample.Sample]
ONE = "/api/1/stores/0/experiments/alpha"


def everything_is_shown(served: Served, known: Known) -> None:
    """All that the pages ask of a store is answered, small images among it."""
    for path in ("/api/1/stores", ONE, f"{ONE}/status", f"{ONE}/runs/1/motion", f"{ONE}/work"):
        assert served.get(path).status == 200, path
    runs = served.get(f"{ONE}/runs").json["runs"]
    assert len(runs) == 4
    cells = served.get(f"{ONE}/cells?runs={known[1].stuck}&step=last&before=5").json["cells"]
    images = [cell["digest"] for cell in cells if cell["modality"] == "image"]
    assert images
    for kind in ("tiles", "thumbnails/64"):
        assert served.get(f"/api/1/stores/0/{kind}/{images[0]}").body[:4] == b"RIFF"
    assert b"RIFF" in served.get(f"/api/1/stores/0/thumbnails/64?digests={images[0]}").body


def nothing_is_written(served: Served, folder: Path) -> None:
    """Remarks are refused with an answer, and the folder is what it was."""
    before = contents_of(folder)
    said = {"experiment": "alpha", "kind": "tag", "text": "good"}
    answer = served.post("/api/1/stores/0/remarks", said)
    assert answer.status == 503
    assert "Traceback" not in answer.body.decode()
    assert answer.json["error"]
    assert contents_of(folder) == before


def contents_of(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file()
    }


@pytest.fixture
def read_only_mount(known: Known, tmp_path: Path) -> Iterator[Path]:
    """The sample store, seen through a mount that nobody can write, as an archive's disk is."""
    place = tmp_path / "mount"
    place.mkdir()
    for how in (["--bind", known[0], place], ["-o", "remount,bind,ro", place]):
        if os.geteuid() or subprocess.run(["mount", *how], capture_output=True).returncode:
            pytest.skip("this machine mounts nothing here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def test_a_store_on_a_read_only_mount_is_shown(read_only_mount: Path, known: Known, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="Read-only"):
        (read_only_mount / "x").touch()
    with serving(read_only_mount) as served:
        everything_is_shown(served, known)
        nothing_is_written(served, read_only_mount)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_store_in_a_read_only_folder_is_shown(known: Known) -> None:
    files = [*known[0].iterdir(), known[0]]
    for path in files:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        with serving(known[0]) as served:
            everything_is_shown(served, known)
            nothing_is_written(served, known[0])
    finally:
        for path in reversed(files):
            path.chmod(0o755)


def test_a_finished_store_on_a_network_file_system_is_shown(
    known: Known, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small images are kept in the user's cache there, and what replaces it is shown from then on."""
    shared = tmp_path / "shared"
    snapshot(known[0], shared)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"server:/ {shared} nfs4 rw 0 0\n")
    with serving(shared) as served:
        everything_is_shown(served, known)
        nothing_is_written(served, shared)
        assert not (shared / "thumbnails.sqlite").exists()
        with Store(known[0], write=True) as store:
            sample.remark(store, "alpha", "later")
        snapshot(known[0], shared)
        told = served.get(ONE).json["remarks"]
        assert [one["text"] for one in told][-1] == "later"


def test_a_store_that_is_written_on_a_network_file_system_is_told(
    known: Known, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store(known[0], write=True) as store:
        sample.remark(store, "alpha", "in the log")
        store.db.close(keep_log=True)
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: f"server:/ {known[0]} nfs4 rw 0 0\n")
    with serving(known[0]) as served:
        answer = served.get(ONE)
        assert answer.status == 503
        assert "with a log beside it" in answer.json["error"]
        assert "panic snapshot" in answer.json["hint"]
        assert served.get("/api/1/stores").json["stores"][0]["problem"]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
@pytest.mark.parametrize(("name", "status"), [("store.sqlite", 503), ("images.sqlite", 503), ("lock", 200)])
def test_what_is_no_file_in_place_of_one_holds_nothing_up(
    known: Known, make: Callable[[Path], None], name: str, status: int
) -> None:
    """Whoever opened a FIFO in place of the images waited for ever, and the server with it."""
    (known[0] / name).unlink()
    make(known[0] / name)
    with serving(known[0]) as served:
        for path in (ONE, f"{ONE}/runs", f"{ONE}/status", "/api/1/stores"):
            answer = served.get(path)
            assert answer.status == (200 if path == "/api/1/stores" else status), answer.body
            assert status == 200 or "is no file" in answer.body.decode()
