# SPDX-License-Identifier: Apache-2.0
"""The pair of files that `ringfence probe new` writes: a small working probe."""

from __future__ import annotations

__all__ = ["skeleton"]

_SOURCE = """\
/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * {name}: finds containers that wait long for fsync(2). Adapt it: see docs/reference/custom-probes.md.
 */
#include "ringfence.h"

struct event {{
	struct rf_task task; /* the caller: filled in by rf_identify_current() */
	u64 latency_us;
	s64 result;
}};

BPF_HASH(started, u64, u64);

TRACEPOINT_PROBE(syscalls, sys_enter_fsync)
{{
	u64 thread = bpf_get_current_pid_tgid();
	u64 now = bpf_ktime_get_ns();

	started.update(&thread, &now);
	return 0;
}}

TRACEPOINT_PROBE(syscalls, sys_exit_fsync)
{{
	u64 thread = bpf_get_current_pid_tgid();
	u64 *then = started.lookup(&thread);
	struct event e = {{}};

	if (!then)
		return 0;
	e.latency_us = (bpf_ktime_get_ns() - *then) / 1000;
	started.delete(&thread);
	if (e.latency_us < MIN_US)
		return 0;
	e.result = args->ret;
	rf_identify_current(&e.task);
	rf_send(&e);
	return 0;
}}
"""

_YAML = """\
# SPDX-License-Identifier: Apache-2.0
# Every key: docs/reference/custom-probes.md.
# Try it: ringfence probe check {name}.yaml; ringfence probe run {name}.yaml
apiVersion: ringfence.dev/v1
kind: Probe
metadata:
  name: {name}
  description: a call of fsync(2) took long
spec:
  license: Dual BSD/GPL
  event: event # the struct of {name}.c that is sent
  container: task # its member `task` identifies the container
  host: drop # drop events of host tasks; keep: report them
  fields: # exported fields, which policies can use
    latency_us: {{unit: microseconds, description: how long the call took}}
    result: {{description: "0, or minus an error number"}}
  parameters:
    MIN_US: 1000 # shorter calls are not reported
  rate: 1000 # maximum events a second; the rest is counted as dropped
  metrics:
    - name: {metric}_seconds # in Prometheus: ringfence_custom_{metric}_seconds
      type: histogram
      help: Calls of fsync(2) of at least MIN_US.
      value: latency_us
      scale: 1e-6
      buckets: [0.001, 0.01, 0.1, 1]
"""


def skeleton(name: str) -> dict[str, str]:
    """Ending -> text."""
    metric = name.replace("-", "_")
    metric = metric if metric[0].isalpha() else f"probe_{metric}"
    return {".c": _SOURCE.format(name=name), ".yaml": _YAML.format(name=name, metric=metric)}
