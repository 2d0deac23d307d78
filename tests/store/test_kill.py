"""A driver that is killed in the middle of commits loses nothing that it was told is stored."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

from panic.store import Store, check, reading

ROOT = Path(__file__).parents[2]
DRIVER = """
import sys
from panic.store import Commit, NewInvocation, NewRun, Store
from panic.store import missing, reading, writing
from panic.store.codec import text_digest
from tests.store.sample import NETWORK, batch, output, picture

with Store(sys.argv[1], write=True, create=True) as store:
    models = [writing.add_model(store, name, name, {}) for name in NETWORK]
    experiment = writing.start_experiment(store, "killed", {})
    if not reading.epochs(store, experiment):
        for name, model in zip(NETWORK, models):
            writing.add_epoch(store, experiment, name, model=model, batch_size=8, device_kind="cpu")
    runs = [NewRun(network=NETWORK, prompt=f"p{i}", seed=-1, max_length=10**6) for i in range(8)]
    writing.add_runs(store, experiment, runs)
    session = writing.start_session(store, experiment, "x", {})
    before = {run: digest for run, _, digest, *_ in missing.tails(store, experiment)}
    step = {run: number for run, number, *_ in missing.tails(store, experiment)}
    assert len(set(step.values())) == 1
    print("ready", flush=True)
    while True:
        commit = Commit()
        for run in before:
            call = batch(store, session, models[step[run] % 2])
            number = run * 10**6 + step[run]
            made = output(picture(number) if step[run] % 2 == 0 else f"text {number}")
            commit.batches.append(call)
            commit.outputs.append(made)
            commit.invocations.append(NewInvocation(run, step[run], before[run], made.digest, 0, call.id))
            before[run] = made.digest
            step[run] += 1
        writing.commit(store, commit)
        print(step[1], flush=True)
"""


def test_killed_at_random_moments(folder):
    moments = random.Random(5)
    told = 0
    for _ in range(6):
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, folder],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert driver.stdout.readline() == "ready\n"
        for _ in range(moments.randint(1, 5)):  # commits, then some moment of the next one
            told = max(told, int(driver.stdout.readline()))
        time.sleep(moments.uniform(0, 0.02))
        driver.kill()
        lines = driver.stdout.read().splitlines()
        driver.wait()
        told = max([told, *(int(line) for line in lines if line)])
        with Store(folder) as store:
            steps = {run.num_steps for run in reading.runs(store)}
            assert len(steps) == 1  # a commit is whole
            assert steps.pop() in (told, told + 1)  # perhaps stored, but killed before it could say so
            told = reading.runs(store)[0].num_steps
            assert check.check(store) == []
    assert told > 6
