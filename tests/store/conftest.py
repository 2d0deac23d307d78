"""A filled store to damage, read and change."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from panic.store import Store
from tests.store.sample import Sample, fill


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a store may be created."""
    return tmp_path / "store"


@pytest.fixture(scope="session")
def filled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Sample]:
    """A closed store with the sample in it, only to be copied."""
    path = tmp_path_factory.mktemp("filled") / "store"
    with Store(path, write=True, create=True) as store:
        return path, fill(store)


@pytest.fixture
def sample(folder: Path, filled: tuple[Path, Sample]) -> Sample:
    """A store in `folder` with the sample in it, closed."""
    shutil.copytree(filled[0], folder)
    return filled[1]


@pytest.fixture
def store(folder: Path, sample: Sample) -> Iterator[Store]:
    """The sample, open for reading."""
    with Store(folder) as store:
        yield store


@pytest.fixture
def writer(folder: Path, sample: Sample) -> Iterator[Store]:
    """The sample, open for writing."""
    with Store(folder, write=True) as store:
        yield store
