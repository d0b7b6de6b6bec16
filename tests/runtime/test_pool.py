"""The pool of engines with a backend that only counts: who is loaded, who goes, who stays."""

import threading
from types import SimpleNamespace

import pytest

from mova_runtime.engines.budget import format_size, parse_size
from mova_runtime.engines.pool import EnginePool
from mova_runtime.errors import BackendError, BundleError, MemoryBudgetError, MovaError
from mova_runtime.trace import Trace

SIZES = {"base": 100, "sam": 60, "vary": 50, "llm": 200}


class CountingEngine:
    def __init__(self, name, size):
        self.name, self.bytes, self.open = name, size, True

    def close(self):
        assert self.open, "closed twice"
        self.open = False


class CountingLoader:
    """Remembers what it loaded, and fails where told to."""

    def __init__(self, sizes):
        self.loads, self.failing, self.sizes = [], set(), sizes

    def size(self, component):
        if component not in self.sizes:
            raise BundleError(f"no {component}")
        return self.sizes[component]

    def load(self, component, trace):
        with trace.stage(f"load {component}"):
            self.loads.append(component)
            if component in self.failing:
                raise BackendError(f"can't load {component}")
            return CountingEngine(component, self.size(component))


def bundle_of(sizes):
    return SimpleNamespace(manifest=SimpleNamespace(components=dict(sizes)))


@pytest.fixture
def loader():
    return CountingLoader(SIZES)


@pytest.fixture
def pool_of(loader):
    return lambda budget=None: EnginePool(bundle_of(SIZES), loader, budget)


def use(pool, *names):
    for name in names:
        with pool.lease(name, Trace()) as engine:
            assert engine.name == name
            assert engine.open


def test_loads_once_and_keeps(pool_of, loader):
    pool = pool_of()
    use(pool, "sam", "base", "sam", "sam")
    assert loader.loads == ["sam", "base"]
    assert pool.loaded == ("base", "sam"), "in the manifest's order"


def test_loading_is_a_stage_only_where_it_happens(pool_of):
    pool, first, second = pool_of(), Trace(), Trace()
    with pool.lease("sam", first), pool.lease("sam", second):
        pass
    assert [stage["name"] for stage in first.stages()] == ["load sam"]
    assert second.stages() == ()


def test_loads_once_under_many_threads(pool_of, loader):
    pool, together = pool_of(), threading.Barrier(32)
    seen, errors = [], []

    def work():
        try:
            together.wait(10)
            for name in SIZES:
                with pool.lease(name, Trace()) as engine:
                    seen.append(engine)
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors
    assert len(seen) == 32 * len(SIZES)
    assert sorted(loader.loads) == sorted(SIZES)
    assert len({id(engine) for engine in seen}) == len(SIZES)


def test_the_least_recently_used_goes_first(pool_of, loader):
    pool = pool_of(210)
    use(pool, "base", "sam", "vary")
    use(pool, "base")
    use(pool, "sam")  # now vary is the oldest
    assert pool.loaded == ("base", "sam", "vary")
    pool_small = pool_of(160)
    use(pool_small, "base", "sam", "vary")
    assert pool_small.loaded == ("sam", "vary")
    use(pool_small, "sam", "base")
    assert pool_small.loaded == ("base", "sam")


def test_no_more_go_than_must(pool_of, loader):
    pool = pool_of(260)
    use(pool, "sam", "vary", "base")
    use(pool, "llm")  # 200 beside at most 60
    assert pool.loaded == ("llm",)
    pool = pool_of(310)
    use(pool, "sam", "vary", "base", "llm")
    assert pool.loaded == ("base", "llm")


def test_the_bound_itself_fits(pool_of):
    pool = pool_of(160)
    use(pool, "base", "sam")
    assert pool.loaded == ("base", "sam")


def test_what_is_leased_stays(pool_of, loader):
    pool = pool_of(160)
    with pool.lease("base", Trace()) as base:
        use(pool, "sam", "vary")
        assert base.open
        assert pool.loaded == ("base", "vary")
        with pool.lease("vary", Trace()), pytest.raises(MemoryBudgetError):
            use(pool, "sam")
        use(pool, "sam")
        assert pool.loaded == ("base", "sam")


def test_a_lease_within_a_lease(pool_of):
    pool = pool_of(160)
    with pool.lease("base", Trace()):
        use(pool, "base")
        with pytest.raises(MemoryBudgetError):
            use(pool, "llm")


def test_the_numbers_of_what_does_not_fit(loader):
    loader.sizes = sizes = {"base": 3 * 2**20, "llm": 5 * 2**30}
    pool = EnginePool(bundle_of(sizes), loader, 4 * 2**20)
    with pool.lease("base", Trace()), pytest.raises(MemoryBudgetError) as caught:
        use(pool, "llm")
    assert str(caught.value) == "engine 'llm' needs 5.0 GiB; the budget is 4.0 MiB, of which 3.0 MiB is in use"
    assert loader.loads == ["base"]


def test_what_never_fits_evicts_nobody(pool_of):
    pool = pool_of(160)
    use(pool, "base", "sam")
    with pytest.raises(MemoryBudgetError, match="needs 200 B; the budget is 160 B, of which 0 B is in use"):
        use(pool, "llm")
    assert pool.loaded == ("base", "sam")


def test_a_failure_to_load_leaves_the_pool_usable(pool_of, loader):
    pool = pool_of(160)
    loader.failing = {"sam"}
    for _ in range(2):
        with pytest.raises(BackendError, match="can't load sam"):
            use(pool, "sam")
    assert pool.loaded == ()
    use(pool, "base")
    loader.failing = set()
    use(pool, "sam")
    assert pool.loaded == ("base", "sam")


def test_a_component_that_is_not_there(pool_of):
    pool = pool_of(160)
    with pytest.raises(BundleError, match="no clip"):
        use(pool, "clip")


def test_a_failure_inside_a_lease_gives_it_back(pool_of):
    pool = pool_of(200)
    with pytest.raises(ZeroDivisionError), pool.lease("base", Trace()):
        1 / 0  # noqa: B018
    use(pool, "llm")
    assert pool.loaded == ("llm",)


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


@pytest.mark.parametrize(
    ("size", "parsed"),
    [
        (1, 1), (123456, 123456), ("123456", 123456), ("6GiB", 6 * 2**30), ("6gib", 6 * 2**30), ("800 MB", 800_000_000),
        ("1.5GB", 1_500_000_000), (" 2 KiB ", 2048), ("3B", 3), ("0.5KiB", 512), ("1kb", 1000), ("2MiB", 2 * 2**20),
    ],
)  # fmt: skip
def test_sizes(size, parsed):
    assert parse_size(size) == parsed


@pytest.mark.parametrize(
    "size",
    [
        "",
        "GiB",
        "6 apples",
        "-1",
        -1,
        0,
        "0",
        "0.1",
        "1e9",
        "6 Gi B",
        "6,5GB",
        True,
        "nan",
        "inf",
        None,
        "9" * 400,
    ],
)
def test_what_is_no_size(size):
    with pytest.raises(MemoryBudgetError, match="memory budget"):
        parse_size(size)


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1536 * 2**20, "1.5 GiB"), (5 * 2**40, "5120.0 GiB")],
)
def test_sizes_are_written_with_binary_units(size, text):
    assert format_size(size) == text
