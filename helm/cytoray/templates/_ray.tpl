{{/* Parts of the serving Ray cluster. */}}

{{/* The service's configuration, cytoray_serving.service.config.ServiceConfig. */}}
{{- define "cytoray.serving.config" -}}
{{- $config := deepCopy .Values.serving.config }}
{{- $allowed := deepCopy ($config.allowed | default dict) }}
{{- with include "cytoray.s3.endpoint" . }}
{{- $allowed = merge $allowed (dict "s3_endpoint" .) }}
{{- end }}
{{- if .Values.jobs.enabled }}
{{- $_ := set $config "jobs" (merge (deepCopy ($config.jobs | default dict)) (dict "url" "http://cytoray-jobs:8080")) }}
{{- end }}
{{- $fixed := dict
  "gateways" .Values.serving.gateways "gateway_nodes" "gateway" "metrics_port" 9464
  "tokens" "/etc/cytoray/tokens/tokens.json" "allowed" $allowed }}
{{- mergeOverwrite $config $fixed | toYaml }}
{{- end -}}

{{/* The configuration of Ray Serve: ray.serve.schema.ServeDeploySchema. */}}
{{- define "cytoray.serving.applications" -}}
proxy_location: EveryNode
http_options:
  host: 0.0.0.0
  port: 8000
grpc_options:
  port: 9000
  grpc_servicer_functions:
    - cytoray_serving.open_inference.protocol.open_inference_pb2_grpc.add_GRPCInferenceServiceServicer_to_server
logging_config:
  log_level: WARNING
  enable_access_log: false
applications:
  - name: cytoray
    route_prefix: /
    import_path: cytoray_serving.cluster:application
    args:
      config: /etc/cytoray/service.yaml
{{- end -}}

{{- define "cytoray.ray.volumes" -}}
- name: home
  persistentVolumeClaim:
    claimName: {{ include "cytoray.home.claim" .root }}
- name: service
  configMap:
    name: cytoray-service
- name: tokens
  secret:
    secretName: {{ .root.Values.serving.tokensSecret }}
- name: tmp
  emptyDir: {sizeLimit: {{ .root.Values.serving.disk.tmp }}}
- name: scratch
  emptyDir: {sizeLimit: {{ .root.Values.serving.disk.scratch }}}
# It counts towards the limit of the container; Ray uses a third of that for objects.
- name: shared-memory
  emptyDir:
    medium: Memory
    sizeLimit: {{ include "cytoray.half" .memory }}
{{- range .root.Values.dataClaims }}
- name: data-{{ . }}
  persistentVolumeClaim:
    claimName: {{ . }}
{{- end }}
{{- include "cytoray.ca.volumes" .root }}
{{ include "cytoray.pod.volumes" . }}
{{- end -}}

{{/* Half of a quantity: 3Gi gives 1536Mi. */}}
{{- define "cytoray.half" -}}
{{- $unit := regexFind "[KMGTkmi]*$" . -}}
{{- $smaller := dict "Ti" "Gi" "Gi" "Mi" "Mi" "Ki" "Ki" "" "T" "G" "G" "M" "M" "k" "k" "" -}}
{{- $amount := float64 (trimSuffix $unit .) -}}
{{- if not $unit -}}{{ divf $amount 2 | int64 }}
{{- else -}}{{ mulf $amount (ternary 512 500 (hasSuffix "i" $unit)) | int64 }}{{ get $smaller $unit }}
{{- end -}}
{{- end -}}

{{- define "cytoray.ray.volumeMounts" -}}
- name: home
  mountPath: /var/lib/cytoray
- name: service
  mountPath: /etc/cytoray/service.yaml
  subPath: service.yaml
  readOnly: true
- name: tokens
  mountPath: /etc/cytoray/tokens
  readOnly: true
- name: tmp
  mountPath: /tmp
- name: scratch
  mountPath: /scratch
- name: shared-memory
  mountPath: /dev/shm
{{- range .root.Values.dataClaims }}
- name: data-{{ . }}
  mountPath: /data/{{ . }}
{{- end }}
{{- include "cytoray.ca.volumeMounts" .root }}
{{ include "cytoray.pod.volumeMounts" . }}
{{- end -}}

{{- define "cytoray.ray.environment" -}}
CYTORAY_HOME: /var/lib/cytoray
CYTORAY_CACHE: /scratch/cache
HOME: /tmp
{{ include "cytoray.environment" . }}
{{- with .Values.serving.config.front }}
CYTORAY_FRONT_LIMITS: {{ toJson . | quote }}
{{- end }}
{{- range $name, $value := .Values.rayEnvironment }}
{{ $name }}: {{ $value | quote }}
{{- end }}
{{- end -}}

{{/* A Ray container. KubeRay adds the command `ray start …`, its environment variables and the probes.
Argument: dict "root" $ "kind" KIND "name" NAME "image" IMAGE "resources" RESOURCES "ports" (dict NAME NUMBER). */}}
{{- define "cytoray.ray.container" -}}
- name: {{ .name }}
  image: {{ .image }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  env:
    {{- include "cytoray.variables" (include "cytoray.ray.environment" .root | fromYaml) | nindent 4 }}
    - name: CYTORAY_FRONT_SECRET
      valueFrom:
        secretKeyRef:
          name: {{ include "cytoray.front.secret" .root }}
          key: secret
    {{- include "cytoray.pod.variables" . | nindent 4 }}
  {{- include "cytoray.s3.envFrom" .root | nindent 2 }}
  ports:
    {{- range $name, $port := .ports }}
    - name: {{ $name }}
      containerPort: {{ $port }}
    {{- end }}
  resources:
    {{- toYaml .resources | nindent 4 }}
  securityContext:
    {{- include "cytoray.containerSecurity" . | nindent 4 }}
  volumeMounts:
    {{- include "cytoray.ray.volumeMounts" . | nindent 4 }}
{{- end -}}

{{/* A group of workers. Argument: dict "root" $ "name" NAME "image" IMAGE "min" N "max" N "idle" SECONDS or nil
"offers" (Ray's resources) "ports" "resources" "placement" "runtimeClass". */}}
{{- define "cytoray.ray.workers" -}}
- groupName: {{ .name }}
  replicas: {{ .min }}
  minReplicas: {{ .min }}
  maxReplicas: {{ .max }}
  {{- with .idle }}
  idleTimeoutSeconds: {{ . }}
  {{- end }}
  resources:
    {{- toYaml .offers | nindent 4 }}
  rayStartParams:
    metrics-export-port: "8080"
  template:
    metadata:
      labels:
        {{- include "cytoray.selector" (dict "root" .root "component" "serving") | nindent 8 }}
      {{- with include "cytoray.pod.annotations" (dict "root" .root "kind" .name) }}
      annotations:
        {{- . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: cytoray-serving
      automountServiceAccountToken: false
      # Ray needs up to half a minute to drain a node.
      terminationGracePeriodSeconds: 60
      {{- include "cytoray.priorityClass" (dict "root" .root "class" "serving") | nindent 6 }}
      {{- with .runtimeClass }}
      runtimeClassName: {{ . }}
      {{- end }}
      securityContext:
        {{- include "cytoray.podSecurity" (include "cytoray.user" .) | nindent 8 }}
      {{- /* The old and the new cluster are spread separately. */}}
      {{- $spread := list }}
      {{- range .spread }}
      {{- $spread = append $spread (dict "topologyKey" . "maxSkew" 1 "whenUnsatisfiable" "ScheduleAnyway"
        "labelSelector" (dict "matchLabels" (dict "ray.io/group" $.name)) "matchLabelKeys" (list "ray.io/cluster")) }}
      {{- end }}
      {{- include "cytoray.pod.fields" (dict "root" .root "kind" .name "placement" .placement "spread" $spread) | nindent 6 }}
      containers:
        {{- include "cytoray.ray.container" (dict "root" .root "kind" .name "name" "ray-worker" "image" .image "resources" .resources "ports" .ports) | nindent 8 }}
      volumes:
        {{- include "cytoray.ray.volumes" (dict "root" .root "kind" .name "memory" .resources.limits.memory) | nindent 8 }}
{{- end -}}
