# SPDX-License-Identifier: Apache-2.0
"""Contradictions between the chart's values, as JSON schema: `if` this is set, `then` that must be set.

Checks that need arithmetic (a memory limit, two ports that must differ) are in templates/_validate.tpl.
"""

from __future__ import annotations

from typing import Any

__all__ = ["RULES"]

Schema = dict[str, Any]
_SOME: Schema = {"type": "string", "minLength": 1}
_NONE: Schema = {"const": ""}
_YES: Schema = {"const": True}
_NO: Schema = {"const": False}


def _at(path: str, schema: Schema) -> Schema:
    """The value at `a.b` is there, and is so."""
    for name in reversed(path.split(".")):
        schema = {"properties": {name: schema}, "required": [name]}
    return schema


def _all(*schemas: Schema) -> Schema:
    return {"allOf": list(schemas)}


def _any(*schemas: Schema) -> Schema:
    return {"anyOf": list(schemas)}


def _rule(why: str, given: Schema, then: Schema) -> Schema:
    return {"$comment": why, "if": given, "then": then}


def _receiver(*kinds: str) -> Schema:
    """`config.alerts` sends somewhere by one of these ways."""
    return _any(*(_at(f"config.alerts.{kind}", {"not": {"maxItems": 0}}) for kind in kinds))


_UNSEEN = _at("alerts.receiversSecret", _SOME)
_HTTP = _any(_receiver("webhook", "alertmanager", "otlp"), _UNSEEN)
_TLS_URL: Schema = {"type": "string", "pattern": "^tls://"}
_TLS = _any(_TLS_URL, _all({"type": "object"}, _at("url", _TLS_URL)))
_SYSLOG_BY_TLS = _at("config.alerts.syslog", _any(_TLS, {"type": "array", "contains": _TLS}))
_API = _any(_at("kubernetes.watch", _YES), _at("startupTaint.enabled", _YES))
_OWN_ACCOUNT = _at("serviceAccount.create", _NO)
_HEARD: Schema = {"properties": {"config": {"properties": {
    "observe": {"properties": {"cgroup.mkdir": {"const": "alerts"}}},
}}}}  # fmt: skip
_NO_FILES = _all(_at("policies.optional", {"maxItems": 0}), _at("policies.extra", {"maxProperties": 0}))

RULES: tuple[Schema, ...] = (
    _rule(
        "two monitors would duplicate all series",
        _at("podMonitor.enabled", _YES), _at("serviceMonitor.enabled", _NO),
    ),
    _rule("a tag or a digest, not both", _at("image.digest", _SOME), _at("image.tag", _NONE)),
    _rule(
        "an existing ConfigMap replaces the pack",
        _at("policies.existingConfigMap", _SOME), _all(_at("policies.pack", _NO), _NO_FILES),
    ),
    _rule(
        "no policies at all",
        _all(_at("policies.existingConfigMap", _NONE), _NO_FILES), _at("policies.pack", _YES),
    ),
    _rule("helm test needs a rule of the pack", _at("policies.pack", _NO), _at("test.enabled", _NO)),
    _rule(
        "the agent uses the API server, but has no rights: provide an account with them",
        _all(_at("rbac.create", _NO), _API), _OWN_ACCOUNT,
    ),
    _rule(
        "an account that is not created needs a name",
        _all(_OWN_ACCOUNT, _API), _at("serviceAccount.name", _SOME),
    ),
    _rule(
        "the admission policy restricts patches, but startupTaint is disabled",
        _at("startupTaint.admissionPolicy", _YES), _at("startupTaint.enabled", _YES),
    ),
    _rule(
        "Localhost needs a file",
        _at("security.seccompProfile", {"const": "Localhost"}), _at("security.seccompFile", _SOME),
    ),
    _rule(
        "a seccomp file without the profile Localhost",
        _at("security.seccompFile", _SOME), _at("security.seccompProfile", {"const": "Localhost"}),
    ),
    _rule(
        "a directory or a socket, but no runtime",
        _at("runtime", {"const": "none"}),
        _all(_at("runtimeDirectory", _NONE), {"properties": {"config": {"properties": {"cri": False}}}}),
    ),
    _rule("custom probes are configured, but not enabled", _at("customProbes.files", {"minProperties": 1}),
          _at("customProbes.enabled", _YES)),
    _rule("headers without a receiver", _at("alerts.headersSecret", _SOME), _HTTP),
    _rule(
        "CA certificates without a receiver",
        _at("alerts.caSecret", _SOME), _any(_HTTP, _receiver("slack", "teams"), _SYSLOG_BY_TLS),
    ),
    _rule(
        "rotation of a file that is not enabled",
        _any(*(_at(f"config.alerts.{name}", {}) for name in ("file_size", "file_keep"))),
        _at("alerts.file.enabled", _YES),
    ),
    _rule("the canary needs the event cgroup.create", _at("canary", _YES), _HEARD),
)  # fmt: skip
