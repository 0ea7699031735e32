{{/* The start of a policy; the allowed connections follow. Training runs are not pods of the release: these labels select them.
Argument: dict "root" $ "name" NAME "component" NAME or nothing "labels" (dict FURTHER) "types" LIST. */}}
{{- define "cytoray.policy" -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: cytoray-{{ .name }}
  labels:
    {{- include "cytoray.labels" (dict "root" .root "component" (.component | default "network")) | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      app.kubernetes.io/part-of: cytoray
      {{- with .component }}
      app.kubernetes.io/component: {{ . }}
      {{- end }}
      {{- with .labels }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
  policyTypes: {{ toJson .types }}
{{- end -}}

{{/* Ports. Argument: a list of numbers. */}}
{{- define "cytoray.policyPorts" -}}
{{- range . }}
- port: {{ . }}
  protocol: TCP
{{- end }}
{{- end -}}

{{/* Pods of other parts. Argument: a list of their names, NAME@NAMESPACE for those of another namespace. */}}
{{- define "cytoray.policyPeers" -}}
{{- range . }}
{{- $part := splitList "@" . }}
- podSelector:
    matchLabels:
      app.kubernetes.io/part-of: cytoray
      app.kubernetes.io/component: {{ first $part }}
  {{- with rest $part }}
  namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ first . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* Connections to other parts. Argument: a map from their names to their ports. */}}
{{- define "cytoray.policyTo" -}}
{{- range $component, $port := . }}
- to:
    {{- include "cytoray.policyPeers" (list $component) | nindent 4 }}
  ports:
    {{- include "cytoray.policyPorts" (list $port) | nindent 4 }}
{{- end }}
{{- end -}}

{{- define "cytoray.policyApiServer" -}}
- to:
    - ipBlock: {cidr: {{ .apiServer.cidr }}}
  ports:
    {{- include "cytoray.policyPorts" .apiServer.ports | nindent 4 }}
{{- end -}}

{{/* Connections to DNS and to external addresses. */}}
{{- define "cytoray.policyOutside" -}}
- ports:
    {{- range .dnsPorts }}
    - {port: {{ . }}, protocol: UDP}
    - {port: {{ . }}, protocol: TCP}
    {{- end }}
{{- range .outside }}
- to:
    - ipBlock: {cidr: {{ .cidr }}}
  ports:
    {{- include "cytoray.policyPorts" .ports | nindent 4 }}
{{- end }}
{{- end -}}

{{/* KubeRay's operator, which connects to heads. */}}
{{- define "cytoray.policyOperator" -}}
- from:
    - namespaceSelector: {}
      podSelector:
        matchLabels:
          app.kubernetes.io/name: kuberay-operator
  ports:
    {{- include "cytoray.policyPorts" (list 8265) | nindent 4 }}
{{- end -}}
