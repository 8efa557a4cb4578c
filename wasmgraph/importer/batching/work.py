"""Whether one sample is enough work to be run by itself."""

from __future__ import annotations

import math

from wasmgraph.importer.network import Network, attributes

_LITTLE = 256
"""Elements per node. A kernel is called in 10 to 20 ns, in which another one computes as many."""


def is_little_work(network: Network) -> bool:
    """Whether to go from kernel to kernel takes as long as what they compute.

    Args:
        network: Normalised, of one sample. Counted are the elements that its nodes write and the
            constants that they read.
    """
    counted = 0
    for node in network.nodes:
        for name in node.output:
            known = network.types.get(name)
            counted += math.prod((known.shape if known is not None else None) or ())
        counted += sum(network.weights[n].size for n in node.input if n in network.weights)
        counted += sum(
            len(value) for value in attributes(node).values() if isinstance(value, (list, tuple))
        )
    return counted < _LITTLE * len(network.nodes)
