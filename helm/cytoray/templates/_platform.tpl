{{/* cytoray_services.jobs.platform.Platform. */}}
{{- define "cytoray.platform" -}}
{{- $platform := .Values.platform -}}
images:
  cpu: {{ .Values.image.cpu }}
  gpu: {{ .Values.image.cuda }}
  pull_policy: {{ .Values.image.pullPolicy }}
  pull_secrets: {{ toJson .Values.image.pullSecrets }}
gpus:
  resource: {{ .Values.gpu.resource }}
  product_label: {{ .Values.gpu.productLabel }}
  node_selector: {{ toJson .Values.gpu.nodeSelector }}
  tolerations: {{ toJson .Values.gpu.tolerations }}
spot:
  node_selector: {{ toJson $platform.spot.nodeSelector }}
  tolerations: {{ toJson $platform.spot.tolerations }}
namespace: {{ .Values.training.namespace | default nil | toJson }}
service_account: cytoray-training
environment:
  {{- merge (dict) $platform.environment (include "cytoray.training.environment" . | fromYaml) | toYaml | nindent 2 }}
secrets: {{ include "cytoray.training.secrets" . }}
home_claim: {{ include "cytoray.training.home" . }}
data_claims: {{ include "cytoray.training.dataClaims" . }}
{{- with .Values.privateCA }}
private_ca: {{ ternary (dict "config_map" .configMap "key" .key) nil (not (empty .configMap)) | toJson }}
{{- end }}
queue: {{ $platform.queue | default nil | toJson }}
priority: {{ include "cytoray.training.priority" . | default nil | toJson }}
submitter: {{ $platform.submitter }}
keep_seconds: {{ $platform.keepSeconds }}
keep_days: {{ $platform.keepDays }}
autoscaled: {{ $platform.autoscaled }}
deadline_seconds: {{ $platform.deadlineSeconds | default nil | toJson }}
head_cpus: {{ $platform.headCpus | quote }}
head_memory: {{ $platform.headMemory | quote }}
{{- end -}}

{{- define "cytoray.training.priority" -}}
{{- if .Values.platform.priority -}}{{ .Values.platform.priority }}
{{- else if .Values.priorityClasses.create -}}{{ .Release.Namespace }}-training
{{- end -}}
{{- end -}}
