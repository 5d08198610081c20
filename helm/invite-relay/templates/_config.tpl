{{/*
The program's configuration: what the values say, with what the chart knows better. Helm's own toToml writes every
whole number of a values file as a float, which the program refuses, so the few lines at the end write TOML.
*/}}

{{- define "invite-relay.secretsDir" -}}/run/secrets/invite-relay{{- end }}
{{- define "invite-relay.dataDir" -}}/var/lib/invite-relay{{- end }}

{{- define "invite-relay.listen" -}}
{{- $address := .root.Values.listenAddress }}
{{- if contains ":" $address }}{{ printf "[%s]:%d" $address .port }}{{ else }}{{ printf "%s:%d" $address .port }}{{ end }}
{{- end }}

{{/* The whole configuration, as JSON; names of secrets not yet made into paths. */}}
{{- define "invite-relay.config" -}}
{{- $config := deepCopy .Values.config }}
{{- range $section := list "source" "sink" "admin" "dashdoc" "store" }}
{{- $_ := set $config $section (get $config $section | default dict) }}
{{- end }}
{{- range $end := list $config.source $config.sink }}
{{- range $kind := list "rabbitmq" "webhook" }}
{{- $_ := set $end $kind (get $end $kind | default dict) }}
{{- end }}
{{- end }}
{{- $_ := set $config.admin "listen" (include "invite-relay.listen" (dict "root" . "port" 9090)) }}
{{- $_ := set $config.admin "token_file" ($config.admin.token_file | default "admin-token") }}
{{- $_ := set $config.dashdoc "token_file" ($config.dashdoc.token_file | default "dashdoc-token") }}
{{- range $name, $account := $config.dashdoc.accounts | default dict }}
{{- $_ := set $account "token_file" ($account.token_file | default (printf "dashdoc-token-%s" $name)) }}
{{- if $account.webhook_path }}
{{- $_ := set $account "webhook_secrets_file" ($account.webhook_secrets_file | default (printf "webhook-secrets-%s" $name)) }}
{{- end }}
{{- end }}
{{- if $config.source.rabbitmq.enabled }}
{{- $_ := set $config.source.rabbitmq "url_file" ($config.source.rabbitmq.url_file | default "rabbitmq-url") }}
{{- else if $config.sink.rabbitmq.enabled }}
{{- $_ := set $config.sink.rabbitmq "url_file" ($config.sink.rabbitmq.url_file | default "rabbitmq-url") }}
{{- end }}
{{- with $config.source.webhook }}
{{- if .enabled }}
{{- $_ := set . "listen" (include "invite-relay.listen" (dict "root" $ "port" 8080)) }}
{{- if not (or .secrets_file .tokens_file .insecure_accept_unsigned) }}
{{- $_ := set . "secrets_file" "webhook-secrets" }}
{{- end }}
{{- end }}
{{- end }}
{{- if $config.sink.webhook.enabled }}
{{- $_ := set $config.sink.webhook "secret_file" ($config.sink.webhook.secret_file | default "sink-secret") }}
{{- end }}
{{- if eq .Values.store.engine "sqlite" }}
{{- $_ := set $config.store "url" (printf "sqlite://%s/invite-relay.db" (include "invite-relay.dataDir" .)) }}
{{- else }}
{{- $_ := set $config.store "url_file" ($config.store.url_file | default "store-url") }}
{{- end }}
{{- toJson $config }}
{{- end }}

{{/* The paths that senders post to, as JSON: the one for everybody, and those of single accounts. */}}
{{- define "invite-relay.webhookPaths" -}}
{{- $config := include "invite-relay.config" . | fromJson }}
{{- $paths := list $config.source.webhook.path }}
{{- range $account := $config.dashdoc.accounts }}
{{- with $account.webhook_path }}
{{- $paths = append $paths . }}
{{- end }}
{{- end }}
{{- toJson $paths }}
{{- end }}

{{/*
Walks a table, given as dict table, files: notes each bare name of a *_file key in files, and makes it a path. Parts that
are not enabled read no secrets.
*/}}
{{- define "invite-relay.walk" -}}
{{- $table := .table }}
{{- $files := .files }}
{{- if ne (get $table "enabled" | toString) "false" }}
{{- range $key, $value := $table }}
{{- if kindIs "map" $value }}
{{- include "invite-relay.walk" (dict "table" $value "files" $files) }}
{{- else if and (hasSuffix "_file" $key) (kindIs "string" $value) $value (not (contains "/" $value)) }}
{{- $_ := set $files $value true }}
{{- $_ := set $table $key (printf "%s/%s" (include "invite-relay.secretsDir" .) $value) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The secrets that the configuration reads, as a JSON list of names in order. */}}
{{- define "invite-relay.files" -}}
{{- $files := dict }}
{{- $_ := include "invite-relay.walk" (dict "table" (include "invite-relay.config" . | fromJson) "files" $files) }}
{{- keys $files | sortAlpha | toJson }}
{{- end }}

{{/* relay.toml */}}
{{- define "invite-relay.relayToml" -}}
{{- $config := include "invite-relay.config" . | fromJson }}
{{- $_ := include "invite-relay.walk" (dict "table" $config "files" dict) }}
{{- include "invite-relay.toml" (dict "path" "" "table" $config) | trim }}
{{- end }}

{{/* A table, given as dict path, table: its values, then its tables. What is null is left out. */}}
{{- define "invite-relay.toml" -}}
{{- $path := .path }}
{{- $lines := list }}
{{- range $key, $value := .table }}
{{- if not (or (kindIs "map" $value) (kindIs "invalid" $value)) }}
{{- $lines = append $lines (printf "%s = %s" (include "invite-relay.tomlKey" $key) (include "invite-relay.tomlValue" $value)) }}
{{- end }}
{{- end }}
{{- if $lines }}
{{- if $path }}
{{ printf "[%s]" $path }}
{{- end }}
{{ join "\n" $lines }}
{{ end }}
{{- range $key, $value := .table }}
{{- if kindIs "map" $value }}
{{- $name := include "invite-relay.tomlKey" $key }}
{{- include "invite-relay.toml" (dict "path" (ternary (printf "%s.%s" $path $name) $name (ne $path "")) "table" $value) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "invite-relay.tomlKey" -}}
{{- if regexMatch "^[A-Za-z0-9_-]+$" . }}{{ . }}{{ else }}{{ toRawJson . }}{{ end }}
{{- end }}

{{/* A JSON string is a TOML string. Numbers come as floats, whole ones too. */}}
{{- define "invite-relay.tomlValue" -}}
{{- if kindIs "float64" . }}
{{- if eq . (floor .) }}{{ printf "%.0f" . }}{{ else }}{{ printf "%v" . }}{{ end }}
{{- else if kindIs "slice" . }}
{{- $items := list }}
{{- range . }}{{ $items = append $items (include "invite-relay.tomlValue" .) }}{{ end }}
{{- printf "[%s]" (join ", " $items) }}
{{- else if kindIs "string" . }}{{ toRawJson . }}
{{- else }}{{ . }}
{{- end }}
{{- end }}
