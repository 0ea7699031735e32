{{/* The beginning of a policy; what may pass follows. Trainings are no pods of the release: they are known by these labels.
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

{{/* Pods of other parts. Argument: a list of their names. */}}
{{- define "cytoray.policyPeers" -}}
{{- range . }}
- podSelector:
    matchLabels:
      app.kubernetes.io/part-of: cytoray
      app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/* Ways to other parts. Argument: a map from their names to their ports. */}}
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
