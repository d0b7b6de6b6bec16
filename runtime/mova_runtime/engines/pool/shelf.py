"""Features in a room: kept while it has place for them, in the order of their last use."""

from __future__ import annotations

from collections.abc import Hashable

from mova_runtime.engines.pool.eviction import choose
from mova_runtime.engines.pool.holding import Evictable, Feature, Leaving
from mova_runtime.engines.pool.room import NOBODYS, Room


class Shelf:
    """A room's features, within a bound of their own in bytes. What leaves is treated like an engine that leaves."""

    def __init__(self, room: Room, bound: int) -> None:
        self._room = room
        self._bound = bound

    def find(self, key: Hashable) -> Feature | None:
        """A feature, which is now the latest used."""
        features = self._room.ledger.features
        if found := features.pop(key, None):
            features[key] = found
            self._room.order.touch(found, found.charge)
        return found

    def keep(self, feature: Feature, *, evict: bool) -> Leaving:
        """Keep a feature if it may be; of the same key there is none before or none of the two after.

        evict: engines and features may go for it that are cheaper to get back per byte.
        """
        room, ledger = self._room, self._room.ledger
        old = ledger.features.get(feature.key)
        replaced: list[Evictable] = [old] if old else []
        if not 0 < self._bound >= feature.charge.total:
            return room.let_go(replaced)
        going = self._oldest(ledger.features_size + feature.charge.total - self._bound, replaced)
        room.order.touch(feature, feature.charge)
        after = ledger.used + feature.charge
        for thing in going:
            after -= thing.charge
        if not ledger.limits.hold(after):
            cheaper = [t for t in room.idle(NOBODYS) if evict and t.priority < feature.priority and t not in going]
            chosen, after = choose(cheaper, after, ledger.limits)
            if not ledger.limits.hold(after):
                return room.let_go(replaced)
            room.order.evicted(chosen)
            going += chosen
        return room.let_go(going, keep=feature)

    def resize(self, bound: int) -> Leaving:
        """Set another bound."""
        self._bound = bound
        return self._room.let_go(self._oldest(self._room.ledger.features_size - bound, []))

    def clear(self) -> Leaving:
        """Let all go."""
        return self._room.let_go(list(self._room.ledger.features.values()))

    def _oldest(self, beyond: int, going: list[Evictable]) -> list[Evictable]:
        """Beside what goes anyway the least recently used that must go, to have so many bytes less."""
        going = going.copy()
        beyond -= sum(thing.charge.total for thing in going)
        for oldest in self._room.ledger.features.values():
            if beyond <= 0:
                break
            if oldest not in going:
                going.append(oldest)
                beyond -= oldest.charge.total
        return going
