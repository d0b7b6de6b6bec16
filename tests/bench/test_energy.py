"""Energy of runs, with stand-ins for what tells it: NVIDIA's driver, a Jetson's sensors, a clock."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pytest

from fake_nvml import FakeNvml
from mova_export.bench import energy
from mova_export.bench.energy import Meter
from mova_export.bench.power import jetson, nvidia
from mova_export.bench.power.jetson import jetson_source
from mova_export.bench.power.nvidia import nvidia_source

NEVER = 1e6  # seconds between samples: only the first and the last are taken


class Clock:
    """Stands still until it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(energy, "perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    monkeypatch.setattr(nvidia, "_bus_of_the_first", lambda: b"0000:65:00.0")
    return fake


def chip(root: Path, number: int, name: str = "ina3221", **rails: tuple[int, int]) -> Path:
    """A sensor's folder; rails by label as millivolts and milliamperes."""
    folder = root / f"hwmon{number}"
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{name}\n")
    for index, (label, (millivolts, milliamperes)) in enumerate(rails.items(), 1):
        (folder / f"in{index}_label").write_text(f"{label}\n")
        (folder / f"in{index}_input").write_text(f"{millivolts}\n")
        (folder / f"curr{index}_input").write_text(f"{milliamperes}\n")
    (folder / "in7_label").write_text("sum of shunt voltages\n")
    (folder / "in7_input").write_text("12345\n")
    return folder


def test_a_counter_is_read_before_and_after(nvml: FakeNvml, clock: Clock) -> None:
    meter = Meter(nvidia_source() or pytest.fail("no source"), NEVER)
    with meter:
        nvml.millijoules += 84_000
        nvml.milliwatts = 1  # not asked for where there is a counter
        clock.now += 0.5
    assert (meter.joules, meter.seconds, meter.watts) == (84.0, 0.5, 168.0)
    assert meter.clocks == {"sm": 1980.0, "memory": 2619.0}


def test_it_begins_anew_each_time(nvml: FakeNvml, clock: Clock) -> None:
    meter = Meter(nvidia_source() or pytest.fail("no source"), NEVER)
    for joules in (3, 7):
        nvml.megahertz = {1: 1000 * joules}
        with meter:
            nvml.millijoules += 1000 * joules
            clock.now += 2
        assert (meter.joules, meter.seconds, meter.clocks) == (joules, 2, {"sm": 1000 * joules})


def test_power_is_summed_up_where_there_is_no_counter(nvml: FakeNvml, clock: Clock) -> None:
    nvml.millijoules = None
    meter = Meter(nvidia_source() or pytest.fail("no source"), NEVER)
    with meter:  # from 200 W evenly to 300 W
        nvml.milliwatts = 300_000
        clock.now += 4
    assert (meter.joules, meter.watts) == (1000.0, 250.0)


def test_samples_are_weighed_by_their_time() -> None:
    assert energy._mean([(0, 100), (1, 100), (2, 300), (10, 300)]) == pytest.approx((100 + 200 + 2400) / 10)
    assert energy._mean([(5, 40), (5, 60)]) == 60


def test_it_samples_from_a_thread_of_its_own() -> None:
    class Rising:
        count = 0

        def joules(self) -> None:
            return None

        def watts(self) -> float:
            self.count += 1
            return float(self.count)

        def clocks(self) -> dict[str, float]:
            return {}

    source, before = Rising(), threading.active_count()
    with Meter(source, 0.001) as meter:
        deadline = time.monotonic() + 30
        while source.count < 10 and time.monotonic() < deadline:
            time.sleep(0.001)
    assert source.count >= 10
    assert 1 < meter.watts < source.count
    assert meter.joules == pytest.approx(meter.watts * meter.seconds)
    assert threading.active_count() == before


def test_a_device_that_stops_telling_gives_no_energy(nvml: FakeNvml, clock: Clock) -> None:
    meter = Meter(nvidia_source() or pytest.fail("no source"), NEVER)
    with meter:
        nvml.millijoules = None
        nvml.megahertz = {}
        clock.now += 1
    assert (meter.joules, meter.watts, meter.seconds) == (None, None, 1)
    assert meter.clocks == {"sm": 1980.0, "memory": 2619.0}


def test_a_failure_inside_passes_through_and_ends_the_thread(nvml: FakeNvml) -> None:
    before = threading.active_count()
    with pytest.raises(ZeroDivisionError), Meter(nvidia_source() or pytest.fail("no source")):
        raise ZeroDivisionError
    assert threading.active_count() == before


def test_the_gpu_is_cudas_first(nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch) -> None:
    """NVML's first may be another."""
    nvml.gpus = (b"0000:17:00.0", b"0000:65:00.0")
    assert nvidia_source()
    assert set(nvml.asked) == {b"0000:65:00.0"}
    nvml.asked.clear()
    monkeypatch.setattr(nvidia, "_bus_of_the_first", lambda: None)
    assert nvidia_source()
    assert set(nvml.asked) == {b"0000:17:00.0"}
    nvml.asked.clear()
    monkeypatch.setattr(nvidia, "_bus_of_the_first", lambda: b"0000:00:00.0")  # integrated
    assert nvidia_source()
    assert set(nvml.asked) == {b"0000:17:00.0"}


def test_without_package_driver_gpu_or_sensor_nvidia_tells_nothing(
    nvml: FakeNvml, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert nvidia_source() is not None
    nvml.millijoules = nvml.milliwatts = None
    assert nvidia_source() is None
    nvml.milliwatts, nvml.gpus = 1, ()
    assert nvidia_source() is None
    nvml.gpus, nvml.driver = (b"0000:65:00.0",), False
    assert nvidia_source() is None
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert nvidia_source() is None


def test_a_rail_that_feeds_the_module_is_taken_alone(tmp_path: Path) -> None:
    chip(tmp_path, 0, "tmp451", VDD_IN=(9999, 9999))
    chip(tmp_path, 1, VDD_IN=(4968, 1530), VDD_CPU_GPU_CV=(4960, 400), VDD_SOC=(4960, 300))
    source = jetson_source(tmp_path)
    assert source is not None
    assert source.rails == ("VDD_IN",)
    assert source.watts() == pytest.approx(4.968 * 1.530)
    assert (source.joules(), source.clocks()) == (None, {})


def test_rails_beside_each_other_are_added_up(tmp_path: Path) -> None:
    chip(tmp_path, 3, VDD_GPU_SOC=(19880, 500), VDD_CPU_CV=(19880, 100), VIN_SYS_5V0=(4980, 800))
    chip(tmp_path, 4, NC=(5000, 5000), VDDQ_VDD2_1V8AO=(5000, 200))
    source = jetson_source(tmp_path)
    assert source is not None
    assert source.rails == ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0", "VDDQ_VDD2_1V8AO")
    assert source.watts() == pytest.approx(19.88 * 0.6 + 4.98 * 0.8 + 1.0)


def test_a_rail_that_can_not_be_read_is_no_zero(tmp_path: Path) -> None:
    folder = chip(tmp_path, 0, GPU=(5000, 100), CPU=(5000, 100))
    source = jetson_source(tmp_path)
    assert source is not None
    assert source.watts() == 1.0
    (folder / "curr2_input").unlink()
    assert source.watts() is None
    (folder / "curr2_input").write_text("nonsense")
    assert source.watts() is None


def test_the_power_of_a_jetson_makes_energy(tmp_path: Path, clock: Clock) -> None:
    folder = chip(tmp_path, 0, VDD_IN=(5000, 1000))
    meter = Meter(jetson_source(tmp_path) or pytest.fail("no source"), NEVER)
    with meter:
        (folder / "curr1_input").write_text("3000")
        clock.now += 2
    assert (meter.joules, meter.watts, meter.clocks) == (20.0, 10.0, {})


def test_no_sensors_are_no_jetson(tmp_path: Path) -> None:
    assert jetson_source(tmp_path) is None
    assert jetson_source(tmp_path / "missing") is None
    chip(tmp_path, 0, "coretemp", VDD_IN=(5000, 1000))
    chip(tmp_path, 1)
    assert jetson_source(tmp_path) is None


def test_here_is_the_gpu_or_the_module_or_nobody(
    nvml: FakeNvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chip(tmp_path, 0, VDD_IN=(5000, 1000))
    monkeypatch.setattr(energy, "jetson_source", lambda: jetson_source(tmp_path))
    found = Meter.here()
    assert found is not None
    assert isinstance(found._source, nvidia.NvidiaSource)
    nvml.millijoules = nvml.milliwatts = None  # as a Jetson's driver answers
    found = Meter.here()
    assert found is not None
    assert isinstance(found._source, jetson.JetsonSource)
    (tmp_path / "hwmon0" / "name").unlink()
    assert Meter.here() is None
