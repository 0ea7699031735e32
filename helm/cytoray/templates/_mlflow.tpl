{{/* A container of MLflow's server, or one that prepares it.
Argument: dict "root" $ "name" NAME "command" LIST. */}}
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
    # MLflow's own jobs evaluate language models; they would need a disk.
    - name: MLFLOW_SERVER_ENABLE_JOB_EXECUTION
      value: "false"
    {{- include "cytoray.variables" (merge (include "cytoray.s3.environment" .root | fromYaml) (include "cytoray.ca.environment" .root | fromYaml)) | nindent 4 }}
    {{- include "cytoray.pod.variables" (dict "root" .root "kind" "mlflow") | nindent 4 }}
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
    {{- include "cytoray.ca.volumeMounts" .root | nindent 4 }}
    {{- include "cytoray.pod.volumeMounts" (dict "root" .root "kind" "mlflow") | nindent 4 }}
{{- end -}}
