"""The index of hard references turned round: who refers to a resource. Persistent maps, as the state has them; pure."""

from __future__ import annotations

from rpds import HashTrieMap, HashTrieSet

from mesh.kinds import ResourceKey


def moved_referrers(
    referrers: HashTrieMap[ResourceKey, HashTrieSet[ResourceKey]],
    key: ResourceKey,
    before: set[ResourceKey],
    after: set[ResourceKey],
) -> HashTrieMap[ResourceKey, HashTrieSet[ResourceKey]]:
    """The index once `key` refers to `after`, and no more to `before`."""
    for target in before - after:
        left = referrers[target].remove(key)
        referrers = referrers.insert(target, left) if left else referrers.remove(target)
    for target in after - before:
        referrers = referrers.insert(target, (referrers.get(target) or HashTrieSet()).insert(key))
    return referrers
