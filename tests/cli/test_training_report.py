"""The page that compares trainings: what differs, and their curves, from the journals beside their models."""

from __future__ import annotations

from pathlib import Path

import pytest

from panic.analysis.training_report import chart, curve
from panic.store import Store
from panic.store.trainings import keep, list_trainings
from panic.train.curves import columns
from tests.cli.conftest import Invoke
from tests.store.sample import entry


@pytest.fixture
def store(written: Path, tmp_path: Path) -> Path:
    """Three trainings, of which the last has no journals here."""
    with Store(written) as opened:
        for name, rate in (("one", 0.1), ("two", 0.2), ("<b>gone</b>", 0.3)):
            place = {} if "gone" in name else {"folder": str(tmp_path / name)}
            keep(opened, entry(name, config={"learning_rate": rate}, val_loss=rate / 2, **place))
    for name, losses in (("one", (4.0, 2.0, "nan")), ("two", (3.0, 1.5, 0.75))):
        (tmp_path / f"{name}.training").mkdir()
        rows = [f"{10 * place},{loss}" for place, loss in enumerate(losses, start=1)]
        (tmp_path / f"{name}.training" / "loss.csv").write_text("\n".join(["step,loss", *rows]) + "\n")
    return written


def test_a_page_compares_trainings(panic: Invoke, store: Path) -> None:
    done = panic("report", "--of", "training", "one", "two")
    assert done.exit_code == 0, done.output
    page = (store / "reports" / "trainings-one+two.html").read_text()
    assert "config: learning_rate" in page
    assert "<td>0.1</td><td>0.2</td>" in page
    assert "one,10.0,4.0\\none,20.0,2.0\\ntwo,10.0,3.0\\ntwo,20.0,1.5\\ntwo,30.0,0.75" in page
    assert "No curves are here" not in page
    done = panic("report", "--of", "training", "--where", "name like '%o%'", "-o", "all.html")
    assert done.exit_code == 0, done.output
    page = Path("all.html").read_text()
    assert "No curves are here of &lt;b&gt;gone&lt;/b&gt;" in page
    assert "<b>gone" not in page
    assert panic("report", "--of", "training", "one").exit_code == 0
    done = panic("report", "--of", "training", "nothing")
    assert (done.exit_code, "There is no training 'nothing'" in done.stderr) == (2, True)
    assert panic("report", "--of", "training").exit_code == 2


def test_curves_are_as_far_as_they_are_numbers(store: Path) -> None:
    with Store(store) as opened:
        rows = list_trainings(opened)
    journals = [columns(Path(f"{row.folder}.training", "loss.csv")) for row in rows]
    found = curve(["one", "two", "gone"], journals)
    assert found.filter(training="one").rows() == [("one", 10.0, 4.0), ("one", 20.0, 2.0)]
    assert found.filter(training="two")["loss"].to_list() == [3.0, 1.5, 0.75]
    assert curve(["one"], [{}]).is_empty()
    assert columns(Path("two.training", "loss.csv"), 2)["step"] == [10.0, 30.0]
    drawn = chart(found, "loss").to_dict()
    assert drawn["encoding"]["y"]["scale"] == {"type": "log"}
    assert chart(found.with_columns(loss=-found["loss"]), "loss").to_dict()["encoding"]["y"]["scale"] == {
        "zero": False
    }
