{{- define "ringfence.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "ringfence.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "ringfence.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "ringfence.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "ringfence.selector" -}}
app.kubernetes.io/name: {{ include "ringfence.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "ringfence.labels" -}}
{{ include "ringfence.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Pool }}
ringfence.dev/pool: {{ . }}
{{- end }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The labels with others of one object, which override commonLabels. */}}
{{- define "ringfence.labelsWith" -}}
{{- include "ringfence.labels" (first .) | fromYaml | merge (dict) (last .) | toYaml -}}
{{- end -}}

{{- define "ringfence.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{- define "ringfence.account" -}}
{{- if .Values.serviceAccount.create -}}
{{ default (include "ringfence.fullname" .) .Values.serviceAccount.name }}
{{- else -}}
{{ default "default" .Values.serviceAccount.name }}
{{- end -}}
{{- end -}}

{{/* Non-empty if the agent uses the API server. */}}
{{- define "ringfence.api" -}}
{{- if or .Values.kubernetes.watch .Values.startupTaint.enabled -}}true{{- end -}}
{{- end -}}

{{/* The directory of the node with the runtime's sockets; empty: none. */}}
{{- define "ringfence.runtime" -}}
{{- $usual := dict "containerd" "/run/containerd" "crio" "/run/crio" "docker" "/run" "none" "" -}}
{{- default (get $usual .Values.runtime) .Values.runtimeDirectory -}}
{{- end -}}

{{/* The agent's mount point of it: /run itself is the agent's own. */}}
{{- define "ringfence.runtimeMount" -}}
{{- eq .Values.runtime "docker" | ternary "/host/run" (include "ringfence.runtime" .) -}}
{{- end -}}

{{/* The kinds of receivers that can be in `alerts.receiversSecret`: all but `file`. A test compares them. */}}
{{- define "ringfence.receiverKinds" -}}webhook alertmanager slack teams otlp syslog{{- end -}}

{{/* The number of alert receivers, without files; those of a secret count as one. */}}
{{- define "ringfence.receivers" -}}
{{- $count := .Values.alerts.receiversSecret | empty | ternary 0 1 -}}
{{- range $kind := splitList " " (include "ringfence.receiverKinds" .) -}}
{{- $found := get (default dict $.Values.config.alerts) $kind -}}
{{- if $found -}}
{{- $count = kindIs "slice" $found | ternary (len $found) 1 | add $count -}}
{{- end -}}
{{- end -}}
{{- $count -}}
{{- end -}}

{{/* Non-empty if the alert queue is in a directory of the node. */}}
{{- define "ringfence.queue" -}}
{{- if and .Values.alerts.queue.enabled (ne (include "ringfence.receivers" .) "0") -}}true{{- end -}}
{{- end -}}

{{/* The chart's part of `alerts` in agent.yaml. */}}
{{- define "ringfence.config.alerts" -}}
{{- $alerts := dict -}}
{{- with .Values.alerts -}}
{{- if .headersSecret -}}
{{- $_ := set $alerts "headers" "/etc/ringfence/headers/headers" -}}
{{- end -}}
{{- if .caSecret -}}
{{- $_ := set $alerts "ca" "/etc/ringfence/receivers-ca/ca.crt" -}}
{{- end -}}
{{- if .file.enabled -}}
{{- $_ := set $alerts "file" "/var/log/ringfence/alerts.json" -}}
{{- end -}}
{{- if ne (include "ringfence.receivers" $) "0" -}}
{{- $_ := set $alerts "queue_size" .queue.size -}}
{{- end -}}
{{- if include "ringfence.queue" $ -}}
{{- $_ := set $alerts "queue_dir" "/var/lib/ringfence/queue" -}}
{{- end -}}
{{- end -}}
{{- toYaml $alerts -}}
{{- end -}}

{{/* agent.yaml: the chart's settings override `config`, which overrides the runtime's defaults. */}}
{{- define "ringfence.config" -}}
{{- $usual := dict -}}
{{- if eq .Values.runtime "docker" -}}
{{- $_ := set $usual "cri" (dict "socket" "/host/run/cri-dockerd.sock") -}}
{{- $tasks := "/host/run/containerd/io.containerd.runtime.v2.task" -}}
{{- $_ := set $usual "runtime" (dict "roots" (dict "docker" "/host/run/docker.sock" "containerd" $tasks)) -}}
{{- else if .Values.runtimeDirectory -}}
{{- $directory := .Values.runtimeDirectory | trimSuffix "/" -}}
{{- $socket := eq .Values.runtime "crio" | ternary "crio.sock" "containerd.sock" -}}
{{- $_ := set $usual "cri" (dict "socket" (printf "%s/%s" $directory $socket)) -}}
{{- if eq .Values.runtime "containerd" -}}
{{- $tasks := printf "%s/io.containerd.runtime.v2.task" $directory -}}
{{- $_ := set $usual "runtime" (dict "roots" (dict "containerd" $tasks)) -}}
{{- end -}}
{{- end -}}
{{- $own := dict
      "mode" .Values.mode
      "policies" (list "/etc/ringfence/policies")
      "canary" .Values.canary
      "http" (dict "listen" (printf "[::]:%d" (int .Values.metrics.port)))
      "health" (dict "listen" (printf "[::]:%d" (int .Values.health.port)))
      "metrics" (dict "containers" (int .Values.metrics.containers) "program_stats" .Values.metrics.programStats)
      "kubernetes" (dict "watch" (ternary "on" "off" .Values.kubernetes.watch)) -}}
{{- if .Values.page.enabled -}}
{{- $_ := set $own "page" (dict "listen" (printf "127.0.0.1:%d" (int .Values.page.port))) -}}
{{- end -}}
{{- if .Values.customProbes.enabled -}}
{{- $_ := set $own "probes" (dict "directory" "/etc/ringfence/probes.d") -}}
{{- end -}}
{{- if eq .Values.runtime "none" -}}
{{- $_ := set $own "cri" (dict "socket" "off") -}}
{{- end -}}
{{- if .Values.policies.lastGood.enabled -}}
{{- $_ := set $own "policies_kept" "/var/lib/ringfence-policies/last-good.json" -}}
{{- end -}}
{{- with include "ringfence.config.alerts" . | fromYaml -}}
{{- $_ := set $own "alerts" . -}}
{{- end -}}
{{- mergeOverwrite $usual (deepCopy .Values.config) $own | toYaml -}}
{{- end -}}
