"""One pass of the adapter, from copied inputs to visual tokens and gates: the order in which work is queued."""

from __future__ import annotations

from collections.abc import Mapping

from mova_runtime.engines.cuda_adapter import blocks, project
from mova_runtime.engines.cuda_adapter.layout import Layout
from mova_runtime.engines.cuda_adapter.sizes import Sizes
from mova_runtime.engines.cuda_adapter.work import Work


def forward(work: Work, sizes: Sizes, at: Layout, weights: Mapping[str, int]) -> None:
    """Queue a pass.

    Args:
        work: what it is queued on.
        sizes: of the adapter and its kernels.
        at: where its inputs are, and everything else goes; outputs: `at.head.visual`, `at.gates`.
        weights: addresses by name, as `mova_runtime.bundle.kernels.AdapterWeights` lists them.

    Raises:
        BackendError: something can't be queued.
    """
    for number in range(sizes.shape.blocks):
        block = blocks.Block(work, sizes, at, weights, number)
        block.embed()
        block.weigh()
        if at.pairs:
            block.attend_to_experts()
        block.attend_to_itself()
        block.feed_forward()
    end = project.End(work, sizes, at, weights)
    end.average()
    end.stage(0)
    end.pool()
    end.stage(1)
    end.widen()
