{{/* Fields of pods from the values pods and privateCA. */}}

{{/* Further fields for a kind of pods, from pods.all and from pods.KIND, as JSON. Argument: dict "root" $ "kind" KIND. */}}
{{- define "cytoray.pod" -}}
{{- $all := .root.Values.pods.all }}
{{- $own := get .root.Values.pods .kind | default dict }}
{{- $pod := dict }}
{{- range list "annotations" "nodeSelector" "affinity" "environment" }}
{{- $_ := set $pod . (merge (dict) (get $own . | default dict | deepCopy) (get $all . | default dict | deepCopy)) }}
{{- end }}
{{- range list "tolerations" "topologySpreadConstraints" "imagePullSecrets" "volumes" "volumeMounts" }}
{{- $_ := set $pod . (concat (get $all . | default list) (get $own . | default list) | default list) }}
{{- end }}
{{- toJson $pod -}}
{{- end -}}

{{/* Placement of a pod, and secrets for pulling its images.
Argument: dict "root" $ "kind" KIND "placement" (dict "nodeSelector" "tolerations") or nothing "spread" CONSTRAINTS or nothing. */}}
{{- define "cytoray.pod.fields" -}}
{{- $pod := include "cytoray.pod" . | fromJson }}
{{- $placement := .placement | default dict }}
{{- range $field, $value := dict
  "imagePullSecrets" (concat .root.Values.image.pullSecrets $pod.imagePullSecrets | uniq)
  "nodeSelector" (merge (dict) $pod.nodeSelector ($placement.nodeSelector | default dict))
  "tolerations" (concat ($placement.tolerations | default list) $pod.tolerations)
  "affinity" $pod.affinity
  "topologySpreadConstraints" (concat (.spread | default list) $pod.topologySpreadConstraints) }}
{{- if and $value (eq $field "imagePullSecrets") }}
imagePullSecrets:
  {{- range $value }}
  - name: {{ . }}
  {{- end }}
{{- else if $value }}
{{ $field }}:
  {{- toYaml $value | nindent 2 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Annotations: those of the values, and a digest of the secrets that containers read as environment variables.
Argument: dict "root" $ "kind" KIND "secrets" (list of names such as redis). */}}
{{- define "cytoray.pod.annotations" -}}
{{- $root := .root }}
{{- $annotations := (include "cytoray.pod" . | fromJson).annotations }}
{{- $digests := list }}
{{- range .secrets }}{{ $digests = append $digests (include (printf "cytoray.%s.digest" .) $root) }}{{ end }}
{{- with compact $digests }}{{ $_ := set $annotations "checksum/secrets" (join " " . | sha256sum) }}{{ end }}
{{- with $annotations }}{{ toYaml . }}{{ end }}
{{- end -}}

{{- define "cytoray.pod.volumes" -}}
{{- with (include "cytoray.pod" . | fromJson).volumes }}{{ toYaml . }}{{ end }}
{{- end -}}

{{- define "cytoray.pod.volumeMounts" -}}
{{- with (include "cytoray.pod" . | fromJson).volumeMounts }}{{ toYaml . }}{{ end }}
{{- end -}}

{{- define "cytoray.pod.variables" -}}
{{- include "cytoray.variables" (include "cytoray.pod" . | fromJson).environment -}}
{{- end -}}

{{/* Certificates that containers trust. OpenSSL (Python, aiohttp, httpx), requests (MLflow), botocore, gRPC and Ray's Redis client
read them from different environment variables. */}}
{{- define "cytoray.ca.environment" -}}
{{- if .Values.privateCA.configMap }}
{{- range list "SSL_CERT_FILE" "REQUESTS_CA_BUNDLE" "CURL_CA_BUNDLE" "AWS_CA_BUNDLE" "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH" "RAY_REDIS_CA_CERT" }}
{{ . }}: /etc/cytoray/ca/ca.crt
{{- end }}
{{- end }}
{{- end -}}

{{- define "cytoray.ca.volumes" -}}
{{- with .Values.privateCA }}
{{- if .configMap }}
- name: ca
  configMap:
    name: {{ .configMap }}
    items:
      - {key: {{ .key }}, path: ca.crt}
{{- end }}
{{- end }}
{{- end -}}

{{- define "cytoray.ca.volumeMounts" -}}
{{- if .Values.privateCA.configMap }}
- name: ca
  mountPath: /etc/cytoray/ca
  readOnly: true
{{- end }}
{{- end -}}

{{/* A digest that changes with a secret; empty when rendering without a cluster, so that two renders are the same. For a secret that
the chart creates, the digest of its values; for an existing secret, of its content in the cluster with its uid, so that the content
cannot be guessed from the digest.
Argument: dict "root" $ "name" SECRET "given" VALUE "keys" LIST. */}}
{{- define "cytoray.digest" -}}
{{- $root := .root }}{{ $name := .name }}
{{- if .given }}
{{- with lookup "v1" "Secret" $root.Release.Namespace $name }}{{ printf "%s %s" .metadata.uid (toJson .data) | sha256sum }}{{ end }}
{{- else if lookup "v1" "ServiceAccount" $root.Release.Namespace "default" }}
{{- $values := list }}
{{- range .keys }}{{ $values = append $values (include "cytoray.password" (dict "root" $root "name" $name "key" .)) }}{{ end }}
{{- join " " $values | sha256sum }}
{{- end }}
{{- end -}}

{{- define "cytoray.front.digest" -}}
{{- include "cytoray.digest" (dict "root" . "name" (include "cytoray.front.secret" .) "given" .Values.serving.frontSecret "keys" (list "secret")) -}}
{{- end -}}
{{- define "cytoray.redis.digest" -}}
{{- include "cytoray.digest" (dict "root" . "name" (include "cytoray.redis.secret" .) "given" .Values.redis.secret "keys" (list "password")) -}}
{{- end -}}
{{- define "cytoray.postgresql.digest" -}}
{{- include "cytoray.digest" (dict "root" . "name" (include "cytoray.postgresql.secret" .) "given" .Values.postgresql.secret "keys" (list "password")) -}}
{{- end -}}
{{- define "cytoray.s3.digest" -}}
{{- with include "cytoray.s3.secret" . }}
{{- include "cytoray.digest" (dict "root" $ "name" . "given" $.Values.objectStore.secret "keys" (list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY")) -}}
{{- end }}
{{- end -}}
