{{/* Node pools. Each pool has a DaemonSet of its own, rendered with the chart's context and other values. The context has
in addition `Pool` (the name), `Own` (the values that the pool sets) and `Root` (the context of the default pool). */}}

{{/* Renders the template `name` for the default pool and for each of nodePools. */}}
{{- define "ringfence.eachPool" -}}
{{- $root := .root -}}
{{- include .name $root -}}
{{- range $pool, $own := $root.Values.nodePools }}
---
{{ $values := mergeOverwrite (dict) (deepCopy $root.Values) (deepCopy $own) -}}
{{- $context := dict "Pool" $pool "Own" $own "Root" $root "Values" $values "Chart" $root.Chart "Release" $root.Release
      "Capabilities" $root.Capabilities "Files" $root.Files "Template" $root.Template -}}
{{- include $.name $context -}}
{{- end -}}
{{- end -}}

{{/* The name of a pool's objects; the default pool's is the release's. */}}
{{- define "ringfence.poolName" -}}
{{ include "ringfence.fullname" . }}{{ with .Pool }}-{{ . }}{{ end }}
{{- end -}}

{{/* app.kubernetes.io/component of a pool's pods: DaemonSets and services must not select those of another pool. */}}
{{- define "ringfence.component" -}}
agent{{ with .Pool }}-{{ . }}{{ end }}
{{- end -}}

{{/* Selects the agents of all pools, as a label selector. */}}
{{- define "ringfence.agents" -}}
matchLabels:
  {{- include "ringfence.selector" . | nindent 2 }}
{{- if .Values.nodePools }}
matchExpressions:
  - key: app.kubernetes.io/component
    operator: In
    values:
      - agent
      {{- range $pool, $_ := .Values.nodePools }}
      - agent-{{ $pool }}
      {{- end }}
{{- else }}
  app.kubernetes.io/component: agent
{{- end }}
{{- end -}}

{{/* The ConfigMap with a pool's agent.yaml: the default pool's if it is the same. */}}
{{- define "ringfence.configMap" -}}
{{- if and .Pool (ne (include "ringfence.config" .) (include "ringfence.config" .Root)) -}}
{{- include "ringfence.poolName" . -}}
{{- else -}}
{{- include "ringfence.fullname" . -}}
{{- end -}}
{{- end -}}

{{/* The ConfigMap with a pool's policies: the default pool's if the pool does not set `policies`. */}}
{{- define "ringfence.policies" -}}
{{- $owner := and .Pool (not (hasKey .Own "policies")) | empty | ternary . .Root -}}
{{- default (printf "%s-policies" (include "ringfence.poolName" $owner)) $owner.Values.policies.existingConfigMap -}}
{{- end -}}

{{/* The nodes of `nodeSelector` and `affinity`, as JSON: a list of alternatives, each a list of expressions. */}}
{{- define "ringfence.nodes" -}}
{{- $labels := list -}}
{{- range $key, $value := .nodeSelector -}}
{{- $labels = append $labels (dict "key" $key "operator" "In" "values" (list $value)) -}}
{{- end -}}
{{- $alternatives := list -}}
{{- $required := dig "nodeAffinity" "requiredDuringSchedulingIgnoredDuringExecution" dict (.affinity | default dict) -}}
{{- range $required.nodeSelectorTerms -}}
{{- $alternatives = append $alternatives (concat $labels (.matchExpressions | default list)) -}}
{{- end -}}
{{- $alternatives | default (list $labels) | toJson -}}
{{- end -}}

{{/* Non-empty if no node matches both of two expressions. */}}
{{- define "ringfence.contradict" -}}
{{- $one := first . -}}
{{- $other := last . -}}
{{- if eq $one.key $other.key -}}
{{- $common := 0 -}}
{{- range $one.values -}}{{- if has . ($other.values | default list) -}}{{- $common = add1 $common -}}{{- end -}}{{- end -}}
{{- $operators := printf "%s %s" $one.operator $other.operator -}}
{{- if eq $operators "In In" -}}
{{- eq (int $common) 0 | ternary "true" "" -}}
{{- else if eq $operators "In NotIn" -}}
{{- eq (int $common) (len $one.values) | ternary "true" "" -}}
{{- else if has $operators (list "In DoesNotExist" "Exists DoesNotExist") -}}
true
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Non-empty if no node is in both of two lists of alternatives. */}}
{{- define "ringfence.disjoint" -}}
{{- $others := last . -}}
{{- $disjoint := true -}}
{{- range $some := first . -}}{{- range $more := $others -}}
{{- $apart := "" -}}
{{- range $one := $some -}}{{- range $other := $more -}}
{{- $apart = coalesce $apart (include "ringfence.contradict" (list $one $other)) (include "ringfence.contradict" (list $other $one)) -}}
{{- end -}}{{- end -}}
{{- $disjoint = and $disjoint (not (empty $apart)) -}}
{{- end -}}{{- end -}}
{{- $disjoint | ternary "true" "" -}}
{{- end -}}

{{/* Refuses pools of which a node could be in two, and names that are none or that other objects have. */}}
{{- define "ringfence.validatePools" -}}
{{- $checked := dict -}}
{{- range $pool, $own := .Values.nodePools -}}
{{- $name := printf "%s-%s" (include "ringfence.fullname" $) $pool -}}
{{- if not (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" $pool) -}}
{{- fail (printf "nodePools.%s: is not a name of small letters, digits and hyphens" $pool) -}}
{{- end -}}
{{- if regexMatch "^default$|^ringfence-|(^|-)(policies|probes|test|taint)$" $pool -}}
{{- fail (printf "nodePools.%s: the chart has other objects of this name" $pool) -}}
{{- end -}}
{{- if gt (len $name) 63 -}}
{{- fail (printf "nodePools.%s: the name of its service, %s, would be longer than 63 characters" $pool $name) -}}
{{- end -}}
{{- $values := mergeOverwrite (dict) (deepCopy $.Values) (deepCopy $own) -}}
{{- $nodes := include "ringfence.nodes" $values | fromJsonArray -}}
{{- range $other, $theirs := $checked -}}
{{- if not (include "ringfence.disjoint" (list $nodes $theirs)) -}}
{{- fail (printf "nodePools.%s: a node can be in this pool and in nodePools.%s, but it runs one agent only: the two need a label that has different values in their nodeSelector (or required node affinity)" $pool $other) -}}
{{- end -}}
{{- end -}}
{{- $_ := set $checked $pool $nodes -}}
{{- end -}}
{{- end -}}

{{/* What leaves out the nodes of nodePools, as JSON: a list of alternatives. Pools that cannot share a node with the
default pool need no exclusion; neither do labels that all nodes of the default pool have. */}}
{{- define "ringfence.exclusions" -}}
{{- $negated := dict "In" "NotIn" "NotIn" "In" "Exists" "DoesNotExist" "DoesNotExist" "Exists" -}}
{{- $default := include "ringfence.nodes" .Values | fromJsonArray -}}
{{- $alternatives := list list -}}
{{- range $pool, $own := .Values.nodePools -}}
{{- $all := include "ringfence.nodes" (mergeOverwrite (dict) (deepCopy $.Values) (deepCopy $own)) | fromJsonArray -}}
{{- if not (include "ringfence.disjoint" (list $default $all)) -}}
{{- range $expressions := include "ringfence.nodes" $own | fromJsonArray -}}
{{- $next := list -}}
{{- range $expression := $expressions -}}
{{- $same := get $.Values.nodeSelector $expression.key -}}
{{- if not (and $same (eq $expression.operator "In") (has $same $expression.values)) -}}
{{- $without := set (deepCopy $expression) "operator" (get $negated $expression.operator) -}}
{{- range $alternatives -}}{{- $next = append $next (append . $without) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- if not $next -}}
{{- fail (printf "nodePools.%s: it has all nodes of the chart's nodeSelector, and the default pool none: choose fewer" $pool) -}}
{{- end -}}
{{- if gt (len $next) 64 -}}
{{- fail (printf "nodePools.%s: the default pool cannot leave out the nodes of all pools in 64 alternatives: choose the nodes of pools by one label" $pool) -}}
{{- end -}}
{{- $alternatives = $next -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- toJson $alternatives -}}
{{- end -}}

{{/* A pool's affinity; the default pool's without the nodes of the others. */}}
{{- define "ringfence.affinity" -}}
{{- $affinity := deepCopy .Values.affinity -}}
{{- $exclusions := list list -}}
{{- if not .Pool -}}{{- $exclusions = include "ringfence.exclusions" . | fromJsonArray -}}{{- end -}}
{{- if first $exclusions -}}
{{- $required := "requiredDuringSchedulingIgnoredDuringExecution" -}}
{{- $terms := list -}}
{{- range $term := dig "nodeAffinity" $required "nodeSelectorTerms" list $affinity | default (list dict) -}}
{{- range $exclusions -}}
{{- $kept := $term.matchExpressions | default list -}}
{{- $terms = append $terms (set (deepCopy $term) "matchExpressions" (concat $kept .)) -}}
{{- end -}}
{{- end -}}
{{- $affinity = mergeOverwrite $affinity (dict "nodeAffinity" (dict $required (dict "nodeSelectorTerms" $terms))) -}}
{{- end -}}
{{- with $affinity -}}{{- toYaml . -}}{{- end -}}
{{- end -}}

{{/* What stands before a value's name in messages. */}}
{{- define "ringfence.at" -}}
{{- with .Pool -}}nodePools.{{ . }}.{{- end -}}
{{- end -}}
