{{/* Names begin with cytoray, not with the release's name: a namespace holds one release, and jobs look for
cytoray-platform and cytoray-home by name. */}}

{{/* Labels of every object. Argument: dict "root" $ "component" NAME. */}}
{{- define "cytoray.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{ include "cytoray.selector" . }}
{{- end -}}

{{/* Labels that pods are selected by. */}}
{{- define "cytoray.selector" -}}
app.kubernetes.io/name: cytoray
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/part-of: cytoray
app.kubernetes.io/component: {{ .component }}
{{- end -}}

{{/* Security of pods: Cytoray's own user; the stores' images have users of their own. Argument: the user's number. */}}
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

{{- define "cytoray.pullSecrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Where a pod may run. Argument: values with nodeSelector and tolerations. */}}
{{- define "cytoray.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Names of the secrets, the operator's or the chart's own. */}}
{{- define "cytoray.redis.secret" -}}{{ .Values.redis.secret | default "cytoray-redis" }}{{- end -}}
{{- define "cytoray.postgresql.secret" -}}{{ .Values.postgresql.secret | default "cytoray-postgresql" }}{{- end -}}
{{- define "cytoray.s3.secret" -}}
{{- if .Values.objectStore.secret -}}{{ .Values.objectStore.secret }}
{{- else if not .Values.objectStore.external -}}cytoray-s3
{{- end -}}
{{- end -}}

{{- define "cytoray.redis.host" -}}{{ .Values.redis.host | default "cytoray-redis" }}{{- end -}}
{{- define "cytoray.home.claim" -}}{{ .Values.home.existingClaim | default "cytoray-home" }}{{- end -}}
{{- define "cytoray.mlflow.url" -}}{{ .Values.mlflow.url | default "http://cytoray-mlflow:5000" }}{{- end -}}
{{- define "cytoray.s3.endpoint" -}}
{{- if .Values.objectStore.external }}{{ .Values.objectStore.endpoint }}{{ else }}http://cytoray-s3:7070{{ end -}}
{{- end -}}

{{/* Where the registry and the bucket are: variables of all containers that use them, as a map. */}}
{{- define "cytoray.environment" -}}
MLFLOW_TRACKING_URI: {{ include "cytoray.mlflow.url" . | quote }}
{{ include "cytoray.s3.environment" . }}
{{- end -}}

{{- define "cytoray.s3.environment" -}}
{{- with include "cytoray.s3.endpoint" . }}
AWS_ENDPOINT_URL_S3: {{ . | quote }}
MLFLOW_S3_ENDPOINT_URL: {{ . | quote }}
{{- end }}
AWS_DEFAULT_REGION: {{ .Values.objectStore.region | quote }}
{{- end -}}

{{/* A map as a container's list of variables, in the order of their names. */}}
{{- define "cytoray.variables" -}}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{/* The keys of the bucket's secret as variables; nothing where service accounts have the rights. */}}
{{- define "cytoray.s3.envFrom" -}}
{{- with include "cytoray.s3.secret" . }}
envFrom:
  - secretRef:
      name: {{ . }}
{{- end }}
{{- end -}}

{{/* A password that stays the same from upgrade to upgrade. Argument: dict "root" $ "name" SECRET "key" KEY. */}}
{{- define "cytoray.password" -}}
{{- $existing := lookup "v1" "Secret" .root.Release.Namespace .name -}}
{{- if and $existing (hasKey ($existing.data | default dict) .key) -}}
{{ index $existing.data .key | b64dec }}
{{- else -}}
{{ randAlphaNum 32 }}
{{- end -}}
{{- end -}}

{{- define "cytoray.priorityClass" -}}
{{- if .root.Values.priorityClasses.create }}
priorityClassName: {{ .root.Release.Namespace }}-{{ .class }}
{{- end }}
{{- end -}}

{{/* Labels of monitors and rules, those that Prometheus selects them by among them. */}}
{{- define "cytoray.monitorLabels" -}}
{{ include "cytoray.labels" . }}
{{- with .root.Values.monitoring.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}
