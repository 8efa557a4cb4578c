"""Makes of a bundle for one sample one that serves batches of any size."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from wasmgraph.bundle import Batch, Bundle, Share, Tensor


def for_batches(bundle: Bundle, batch: Batch) -> Bundle:
    """The same kernels and memory; the batch's axis has a name instead of one sample's extent.

    An output of which a sample has several rows has an axis of its own, called after the output.
    """
    graph = bundle.graph
    return replace(
        bundle,
        graph=replace(
            graph,
            inputs=_opened(graph.inputs, batch.inputs, batch.axis),
            outputs=_opened(graph.outputs, batch.outputs, batch.axis),
            batch=batch,
        ),
    )


def _opened(
    tensors: Sequence[Tensor], shares: Sequence[Share | None], name: str
) -> tuple[Tensor, ...]:
    opened = []
    for tensor, share in zip(tensors, shares, strict=True):
        shape = list(tensor.shape)
        if share is not None:
            assert shape[share.axis] == share.extent
            own = f"{tensor.name}:{share.axis}"
            shape[share.axis] = name if share.extent == 1 else own
        opened.append(replace(tensor, shape=tuple(shape)))
    return tuple(opened)
