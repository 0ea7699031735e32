{{/* A container of MLflow's server, or one that prepares it.
Argument: dict "root" $ "name" NAME "command" LIST "scripts" BOOLEAN. */}}
{{- define "cytoray.mlflow.container" -}}
{{- $postgresql := .root.Values.postgresql -}}
- name: {{ .name }}
  image: {{ .root.Values.image.cpu }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  command:
    {{- range .command }}
    - {{ . | quote }}
    {{- end }}
  env:
    - name: HOME
      value: /tmp
    # MLflow's own jobs judge language models; they would need a disk.
    - name: MLFLOW_SERVER_ENABLE_JOB_EXECUTION
      value: "false"
    {{- include "cytoray.variables" (include "cytoray.s3.environment" .root | fromYaml) | nindent 4 }}
    - name: DATABASE_PASSWORD
      valueFrom:
        secretKeyRef:
          name: {{ include "cytoray.postgresql.secret" .root }}
          key: password
    - name: MLFLOW_BACKEND_STORE_URI
      value: postgresql+psycopg://{{ $postgresql.user }}:$(DATABASE_PASSWORD)@{{ $postgresql.host | default "cytoray-postgresql" }}:{{ $postgresql.port }}/{{ $postgresql.database }}
        {{- with $postgresql.options }}?{{ . }}{{ end }}
  {{- include "cytoray.s3.envFrom" .root | nindent 2 }}
  resources:
    {{- toYaml .root.Values.mlflow.resources | nindent 4 }}
  securityContext:
    {{- include "cytoray.containerSecurity" . | nindent 4 }}
  volumeMounts:
    - name: tmp
      mountPath: /tmp
    {{- if .scripts }}
    - name: scripts
      mountPath: /etc/cytoray
      readOnly: true
    {{- end }}
{{- end -}}
