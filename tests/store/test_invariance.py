"""What was measured of models beside batch mates: kept by surroundings, the last of each shape."""

import json
from dataclasses import replace

from panic.store.invariance import Measured, record, verdicts


def test_verdicts_are_those_of_their_surroundings_and_the_last_of_a_shape(writer):
    here, there = (json.dumps({"device": device}) for device in ("cpu", "cuda"))
    one = Measured(fingerprint="f", batch_size=4, threads=1, verdict="independent", duration_s=0.5)
    others = [replace(one, fingerprint="g"), replace(one, batch_size=8), replace(one, threads=2)]
    record(writer, here, [one, *others])
    record(writer, there, [replace(one, verdict="alone")])
    assert sorted(map(repr, verdicts(writer, here))) == sorted(map(repr, [one, *others]))
    again = replace(one, verdict="length", duration_s=2.0)
    record(writer, here, [again])
    assert sorted(map(repr, verdicts(writer, here))) == sorted(map(repr, [again, *others]))
    assert verdicts(writer, there) == [replace(one, verdict="alone")]
    assert verdicts(writer, "{}") == []
