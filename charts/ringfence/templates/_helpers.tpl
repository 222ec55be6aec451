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

{{- define "ringfence.policies" -}}
{{ default (printf "%s-policies" (include "ringfence.fullname" .)) .Values.policies.existingConfigMap }}
{{- end -}}

{{/* Whether the agent talks to the API server at all. */}}
{{- define "ringfence.api" -}}
{{- if or .Values.kubernetes.watch .Values.startupTaint.enabled -}}true{{- end -}}
{{- end -}}

{{/* The directory with the runtime's socket; empty: none. */}}
{{- define "ringfence.runtime" -}}
{{- $usual := dict "containerd" "/run/containerd" "crio" "/run/crio" "docker" "/run/docker.sock" "none" "" -}}
{{- default (get $usual .Values.runtime) .Values.runtimeDirectory -}}
{{- end -}}

{{/* agent.yaml: what the chart decides, over what `config` says. */}}
{{- define "ringfence.config" -}}
{{- $own := dict
      "mode" .Values.mode
      "policies" (list "/etc/ringfence/policies")
      "canary" .Values.canary
      "http" (dict "listen" (printf "0.0.0.0:%d" (int .Values.metrics.port)))
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
{{- if .Values.alertHeadersSecret -}}
{{- $_ := set $own "alerts" (dict "headers" "/etc/ringfence/headers/headers") -}}
{{- end -}}
{{- mergeOverwrite (deepCopy .Values.config) $own | toYaml -}}
{{- end -}}
