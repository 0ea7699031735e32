{{/* Where training jobs run: in the namespace of the release, or in a separate one. */}}

{{- define "cytoray.training.namespace" -}}{{ .Values.training.namespace | default .Release.Namespace }}{{- end -}}

{{- define "cytoray.training.home" -}}
{{- if .Values.training.namespace -}}{{ .Values.training.existingClaim | default "cytoray-training" }}
{{- else -}}{{ include "cytoray.home.claim" . }}
{{- end -}}
{{- end -}}

{{/* Claims with data, as JSON. */}}
{{- define "cytoray.training.dataClaims" -}}
{{- ternary .Values.training.dataClaims .Values.dataClaims (not (empty .Values.training.namespace)) | toJson -}}
{{- end -}}

{{/* Secrets whose keys become environment variables, as JSON: in a separate namespace only those for training jobs. */}}
{{- define "cytoray.training.secrets" -}}
{{- $own := ternary "" (include "cytoray.s3.secret" .) (not (empty .Values.training.namespace)) -}}
{{- concat (list $own | compact) .Values.platform.secrets | default list | toJson -}}
{{- end -}}

{{/* Environment variables of their containers: in another namespace the names of services get the release's namespace as suffix. */}}
{{- define "cytoray.training.environment" -}}
{{- $variables := include "cytoray.environment" . -}}
{{- if .Values.training.namespace -}}
{{- $variables = regexReplaceAll "http://(cytoray-[a-z0-9]+):" $variables (printf "http://${1}.%s:" .Release.Namespace) -}}
{{- end -}}
{{- $variables -}}
{{- end -}}

{{/* Policies of the separate namespace, for every pod in it, regardless of labels.
Argument: dict "root" $ "stores" (dict NAME PORT) of the release. */}}
{{- define "cytoray.training.network" -}}
{{- $policy := .root.Values.networkPolicy }}
{{- $stores := dict }}
{{- range $store, $port := .stores }}{{ $_ := set $stores (printf "%s@%s" $store $.root.Release.Namespace) $port }}{{ end }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: cytoray-training
  namespace: {{ .root.Values.training.namespace }}
  labels:
    {{- include "cytoray.labels" (dict "root" .root "component" "training") | nindent 4 }}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress:
    - from:
        - podSelector: {}
    - from: {{ toJson $policy.monitoring }}
      ports:
        {{- include "cytoray.policyPorts" (list 8080) | nindent 8 }}
  egress:
    - to:
        - podSelector: {}
    {{- include "cytoray.policyTo" $stores | nindent 4 }}
    {{- include "cytoray.policyOutside" (dict "dnsPorts" $policy.dnsPorts "outside" .root.Values.training.outside) | nindent 4 }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: cytoray-training-heads
  namespace: {{ .root.Values.training.namespace }}
  labels:
    {{- include "cytoray.labels" (dict "root" .root "component" "training") | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      ray.io/node-type: head
  policyTypes: [Ingress, Egress]
  ingress:
    {{- include "cytoray.policyOperator" . | nindent 4 }}
  egress:
    {{- include "cytoray.policyApiServer" $policy | nindent 4 }}
{{- end -}}
