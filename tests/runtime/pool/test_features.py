"""The feature cache: least recently used within its bound, and in one room with the engines."""

import pytest

from fake_engines import FakeLoader
from mova_runtime.engines.memory import Limits, Memory, Need
from mova_runtime.engines.pool import EnginePool, FeatureCache
from mova_runtime.trace import Trace

SECONDS = 100.0
"""Far dearer per byte than an engine."""


@pytest.fixture
def loader():
    return FakeLoader({name: Need(Memory(size)) for name, size in (("base", 100), ("sam", 60), ("llm", 200))})


@pytest.fixture
def make(loader):
    def make(budget=None, bound=100, **options):
        pool = EnginePool(tuple(loader.needs), loader, Limits(budget), timeout=0.0, **options)
        return pool, FeatureCache(pool, bound)

    return make


def use(pool, *names):
    trace = Trace()
    for name in names:
        with pool.lease(name, trace):
            pass
    return [event.name for event in trace._events if event.seconds is None]


def put(cache, *keys, size=40, seconds=SECONDS, **options):
    for key in keys:
        cache.put(key, f"value of {key}", Memory(size), seconds, **options)


def kept(cache, keys="abcdef"):
    """Without touching any."""
    return "".join(key for key in keys if key in cache._shared.room.ledger.features)


def test_hits_and_misses(make):
    _, cache = make()
    assert cache.get("a") is None
    put(cache, "a")
    assert cache.get("a") == "value of a"
    assert (cache.hits, cache.misses, cache.bytes) == (1, 1, 40)
    cache.clear()
    assert cache.get("a") is None
    assert (cache.hits, cache.misses, cache.bytes) == (1, 2, 0)


def test_the_least_recently_used_goes(make):
    pool, cache = make()
    put(cache, "a", "b")
    cache.get("a")
    trace = Trace()
    put(cache, "c", trace=trace)
    assert kept(cache) == "ac"
    assert [(event.name, event.facts) for event in trace._events] == [("cache drop feature", {"bytes": 40})]
    put(cache, "d", size=100, name="sam")
    assert kept(cache) == "d"
    put(cache, "e", trace=trace)
    assert trace._events[-1].name == "cache drop sam"
    assert cache.bytes == pool.totals().used.total == 40


def test_what_is_put_again_replaces(make):
    pool, cache = make()
    put(cache, "a", "b")
    put(cache, "a", size=60)
    assert kept(cache) == "ab"
    assert cache.bytes == pool.totals().used.total == 100
    put(cache, "a", size=101)
    assert kept(cache) == "b", "neither the old nor the new"


@pytest.mark.parametrize(("bound", "size"), [(0, 0), (0, 1), (39, 40)])
def test_what_is_not_kept(make, bound, size):
    pool, cache = make(bound=bound)
    put(cache, "a", size=size)
    assert cache.get("a") is None
    assert pool.totals().used == Memory()


def test_the_gpus_memory_counts(make):
    _, cache = make()
    cache.put("a", "value", Memory(30, 71), SECONDS)
    assert cache.bytes == 0
    cache.put("a", "value", Memory(30, 70), SECONDS)
    assert cache.bytes == 100


def test_engines_go_for_features_that_are_dearer(make):
    pool, cache = make(200)
    use(pool, "base", "sam")
    put(cache, "a")
    trace = Trace()
    put(cache, "b", seconds=0.1, trace=trace)  # 0.0025 s/B, an engine 0.01 s/B
    assert kept(cache) == "a"
    assert pool.loaded == ("base", "sam")
    put(cache, "b", trace=trace)
    assert [event.name for event in trace._events] == ["evict base"]
    assert kept(cache) == "ab"


@pytest.mark.parametrize("kind", ["pinned", "wanted", "leased"])
def test_some_engines_do_not_go_for_features(make, kind):
    pool, cache = make(120, pinned=["base"] if kind == "pinned" else [])
    use(pool, "base")
    if kind == "wanted":
        pool.want(["base"])
    if kind == "leased":
        with pool.lease("base", Trace()):
            put(cache, "a")
    else:
        put(cache, "a")
    assert pool.loaded == ("base",)
    assert kept(cache) == ""


def test_features_go_for_engines_after_engines(make):
    pool, cache = make(280)
    use(pool, "base", "sam")
    put(cache, "a", "b")
    assert use(pool, "llm") == ["evict base", "evict sam"]
    assert kept(cache) == "ab"
    pool.resize(Limits(270))
    assert pool.loaded == ()
    assert kept(cache) == "ab"
    assert use(pool, "llm") == ["cache drop feature"]
    assert kept(cache) == "b"


def test_prefetching_never_drops_a_feature(make):
    pool, cache = make(100)
    put(cache, "a")
    assert not pool.prefetch("base", Trace())
    assert kept(cache) == "a"
    assert use(pool, "base") == ["cache drop feature"]


def test_dear_features_outlive_cheap_ones(make):
    pool, cache = make(100)
    put(cache, "a", seconds=SECONDS)
    put(cache, "b", seconds=SECONDS / 10)
    use(pool, "sam")
    assert kept(cache) == "a"
    put(cache, "c", seconds=SECONDS / 1e6)
    assert kept(cache) == "a"
    assert pool.loaded == ("sam",)


def test_a_closed_pool_keeps_nothing(make):
    pool, cache = make()
    put(cache, "a")
    pool.close()
    put(cache, "b")
    assert kept(cache) == ""
    assert cache.bytes == 0
