{{/* The configuration of the jobs service, cytoray_services.jobs.service.config.JobsServiceConfig. */}}
{{- define "cytoray.jobs.config" -}}
{{- $fixed := dict
  "place" (printf "kubernetes:/%s" .Release.Namespace)
  "tokens" "/etc/cytoray/tokens/tokens.json"
  "audit" "/var/lib/cytoray/audit/jobs.jsonl" }}
{{- mergeOverwrite (deepCopy .Values.jobs.config) $fixed | toYaml }}
{{- end -}}
