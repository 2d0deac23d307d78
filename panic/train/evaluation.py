"""How good a model is: FID and its relatives on a folder of images, or what the pocket world's oracle says.

Images are drawn through the model's adapter, as in an experiment: one seed for each, its own steps and
guidance. FID, KID, Inception score, precision and recall are torch-fidelity's, all on features of the
Inception network of the FID paper; drawn images are its first input, which the Inception score is of.

    panic evaluate local:checkpoints/mine photos --n 5000
    panic evaluate PocketDiffusion pocket-world --n 1000
"""

from __future__ import annotations

import importlib.util
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np
import torch
from PIL import Image

from panic.errors import ModelMissing, UsageError
from panic.models import registry
from panic.models.protocol import Modality, Model, ModelSpec
from panic.pocket.world import examples
from panic.train import pocket_scores
from panic.train.folder import Folder, load_image

WORLD = "pocket-world"
EXTRACTOR = "inception-v3-compat"
INCEPTION = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth"
)
FEWEST = 10  # images for a figure at all: precision and recall look at three neighbours
ENOUGH = 2048  # with fewer images than features their covariance is singular
Show = Callable[[int, int], None]


def model_to_evaluate(
    name: str, parameters: Mapping[str, Any] | None = None, *, device: str = "cpu"
) -> ModelSpec:
    """Resolve a model by its name as in a config, or by its folder, perhaps with other parameters.

    Raises UsageError where there is no such model.
    """
    base = f"local:{name}" if Path(name).is_dir() else name
    kind = device.partition(":")[0]
    if not parameters:
        return registry.resolve(base, device_kind=kind)
    return registry.resolve(name, {name: {"base": base, **parameters}}, device_kind=kind)


def evaluate(
    spec: ModelSpec,
    data: str,
    *,
    n: int = 1000,
    seed: int = 0,
    device: str | Sequence[str] = "cpu",
    batch_size: int = 16,
    extractor: str = EXTRACTOR,
    show: Show = lambda done, n: None,
) -> dict[str, Any]:
    """Figures of a model on `data`: a folder of images with captions, or "pocket-world".

    n: how many images are drawn (or captions written, pairs matched). device: torch's name of it; of several,
    all are given batches, which one changes nothing, and the first does all else.

    Raises UsageError for a model or data that do not go together, ModelMissing where weights are not here.
    """
    devices = [device] if isinstance(device, str) else list(device)
    if data == WORLD:
        return _by_oracle(spec, n, seed, devices)
    if not _draws(spec):
        raise UsageError(
            f"{spec.name} draws no pictures of texts: other models are evaluated on {WORLD} alone",
        )
    refuse_without_fidelity(extractor)
    folder = Folder(data, size=8, held_back=0.0)
    _refuse_few(n, len(folder))
    texts = list(folder.captions())
    captions = [texts[i] for i in _spread(len(folder), n, seed)]
    with tempfile.TemporaryDirectory() as place:
        drawn = [Path(place) / f"{i:06d}.png" for i in range(n)]
        batches = [
            (captions[first : first + batch_size], drawn[first : first + batch_size], seed + first)
            for first in range(0, n, batch_size)
        ]
        done = 0
        for paths in _draw(spec, devices, batches):
            done += len(paths)
            show(done, n)
        with Image.open(drawn[-1]) as image:
            width, height = image.size
        if width != height:
            raise UsageError(f"{spec.name} draws pictures of {width}x{height}: only squares can be compared")
        return fidelity(drawn, folder.paths, width, device=devices[0], extractor=extractor, seed=seed)


_Batch = tuple[Sequence[str], Sequence[Path], int]
"""Captions, the files of their images, and the seed of the first."""


class OnAll:
    """A model on each of several devices that is called like one, by as many threads as there are devices."""

    def __init__(self, spec: ModelSpec, devices: Sequence[str]) -> None:
        self.num_devices = len(devices)
        self._free: SimpleQueue[Model] = SimpleQueue()
        for device in devices:
            model = registry.build(spec)
            model.load(device)
            self._free.put(model)

    def invoke(self, inputs: Sequence[Any], seeds: Sequence[int]) -> Sequence[Any]:
        """Call the model on a device that is free."""
        model = self._free.get()
        try:
            return model.invoke(inputs, seeds)
        finally:
            self._free.put(model)


def _draw(spec: ModelSpec, devices: Sequence[str], batches: Sequence[_Batch]) -> Iterator[Sequence[Path]]:
    """Draw batches on all devices; yields the files of each batch."""
    model = OnAll(spec, devices)

    def draw(batch: _Batch) -> Sequence[Path]:
        captions, paths, first = batch
        images = pocket_scores.call(model, captions, range(first, first + len(captions)))
        for path, image in zip(paths, images, strict=True):
            image.save(path)
        return paths

    with ThreadPoolExecutor(len(devices)) as pool:
        try:
            yield from pool.map(draw, batches)
        finally:
            pool.shutdown(cancel_futures=True)


def refuse_without_fidelity(extractor: str = EXTRACTOR) -> None:
    """Raises UsageError without torch-fidelity, ModelMissing without the weights of its Inception network."""
    if importlib.util.find_spec("torch_fidelity") is None:
        raise UsageError(
            "FID and its relatives need torch-fidelity",
            hint="Install it with: pip install 'panic[fidelity]' (torchvision from the same index as torch).",
        )
    place = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION.rpartition("/")[2]
    if extractor == EXTRACTOR and not place.is_file():
        raise ModelMissing(
            f"the weights of torch-fidelity's Inception network are not here ({place})",
            hint=f"fetch them with: curl -L --create-dirs -o {place} {INCEPTION}",
        )


def fidelity(
    drawn: Sequence[Path],
    real: Sequence[Path],
    size: int,
    *,
    device: str = "cpu",
    extractor: str = EXTRACTOR,
    seed: int = 0,
) -> dict[str, Any]:
    """FID, KID, Inception score, precision and recall of drawn images (files) against real ones.

    size: side of the squares that both become. Raises UsageError for too few images.
    """
    from torch_fidelity import calculate_metrics

    _refuse_few(len(drawn), len(real))
    num = min(len(drawn), len(real))
    found = calculate_metrics(
        input1=_Images(drawn, size),
        input2=_Images(real, size),
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        feature_extractor=extractor,
        kid_subset_size=min(1000, num),
        isc_splits=10 if len(drawn) >= 10_000 else 1,  # of small parts the score is too low
        cuda=device.startswith("cuda"),
        cache=False,
        rng_seed=seed,
        verbose=False,
    )
    figures = {
        "fid": found["frechet_inception_distance"],
        "kid": found["kernel_inception_distance_mean"],
        "inception_score": found["inception_score_mean"],
        "precision": found["precision"],
        "recall": found["recall"],
    }
    scores: dict[str, Any] = {"drawn": len(drawn), "real": len(real)}
    scores |= {name: float(value) for name, value in figures.items()}
    if num < ENOUGH:
        scores["note"] = f"FID of fewer than {ENOUGH:,} pictures is too high: compare equal counts only"
    return scores


def _refuse_few(num_drawn: int, num_real: int) -> None:
    if min(num_drawn, num_real) < FEWEST:
        raise UsageError(
            f"{num_drawn} drawn and {num_real} real pictures are too few: at least {FEWEST} of each"
        )


class _Images(torch.utils.data.Dataset[torch.Tensor]):
    """Files as torch-fidelity takes images, in processes of its own: (3, size, size) uint8."""

    def __init__(self, paths: Sequence[Path], size: int) -> None:
        self.paths, self.size = paths, size

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.from_numpy(load_image(self.paths[index], self.size).copy()).permute(2, 0, 1)


def _by_oracle(spec: ModelSpec, n: int, seed: int, devices: Sequence[str]) -> dict[str, Any]:
    """Scores of a model on n scenes of the pocket world's test split."""
    shown = examples("test", n, pocket_scores.SEED)
    score: Callable[[pocket_scores.Called], dict[str, float]]
    taken, given = set(spec.modalities_in), spec.modality_out
    if _draws(spec):
        score = partial(pocket_scores.score_drawing, shown=shown, seed=seed)
    elif Modality.IMAGE in taken and given == Modality.TEXT:
        score = partial(pocket_scores.score_telling, shown=shown)
    elif taken == {Modality.TEXT, Modality.IMAGE}:
        score = partial(pocket_scores.score_matching, shown=shown)
    else:
        raise UsageError(f"{spec.name}: the oracle judges drawings, captions and joint embeddings")
    return {"scenes": n, **score(OnAll(spec, devices))}


def _draws(spec: ModelSpec) -> bool:
    return Modality.TEXT in spec.modalities_in and spec.modality_out == Modality.IMAGE


def _spread(size: int, n: int, seed: int) -> np.ndarray:
    """n positions among `size`, each as often as the others (or once more): (n,)."""
    rounds = [np.random.default_rng((seed, r)).permutation(size) for r in range(-(-n // size))]
    return np.concatenate(rounds)[:n]
