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
{{- include "ringfence.ownKeys" . -}}
{{- include "ringfence.contradictions" . -}}
{{- end -}}

{{/* Refuses keys in mappings of the user's that the chart sets itself. */}}
{{- define "ringfence.ownKeys" -}}
{{- $selectors := list "app.kubernetes.io/name" "app.kubernetes.io/instance" "app.kubernetes.io/component" "ringfence.dev/pool" -}}
{{- $labels := concat $selectors (list "app.kubernetes.io/version" "app.kubernetes.io/managed-by" "helm.sh/chart") -}}
{{- with .Values -}}
{{- range list
      (list "commonLabels" .commonLabels $labels)
      (list "podLabels" .podLabels $selectors)
      (list "podMonitor.labels" .podMonitor.labels $labels)
      (list "serviceMonitor.labels" .serviceMonitor.labels $labels)
      (list "prometheusRule.labels" .prometheusRule.labels $labels)
      (list "dashboards.labels" .dashboards.labels $labels)
      (list "podAnnotations" .podAnnotations
        (list "checksum/config" "kubectl.kubernetes.io/default-container" "container.apparmor.security.beta.kubernetes.io/agent"))
      (list "podSecurityContext" .podSecurityContext (list "runAsUser" "seccompProfile"))
      (list "securityContext" .securityContext
        (list "privileged" "allowPrivilegeEscalation" "readOnlyRootFilesystem" "capabilities" "appArmorProfile" "seLinuxOptions")) -}}
{{- $name := first . -}}
{{- $given := index . 1 -}}
{{- range last . -}}
{{- if hasKey $given . -}}{{- fail (printf "%s: %s is set by the chart itself" $name .) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Values that contradict each other. Those of a pool are checked as they are after the merge. */}}
{{- define "ringfence.contradictions" -}}
{{- $at := include "ringfence.at" . -}}
{{- $api := include "ringfence.api" . -}}
{{- $files := or .Values.policies.optional .Values.policies.extra -}}
{{- $receivers := .Values.config.alerts | default dict -}}
{{- $http := or $receivers.webhook $receivers.alertmanager $receivers.otlp .Values.alerts.receiversSecret -}}
{{- $tls := or $http $receivers.slack $receivers.teams (regexMatch "\"tls://" (toJson $receivers.syslog)) -}}
{{- $localhost := eq .Values.security.seccompProfile "Localhost" -}}
{{- with .Values -}}
{{- range list
      (list (and .podMonitor.enabled .serviceMonitor.enabled)
        "serviceMonitor.enabled: podMonitor.enabled is true as well, and two monitors would duplicate all series")
      (list (and .image.digest .image.tag) "image.tag: there is an image.digest as well; set one of them")
      (list (and .policies.existingConfigMap (or .policies.pack $files))
        "policies.existingConfigMap: it replaces pack, optional and extra, which must be false and empty")
      (list (not (or .policies.existingConfigMap .policies.pack $files))
        "policies.pack: is false, and there are no other policies")
      (list (and .test.enabled (not .policies.pack))
        "test.enabled: helm test needs a rule of policies.pack, which is false")
      (list (and $api (not .rbac.create) .serviceAccount.create)
        "rbac.create: is false, but the agent uses the API server (kubernetes.watch, startupTaint): it needs an account that has the rights (serviceAccount.create=false and serviceAccount.name)")
      (list (and $api (not .serviceAccount.create) (not .serviceAccount.name))
        "serviceAccount.name: is empty, but the account is not created")
      (list (and .startupTaint.admissionPolicy (not .startupTaint.enabled))
        "startupTaint.admissionPolicy: it restricts what startupTaint.enabled allows, which is false")
      (list (and $localhost (not .security.seccompFile)) "security.seccompFile: is empty, but the profile is Localhost")
      (list (and .security.seccompFile (not $localhost)) "security.seccompFile: needs security.seccompProfile=Localhost")
      (list (and (eq .runtime "none") (or .runtimeDirectory (hasKey .config "cri")))
        "runtime: is none, but there is a runtimeDirectory or config.cri")
      (list (and .customProbes.files (not .customProbes.enabled))
        "customProbes.files: customProbes.enabled is false")
      (list (and .alerts.headersSecret (not $http))
        "alerts.headersSecret: no receiver takes HTTP headers (webhook, alertmanager or otlp in config.alerts, or alerts.receiversSecret)")
      (list (and .alerts.caSecret (not $tls))
        "alerts.caSecret: no receiver uses TLS (config.alerts has no HTTP receiver and no syslog address with tls://)")
      (list (and (or (hasKey $receivers "file_size") (hasKey $receivers "file_keep")) (not .alerts.file.enabled))
        "config.alerts: file_size and file_keep rotate a file, but alerts.file.enabled is false")
      (list (and .canary (ne (dig "observe" "cgroup.mkdir" "alerts" .config) "alerts"))
        "config.observe: the canary needs the event cgroup.mkdir as alerts") -}}
{{- if first . -}}{{- fail (printf "%s%s" $at (last .)) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
