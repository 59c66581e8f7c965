"""The files of a cluster: trust roots, key-encryption keys, the admin key, each process's settings and certificates.

A plan (zones, hosts, ports) becomes a directory. Run again on the same directory it keeps every root and key, and makes
new only what is missing or soon to expire. It starts nothing and opens no connection.
"""

from __future__ import annotations

import dataclasses

from cli.credentials import AdminCredentials, create_credentials, load_credentials, save_credentials
from cli.layout import ClusterFile, Layout, ProcessEntry, tls_files
from cli.plan import Plan, etcd_token, process_id
from cluster import pki
from runtime.clock import Clock, Entropy
from runtime.files import PRIVATE, PUBLIC, write_atomic
from runtime.key_sources import KeySources, key_files
from runtime.settings import (
    ApiSettings,
    AuthorityFiles,
    Endpoint,
    EtcdMemberSettings,
    EtcdPeer,
    FrontendSettings,
    KekSettings,
    ProcessSettings,
    ProjectorSettings,
    TlsFiles,
)
from runtime.settings_file import dump, fill_in, load, relative_to


class Provisioner:
    """Writes one cluster's directory."""

    def __init__(self, layout: Layout, plan: Plan, clock: Clock, entropy: Entropy) -> None:
        plan.check()
        self._layout = layout
        self._plan = plan
        self._clock = clock
        self._entropy = entropy
        self._roots: dict[str, pki.Authority] = {}

    def write(self) -> tuple[ClusterFile, AdminCredentials]:
        """Make what is missing, `cluster.json` last: a directory without it is not a cluster yet."""
        layout, plan = self._layout, self._plan
        layout.root.mkdir(parents=True, exist_ok=True, mode=0o700)
        (layout.root / "logs").mkdir(exist_ok=True, mode=0o700)
        for root in (*pki.ROOTS, pki.HTTP_ROOT) if plan.https else pki.ROOTS:
            self._roots[root] = self._root(root)
        admin = self._admin_key()
        self._key_encryption_keys()
        self._leaf(pki.ETCD_ROOT, pki.etcd_user_leaf("root"), layout.admin_etcd_tls)
        cluster = self._cluster()
        for zone in plan.zones:
            for settings in (self._etcd(zone), self._api(zone, cluster), self._projector(zone, cluster)):
                self._write_settings(zone, settings)
        for zone in plan.zones:  # when all API servers' peer addresses are in their files
            self._write_settings(zone, self._frontend(zone, cluster))
        cluster = self._with_signed(cluster)
        layout.save(cluster)
        return cluster, admin

    def _root(self, root: str) -> pki.Authority:
        files = self._layout.authority(root)
        if not files.certificate.exists():
            pki.save_authority(pki.create_authority(root, self._clock.now_us(), self._entropy), files)
        return pki.load_authority(files)

    def _admin_key(self) -> AdminCredentials:
        path = self._layout.credentials_file
        if not path.exists():
            save_credentials(path, create_credentials(self._plan.account_id, self._plan.region, self._entropy))
        return load_credentials(path)

    def _key_encryption_keys(self) -> None:
        from eventlog.keys.file import create_key_file  # noqa: PLC0415
        from eventlog.records import KeyClass  # noqa: PLC0415

        for key_class in (KeyClass.CONFIG, KeyClass.SECRETS):
            path = self._layout.key_file(key_class.value)
            path.parent.mkdir(exist_ok=True, mode=0o700)
            # Drawn with the cluster and never again: a lost key comes back from a copy, and another one opens nothing.
            if not path.exists() and not self._layout.cluster_file.exists() and key_class not in self._plan.keks:
                create_key_file(path, key_class, self._entropy)

    def _leaf(self, root: str, leaf: pki.Leaf, files: TlsFiles) -> TlsFiles:
        authority = self._roots[root]
        now_us = self._clock.now_us()
        whole = all(path.exists() for path in (files.certificate, files.key, files.authority))
        # After a restore, etcd's root is another one, and what the old one signed opens nothing.
        ours = whole and files.authority.read_bytes() == authority.certificate_pem
        if not ours or pki.needs_renewal(files.certificate.read_bytes(), now_us):
            pki.save_issued(pki.issue(authority, leaf, now_us, self._entropy), authority, files)
        return files

    def _role_tls(self, zone: str, role: str) -> TlsFiles:
        leaf = pki.role_leaf(role, self._plan.trust_domain, [self._plan.host(zone, role)])
        return self._leaf(pki.ROLES_ROOT, leaf, tls_files(self._layout.role(zone, role), "role"))

    def _http_tls(self, zone: str) -> TlsFiles | None:
        if not self._plan.https:
            return None
        leaf = pki.http_leaf([self._plan.host(zone, "api"), *self._https_names(zone)])
        return self._leaf(pki.HTTP_ROOT, leaf, tls_files(self._layout.role(zone, "api"), "http"))

    def _https_names(self, zone: str) -> tuple[str, ...]:
        """Those of the plan; of a cluster that is there, those of the certificate that may have to be renewed."""
        before = tls_files(self._layout.role(zone, "api"), "http").certificate
        return self._plan.https_names or (pki.hosts_of(before.read_bytes()) if before.exists() else ())

    def _etcd_user_tls(self, zone: str, role: str) -> TlsFiles:
        leaf = pki.etcd_user_leaf(role)
        return self._leaf(pki.ETCD_ROOT, leaf, tls_files(self._layout.role(zone, role), "etcd-client"))

    def _maintenance_tls(self, zone: str) -> TlsFiles:
        leaf = pki.etcd_user_leaf("maintenance")
        return self._leaf(pki.ETCD_ROOT, leaf, tls_files(self._layout.role(zone, "api"), "etcd-maintenance"))

    def _kek(self, zone: str, role: str, key_class: str) -> KeySources:
        """What the role has of a class: the provider that was asked for, or its own copy of the key file."""
        if key_class in self._plan.keks:
            return self._plan.keks[key_class]
        source, copy = self._layout.key_file(key_class), self._layout.role(zone, role) / f"{key_class}.kek"
        # Only what is missing: a copy may have keys that the operator's file does not have.
        if source.exists() and not copy.exists():
            write_atomic(copy, source.read_bytes(), PRIVATE)
        return key_files(copy)

    def _common(self, zone: str, role: str) -> dict[str, object]:
        listener, directory = self._plan.listeners[zone, role], self._layout.role(zone, role)
        return {
            "id": process_id(role, zone),
            "zone": zone,
            "data_dir": directory / "state",
            "listen": listener.bound(listener.port),
            "advertise": listener.told(listener.port),
            "health": listener.bound(listener.health_port),
            "pid_file": directory / "pid",
        }

    def _log_common(self, zone: str, role: str, cluster: ClusterFile) -> dict[str, object]:
        plan = self._plan
        return self._common(zone, role) | {
            "trust_domain": plan.trust_domain,
            "account_id": plan.account_id,
            "region": plan.region,
            "key_prefix": plan.key_prefix,
            "etcd_endpoints": cluster.endpoints("etcd"),
            "etcd_tls": self._etcd_user_tls(zone, role),
            "role_tls": self._role_tls(zone, role),
            "kek": KekSettings(
                config=self._kek(zone, role, "config"),
                secrets=self._kek(zone, role, "secrets") if role == "api" else None,
            ),
        }

    def _etcd(self, zone: str) -> EtcdMemberSettings:
        plan, role, member = self._plan, "etcd", process_id("etcd", zone)
        listener, directory = plan.listeners[zone, role], self._layout.role(zone, role)
        peers = ((peer_zone, plan.listeners[peer_zone, role]) for peer_zone in plan.zones)
        hosts = [listener.host]
        client = self._leaf(pki.ETCD_ROOT, pki.etcd_member_leaf(member, hosts), tls_files(directory, "client"))
        peer = self._leaf(pki.ETCD_ROOT, pki.etcd_peer_leaf(member, hosts), tls_files(directory, "peer"))
        path = self._layout.config(zone, role)
        before = load(EtcdMemberSettings, path, {}) if path.exists() else None
        token = plan.cluster_token or etcd_token(plan.account_id)
        kept = {name: getattr(before, name) for name in _OPERATORS_OWN} if before is not None else {}
        if before is not None and before.cluster_token == token:
            kept["initial_state"] = before.initial_state  # of a member that was replaced
        common = self._common(zone, role) | kept
        return EtcdMemberSettings(
            **common,  # type: ignore[arg-type]
            peer_listen=listener.bound(listener.peer_port),
            peer_advertise=listener.told(listener.peer_port),
            members=tuple(EtcdPeer(process_id(role, name), other.told(other.peer_port)) for name, other in peers),
            cluster_token=token,
            client_tls=client,
            peer_tls=peer,
            binary=plan.etcd_binary,
            allow_first_look=plan.allow_first_look,
        )

    def _api(self, zone: str, cluster: ClusterFile) -> ApiSettings:
        directory, listener = self._layout.role(zone, "api"), self._plan.listeners[zone, "api"]
        proxies = AuthorityFiles(certificate=directory / "proxies-ca.crt", key=directory / "proxies-ca.key")
        pki.save_authority(self._roots[pki.PROXIES_ROOT], proxies)
        return ApiSettings(
            **self._log_common(zone, "api", cluster),  # type: ignore[arg-type]
            proxy_authority=proxies,
            frontends=cluster.endpoints("frontend"),
            http_tls=self._http_tls(zone),
            maintenance_tls=self._maintenance_tls(zone),
            archive=self._plan.archive or (self._layout.archive.as_uri() if self._plan.local else None),
            peer_listen=listener.bound(listener.peer_port) if listener.peer_port else None,
            peer_advertise=listener.told(listener.peer_port) if listener.peer_port else None,
        )

    def _projector(self, zone: str, cluster: ClusterFile) -> ProjectorSettings:
        common = self._log_common(zone, "projector", cluster)
        return ProjectorSettings(**common, projectors=cluster.endpoints("projector"))  # type: ignore[arg-type]

    def _frontend(self, zone: str, cluster: ClusterFile) -> FrontendSettings:
        proxies = self._layout.role(zone, "frontend") / "proxies-ca.crt"
        write_atomic(proxies, self._roots[pki.PROXIES_ROOT].certificate_pem, PUBLIC)
        listener = self._plan.listeners[zone, "frontend"]
        return FrontendSettings(
            **self._common(zone, "frontend"),  # type: ignore[arg-type]
            trust_domain=self._plan.trust_domain,
            account_id=self._plan.account_id,
            role_tls=self._role_tls(zone, "frontend"),
            proxy_authority_certificate=proxies,
            projectors=cluster.endpoints("projector"),
            signed_listen=listener.bound(listener.peer_port) if listener.peer_port else None,
            signed_advertise=listener.told(listener.peer_port) if listener.peer_port else None,
            apis=self._api_peers() or None,
        )

    def _api_peers(self) -> tuple[Endpoint, ...]:
        """The peer addresses of the API servers, as their own files have them."""
        files = {zone: self._layout.config(zone, "api") for zone in self._plan.zones}
        found = {zone: load(ApiSettings, path, {}).peer_advertise for zone, path in files.items()}
        return tuple(Endpoint(zone, address) for zone, address in found.items() if address)

    def _with_signed(self, cluster: ClusterFile) -> ClusterFile:
        """Where proxies connect that sign, as the frontends' own files have it."""
        files = {process.id: self._layout.root / process.config for process in cluster.of_role("frontend")}
        signed = {name: load(FrontendSettings, path, {}).signed_advertise or "" for name, path in files.items()}
        return dataclasses.replace(
            cluster,
            processes=tuple(
                dataclasses.replace(process, signed=signed.get(process.id, "")) for process in cluster.processes
            ),
        )

    def _write_settings(self, zone: str, settings: ProcessSettings) -> None:
        path = self._layout.config(zone, settings.role)
        if path.exists() and settings.role != "etcd":
            # An operator may have changed it; etcd's names the binary, which may be another one now.
            for names in _SINCE_ADDED:
                fill_in(path, settings, names)
            return
        write_atomic(path, dump(relative_to(settings, path.parent)).encode(), PUBLIC)

    def _cluster(self) -> ClusterFile:
        plan = self._plan
        processes = []
        for (zone, role), listener in plan.listeners.items():
            entry = ProcessEntry(
                role=role,
                zone=zone,
                id=process_id(role, zone),
                config=str(self._layout.config(zone, role).relative_to(self._layout.root)),
                address=listener.told(listener.port),
                health=listener.told(listener.health_port),
                scheme=("https" if plan.https else "http") if role == "api" else "",
            )
            processes.append(entry)
        return ClusterFile(
            account_id=plan.account_id,
            region=plan.region,
            trust_domain=plan.trust_domain,
            key_prefix=plan.key_prefix,
            zones=plan.zones,
            local=plan.local,
            processes=tuple(processes),
        )


_OPERATORS_OWN = ("quota_bytes", "heartbeat_ms", "election_ms", "log_level")
"""Of an etcd member's settings: what is kept as it is in the file, when the rest is written anew."""

_SINCE_ADDED = ("peer_listen", "peer_advertise"), ("archive",), ("signed_listen", "signed_advertise"), ("apis",)
"""Settings that directories made by earlier builds lack, those together that mean nothing alone."""
