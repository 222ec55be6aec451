{{/* A quantity of memory in bytes; 0 if its unit is unknown. */}}
{{- define "ringfence.bytes" -}}
{{- $text := toString . -}}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000
      "Ki" 1024 "Mi" 1048576 "MiB" 1048576 "Gi" 1073741824 "GiB" 1073741824 "Ti" 1099511627776 -}}
{{- $unit := regexFind "[A-Za-z]*$" $text -}}
{{- mulf (trimSuffix $unit $text | trim | float64) (get $units $unit | default 0 | float64) | int64 -}}
{{- end -}}

{{/* Checks for contradictions that values.schema.json cannot express. */}}
{{- define "ringfence.validate" -}}
{{- $ports := dict (toString .Values.metrics.port) "metrics.port" -}}
{{- range $name, $port := dict "health.port" .Values.health.port "page.port" (.Values.page.enabled | ternary .Values.page.port "") -}}
{{- with get $ports (toString $port) -}}
{{- fail (printf "%s: is the same port as %s" $name .) -}}
{{- end -}}
{{- $_ := set $ports (toString $port) $name -}}
{{- end -}}
{{- $limit := dig "limits" "memory" "" .Values.resources -}}
{{- $request := dig "requests" "memory" "" .Values.resources -}}
{{- $least := .Values.customProbes.enabled | ternary "256Mi" "96Mi" -}}
{{- if $limit -}}
{{- $bytes := include "ringfence.bytes" $limit | int64 -}}
{{- if lt $bytes (include "ringfence.bytes" $least | int64) -}}
{{- fail (printf "resources.limits.memory: %v is less than %s, and the agent would be killed" $limit $least) -}}
{{- end -}}
{{- if and $request (gt (include "ringfence.bytes" $request | int64) $bytes) -}}
{{- fail (printf "resources.requests.memory: %v is more than resources.limits.memory (%v)" $request $limit) -}}
{{- end -}}
{{- $receivers := include "ringfence.receivers" . | int64 -}}
{{- if and $receivers (not .Values.alerts.queue.enabled) -}}
{{- $queues := mul $receivers (include "ringfence.bytes" .Values.alerts.queue.size | int64) -}}
{{- if lt $bytes (add $queues (include "ringfence.bytes" $least | int64)) -}}
{{- fail (printf "alerts.queue.enabled: without it %d receivers can use %s each in memory, for which resources.limits.memory (%v) is too small besides the agent's %s" $receivers .Values.alerts.queue.size $limit $least) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if regexMatch "^(/var)?/run(/|$)" .Values.alerts.queue.hostPath -}}
{{- fail "alerts.queue.hostPath: is in /run, which is in memory and lost at a reboot; use alerts.queue.enabled=false for that" -}}
{{- end -}}
{{- if and .Values.startupTaint.admissionPolicy (not (semverCompare ">=1.30-0" .Capabilities.KubeVersion.Version)) -}}
{{- fail (printf "startupTaint.admissionPolicy: needs Kubernetes 1.30, but this is %s" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- $volumes := list -}}
{{- range .Values.extraVolumes -}}{{- $volumes = append $volumes .name -}}{{- end -}}
{{- range .Values.extraVolumeMounts -}}
{{- if not (has .name $volumes) -}}
{{- fail (printf "extraVolumeMounts: extraVolumes has no %q" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
