"""Who tells what a device draws: `nvidia` asks the driver, `jetson` the module's own sensors."""

from mova_export.bench.power.source import Source

__all__ = ["Source"]
