{{/* A part of an object in the form that KubeRay's operator writes back, the same as cytoray_services.jobs.kubernetes.written_back,
which explains the reason and the source of each rule. Argument: dict "node" PART "key" NAME. Returns {"v": PART} in JSON, and {}
for parts that the operator omits. */}}
{{- define "cytoray.kuberay.written" -}}
{{- $node := .node -}}
{{- $key := .key -}}
{{- $result := dict "v" $node -}}
{{- if kindIs "map" $node -}}
  {{- if has $key (list "labels" "annotations" "nodeSelector" "matchLabels") -}}
    {{- if not $node }}{{ $result = dict }}{{ end -}}
  {{- else if has $key (list "requests" "limits") -}}
    {{- $amounts := dict -}}
    {{- range $name, $amount := $node }}{{ $_ := set $amounts $name (include "cytoray.kuberay.quantity" $amount) }}{{ end -}}
    {{- $result = ternary (dict "v" $amounts) dict (not (empty $amounts)) -}}
  {{- else if ne $key "rayStartParams" -}}
    {{- $kept := dict -}}
    {{- range $name, $value := $node -}}
      {{- with include "cytoray.kuberay.written" (dict "node" $value "key" $name) | fromJson }}{{ $_ := set $kept $name .v }}{{ end -}}
    {{- end -}}
    {{- range $name, $value := index (include "cytoray.kuberay.added" . | fromYaml) $key | default dict -}}
      {{- if not (hasKey $kept $name) }}{{ $_ := set $kept $name $value }}{{ end -}}
    {{- end -}}
    {{- $result = dict "v" $kept -}}
  {{- end -}}
{{- else if kindIs "slice" $node -}}
  {{- $all := list -}}
  {{- range $node -}}
    {{- $one := . -}}
    {{- if kindIs "map" . }}{{ $one = (include "cytoray.kuberay.written" (dict "node" . "key" (printf "%s[]" $key)) | fromJson).v }}{{ end -}}
    {{- $all = append $all $one -}}
  {{- end -}}
  {{- $result = ternary (dict "v" $all) dict (not (empty $all)) -}}
{{- else if eq $key "sizeLimit" -}}
  {{- $result = dict "v" (include "cytoray.kuberay.quantity" $node) -}}
{{- else if or (kindIs "invalid" $node) (and (eq (toString $node) "") (not (has $key (list "storageClassName" "runtimeClassName")))) -}}
  {{- $result = dict -}}
{{- else if and (kindIs "bool" $node) (not $node) (has $key (list "readOnly" "hostNetwork" "hostPID" "hostIPC" "stdin" "stdinOnce" "tty")) -}}
  {{- $result = dict -}}
{{- else if and (eq (toString $node) "0") (has $key (list "hostPort" "initialDelaySeconds" "timeoutSeconds" "periodSeconds" "successThreshold" "failureThreshold")) -}}
  {{- $result = dict -}}
{{- end -}}
{{- toJson $result -}}
{{- end -}}

{{/* Defaults that are added if they are missing, by the name of the parent field. */}}
{{- define "cytoray.kuberay.added" -}}
"workerGroupSpecs[]": {numOfHosts: 1, priority: 0, scaleStrategy: {}}
template: {metadata: {}}
"containers[]": {resources: {}}
"initContainers[]": {resources: {}}
"ports[]": {protocol: TCP}
resourceFieldRef: {divisor: "0"}
clusterUpgradeOptions: {maxSurgePercent: 100}
{{- end -}}

{{/* A quantity in the canonical form of Kubernetes. Argument: the quantity, such as 0.5 or 8192Mi. */}}
{{- define "cytoray.kuberay.quantity" -}}
{{- $text := toString . -}}
{{- $number := regexFind "^[0-9]+([.][0-9]+)?" $text -}}
{{- $unit := trimPrefix $number $text -}}
{{- $binary := list "" "Ki" "Mi" "Gi" "Ti" "Pi" "Ei" -}}
{{- $decimal := list "n" "u" "m" "" "k" "M" "G" "T" "P" "E" -}}
{{- if and $unit (has $unit $binary) -}}
  {{- $at := 0 -}}
  {{- range $index, $one := $binary }}{{ if eq $one $unit }}{{ $at = $index }}{{ end }}{{ end -}}
  {{- $amount := float64 $number -}}
  {{- range until $at }}{{ if ne $amount (floor $amount) }}{{ $amount = mulf $amount 1024 }}{{ $at = sub $at 1 }}{{ end }}{{ end -}}
  {{- if ne $amount (floor $amount) -}}
    {{- include "cytoray.kuberay.quantity" (printf "%.3f" $amount) -}}
  {{- else -}}
    {{- $whole := int64 $amount -}}
    {{- range until (int (sub 6 $at)) }}{{ if and (gt $whole 0) (eq (mod $whole 1024) 0) }}{{ $whole = div $whole 1024 }}{{ $at = add $at 1 }}{{ end }}{{ end -}}
    {{- if eq (int $at) 0 }}{{ include "cytoray.kuberay.quantity" (toString $whole) }}{{ else }}{{ $whole }}{{ index $binary (int $at) }}{{ end -}}
  {{- end -}}
{{- else if has $unit $decimal -}}
  {{- $at := 0 -}}
  {{- range $index, $one := $decimal }}{{ if eq $one $unit }}{{ $at = $index }}{{ end }}{{ end -}}
  {{- $digits := index (splitList "." $number) 0 -}}
  {{- $fraction := regexReplaceAll "0+$" (trimPrefix "." (trimPrefix $digits $number)) "" -}}
  {{- range until 9 }}{{ if ne $fraction "" }}
    {{- $digits = print $digits (trunc 3 (print $fraction "00")) }}{{ $at = sub $at 1 }}
    {{- $fraction = trimPrefix (trunc 3 $fraction) $fraction }}
  {{- end }}{{ end -}}
  {{- $digits = regexReplaceAll "^0+" $digits "" | default "0" -}}
  {{- range until 9 }}{{ if and (ne $digits "0") (hasSuffix "000" $digits) (lt (int $at) 9) }}{{ $digits = trimSuffix "000" $digits }}{{ $at = add $at 1 }}{{ end }}{{ end -}}
  {{- if lt (int $at) 0 }}{{ $text }}{{ else if eq $digits "0" }}0{{ else }}{{ $digits }}{{ index $decimal (int $at) }}{{ end -}}
{{- else -}}
  {{- $text -}}
{{- end -}}
{{- end -}}
