{{/* A quantity of memory in bytes; 0 if its unit is unknown. */}}
{{- define "ringfence.bytes" -}}
{{- $text := toString . -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "P" 1e15 "E" 1e18
      "Ki" 1024 "Mi" 1048576 "MiB" 1048576 "Gi" 1073741824 "GiB" 1073741824 "Ti" 1099511627776
      "Pi" 1125899906842624 "Ei" 1152921504606846976 -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- mulf (trimSuffix $unit $text | trim | float64) (get $units $unit | default 0 | float64) | int64 -}}
{{- end -}}

{{/* Checks for contradictions that values.schema.json cannot express. */}}
{{- define "ringfence.validate" -}}
{{- $at := include "ringfence.at" . -}}
{{- if not .Pool -}}{{- include "ringfence.validatePools" . -}}{{- end -}}
{{- $ports := dict (toString .Values.metrics.port) "metrics.port" -}}
{{- range $name, $port := dict "health.port" .Values.health.port "page.port" (.Values.page.enabled | ternary .Values.page.port "") -}}
{{- with get $ports (toString $port) -}}
{{- fail (printf "%s%s: is the same port as %s" $at $name .) -}}
{{- end -}}
{{- $_ := set $ports (toString $port) $name -}}
{{- end -}}
{{- $limit := dig "limits" "memory" "" .Values.resources -}}
{{- $request := dig "requests" "memory" "" .Values.resources -}}
{{- $least := .Values.customProbes.enabled | ternary "256Mi" "96Mi" -}}
{{- if $limit -}}
{{- $bytes := include "ringfence.bytes" $limit | int64 -}}
{{- if lt $bytes (include "ringfence.bytes" $least | int64) -}}
{{- fail (printf "%sresources.limits.memory: %v is less than %s, and the agent would be killed" $at $limit $least) -}}
{{- end -}}
{{- if and $request (gt (include "ringfence.bytes" $request | int64) $bytes) -}}
{{- fail (printf "%sresources.requests.memory: %v is more than resources.limits.memory (%v)" $at $request $limit) -}}
{{- end -}}
{{- $receivers := include "ringfence.receivers" . | int64 -}}
{{- if and $receivers (not .Values.alerts.queue.enabled) -}}
{{- $queues := mul $receivers (include "ringfence.bytes" .Values.alerts.queue.size | int64) -}}
{{- if lt $bytes (add $queues (include "ringfence.bytes" $least | int64)) -}}
{{- fail (printf "%salerts.queue.enabled: without it %d receivers can use %s each in memory, for which resources.limits.memory (%v) is too small besides the agent's %s" $at $receivers .Values.alerts.queue.size $limit $least) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if regexMatch "^(/var)?/run(/|$)" .Values.alerts.queue.hostPath -}}
{{- fail (printf "%salerts.queue.hostPath: is in /run, which is in memory and lost at a reboot; use alerts.queue.enabled=false for that" $at) -}}
{{- end -}}
{{- if and .Values.startupTaint.admissionPolicy (not (semverCompare ">=1.30-0" .Capabilities.KubeVersion.Version)) -}}
{{- fail (printf "%sstartupTaint.admissionPolicy: needs Kubernetes 1.30, but this is %s" $at .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- $volumes := list -}}
{{- range .Values.extraVolumes -}}{{- $volumes = append $volumes .name -}}{{- end -}}
{{- range .Values.extraVolumeMounts -}}
{{- if not (has .name $volumes) -}}
{{- fail (printf "%sextraVolumeMounts: extraVolumes has no %q" $at .name) -}}
{{- end -}}
{{- end -}}
{{- include "ringfence.validateMerged" . -}}
{{- end -}}

{{/* What values.schema.json checks for the default pool, for the values of a pool after the default pool's. */}}
{{- define "ringfence.validateMerged" -}}
{{- $at := include "ringfence.at" . -}}
{{- $files := or .Values.policies.optional .Values.policies.extra -}}
{{- if and .Values.policies.existingConfigMap (or .Values.policies.pack $files) -}}
{{- fail (printf "%spolicies.existingConfigMap: it replaces pack, optional and extra, which must be false and empty" $at) -}}
{{- end -}}
{{- if not (or .Values.policies.existingConfigMap .Values.policies.pack $files) -}}
{{- fail (printf "%spolicies: there are none" $at) -}}
{{- end -}}
{{- if and .Values.test.enabled (not .Values.policies.pack) -}}
{{- fail (printf "%stest.enabled: helm test needs a rule of policies.pack" $at) -}}
{{- end -}}
{{- if and (eq .Values.runtime "none") (or .Values.runtimeDirectory (hasKey .Values.config "cri")) -}}
{{- fail (printf "%sruntime: is none, but there is a runtimeDirectory or config.cri" $at) -}}
{{- end -}}
{{- if and .Values.canary (ne (dig "observe" "cgroup.mkdir" "alerts" .Values.config) "alerts") -}}
{{- fail (printf "%sconfig.observe: the canary needs cgroup.mkdir in alerts" $at) -}}
{{- end -}}
{{- end -}}
