"""Every engine of a runtime, inside bounds on memory: loaded when leased or ahead of it, unloaded when room is needed.

Without threads: `holding` is what a `ledger` adds up, `eviction` says who goes first, `room` decides who gets what,
`shelf` which features stay, `line` who is next. With threads: they share what is in `shared`, `admission` lets them in,
`loading` loads. `pool` and `features` are the two doors.
"""

from mova_runtime.engines.pool.features import FeatureCache
from mova_runtime.engines.pool.loads import Loads
from mova_runtime.engines.pool.pool import EnginePool
from mova_runtime.engines.pool.totals import EngineUse, PoolTotals

__all__ = ["EnginePool", "EngineUse", "FeatureCache", "Loads", "PoolTotals"]
