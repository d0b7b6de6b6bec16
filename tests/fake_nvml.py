"""nvidia-ml-py's calls, on a GPU whose answers a test decides; None is what it does not tell."""

from __future__ import annotations


class NVMLError(Exception):
    pass


class FakeNvml:
    NVML_CLOCK_SM, NVML_CLOCK_MEM = 1, 2
    NVMLError = NVMLError

    def __init__(self, *, driver: bool = True, gpus: tuple[bytes, ...] = (b"0000:65:00.0",)) -> None:
        self.driver, self.gpus = driver, gpus
        self.millijoules: int | None = 5_000_000_000
        self.milliwatts: int | None = 200_000
        self.megahertz: dict[int, int] = {1: 1980, 2: 2619}
        self.asked: list[bytes] = []

    def nvmlInit(self) -> None:  # noqa: N802
        if not self.driver:
            raise NVMLError("NVML Shared Library Not Found")

    def nvmlDeviceGetHandleByPciBusId(self, bus: bytes) -> bytes:  # noqa: N802
        if bus not in self.gpus:
            raise NVMLError("Not Found")
        return bus

    def nvmlDeviceGetHandleByIndex(self, index: int) -> bytes:  # noqa: N802
        if index >= len(self.gpus):
            raise NVMLError("Invalid Argument")
        return self.gpus[index]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: bytes) -> int:  # noqa: N802
        return self._told(handle, self.millijoules)

    def nvmlDeviceGetPowerUsage(self, handle: bytes) -> int:  # noqa: N802
        return self._told(handle, self.milliwatts)

    def nvmlDeviceGetClockInfo(self, handle: bytes, kind: int) -> int:  # noqa: N802
        return self._told(handle, self.megahertz.get(kind))

    def _told(self, handle: bytes, value: int | None) -> int:
        self.asked.append(handle)
        if value is None:
            raise NVMLError("Not Supported")
        return value
