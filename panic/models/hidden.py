"""Hidden states: an embedding model whose vector is what a layer of another model makes of an input.

A variant with `layer` is one, on any base that holds torch modules: transformers and diffusers models,
pocket models, users' classes. The layer is a module by its name (`named_modules`): of the one module of a
model, else below the name of the pipeline's component or of the attribute that holds the module.

    hidden: {base: PocketCaptioner, layer: vision_model.encoder.layers.1, pool: mean}

The state is that of the layer's first call, where the input is read: the tokens of a text, the patches of an
image, a decoder at the position from which it says its first word, a denoiser at its first step. What
follows is not computed. So a state depends on the input alone, not on what the model would have said, nor on
batch mates. With classifier-free guidance, where a layer sees every item twice, it is the half with the
prompt, which is the second. Padding is left out of pooling where the model itself is told which tokens are
padding (`attention_mask`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

from panic.errors import ModelError, OutputRejected
from panic.models.kind import Kind, Parameter
from panic.models.protocol import Modality, Model, ModelSpec

if TYPE_CHECKING:
    import torch

PREFIX = "hidden "
"""The kind of such a model is called by this and the kind of its base."""
POOLS = ("mean", "last", "first", "cls")
_PLACES = {"last": -1, "first": 0, "cls": 0}  # of the tokens that are none of padding
MOST_LISTED = 12


def _beside_token(values: Mapping[str, Any]) -> str:
    return "has no effect while token is set" if values.get("token") is not None else ""


PARAMETERS = {
    "layer": Parameter(kind=str, is_required=True),
    "pool": Parameter(kind=str, choices=POOLS, idle=_beside_token),
    "token": Parameter(kind=int, low=-100_000, high=100_000),
}

_OTHERWISE = {
    "compile": Parameter(
        kind=bool,
        idle=lambda values: "cannot be beside layer: a compiled block does not tell what its layers give",
    )
}
"""What parameters of the base mean here."""


def over(base: Kind) -> Kind:
    """The kind of the hidden states of models of another kind: all but what is built is as there."""

    def parameters(spec: ModelSpec) -> Mapping[str, Parameter]:
        known = base.parameters_of(base_of(spec))
        return {**known, **{name: one for name, one in _OTHERWISE.items() if name in known}, **PARAMETERS}

    def build(spec: ModelSpec) -> HiddenStates:
        return HiddenStates(spec, base.build(base_of(spec)))

    def file_conflicts(spec: ModelSpec, asked: Collection[str]) -> dict[str, str]:
        return base.file_conflicts(base_of(spec), [name for name in asked if name not in PARAMETERS])

    return replace(
        base,
        name=PREFIX + base.name,
        build=build,
        modality_out=Modality.VECTOR,
        parameters=parameters,
        detect=lambda folder: False,
        prefix="",
        read_name=None,
        models=tuple,
        identity=lambda spec: base.identity(base_of(spec)),
        bucketing=lambda spec: base.bucketing(base_of(spec)),
        file_conflicts=file_conflicts,
        earlier=lambda spec: (),
    )


def of(base: ModelSpec) -> ModelSpec:
    """The spec of a model's hidden states; which layer is still to be said."""
    return replace(base, adapter=PREFIX + base.adapter, modality_out=Modality.VECTOR, accepts=_accepts(base))


def _accepts(base: ModelSpec) -> tuple[str, ...]:
    return (*base.accepts, *PARAMETERS) if base.accepts else ()


def base_of(spec: ModelSpec) -> ModelSpec:
    """The spec of the model whose hidden states these are; what it gives is of no interest."""
    return replace(
        spec,
        adapter=spec.adapter.removeprefix(PREFIX),
        parameters={name: value for name, value in spec.parameters.items() if name not in PARAMETERS},
        accepts=tuple(name for name in spec.accepts if name not in PARAMETERS),
    )


class _Reached(BaseException):
    """The layer has been called, and nothing after it is needed; no model takes this for its own mistake."""


class HiddenStates:
    """Inputs of the base model -> vectors of one of its layers."""

    modality_out = "vector"

    def __init__(self, spec: ModelSpec, base: Model) -> None:
        self.spec = spec
        self.modality_in = base.modality_in
        self._base = base
        values = spec.parameters
        self._layer_name, self._pool = str(values["layer"]), values.get("pool") or "mean"
        self._token: int | None = values.get("token")
        self._layer: Any = None
        if hasattr(base, "weight_modules"):  # else nothing but its `load` may move it
            self.weight_modules = base.weight_modules

    @property
    def size_bytes(self) -> int:
        return self._base.size_bytes

    def load(self, device: str) -> None:
        """Load the base model and find the layer.

        Raises what the base raises, and ModelError for a layer that is not there, with the names of those
        that are.
        """
        self._base.load(device)
        layers = layers_of(self._base)
        if not layers:
            raise ModelError(
                f"{self.spec.name}: {self.spec.base} holds no torch modules, so it has no layers"
            )
        if self._layer_name not in layers:
            names = sorted(layers, key=lambda name: -SequenceMatcher(None, self._layer_name, name).ratio())
            more = f" and {len(names) - MOST_LISTED:,} more" if len(names) > MOST_LISTED else ""
            raise ModelError(
                f"{self.spec.name}: {self.spec.base} has no layer {self._layer_name!r}",
                hint=f"its layers, nearest first: {', '.join(names[:MOST_LISTED])}{more}",
            )
        self._layer = layers[self._layer_name]

    def invoke(self, inputs: Sequence[Any], seeds: Sequence[int]) -> list[Any]:
        """n inputs -> n vectors (d,) float32 (or OutputRejected in place of one).

        Raises ModelError for a layer that the model does not call, or whose output is not of tokens of
        numbers.
        """
        import torch

        with torch.inference_mode(), _watching(self._layer, modules_of(self._base)) as seen:
            try:
                self._base.invoke(inputs, seeds)
            except _Reached:
                pass
            else:
                raise ModelError(
                    f"{self.spec.name}: {self.spec.base} does not call its layer {self._layer_name}"
                )
            states = self._tokens(seen["output"], len(inputs))
            return self._pooled(states, _mask(seen.get("mask"), states))

    def _tokens(self, output: Any, count: int) -> torch.Tensor:
        """What a layer gave as (n, tokens, d): the channels of a feature map (n, c, h, w) are its d."""
        import torch

        value = getattr(output, "last_hidden_state", None)
        value = output if value is None else value
        while isinstance(value, tuple | list) and value:
            value = value[0]
        if (
            not isinstance(value, torch.Tensor)
            or value.ndim not in (2, 3, 4)
            or len(value) not in (count, 2 * count)
        ):
            shape = tuple(value.shape) if isinstance(value, torch.Tensor) else type(value).__name__
            raise ModelError(
                f"{self.spec.name}: the layer {self._layer_name} gave {shape} for {count} inputs; (n, d),"
                " (n, tokens, d) or (n, channels, height, width) is needed"
            )
        value = value[-count:].float()
        if value.ndim == 4:
            return value.flatten(2).transpose(1, 2)
        return value[:, None] if value.ndim == 2 else value

    def _pooled(self, states: torch.Tensor, mask: torch.Tensor) -> list[Any]:
        """(n, tokens, d) and which tokens count, (n, tokens) -> n vectors (d,)."""
        found: list[Any] = []
        for state, counts in zip(states, mask, strict=True):
            own = state[counts]
            place = _PLACES.get(self._pool) if self._token is None else self._token
            if place is None and len(own):
                vector = own.mean(dim=0)
            elif place is not None and -len(own) <= place < len(own):
                vector = own[place]
            else:
                found.append(OutputRejected(f"{self.spec.name}: {len(own)} tokens, and no token {place}"))
                continue
            found.append(vector.cpu().numpy())
        return found


def modules_of(model: Any) -> dict[str, Any]:
    """The torch modules of a loaded model, by the name of what holds them; "" for the one that is all."""
    import torch

    held = getattr(getattr(model, "_model", None), "components", None) or vars(model)
    found = {name: one for name, one in held.items() if isinstance(one, torch.nn.Module)}
    if hasattr(model, "weight_modules"):
        whole = model.weight_modules()
        return (
            {"": whole[0]} if len(whole) == 1 else {name: one for name, one in found.items() if one in whole}
        )
    return found


def layers_of(model: Any) -> dict[str, Any]:
    """The layers of a loaded model by name, in the order in which the modules list them."""
    return {
        f"{holder}.{name}".strip("."): layer
        for holder, module in modules_of(model).items()
        for name, layer in module.named_modules()
        if name or holder
    }


@contextmanager
def _watching(layer: Any, roots: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Keep what a layer gives at its first call, and the attention mask that was last given before that.

    A root need not be called itself: of a sequence-to-sequence model it is the encoder that is, at first.
    """
    seen: dict[str, Any] = {}

    def on_module(module: Any, arguments: Any, keywords: Mapping[str, Any]) -> None:
        mask = keywords.get("attention_mask")
        if getattr(mask, "ndim", 0) == 2:  # what the parts of a model make of it has more
            seen["mask"] = mask

    def on_layer(module: Any, arguments: Any, output: Any) -> None:
        seen["output"] = output
        raise _Reached

    with ExitStack() as hooks:
        hooks.callback(layer.register_forward_hook(on_layer).remove)
        for module in (module for root in roots.values() for module in root.modules()):
            hooks.callback(module.register_forward_pre_hook(on_module, with_kwargs=True).remove)
        yield seen


def _mask(given: Any, states: torch.Tensor) -> torch.Tensor:
    """Which tokens are none of padding (n, tokens): all, unless a mask of their shape was given."""
    import torch

    if isinstance(given, torch.Tensor) and given.shape[-1:] == states.shape[1:2] and given.ndim == 2:
        return given[-len(states) :].to(states.device, torch.bool)
    return torch.ones(states.shape[:2], dtype=torch.bool, device=states.device)
