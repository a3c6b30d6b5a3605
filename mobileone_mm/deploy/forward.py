"""The raw outputs of any host's model, by which two forms of it can be compared."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmengine.structures import BaseDataElement
from torch import Tensor, nn

from ..reparam.compare import tensors_of


class RawForward:
    """The raw outputs of a host's model: the outputs of its heads before any post-processing.

    NMS and top-k turn a difference in the last digit into another list of boxes. Therefore the
    proposals of a two-stage detector are computed once, by one model, and given to all. The same holds
    for the regions of the later stages of a cascade, because the pyramid level of a region depends on
    its size by steps. The regions that a model finds itself are among its outputs. A wrapper of a
    student and a teacher gives the outputs of both. ``proposer`` is the model that finds the proposals,
    in its own dtype: mmcv's compiled NMS reads float32 only.
    """

    def __init__(self, proposer: nn.Module) -> None:
        self.proposer: Any = proposer
        self._inputs: Tensor | None = None
        self._given: dict[str, Any] = {}

    def __call__(self, model: Any, inputs: Tensor) -> list[Tensor]:
        """Return all floating-point tensors of the raw outputs of a model."""
        if self._inputs is not inputs:
            self._inputs, self._given = inputs, {}
        return self._outputs(model, self.proposer, inputs, '')

    def _outputs(self, model: Any, proposer: Any, inputs: Tensor, name: str) -> list[Tensor]:
        parts = [part for part in ('student', 'teacher') if _has_module(model, part)]
        if parts:
            return [
                output
                for part in parts
                for output in self._outputs(
                    getattr(model, part), getattr(proposer, part), inputs, f'{name}{part}.'
                )
            ]
        names = ('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape')
        info = {**dict.fromkeys(names, tuple(inputs.shape[-2:])), 'scale_factor': (1.0, 1.0)}
        samples = [BaseDataElement(metainfo=info) for _ in inputs]
        if _has_module(model, 'roi_head') and _has_module(model, 'rpn_head'):
            return self._two_stages(model, proposer, inputs, samples, name)
        try:
            return tensors_of(model(inputs, samples, mode='tensor'))
        except NotImplementedError:
            return tensors_of(model.extract_feat(inputs))

    def _two_stages(
        self, model: Any, proposer: Any, inputs: Tensor, samples: list[Any], name: str
    ) -> list[Tensor]:
        key = f'{name}proposals'
        if key not in self._given:
            features = proposer.extract_feat(inputs.to(next(proposer.parameters())))
            found = proposer.rpn_head.predict(features, samples)
            for proposal in found:
                proposal.bboxes = proposal.bboxes.to(inputs)
            self._given[key] = found
        features = model.extract_feat(inputs)
        with self._same_regions(model.roi_head, f'{name}regions') as own:
            rois = model.roi_head.forward(features, self._given[key], samples)
        return tensors_of([features, model.rpn_head(features), rois, own])

    @contextmanager
    def _same_regions(self, head: nn.Module, key: str) -> Iterator[list[Tensor]]:
        """Replace a model's regions by those of the model that ran first; yield the model's own."""
        own: list[Tensor] = []
        given: list[Tensor] = self._given.setdefault(key, [])

        def replace(_: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
            own.append(args[1])
            if len(given) < len(own):
                given.append(args[1])
            return (args[0], given[len(own) - 1], *args[2:])

        handles = [
            module.register_forward_pre_hook(replace)
            for module in head.modules()
            if hasattr(module, 'roi_layers')  # a RoI extractor
        ]
        try:
            yield own
        finally:
            for handle in handles:
                handle.remove()


def _has_module(model: Any, name: str) -> bool:
    return isinstance(getattr(model, name, None), nn.Module)
