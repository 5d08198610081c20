{{/*
What the schema cannot say: what belongs together. All problems are reported at once, each with its mend.
*/}}

{{/* A duration such as 250ms, 30s or 1m30s in whole seconds, rounded up; -1 where it is none. */}}
{{- define "invite-relay.seconds" -}}
{{- if regexMatch "^([0-9]+ *(ms|s|m|h) *)+$" . }}
{{- $ms := 0 }}
{{- range $part := regexFindAll "[0-9]+ *(ms|s|m|h)" . -1 }}
{{- $unit := regexFind "(ms|s|m|h)$" $part }}
{{- $ms = add $ms (mul (regexFind "^[0-9]+" $part | int64) (get (dict "ms" 1 "s" 1000 "m" 60000 "h" 3600000) $unit)) }}
{{- end }}
{{- div (add $ms 999) 1000 }}
{{- else }}-1{{ end }}
{{- end }}

{{/* Seconds that a stop may take: until the Service has forgotten the pod, and then the program's own grace. */}}
{{- define "invite-relay.stopSeconds" -}}
{{- add (include "invite-relay.preStop" . | int) (include "invite-relay.seconds" (.Values.config.shutdown.grace | toString) | int) }}
{{- end }}

{{- define "invite-relay.preStop" -}}
{{- if .Values.config.source.webhook.enabled }}{{ .Values.preStopSleepSeconds | int }}{{ else }}0{{ end }}
{{- end }}

{{- define "invite-relay.terminationGrace" -}}
{{- with .Values.terminationGracePeriodSeconds }}{{ . | int }}{{ else }}{{ add (include "invite-relay.stopSeconds" .) 10 }}{{ end }}
{{- end }}

{{- define "invite-relay.checks" -}}
{{- $problems := list }}
{{- range $check := list "ends" "replicas" "secrets" "inline" "owned" "grace" "exposure" "operators" }}
{{- $problems = concat $problems (include (printf "invite-relay.check.%s" $check) $ | fromJsonArray) }}
{{- end }}
{{- if $problems }}
{{- fail (printf "\n\n%d problem(s) in the values:\n  - %s\n" (len $problems) (join "\n  - " $problems)) }}
{{- end }}
{{- end }}

{{- define "invite-relay.check.ends" -}}
{{- $problems := list }}
{{- with .Values.config }}
{{- if not (or .source.rabbitmq.enabled .source.webhook.enabled) }}
{{- $problems = append $problems "no source: set config.source.rabbitmq.enabled or config.source.webhook.enabled to true" }}
{{- end }}
{{- if not (or .sink.rabbitmq.enabled .sink.webhook.enabled ((.sink.stdout | default dict).enabled)) }}
{{- $problems = append $problems "no sink: set config.sink.rabbitmq.enabled, config.sink.webhook.enabled or config.sink.stdout.enabled to true" }}
{{- end }}
{{- end }}
{{- toJson $problems }}
{{- end }}

{{- define "invite-relay.check.replicas" -}}
{{- $problems := list }}
{{- if eq .Values.store.engine "sqlite" }}
{{- if gt (int .Values.replicaCount) 1 }}
{{- $problems = append $problems (printf "replicaCount is %d, but an SQLite store serves one replica: set replicaCount to 1, or store.engine to postgres" (int .Values.replicaCount)) }}
{{- end }}
{{- if .Values.autoscaling.enabled }}
{{- $problems = append $problems "autoscaling.enabled is true, but an SQLite store serves one replica: set it to false, or store.engine to postgres" }}
{{- end }}
{{- end }}
{{- with .Values.autoscaling }}
{{- if gt (int .minReplicas) (int .maxReplicas) }}
{{- $problems = append $problems "autoscaling.minReplicas is above autoscaling.maxReplicas" }}
{{- end }}
{{- if and .enabled (eq .kind "keda") (not .keda.serverAddress) }}
{{- $problems = append $problems "autoscaling.keda.serverAddress is empty: set it to the address of Prometheus, or autoscaling.kind to hpa" }}
{{- end }}
{{- end }}
{{- toJson $problems }}
{{- end }}

{{/* Every secret that is read has a place it comes from; and what is given is read. */}}
{{- define "invite-relay.check.secrets" -}}
{{- $problems := list }}
{{- $files := include "invite-relay.files" . | fromJsonArray }}
{{- $values := .Values.secrets.values }}
{{- if and .Values.secrets.existingSecret $values }}
{{- $problems = append $problems "both secrets.existingSecret and secrets.values are set: use one" }}
{{- end }}
{{- if not .Values.secrets.existingSecret }}
{{- $missing := list }}
{{- range $file := $files }}
{{- if not (or (hasKey $.Values.secrets.from $file) (get $values $file)) }}{{ $missing = append $missing $file }}{{ end }}
{{- end }}
{{- if $missing }}
{{- $problems = append $problems (printf "secrets missing: %s. Name a Secret that has these keys in secrets.existingSecret, or give them in secrets.values or secrets.from" (join ", " $missing)) }}
{{- end }}
{{- end }}
{{- range $name := keys $values | sortAlpha }}
{{- if or (not (has $name $files)) (hasKey $.Values.secrets.from $name) }}
{{- $problems = append $problems (printf "secrets.values has %s, which nothing reads: enable what needs it, name it in a *_file key of config, or remove it" $name) }}
{{- end }}
{{- end }}
{{- range $name := keys .Values.secrets.from | sortAlpha }}
{{- if not (has $name $files) }}
{{- $problems = append $problems (printf "secrets.from has %s, which nothing reads: enable what needs it, name it in a *_file key of config, or remove it" $name) }}
{{- end }}
{{- end }}
{{- toJson $problems }}
{{- end }}

{{/* Secrets in the configuration would stand in a ConfigMap. sink.webhook.url has no file form. */}}
{{- define "invite-relay.check.inline" -}}
{{- $problems := list }}
{{- $places := list "admin.token" "dashdoc.token" "source.rabbitmq.url" "source.webhook.secrets" "source.webhook.tokens" "sink.rabbitmq.url" "sink.webhook.secret" }}
{{- range $name := keys (((.Values.config.dashdoc).accounts) | default dict) }}
{{- $places = append $places (printf "dashdoc.accounts.%s.token" $name) }}
{{- $places = append $places (printf "dashdoc.accounts.%s.webhook_secrets" $name) }}
{{- end }}
{{- range $place := $places }}
{{- $value := $.Values.config }}
{{- range $name := splitList "." $place }}
{{- $value = get ($value | default dict) $name }}
{{- end }}
{{- if $value }}
{{- $problems = append $problems (printf "config.%s is a secret, which would stand in a ConfigMap: put it into the Secret" $place) }}
{{- end }}
{{- end }}
{{- toJson $problems }}
{{- end }}

{{- define "invite-relay.check.owned" -}}
{{- $problems := list }}
{{- with .Values.config }}
{{- if (.admin).listen }}
{{- $problems = append $problems "config.admin.listen is set by the chart: remove it" }}
{{- end }}
{{- if .source.webhook.listen }}
{{- $problems = append $problems "config.source.webhook.listen is set by the chart: remove it" }}
{{- end }}
{{- if (.store).url }}
{{- $problems = append $problems "config.store.url is set by the chart: remove it; set store.engine, and store-url in the Secret for Postgres" }}
{{- end }}
{{- if and (.store).url_file (eq $.Values.store.engine "sqlite") }}
{{- $problems = append $problems "config.store.url_file goes with store.engine postgres: remove it, or set the engine" }}
{{- end }}
{{- end }}
{{- toJson $problems }}
{{- end }}

{{- define "invite-relay.check.grace" -}}
{{- $problems := list }}
{{- $grace := .Values.config.shutdown.grace | toString }}
{{- if lt (include "invite-relay.seconds" $grace | int) 0 }}
{{- $problems = append $problems (printf "config.shutdown.grace is %q: write it in ms, s, m or h, for example 20s" $grace) }}
{{- else }}
{{- with .Values.terminationGracePeriodSeconds }}
{{- if le (int .) (include "invite-relay.stopSeconds" $ | int) }}
{{- $problems = append $problems (printf "terminationGracePeriodSeconds is %d, but a stop may take %s seconds (config.shutdown.grace and preStopSleepSeconds): make it longer, or leave it empty" (int .) (include "invite-relay.stopSeconds" $)) }}
{{- end }}
{{- end }}
{{- end }}
{{- toJson $problems }}
{{- end }}

{{- define "invite-relay.check.exposure" -}}
{{- $problems := list }}
{{- if not .Values.config.source.webhook.enabled }}
{{- range $name := list "ingress" "httpRoute" }}
{{- if (get $.Values $name).enabled }}
{{- $problems = append $problems (printf "%s.enabled is true, but there is no webhook: set config.source.webhook.enabled to true, or %s.enabled to false" $name $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- if and .Values.ingress.enabled (not .Values.ingress.hosts) }}
{{- $problems = append $problems "ingress.hosts is empty: name at least one host" }}
{{- end }}
{{- if and .Values.httpRoute.enabled (not .Values.httpRoute.parentRefs) }}
{{- $problems = append $problems "httpRoute.parentRefs is empty: name the Gateway" }}
{{- end }}
{{- toJson $problems }}
{{- end }}

{{- define "invite-relay.check.operators" -}}
{{- $problems := list }}
{{- with .Values.monitoring }}
{{- if and .serviceMonitor.enabled .podMonitor.enabled }}
{{- $problems = append $problems "monitoring.serviceMonitor and monitoring.podMonitor would scrape twice: enable one" }}
{{- end }}
{{- end }}
{{- toJson $problems }}
{{- end }}
