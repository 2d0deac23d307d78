"""Studies of `panic optimize` in stores of others: links, parameters of their makers, damage."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.conftest import Invoke
from tests.cli.test_optimize import write

pytest.importorskip("optuna", reason="Optuna is not installed (extra optimize)")
EVIL = """
from pathlib import Path

Path(__file__).with_name("ran").write_text("code ran")


class Evil:
    modality_in, modality_out, size_bytes = "image", "text", 0

    def load(self, device): pass

    def invoke(self, inputs, seeds): return ["state 1" for _ in inputs]
"""
STUDY = Path("panic-store/studies/look.journal")
COMMAND = ("--maximise", "entropy", "--quiet", "--trials")


@pytest.mark.parametrize("link", ["studies", "studies/look.journal"])
def test_a_link_in_the_place_of_a_study_lost_the_end_of_what_it_led_to(
    panic: Invoke, tmp_path: Path, link: str
) -> None:
    path = write(tmp_path, max_length=2)
    assert panic("optimize", path, *COMMAND, "1").exit_code == 0
    shutil.move(STUDY.parent, tmp_path / "outside")
    place = tmp_path / "panic-store" / link
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(tmp_path / "outside" if link == "studies" else tmp_path / "outside" / "look.journal")
    precious = tmp_path / "outside" / "look.journal"
    precious.write_text(before := precious.read_text() + "no end of a line")
    done = panic("optimize", path, *COMMAND, "2")
    assert (done.exit_code, "may lead out of the store" in done.stderr) == (1, True), done.output
    assert precious.read_text() == before


def test_a_trial_of_a_strange_study_ran_the_python_file_that_it_named(panic: Invoke, tmp_path: Path) -> None:
    (tmp_path / "evil.py").write_text(EVIL)
    path = write(tmp_path, "0.5", max_length=2)
    [chain] = [line for line in path.read_text().splitlines() if line.startswith("  chain: ")]
    searched = "  chain: {base: {optimize: {values: [synthetic/image-to-text]}}}"
    path.write_text(path.read_text().replace(chain, searched))
    assert panic("optimize", path, *COMMAND, "1").exit_code == 0
    lines = [json.loads(line) for line in STUDY.read_text().splitlines()]
    begun = next(line for line in lines if line["op_code"] == 4)
    drawn = next(line for line in lines if line["op_code"] == 5)
    among = json.loads(drawn["distribution"])
    among["attributes"]["choices"] = [json.dumps(f"python:{tmp_path}/evil.py:Evil")]
    made = [*lines[: lines.index(begun) + 1], {**drawn, "distribution": json.dumps(among)}]
    STUDY.write_text("".join(json.dumps(line) + "\n" for line in made))
    done = panic("optimize", path, *COMMAND, "1")
    assert not (tmp_path / "ran").exists()
    assert (done.exit_code, "has another space: that of models.chain.base" in done.stderr) == (2, True), (
        done.output
    )


def test_a_parameter_outside_of_its_range_is_no_trial(panic: Invoke, tmp_path: Path) -> None:
    path = write(tmp_path, max_length=2)
    assert panic("optimize", path, *COMMAND, "1").exit_code == 0
    lines = [json.loads(line) for line in STUDY.read_text().splitlines()]
    begun = next(line for line in lines if line["op_code"] == 4)
    drawn = next(line for line in lines if line["op_code"] == 5)
    with STUDY.open("a") as file:
        for line in (begun, {**drawn, "trial_id": 1, "param_value_internal": 7}):
            file.write(json.dumps(line) + "\n")
    assert panic("optimize", path, *COMMAND, "2").exit_code == 0
    known = json.loads(panic("list", "--json").stdout)
    assert [one["name"] for one in known] == ["look-trial-0000", "look-trial-0002"]


@pytest.mark.parametrize("damage", ["[]", "3", '{"op_code": 5}', '{"op_code": "x"}', "[" * 5000, "\\xff"])
def test_a_damaged_study_is_told_as_one(panic: Invoke, tmp_path: Path, damage: str) -> None:
    path = write(tmp_path, max_length=2)
    assert panic("optimize", path, *COMMAND, "1").exit_code == 0
    with STUDY.open("a") as file:
        file.write(damage + "\n")
    done = panic("optimize", path, *COMMAND, "2")
    assert (done.exit_code, "is damaged" in done.stderr) == (1, True), done.output
