"""Access log formats: refused where Envoy would refuse them, with a reason."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from mesh.errors import BadRequest
from mesh.log_formats import BARE, CUT, EITHER, OF_HEADERS, OF_METADATA, fault
from mesh.rules import check_spec
from tests.envoy_process import find_envoy

EVERY = " ".join(
    [
        *(f"%{name}%" for name in sorted(BARE | EITHER)),
        *(f"%{name}(X-A?B):9%" for name in sorted(OF_HEADERS)),
        *(f"%{name}(a:b)%" for name in sorted(OF_METADATA)),
        *(f"%{name}(a):9%" for name in sorted(CUT)),
        "%START_TIME(%Y-%m-%d %s.%3f)% 100%%",
        "%FILTER_STATE(a)% %FILTER_STATE(a:PLAIN):9% %FILTER_STATE(a:TYPED)% %FILTER_STATE(a:FIELD:b)%",
        "%GRPC_STATUS% %GRPC_STATUS(CAMEL_STRING)% %GRPC_STATUS(NUMBER)%",
        "%PATH% %PROTOCOL()% %RESPONSE_CODE_DETAILS(x)%",
    ]
)


@pytest.mark.parametrize(
    "text",
    [
        EVERY,
        "",
        "plain\n",
        '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE%\n',
    ],
)
def test_what_envoy_reads_is_sound(text: str) -> None:
    assert fault(text) == ""


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("100%", "character 3"),
        ("%req(x)%", "character 0"),
        ("%REQ(X)", "character 0"),
        ("%FOO%", "%FOO%, which Envoy"),
        ("%REQ%", "needs the name of a header"),
        ("%REQ(A B)%", "needs the name of a header"),
        ("%RESPONSE_CODE:3%", "takes no argument"),
        ("%CLUSTER_METADATA(a):3%", "takes no length"),
        ("%ENVIRONMENT()%", "needs an argument"),
        ("%DYNAMIC_METADATA(a:b):9%", "takes no length"),
        ("%FILTER_STATE(a:X)%", "maybe :PLAIN"),
        ("%FILTER_STATE(a:FIELD)%", "maybe :PLAIN"),
        ("%GRPC_STATUS(a)%", "takes nothing, or one of CAMEL_STRING"),
        ("%START_TIME(a\nb)%", "character 0"),
    ],
)
def test_what_envoy_does_not_read_is_named(text: str, reason: str) -> None:
    assert reason in fault(text)


def test_the_api_refuses_a_format_that_envoy_would_refuse() -> None:
    log = {
        "path": "/dev/stdout",
        "format": {"json": [{"key": "a", "value": "%PROTOCOL%"}, {"key": "b", "value": "%B"}]},
    }
    with pytest.raises(BadRequest, match=r"spec\.logging\.accessLog\.file\.format\.json\[1\]\.value"):
        check_spec("virtualNode", {"logging": {"accessLog": {"file": log}}})


def test_envoy_takes_every_command_of_the_list(tmp_path: Path) -> None:
    log = {
        "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
        "path": "/dev/null",
        "log_format": {"text_format_source": {"inline_string": EVERY}},
    }
    path = tmp_path / "envoy.json"
    path.write_text(json.dumps({"admin": {"access_log": [{"name": "envoy.access_loggers.file", "typed_config": log}]}}))
    done = subprocess.run(
        [find_envoy(), "--mode", "validate", "--config-path", str(path), "--log-level", "error"],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
