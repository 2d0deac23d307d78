"""The last image of every prompt under every network."""

from __future__ import annotations

from panic.analysis import load
from panic.analysis.questions.grid import final_images
from panic.store import contents


def test_final_images_are_those_of_the_last_drawing_step(full):
    cells = final_images(load(full.store, "demo"))
    assert cells["row"].to_list()[0] == "a start"
    assert cells["column"].unique().to_list() == ["draw → tell"]
    steps = contents.invocations(full.store, cells["run"][0])
    assert cells["digest"][0] == [s.output for s in steps if s.modality == "image"][-1]
    assert cells["text"][0] == "text 3"
