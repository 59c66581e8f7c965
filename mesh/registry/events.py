"""What the registry's log says happened. The envelope is that of `mesh.events`; data shapes, by type:

    NamespaceCreated          {namespace: [2 strings of NamespaceKey], id, type, description|None, properties, tags,
                               creator_request_id, operation}
    NamespaceUpdated          {namespace, operation, description?, properties?}       what is not there stays
    NamespaceDeleted          {namespace, operation}
    ServiceCreated            {service: [3 strings of ServiceKey], id, description|None, spec, tags,
                               creator_request_id, source}
    ServiceUpdated            {service, operation, description|None, spec}            the whole of both
    ServiceDeleted            {service}
    ServiceAttributesChanged  {service, set: {k: v}, unset: [k]}
    InstanceRegistered        {service, instance: id, attributes, health, creator_request_id, by, operation?}
                              made, or replaced with all of it
    InstanceDeregistered      {service, instance, operation?}
    HealthReported            {service, instances: [id], health}                      by a caller
    HeartbeatsMissed          {service, instances: [id]}                              by the duty, as the next
    HeartbeatsHeard           {service, instances: [id]}                              they had been silent
    InstancesCopied           {service, put: [[id, attributes, health]], removed: [id]}
                              what another registry says now, of a service that is copied from it
    TagsChanged               {of: key of a namespace or service, set: {k: v}, unset: [k]}

and those that any log has: DataKeysDrawn, DataKeysRewrapped, LevelRaised, LogRestored, RecordQuarantined
(`mesh.events`). Every type about a service names it, so that readers need no state to know what changed.
"""

from __future__ import annotations

from collections.abc import Mapping

from mesh.events import DATA_KEYS_DRAWN, DATA_KEYS_REWRAPPED, LEVEL_RAISED, LOG_RESTORED, RECORD_QUARANTINED

NAMESPACE_CREATED = "NamespaceCreated"
NAMESPACE_UPDATED = "NamespaceUpdated"
NAMESPACE_DELETED = "NamespaceDeleted"
SERVICE_CREATED = "ServiceCreated"
SERVICE_UPDATED = "ServiceUpdated"
SERVICE_DELETED = "ServiceDeleted"
SERVICE_ATTRIBUTES_CHANGED = "ServiceAttributesChanged"
INSTANCE_REGISTERED = "InstanceRegistered"
INSTANCE_DEREGISTERED = "InstanceDeregistered"
HEALTH_REPORTED = "HealthReported"
HEARTBEATS_MISSED = "HeartbeatsMissed"
HEARTBEATS_HEARD = "HeartbeatsHeard"
INSTANCES_COPIED = "InstancesCopied"
TAGS_CHANGED = "TagsChanged"

OF_SERVICE = frozenset(
    {
        SERVICE_CREATED,
        SERVICE_UPDATED,
        SERVICE_DELETED,
        SERVICE_ATTRIBUTES_CHANGED,
        INSTANCE_REGISTERED,
        INSTANCE_DEREGISTERED,
        HEALTH_REPORTED,
        HEARTBEATS_MISSED,
        HEARTBEATS_HEARD,
        INSTANCES_COPIED,
    }
)
"""Types that are about one service."""

EVENT_TYPES = (
    NAMESPACE_CREATED,
    NAMESPACE_UPDATED,
    NAMESPACE_DELETED,
    SERVICE_CREATED,
    SERVICE_UPDATED,
    SERVICE_DELETED,
    SERVICE_ATTRIBUTES_CHANGED,
    INSTANCE_REGISTERED,
    INSTANCE_DEREGISTERED,
    HEALTH_REPORTED,
    HEARTBEATS_MISSED,
    HEARTBEATS_HEARD,
    INSTANCES_COPIED,
    TAGS_CHANGED,
    DATA_KEYS_DRAWN,
    DATA_KEYS_REWRAPPED,
    LEVEL_RAISED,
    LOG_RESTORED,
    RECORD_QUARANTINED,
)

LEVEL = 1
"""The highest level of the registry's log that this build understands."""

SCHEMAS: Mapping[str, int] = dict.fromkeys(EVENT_TYPES, 1)
"""The data shape that this build writes for each type, and the highest that it can fold."""
