{{/* Names and labels. */}}

{{- define "invite-relay.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* At most 50 characters: "-admin", "-dashboard-…" and what controllers append must fit into 63. */}}
{{- define "invite-relay.fullname" -}}
{{- $name := include "invite-relay.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "invite-relay.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "invite-relay.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "invite-relay.secretName" -}}
{{- default (include "invite-relay.fullname" .) .Values.secrets.existingSecret }}
{{- end }}

{{/* What never changes in the life of a release: selectors are immutable. */}}
{{- define "invite-relay.selectorLabels" -}}
app.kubernetes.io/name: {{ include "invite-relay.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: relay
{{- end }}

{{- define "invite-relay.labels" -}}
{{- include "invite-relay.labelsOf" (dict "root" . "component" "relay") }}
{{- end }}

{{/* Labels of an object of another component, as dict root, component. */}}
{{- define "invite-relay.labelsOf" -}}
app.kubernetes.io/name: {{ include "invite-relay.name" .root }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: {{ .root.Chart.Name }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "invite-relay.image" -}}
{{- with .Values.image }}
{{- if .digest }}
{{- printf "%s@%s" .repository .digest }}
{{- else }}
{{- printf "%s:%s" .repository (default $.Chart.AppVersion .tag) }}
{{- end }}
{{- end }}
{{- end }}

{{/* "true" when more than one replica may run. */}}
{{- define "invite-relay.several" -}}
{{- if or (and .Values.autoscaling.enabled (gt (int .Values.autoscaling.minReplicas) 1)) (and (not .Values.autoscaling.enabled) (gt (int .Values.replicaCount) 1)) }}true{{ end }}
{{- end }}
