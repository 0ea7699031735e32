{{/* Names begin with cytoray, not with the name of the release: a namespace holds one release, and jobs find
cytoray-platform and cytoray-home by name. */}}

{{/* Labels of every object. Argument: dict "root" $ "component" NAME. */}}
{{- define "cytoray.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{ include "cytoray.selector" . }}
{{- end -}}

{{/* Labels that select pods. */}}
{{- define "cytoray.selector" -}}
app.kubernetes.io/name: cytoray
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: cytoray
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Security of pods: the user of Cytoray's image; the images of the stores have other users. Argument: the user id. */}}
{{- define "cytoray.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "cytoray.user" -}}10001{{- end -}}

{{/* Security of containers. */}}
{{- define "cytoray.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{/* Names of the secrets, from the values or created by the chart. */}}
{{- define "cytoray.redis.secret" -}}{{ .Values.redis.secret | default "cytoray-redis" }}{{- end -}}
{{- define "cytoray.postgresql.secret" -}}{{ .Values.postgresql.secret | default "cytoray-postgresql" }}{{- end -}}
{{- define "cytoray.s3.secret" -}}
{{- if .Values.objectStore.secret -}}{{ .Values.objectStore.secret }}
{{- else if not .Values.objectStore.external -}}cytoray-s3
{{- end -}}
{{- end -}}

{{- define "cytoray.front.secret" -}}{{ .Values.serving.frontSecret | default "cytoray-front" }}{{- end -}}

{{- define "cytoray.redis.host" -}}{{ .Values.redis.host | default "cytoray-redis" }}{{- end -}}
{{- define "cytoray.home.claim" -}}{{ .Values.home.existingClaim | default "cytoray-home" }}{{- end -}}
{{- define "cytoray.audit.claim" -}}{{ .Values.jobs.audit.existingClaim | default "cytoray-audit" }}{{- end -}}
{{- define "cytoray.mlflow.url" -}}{{ .Values.mlflow.url | default "http://cytoray-mlflow:5000" }}{{- end -}}
{{- define "cytoray.s3.endpoint" -}}
{{- if .Values.objectStore.external }}{{ .Values.objectStore.endpoint }}{{ else }}http://cytoray-s3:7070{{ end -}}
{{- end -}}

{{/* Addresses of the registry and the bucket: environment variables of all containers that use them, as a map. */}}
{{- define "cytoray.environment" -}}
MLFLOW_TRACKING_URI: {{ include "cytoray.mlflow.url" . | quote }}
{{ include "cytoray.s3.environment" . }}
{{- include "cytoray.ca.environment" . }}
{{- end -}}

{{- define "cytoray.s3.environment" -}}
{{- with include "cytoray.s3.endpoint" . }}
AWS_ENDPOINT_URL_S3: {{ . | quote }}
MLFLOW_S3_ENDPOINT_URL: {{ . | quote }}
{{- end }}
AWS_DEFAULT_REGION: {{ .Values.objectStore.region | quote }}
{{- end -}}

{{/* A map as a list of environment variables of a container, sorted by name. */}}
{{- define "cytoray.variables" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{/* The keys of the bucket's secret as environment variables; empty if service accounts have the permissions. */}}
{{- define "cytoray.s3.envFrom" -}}
{{- with include "cytoray.s3.secret" . }}
envFrom:
  - secretRef:
      name: {{ . }}
{{- end }}
{{- end -}}

{{/* A password that does not change with an upgrade. Argument: dict "root" $ "name" SECRET "key" KEY. */}}
{{- define "cytoray.password" -}}
{{- /* Stored, because each call would create a new one. */ -}}
{{- $made := get .root.Values "made" | default dict -}}
{{- $place := printf "%s.%s" .name .key -}}
{{- if not (hasKey $made $place) -}}
{{- $existing := lookup "v1" "Secret" .root.Release.Namespace .name -}}
{{- $encoded := dig "data" .key "" ($existing | default dict) -}}
{{- $_ := set $made $place (ternary (b64dec $encoded) (randAlphaNum 32) (not (empty $encoded))) -}}
{{- $_ := set .root.Values "made" $made -}}
{{- end -}}
{{ get $made $place }}
{{- end -}}

{{- define "cytoray.priorityClass" -}}
{{- if .root.Values.priorityClasses.create }}
priorityClassName: {{ .root.Release.Namespace }}-{{ .class }}
{{- end }}
{{- end -}}

{{/* Labels of monitors and rules, including those by which Prometheus selects them. */}}
{{- define "cytoray.monitorLabels" -}}
{{ include "cytoray.labels" . }}
{{- with .root.Values.monitoring.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}
