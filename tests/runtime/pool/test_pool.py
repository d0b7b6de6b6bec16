"""The pool with a loader that only counts: who is loaded, who goes, who stays, who is refused."""

import gc
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from fake_engines import FakeLoader
from mova_runtime.engines.memory import Limits, Memory, Need
from mova_runtime.engines.pool import EnginePool, EngineUse, FeatureCache, admission, guard
from mova_runtime.engines.pool.activity import Activity
from mova_runtime.errors import BackendError, BundleError, MemoryBudgetError, MovaError, OutOfMemoryError
from mova_runtime.trace import Trace

SIZES = {"base": 100, "sam": 60, "vary": 50, "llm": 200}
GIB = 2**30


def host(resident, working=0, loading=0):
    return Need(Memory(resident), Memory(working), Memory(loading))


@pytest.fixture
def loader():
    return FakeLoader({name: host(size) for name, size in SIZES.items()}, seconds_of=dict.fromkeys(SIZES, 0.0))


@pytest.fixture
def pool_of(loader):
    def make(budget=None, **options):
        limits = budget if isinstance(budget, Limits) else Limits(budget)
        return EnginePool(tuple(loader.needs), loader, limits, **{"timeout": 0.0} | options)

    return make


def use(pool, *names, runs=1):
    """Each alone; the trace of all."""
    trace = Trace()
    for name in names:
        with pool.lease(name, trace, runs) as engine:
            assert engine.name == name
            assert engine.open
    return trace


def events(trace):
    return [(event.name, event.facts.get("bytes")) for event in trace._events if event.seconds is None]


def stages(trace):
    return [stage["name"] for stage in trace.stages()]


# ---- loading


def test_loads_once_and_keeps(pool_of, loader):
    pool = pool_of()
    use(pool, "sam", "base", "sam", "sam")
    assert loader.loads == ["sam", "base"]
    assert pool.loaded == ("base", "sam"), "in the order of the components"


def test_loading_is_a_stage_only_where_it_happens(pool_of):
    pool, first, second = pool_of(), Trace(), Trace()
    with pool.lease("sam", first), pool.lease("sam", second):
        pass
    assert stages(first) == ["load sam"]
    assert second.stages() == ()


def test_a_set_is_all_there(pool_of, loader):
    pool = pool_of(170)
    with pool.lease_all(["sam", "base", "sam"], Trace()) as engines:
        assert {name: engine.name for name, engine in engines.items()} == {"sam": "sam", "base": "base"}
    assert loader.loads == ["sam", "base"]
    with pool.lease_all([], Trace()) as engines:
        assert engines == {}


def test_a_component_that_is_not_there(pool_of):
    pool = pool_of(160)
    with pytest.raises(BundleError, match="no clip"):
        use(pool, "clip")
    assert not pool.prefetch("clip", Trace())


def test_a_failure_to_load_leaves_the_pool_usable(pool_of, loader):
    pool = pool_of(160)
    loader.errors["sam"] = [BackendError("can't load sam"), BundleError("can't read sam")]
    with pytest.raises(BackendError, match="can't load sam"), pool.lease_all(["base", "sam"], Trace()):
        pass
    with pytest.raises(BundleError, match="can't read sam"):
        use(pool, "sam")
    assert pool.loaded == ("base",), "what was loaded before stays"
    assert pool.totals().used == loader.taken == Memory(100)
    use(pool, "sam")
    assert pool.loaded == ("base", "sam")
    assert pool.totals().failures == 2


def test_a_failure_releases_what_was_not_tried(pool_of, loader):
    pool = pool_of(160)
    loader.errors["base"] = [BackendError("can't load base")]
    with pytest.raises(BackendError), pool.lease_all(["base", "sam"], Trace()):
        pass
    assert pool.totals().used == Memory()
    assert loader.loads == ["base"]


def test_memory_that_runs_out_in_a_load_is_made_once(pool_of, loader):
    pool = pool_of(pinned=["base"])
    use(pool, "base", "vary", "llm")
    pool.want(["vary"])
    loader.errors["sam"] = [OutOfMemoryError("sam: out of memory")]
    trace = use(pool, "sam")
    assert loader.finals[-2:] == [False, True]
    assert pool.loaded == ("sam", "vary"), "what somebody wants stays"
    assert sorted(events(trace)) == [("evict base", 100), ("evict llm", 200)]
    loader.errors["llm"] = [OutOfMemoryError("llm: out of memory")] * 2
    with pytest.raises(OutOfMemoryError):
        use(pool, "llm")
    assert pool.loaded == ("vary",)
    use(pool, "llm")


# ---- room


def test_the_least_recently_used_goes_first_of_what_costs_the_same(pool_of):
    pool = pool_of(210)
    use(pool, "base", "sam", "vary")
    use(pool, "base", "sam")
    assert pool.loaded == ("base", "sam", "vary")
    pool = pool_of(160)
    use(pool, "base", "sam", "vary")
    assert pool.loaded == ("sam", "vary")
    use(pool, "sam", "base")
    assert pool.loaded == ("base", "sam")


def test_the_cheapest_by_byte_goes_first(pool_of, loader):
    loader.seconds_of.update(base=1.0, sam=60.0, vary=40.0)
    pool = pool_of(210)
    use(pool, "base", "vary", "sam")
    trace = use(pool, "llm")
    assert events(trace) == [("evict base", 100), ("evict vary", 50), ("evict sam", 60)]
    loader.needs["llm"] = host(100)
    pool = pool_of(210)
    use(pool, "vary", "sam", "base", "llm")
    assert pool.loaded == ("sam", "vary", "llm")


def test_what_was_not_used_for_long_goes_however_dear(pool_of, loader):
    loader.needs = {name: host(100) for name in ("dear", "one", "other")}
    loader.seconds_of = {"dear": 5.0, "one": 1.0, "other": 1.0}
    pool = pool_of(200)
    use(pool, "dear", *["one", "other"] * 5)
    assert pool.loaded == ("one", "other"), "each that went has raised what stays must be worth"


def test_no_more_go_than_must(pool_of):
    pool = pool_of(260)
    use(pool, "sam", "vary", "base")
    use(pool, "llm")  # beside at most 60
    assert pool.loaded == ("vary", "llm")
    pool = pool_of(310)
    use(pool, "sam", "vary", "base", "llm")
    assert pool.loaded == ("base", "llm")


def test_wanted_engines_go_later_and_pinned_ones_last(pool_of):
    pool = pool_of(210, pinned=["vary"])
    use(pool, "vary", "sam", "base")
    pool.want(["sam", "sam"])
    pool.unwant(["sam"])
    assert events(use(pool, "llm")) == [("evict base", 100), ("evict sam", 60), ("evict vary", 50)]
    pool = pool_of(210, pinned=["vary"])
    use(pool, "vary", "sam", "base")
    pool.want(["sam"])
    pool.resize(Limits(200))
    assert pool.loaded == ("sam", "vary")
    pool.want(["vary"])
    pool.resize(Limits(100))
    assert pool.loaded == ("vary",)


def test_the_bound_itself_fits(pool_of):
    pool = pool_of(160)
    use(pool, "base", "sam")
    assert pool.loaded == ("base", "sam")
    assert pool.totals().peak == Memory(160)


def test_runs_take_room_while_they_last(pool_of, loader):
    loader.needs["sam"] = host(60, working=20)
    pool = pool_of(160)
    use(pool, "base")
    with pool.lease("sam", Trace(), runs=5):
        assert pool.totals().used == Memory(160)
        assert pool.loaded == ("sam",)
    assert pool.totals().used == Memory(60)
    with pytest.raises(MemoryBudgetError, match="engine 'sam' needs 180 B; the budget is 160 B"):
        use(pool, "sam", runs=6)


def test_loading_takes_room_while_it_lasts(pool_of, loader):
    loader.needs["sam"] = host(60, working=5, loading=90)
    loader.pause = lambda _: seen.append((pool.totals().used, loader.taken))
    pool, seen = pool_of(160), []
    use(pool, "base")
    use(pool, "sam")
    assert seen[1:] == [(Memory(100), Memory(100)), (Memory(90), Memory(90))], "base is closed, then sam loaded"
    assert pool.totals().used == Memory(60)


def test_the_gpu_has_a_budget_of_its_own(pool_of, loader):
    loader.needs.update(sam=Need(Memory(10, 60)), vary=Need(Memory(10, 50)))
    pool = pool_of(Limits(120, 100))
    use(pool, "base", "sam")
    assert events(use(pool, "vary")) == [("evict sam", 70)]
    assert pool.loaded == ("base", "vary")
    pool = pool_of(Limits(120, shared=True))
    use(pool, "base", "sam")
    assert pool.loaded == ("sam",)


def test_what_is_leased_stays(pool_of):
    pool = pool_of(160)
    with pool.lease("base", Trace()) as base:
        use(pool, "sam", "vary")
        assert base.open
        assert pool.loaded == ("base", "vary")
        with pool.lease("vary", Trace()), pytest.raises(MemoryBudgetError):
            use(pool, "sam")
        use(pool, "sam")
        assert pool.loaded == ("base", "sam")


def test_what_was_evicted_counts_until_it_is_closed(pool_of, loader):
    """All of it: little as is needed, the rest is nobody's before it is free."""
    loader.needs["text"] = host(10)
    pool, seen = pool_of(205), []
    use(pool, "llm")
    loader.pause = lambda where: seen.append((where, pool.totals().used))
    use(pool, "text")
    assert seen == [("close llm", Memory(200)), ("load text", Memory(10))]


def test_an_engine_larger_than_was_known(pool_of, loader):
    loader.guesses.update(sam=host(10), llm=host(10))
    pool = pool_of(260)
    use(pool, "base", "llm")
    assert pool.loaded == ("llm",)
    with pool.lease("llm", Trace()):
        pool.resize(Limits(250))
        with pytest.raises(MemoryBudgetError) as caught:
            use(pool, "sam")
        assert str(caught.value) == (
            "waited 0 s for 'sam' (60 B): the budget is 250 B, of which 200 B is leased by llm"
        )
        assert [engine.name for engine in loader.engines] == ["llm"]
        assert pool.totals().used == loader.taken == Memory(200)
    use(pool, "sam")


def test_an_engine_that_does_not_fit_even_alone(pool_of, loader):
    loader.guesses.update(sam=host(10))
    pool = pool_of(50)
    with pytest.raises(MemoryBudgetError) as caught:
        use(pool, "sam")
    assert str(caught.value) == "engine 'sam' turned out to need 60 B; the budget is 50 B"
    assert caught.type is MemoryBudgetError
    assert loader.loads == ["sam"]
    assert pool.totals().used == loader.taken == Memory()


def test_an_engine_smaller_than_was_known(pool_of, loader):
    loader.guesses.update(sam=host(100))
    pool = pool_of(110)
    use(pool, "sam", "vary")
    assert pool.loaded == ("sam", "vary")


def test_limits_can_be_changed(pool_of):
    pool = pool_of()
    use(pool, "base", "vary")
    with pool.lease("sam", Trace()) as sam:
        pool.resize(Limits(50))
        assert pool.loaded == ("sam",)
        assert pool.totals().used == Memory(60)
        with pytest.raises(MemoryBudgetError, match="waited 0 s"):
            use(pool, "vary")
        assert sam.open
    assert pool.loaded == (), "it went when it came back"
    use(pool, "vary")
    pool.resize(Limits())
    use(pool, "base", "sam")
    assert pool.loaded == ("base", "sam", "vary")


# ---- refusals


def test_what_never_fits_evicts_nobody(pool_of):
    pool = pool_of(160)
    use(pool, "base", "sam")
    with pytest.raises(MemoryBudgetError, match=r"^engine 'llm' needs 200 B; the budget is 160 B$"):
        use(pool, "llm")
    with (
        pytest.raises(MemoryBudgetError, match=r"^engines base, sam, vary need 210 B; the budget is 160 B$"),
        pool.lease_all(["base", "sam", "vary"], Trace()),
    ):
        pass
    assert pool.loaded == ("base", "sam")


def test_the_numbers_of_what_does_not_fit(pool_of, loader):
    loader.needs.update(base=host(3 * 2**20), llm=host(5 * GIB), sam=Need(Memory(GIB), Memory(), Memory(0, 3 * GIB)))
    pool = pool_of(4 * 2**20)
    with pytest.raises(MemoryBudgetError, match=r"^engine 'llm' needs 5.0 GiB; the budget is 4.0 MiB$"):
        use(pool, "llm")
    pool.resize(Limits(2 * GIB, 2 * GIB))
    with pytest.raises(MemoryBudgetError) as caught:
        use(pool, "sam")
    assert str(caught.value) == (
        "engine 'sam' needs 1.0 GiB and 3.0 GiB on the GPU; the budget is 2.0 GiB and 2.0 GiB on the GPU"
    )
    assert loader.loads == []


def test_the_numbers_of_a_wait_that_took_too_long(pool_of, loader):
    loader.needs = {name: host(size * GIB) for name, size in (("base", 1), ("llm", 3), ("sam", 3), ("vary", 1))}
    pool, trace = pool_of(6 * GIB, timeout=0.01), Trace()
    with pool.lease("base", Trace()), pool.lease("llm", Trace()):
        with pytest.raises(MemoryBudgetError) as caught, pool.lease("sam", trace):
            pass
        assert str(caught.value) == (
            "waited 0.01 s for 'sam' (3.0 GiB): the budget is 6.0 GiB, of which 4.0 GiB is leased by base, llm"
        )
        with (
            pytest.raises(MemoryBudgetError, match=r"waited 0.01 s for sam, vary \(4.0 GiB\)"),
            pool.lease_all(["sam", "vary"], trace),
        ):
            pass
    assert stages(trace) == ["wait for room"] * 2
    assert pool.totals().waits == 2
    assert 0.01 <= pool.totals().wait_seconds < 10


# ---- engines that fail, leases that end


def test_a_failure_inside_a_lease_gives_it_back(pool_of):
    pool = pool_of(200)
    with pytest.raises(ZeroDivisionError), pool.lease("base", Trace()) as base:
        1 / 0  # noqa: B018
    assert base.open
    use(pool, "llm")
    assert pool.loaded == ("llm",)


def test_an_engine_that_failed_is_loaded_anew(pool_of, loader):
    pool = pool_of(160)
    with pytest.raises(BackendError, match="died"), pool.lease("sam", Trace()) as sam:
        raise BackendError("died")
    assert not sam.open
    assert pool.totals().used == Memory()
    with pool.lease("sam", Trace()) as again:
        assert again is not sam
    assert pool.totals().failures == 1


def test_who_has_a_failed_engine_may_end(pool_of, loader):
    pool = pool_of(150)
    with pool.lease("sam", Trace()) as sam:
        with pytest.raises(BackendError), pool.lease("sam", Trace()):
            raise BackendError("died")
        assert sam.open
        assert pool.loaded == ()
        assert pool.totals().used == Memory(60)
        with pool.lease("sam", Trace()) as again:
            assert again is not sam
            assert pool.totals().used == Memory(120)
        with pytest.raises(MemoryBudgetError, match="of which 60 B is leased by sam"):
            use(pool, "vary", "base")
    assert not sam.open
    assert again.open is False, "it went for vary"
    assert pool.loaded == ("vary",)


def test_nobody_is_handed_an_engine_that_failed_while_it_waited_for_another(pool_of, loader):
    """A lease of two has one loaded and loads the other; meanwhile a lease of the first fails."""
    pool, handed, begun, goes_on = pool_of(300), [], threading.Event(), threading.Event()

    def pause(where):
        if where == "load base":
            begun.set()
            assert goes_on.wait(10)

    def first():
        with pool.lease("sam", Trace()) as engine:
            handed.append(engine)
            second.start()
            assert begun.wait(10)
            raise BackendError("died")

    def both():
        with pool.lease_all(["sam", "base"], Trace()) as engines:
            handed.append(engines["sam"])

    loader.pause, second = pause, threading.Thread(target=both)
    with pytest.raises(BackendError, match="died"):
        first()
    goes_on.set()
    second.join(10)
    assert handed[0] is not handed[1]
    assert not handed[0].open
    assert loader.loads == ["sam", "base", "sam"]


def test_an_engine_that_can_not_be_closed_is_gone(pool_of, loader):
    pool = pool_of(160)
    loader.close_error = RuntimeError("can't close")
    use(pool, "base", "sam", "vary", "base")
    assert pool.totals().used == Memory(150)
    pool.close()
    assert pool.totals().used == Memory()


def test_closing_unloads_and_ends(pool_of, loader):
    pool = pool_of()
    with pool.lease("base", Trace()) as base:
        pass
    pool.close()
    pool.close()
    assert not base.open
    assert pool.loaded == ()
    with pytest.raises(MovaError, match="closed"):
        use(pool, "base")
    assert not pool.prefetch("base", Trace())
    assert loader.loads == ["base"]


def test_closing_lets_who_is_leased_finish(pool_of):
    pool = pool_of()
    with pool.lease("base", Trace()) as base, pool.lease("sam", Trace()) as sam:
        pool.close()
        assert base.open
        assert sam.open
    assert not base.open
    assert not sam.open
    assert pool.loaded == ()


# ---- ahead of leases


def test_prefetching(pool_of, loader):
    pool, trace = pool_of(200, pinned=["base"]), Trace()
    assert pool.prefetch("sam", trace)
    assert pool.prefetch("sam", trace), "it is there"
    assert stages(trace) == ["load sam"]
    assert pool.loaded == ("sam",)
    assert stages(use(pool, "sam")) == []
    assert pool.totals().prefetched == 1
    assert not pool.prefetch("llm", Trace(), evict=False)
    assert pool.prefetch("base", Trace(), evict=False)
    assert not pool.prefetch("llm", Trace()), "base is pinned"
    assert pool.loaded == ("base", "sam"), "nothing went in vain"
    pool.want(["sam"])
    assert not pool.prefetch("vary", Trace()), "sam is wanted"
    pool.unwant(["sam"])
    assert pool.prefetch("vary", trace)
    assert events(trace) == [("evict sam", 60)]
    with pool.lease("vary", Trace()):
        assert not pool.prefetch("sam", Trace()), "vary is leased"


def test_what_was_never_measured_is_not_prefetched(pool_of, loader):
    loader.unknown = {"sam"}
    pool = pool_of()
    assert not pool.prefetch("sam", Trace())
    use(pool, "sam")
    assert pool.prefetch("sam", Trace())


def test_a_prefetch_that_fails_is_told_to_nobody(pool_of, loader):
    pool = pool_of(200)
    use(pool, "vary")
    loader.errors["sam"] = [BackendError("can't load sam"), OutOfMemoryError("sam: out of memory")]
    assert not pool.prefetch("sam", Trace())
    assert not pool.prefetch("sam", Trace())
    assert loader.loads == ["vary", "sam", "sam"], "memory is not made for what nobody asked for"
    assert pool.loaded == ("vary",)
    assert pool.prefetch("sam", Trace())
    loader.guesses["base"] = host(10)
    with pool.lease_all(["vary", "sam"], Trace()):
        assert not pool.prefetch("base", Trace()), "it turned out larger"
    assert pool.loaded == ("sam", "vary")
    assert pool.totals().used == loader.taken == Memory(110)


# ---- what it tells


def test_totals(pool_of, loader):
    pool = pool_of(210, pinned=["base"])
    loader.seconds_of.update(base=2.0, sam=1.0)
    with pool.lease("base", Trace()):
        use(pool, "sam", "vary")
        pool.want(["vary"])
        totals = pool.totals()
        pool.unwant(["vary"])
    assert totals.engines == (
        EngineUse("base", host(100), 1, True, False),
        EngineUse("sam", host(60), 0, False, False),
        EngineUse("vary", host(50), 0, False, True),
    )
    use(pool, "llm")
    totals = pool.totals()
    assert (totals.loads, totals.load_seconds, totals.leases) == (4, 3.0, 4)
    assert (totals.evictions, totals.evicted_bytes) == (3, 210)
    assert (totals.used, totals.peak, totals.limits) == (Memory(200), Memory(210), Limits(210))


def test_a_load_knows_whether_it_is_alone(pool_of, loader):
    pool = pool_of(160)
    use(pool, "base")
    use(pool, "vary")
    assert [before == after is not None for before, after in loader.alone] == [True, True]
    assert loader.alone[0] != loader.alone[1]
    with pool.lease("vary", Trace()):
        use(pool, "sam")  # base goes for it
    assert loader.alone[2] == (None, None)
    loader.pause = lambda where: where == "load llm" and use(pool, "sam")
    pool.resize(Limits())
    use(pool, "llm")
    before, after = loader.alone[3]
    assert before is not None
    assert after is not None
    assert before != after, "somebody was at work in between"


# ---- threads


def run_together(*works):
    errors = []

    def guarded(work):
        try:
            work()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)
    return errors


def test_loads_once_under_many_threads(pool_of, loader):
    pool, together, seen = pool_of(timeout=None), threading.Barrier(32), []

    def work():
        together.wait(10)
        for name in SIZES:
            with pool.lease(name, Trace()) as engine:
                seen.append(engine)

    assert run_together(*[work] * 32) == []
    assert len(seen) == 32 * len(SIZES)
    assert sorted(loader.loads) == sorted(SIZES)
    assert len({id(engine) for engine in seen}) == len(SIZES)


def test_many_threads_in_little_room(pool_of, loader):
    loader.needs = {name: host(need.resident.host, working=2, loading=5) for name, need in loader.needs.items()}
    pool = pool_of(290, timeout=None)
    loader.grown = lambda: within.append(loader.taken.host <= 290)
    within = []

    def work(number):
        for turn in range(20):
            names = [("sam", "vary"), ("base", "sam"), ("vary", "base"), ("llm",)][(number + turn) % 4]
            with pool.lease_all(names, Trace()) as engines:
                assert all(engine.open for engine in engines.values())

    assert run_together(*[lambda number=number: work(number) for number in range(8)]) == []
    assert all(within)
    assert pool.totals().used == loader.taken
    assert pool.totals().leases == 160


def test_who_waits_for_a_load_that_fails_gets_its_error(pool_of, loader):
    pool, waiting, traces = pool_of(timeout=None), threading.Barrier(4), [Trace() for _ in range(4)]
    loader.errors["sam"] = [BackendError("can't load sam")]

    def pause(where):
        while pool.shared.room.engines["sam"].users < 4:
            threading.Event().wait(0.001)

    loader.pause = pause

    def work(trace):
        waiting.wait(10)
        with pool.lease("sam", trace):
            pass

    errors = run_together(*[lambda trace=trace: work(trace) for trace in traces])
    assert [str(error) for error in errors] == ["can't load sam"] * 4
    assert len(set(map(id, errors))) == 4, "each with its own traceback"
    assert loader.loads == ["sam"]
    assert sorted(stage for trace in traces for stage in stages(trace)) == ["load sam"] + ["wait for sam"] * 3
    loader.pause = lambda where: None
    use(pool, "sam")


def test_nothing_goes_ahead_of_who_waits(pool_of):
    """What would fit beside the head of the line may be what it waits for."""
    pool = pool_of(260, timeout=30.0)
    use(pool, "vary")

    def wait():
        with pool.lease("llm", Trace()):
            pass

    with pool.lease("base", Trace()):
        thread = threading.Thread(target=wait)
        thread.start()
        while not pool.shared.line:
            threading.Event().wait(0.001)
        assert not pool.prefetch("sam", Trace())
        assert pool.prefetch("vary", Trace()), "it is there"
    thread.join(30)
    assert pool.loaded == ("vary", "llm")


def until(holds):
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_an_engine_larger_than_was_known_waits_for_room_to_be_loaded_again(pool_of, loader):
    loader.guesses.update(sam=host(10))
    pool = pool_of(250, timeout=30.0)

    def hold():
        with pool.lease("llm", Trace()):
            has_llm.set()
            until(lambda: pool.shared.line)
            assert loader.loads == ["llm", "sam"]
            assert [engine.name for engine in loader.engines] == ["llm"]

    def ask():
        assert has_llm.wait(30)
        use(pool, "sam")

    has_llm = threading.Event()
    assert run_together(hold, ask) == []
    assert loader.loads == ["llm", "sam", "sam"]
    assert pool.totals().used == loader.taken == Memory(60)


def test_an_engine_that_grows_again_is_refused(pool_of, loader):
    loader.guesses.update(sam=host(10))
    pool = pool_of(250, timeout=30.0)
    use(pool, "llm")
    loader.pause = lambda where: where == "load sam" and loader.needs.update(sam=host(150))  # the next time

    def grow():
        until(lambda: pool.shared.line)
        pool.resize(Limits(300))

    def ask():
        with pool.lease("llm", Trace()):
            use(pool, "sam")

    (error,) = run_together(ask, grow)
    assert type(error) is MemoryBudgetError
    assert str(error) == "engine 'sam' turned out to need 150 B; the budget is 300 B, of which 200 B is leased by llm"
    assert loader.loads == ["llm", "sam", "sam"]
    assert pool.totals().used == loader.taken == Memory(200)


def test_all_who_wait_for_an_engine_that_outgrows_its_room_are_told(pool_of, loader):
    loader.guesses.update(sam=host(10))
    pool = pool_of(50)
    loader.pause = lambda where: until(lambda: pool.shared.room.engines["sam"].users == 3)
    errors = run_together(*[lambda: use(pool, "sam")] * 3)
    assert ["turned out to need 60 B" in str(error) for error in errors] == [True] * 3
    assert len(set(map(id, errors))) == 3, "each with its own traceback"
    assert pool.totals().used == Memory()


def test_a_refusal_keeps_no_frames(pool_of, loader):
    """What a holding keeps for others is not the error that was raised."""
    loader.guesses.update(sam=host(10))
    pool, refused = pool_of(50), []
    withdraw = pool.shared.room.withdraw
    pool.shared.room.withdraw = lambda holding, error: refused.append(error) or withdraw(holding, error)
    with pytest.raises(MemoryBudgetError):
        use(pool, "sam")
    assert refused[0].__traceback__ is None


def test_memory_that_runs_out_in_a_load_ahead_is_made_by_the_lease_that_waits_for_it(pool_of, loader):
    pool, trace = pool_of(timeout=30.0), Trace()
    use(pool, "base")
    loader.errors["sam"] = [OutOfMemoryError("sam: out of memory")] * 2
    begun = threading.Event()

    def pause(where):
        if where == "load sam" and not begun.is_set():
            begun.set()
            until(lambda: pool.shared.room.engines["sam"].users)

    def ask():
        assert begun.wait(30)
        with pool.lease("sam", trace):
            pass

    loader.pause = pause
    assert run_together(lambda: pool.prefetch("sam", Trace()), ask) == []
    assert loader.loads == ["base", "sam", "sam", "sam"]
    assert loader.finals[1:] == [False, False, True]
    assert events(trace) == [("evict base", 100)]
    assert stages(trace) == ["wait for sam", "load sam", "load sam"]
    assert pool.totals().failures == 1
    assert pool.totals().used == loader.taken == Memory(60)


def test_who_comes_back_to_the_line_is_given_no_more_time(pool_of, loader, monkeypatch):
    """The clock moves in loads only."""
    now = [0.0]
    monkeypatch.setattr(admission, "time", SimpleNamespace(monotonic=lambda: now[0]))
    pool, waits = pool_of(100, timeout=10.0), []
    ticket, trace = pool.shared.line.ticket(), Trace()
    pool._loading.learn(["base", "sam"])

    def wait(seconds):
        waits.append(seconds)
        now[0] += 4.0

    pool.shared.changed.wait = wait
    with pool.lease("sam", trace):
        for _ in range(2):
            with pytest.raises(MemoryBudgetError, match="waited 10 s"):
                pool._admission.admit(ticket, ["base"], 1, trace)
    assert waits == [10.0, 6.0, 2.0]
    assert pool.totals().waits == 1


@pytest.mark.parametrize("line", range(40))
def test_an_interrupt_wherever_a_lease_begins_leaves_none(pool_of, line):
    """At any line of what gives out leases, up to the block."""
    pool, left, inside = pool_of(), [line], []
    traced = (EnginePool.lease_all.__wrapped__.__code__, EnginePool._claim.__code__)

    def interrupt(frame, event, _):
        if frame.f_code not in traced:
            return None
        if event == "line" and not inside:
            left[0] -= 1
            if left[0] < 0:
                inside.append("interrupted")
                raise KeyboardInterrupt
        return interrupt

    before = sys.gettrace()
    sys.settrace(interrupt)
    try:
        with pool.lease_all(["sam"], Trace()):
            inside.append("the block")
    except KeyboardInterrupt:
        assert inside == ["interrupted"]
    finally:
        sys.settrace(before)
    assert not any(one.users for one in pool.shared.room.engines.values())
    assert pool.shared.activity.alone() is None
    assert pool.shared.activity._others == 0
    assert not pool.shared.line


def test_pools_that_share_their_activity_are_not_alone(pool_of, loader):
    activity = Activity()
    one, other = pool_of(activity=activity), pool_of(activity=activity)
    use(one, "base")
    with other.lease("base", Trace()):
        use(one, "sam")
    loader.pause = lambda where: loader.loading == {"vary"} and use(other, "sam")
    use(one, "vary")
    alone = [before is not None and before == after for before, after in loader.alone]
    assert loader.loads == ["base", "base", "sam", "vary", "sam"]
    assert alone == [True, True, False, False, False]
    loader.pause = lambda where: None
    use(one, "llm")
    before, after = loader.alone[-1]
    assert before is not None
    assert before == after
    assert pool_of().shared.activity is not activity


# ---- streams that nobody reads any more


class Box:
    """Holds itself, so that only a collection ends what it holds."""

    def __init__(self, stream):
        self.me, self.stream = self, stream
        next(stream)


def stream(pool):
    pool.want(["sam"])
    try:
        with pool.lease("sam", Trace()):
            yield
    finally:
        pool.unwant(["sam"])


def abandoned_ended():
    for thread in threading.enumerate():
        if thread.name == "mova-abandoned":
            thread.join(30)


@pytest.mark.parametrize("operation", ["__add__", "__sub__"])
@pytest.mark.parametrize("change", ["lease", "feature", "clear", "resize"])
def test_a_stream_that_is_collected_amid_a_change_ends_after_it(pool_of, monkeypatch, operation, change):
    pool = pool_of()
    cache, original, collected = FeatureCache(pool, 1000), getattr(Memory, operation), []
    cache.put("other", "value", Memory(5), 1.0)
    use(pool, "vary", "llm")

    def collect(*operands):
        if not collected and guard.held_here():
            collected.append(True)
            gc.collect()
            assert pool.shared.room.engines["sam"].users == 1, "not now"
            assert pool.shared.room.is_wanted("sam")
        return original(*operands)

    gc.disable()
    try:
        Box(stream(pool))
        monkeypatch.setattr(Memory, operation, collect)
        if change == "lease":
            use(pool, "base")
        elif change == "feature":
            cache.put("key", "value", Memory(5), 1.0)
        elif change == "clear":
            cache.clear()
        else:
            pool.resize(Limits(300))
    finally:
        gc.enable()
    assert collected or (change, operation) == ("feature", "__sub__"), "the only one that needs none"
    monkeypatch.undo()
    gc.collect()
    abandoned_ended()
    ledger = pool.shared.room.ledger
    assert ledger.used == ledger.count()
    assert not any(one.users or one.runs for one in pool.shared.room.engines.values())
    assert not pool.shared.room.is_wanted("sam")
    assert pool.shared.activity._others == 0


def test_who_waits_for_room_may_collect_the_stream_that_has_it(pool_of, monkeypatch):
    pool = pool_of(100, timeout=30.0)
    inner = pool.shared.changed._condition
    wait, waits = inner.wait, []

    def collecting(timeout):
        waits.append(timeout)
        gc.collect()
        return wait(timeout)

    gc.disable()
    try:
        Box(stream(pool))
        monkeypatch.setattr(inner, "wait", collecting)
        use(pool, "base")
    finally:
        gc.enable()
    assert waits
    assert pool.totals().wait_seconds < 20, "it was told"
    assert pool.loaded == ("base",)
    abandoned_ended()


def test_a_stream_that_ends_while_another_pools_lock_is_held(pool_of):
    """Two threads that each held one and took the other would wait for each other."""
    one, other = pool_of(), pool_of()
    held = stream(one)
    next(held)
    with other.shared.changed:
        del held
        with ThreadPoolExecutor(1) as worker:
            worker.submit(abandoned_ended).result(30)
        assert one.shared.room.engines["sam"].users == 0
    assert not guard.held_here()


def test_a_load_ahead_leaves_room_for_what_is_needed_sooner(pool_of, loader):
    pool = pool_of(160)  # base 100, sam 60, vary 50
    assert not pool.prefetch("base", Trace(), before=["sam", "vary"])
    assert pool.prefetch("base", Trace(), before=["sam"])
    assert not pool.prefetch("vary", Trace(), before=["sam", "base"]), "sam would find no room any more"
    use(pool, "sam")
    assert pool.loaded == ("base", "sam")
    assert not pool.prefetch("vary", Trace(), before=["sam"], evict=False)
    assert pool.prefetch("vary", Trace(), before=["sam"]), "base is nobody's: it goes"
    assert pool.loaded == ("sam", "vary")
