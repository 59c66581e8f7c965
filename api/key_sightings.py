"""Which access keys this server saw in use, and in which hour: in memory, for `api.key_use` to put on record."""

from __future__ import annotations

from mesh.principals import AccessKey

HOUR_US = 3600 * 1_000_000


class KeySightings:
    """Access key ids and the hour (µs, by this server's clock) of their last use here. Temporary keys are left out."""

    def __init__(self) -> None:
        self.hours: dict[str, int] = {}

    def note(self, access_key_id: str, now_us: int) -> None:
        """Something was signed with this key, and its signature was right."""
        self.hours[access_key_id] = now_us - now_us % HOUR_US

    def last_us(self, key: AccessKey) -> int | None:
        """The hour of the key's last use, by the log and by what this server saw."""
        found = [hour_us for hour_us in (key.used_us, self.hours.get(key.access_key_id)) if hour_us is not None]
        return max(found, default=None)
