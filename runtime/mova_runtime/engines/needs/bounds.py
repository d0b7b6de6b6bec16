"""What may be believed of what was measured: others in the process, or on the GPU, take memory meanwhile too."""

from __future__ import annotations

from mova_runtime.engines.memory import Memory, Need

_TIMES = 4
"""So many times what was guessed is believed: a full-size DePlot with 371 MB of weights held 779 to 1188 MB."""

_OWN = 64 << 20
"""Bytes that an engine may hold whatever its weights' size: Co-DETR with 9 MB of weights held 44 to 78 MB."""

_LIBRARIES = 512 << 20
"""The same of one on a GPU, whose libraries load code and take workspaces with the first engine."""

_RUN_TIMES, _RUN = 8, 1 << 30
"""Bytes of a run: so many times the weights, and so many more, for activations grow with the image, not with the
weights. The same Co-DETR took 373 MB, the full-size adapter 2.4 GB beside 449 MB of weights. Wrongly believed is better
here than wrongly doubted: that is measured again and again, and a guess goes for it meanwhile."""


def is_believed(found: Need, guess: Need) -> bool:
    """Whether an engine that was thought to take `guess` can have taken `found` by itself.

    What was guessed to be on the GPU may be found on the host, in part, and the other way round.
    """
    held, loading, run = guess.resident.total, guess.loading.total, guess.working.total
    slack = _LIBRARIES if guess.resident.device else _OWN
    return (
        found.resident.within(_both(_TIMES * held + slack))
        and found.loading.within(_both(_TIMES * (held + loading) + slack))
        and found.working.within(_both(_RUN_TIMES * held + run + _RUN))
    )


def _both(size: int) -> Memory:
    return Memory(size, size)
