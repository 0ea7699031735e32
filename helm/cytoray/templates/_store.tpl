{{/* A store in the namespace for trials: one pod with a volume, a service and a secret.
Argument: dict "root" $ "name" NAME "values" VALUES "user" NUMBER "port" NUMBER "container" YAML "init" YAML. */}}
{{- define "cytoray.store" -}}
apiVersion: apps/v1
kind: StatefulSet
metadata:
  name: cytoray-{{ .name }}
  labels:
    {{- include "cytoray.labels" (dict "root" .root "component" .name) | nindent 4 }}
spec:
  serviceName: cytoray-{{ .name }}
  replicas: 1
  selector:
    matchLabels:
      {{- include "cytoray.selector" (dict "root" .root "component" .name) | nindent 6 }}
  template:
    metadata:
      labels:
        {{- include "cytoray.selector" (dict "root" .root "component" .name) | nindent 8 }}
      {{- $kind := ternary "objectStore" .name (eq .name "s3") }}
      {{- with include "cytoray.pod.annotations" (dict "root" .root "kind" $kind "secrets" (list .name)) }}
      annotations:
        {{- . | nindent 8 }}
      {{- end }}
    spec:
      automountServiceAccountToken: false
      {{- include "cytoray.pod.fields" (dict "root" .root "kind" $kind) | nindent 6 }}
      securityContext:
        {{- include "cytoray.podSecurity" .user | nindent 8 }}
      {{- with .init }}
      initContainers:
        {{- . | nindent 8 }}
      {{- end }}
      containers:
        - name: {{ .name }}
          image: {{ .values.image }}
          imagePullPolicy: {{ .root.Values.image.pullPolicy }}
          {{- .container | nindent 10 }}
            {{- include "cytoray.pod.volumeMounts" (dict "root" .root "kind" $kind) | nindent 12 }}
          ports:
            - name: {{ .name }}
              containerPort: {{ .port }}
          resources:
            {{- toYaml .values.resources | nindent 12 }}
          securityContext:
            {{- include "cytoray.containerSecurity" . | nindent 12 }}
      volumes:
        - name: tmp
          emptyDir: {sizeLimit: 1Gi}
        {{- include "cytoray.pod.volumes" (dict "root" .root "kind" $kind) | nindent 8 }}
  volumeClaimTemplates:
    - metadata:
        name: data
      spec:
        accessModes: [ReadWriteOnce]
        {{- with .values.storageClass }}
        storageClassName: {{ . }}
        {{- end }}
        resources:
          requests:
            storage: {{ .values.size }}
---
apiVersion: v1
kind: Service
metadata:
  name: cytoray-{{ .name }}
  labels:
    {{- include "cytoray.labels" (dict "root" .root "component" .name) | nindent 4 }}
spec:
  selector:
    {{- include "cytoray.selector" (dict "root" .root "component" .name) | nindent 4 }}
  ports:
    - name: {{ .name }}
      port: {{ .port }}
      targetPort: {{ .name }}
      protocol: TCP
{{- end -}}

{{/* A secret that the chart creates once and then does not change; kept together with the volumes that depend on it.
Argument: dict "root" $ "component" NAME "name" SECRET "data" (dict KEY VALUE). */}}
{{- define "cytoray.generatedSecret" -}}
apiVersion: v1
kind: Secret
metadata:
  name: {{ .name }}
  labels:
    {{- include "cytoray.labels" (dict "root" .root "component" .component) | nindent 4 }}
  annotations:
    cytoray.io/generated: "true"
    helm.sh/resource-policy: keep
type: Opaque
stringData:
  {{- range $key, $value := .data }}
  {{ $key }}: {{ $value | quote }}
  {{- end }}
{{- end -}}
