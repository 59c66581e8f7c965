"""Settings become key providers: `file:…`, `aws-kms:…`, `vault:…`, `command:…`. Nothing is opened or called here."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from eventlog.keys.aws_kms import KmsKeyProvider
from eventlog.keys.command import CommandKeyProvider
from eventlog.keys.file import FileKeyProvider
from eventlog.keys.provider import KeyProvider, ProviderGroup
from eventlog.keys.vault import VaultKeyProvider
from eventlog.records import KeyClass
from mesh.errors import SettingsError
from runtime.clock import Entropy
from runtime.key_sources import AWS_KMS, COMMAND, VAULT, KeySource, KeySources


def open_sources(sources: KeySources, key_class: KeyClass, entropy: Entropy) -> KeyProvider:
    """The provider of a class, or the group of them; SettingsError names what is wrong with a source."""
    members = [open_source(source, key_class, entropy) for source in sources]
    return members[0] if len(members) == 1 else ProviderGroup(members)


def open_source(source: KeySource, key_class: KeyClass, entropy: Entropy) -> KeyProvider:
    """One provider."""
    if source.scheme == AWS_KMS:
        key, options = _options(source, ("region", "endpoint", "profile"))
        region, endpoint, profile = (options.get(name, "") for name in ("region", "endpoint", "profile"))
        return KmsKeyProvider(key, key_class, region=region, endpoint=endpoint, profile=profile)
    if source.scheme == VAULT:
        url, options = _options(source, ("namespace", "ca", "token_file"))
        return _vault(url, options, source, key_class)
    if source.scheme == COMMAND:
        return CommandKeyProvider(_argv(source), key_class)
    return FileKeyProvider(Path(source.place), key_class, entropy)


def _vault(url: str, options: Mapping[str, str], source: KeySource, key_class: KeyClass) -> VaultKeyProvider:
    parts = urlsplit(url)
    mount, _, name = parts.path.strip("/").rpartition("/")
    if parts.scheme not in ("http", "https") or not parts.hostname or not mount or not name or parts.username:
        raise SettingsError(f"'{source}' names no key of Vault: write vault:https://HOST:8200/transit/NAME")
    if parts.scheme == "http" and parts.hostname not in ("127.0.0.1", "::1", "localhost"):
        raise SettingsError(f"'{source}' would send Vault's token and data keys in plain text: write https")
    return VaultKeyProvider(
        f"{parts.scheme}://{parts.netloc}",
        mount,
        name,
        key_class,
        namespace=options.get("namespace", ""),
        ca=options.get("ca", ""),
        token_file=options.get("token_file", ""),
    )


def _argv(source: KeySource) -> list[str]:
    try:
        argv = shlex.split(source.place)
    except ValueError as error:
        raise SettingsError(
            f"'{source}' is not a command line ({error}): write command:/path/to/program ARG…"
        ) from error
    if not argv or not Path(argv[0]).is_absolute():
        raise SettingsError(f"'{source}' must name its program by its whole path: write command:/path/to/program ARG…")
    return argv


def _options(source: KeySource, known: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """What is before the `?`, and the options after it."""
    head, _, query = source.place.partition("?")
    options = dict(parse_qsl(query, keep_blank_values=True))
    unknown = [name for name in options if name not in known]
    if unknown or not head:
        raise SettingsError(f"'{source}': '{unknown[0] if unknown else ''}' is no option; known are {', '.join(known)}")
    return head, options
