{{/* The pod, the same under StatefulSet (SQLite) and Deployment (Postgres). */}}
{{- define "invite-relay.pod" -}}
{{- $sqlite := eq .Values.store.engine "sqlite" }}
{{- $webhook := .Values.config.source.webhook.enabled }}
metadata:
  labels:
    {{- include "invite-relay.labels" . | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # A changed configuration needs new pods; a changed secret does not, the program reads its files again.
    checksum/config: {{ include "invite-relay.relayToml" . | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  serviceAccountName: {{ include "invite-relay.serviceAccountName" . }}
  automountServiceAccountToken: false
  # A Service named invite-relay would make INVITE_RELAY_… variables.
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ include "invite-relay.terminationGrace" . }}
  securityContext:
    {{- toYaml .Values.podSecurityContext | nindent 4 }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  containers:
    - name: invite-relay
      image: {{ include "invite-relay.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [serve]
      env:
        # Not an argument: what a person runs in the pod (doctor, invites …) finds it as well.
        - name: INVITE_RELAY_CONFIG
          value: /etc/invite-relay/relay.toml
        {{- with .Values.tracing.endpoint }}
        - name: OTEL_EXPORTER_OTLP_ENDPOINT
          value: {{ . | quote }}
        - name: K8S_POD_NAME
          valueFrom:
            fieldRef:
              fieldPath: metadata.name
        - name: K8S_NODE_NAME
          valueFrom:
            fieldRef:
              fieldPath: spec.nodeName
        - name: OTEL_RESOURCE_ATTRIBUTES
          value: {{ printf "k8s.namespace.name=%s,k8s.pod.name=$(K8S_POD_NAME),k8s.node.name=$(K8S_NODE_NAME)" $.Release.Namespace | quote }}
        {{- end }}
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      ports:
        - name: admin
          containerPort: 9090
        {{- if $webhook }}
        - name: webhook
          containerPort: 8080
        {{- end }}
      # Liveness depends on nothing else: an outage of broker, API or database restarts no pod.
      startupProbe:
        httpGet:
          path: /livez
          port: admin
        periodSeconds: 2
        failureThreshold: {{ .Values.startupFailureThreshold }}
      livenessProbe:
        httpGet:
          path: /livez
          port: admin
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      readinessProbe:
        httpGet:
          path: /readyz
          port: admin
        periodSeconds: 5
        timeoutSeconds: 3
        failureThreshold: 2
      {{- if and $webhook .Values.preStopSleepSeconds }}
      # Requests still come until every node has heard that the pod is leaving.
      lifecycle:
        preStop:
          sleep:
            seconds: {{ .Values.preStopSleepSeconds }}
      {{- end }}
      securityContext:
        {{- toYaml .Values.securityContext | nindent 8 }}
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        - name: config
          mountPath: /etc/invite-relay
          readOnly: true
        # Whole directories, never a subPath: only they follow a Secret that changes.
        - name: secrets
          mountPath: {{ include "invite-relay.secretsDir" . }}
          readOnly: true
        - name: tmp
          mountPath: /tmp
        {{- if $sqlite }}
        - name: data
          mountPath: {{ include "invite-relay.dataDir" . }}
        {{- end }}
        {{- with .Values.extraVolumeMounts }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
  volumes:
    - name: config
      configMap:
        name: {{ include "invite-relay.fullname" . }}
    - name: secrets
      projected:
        defaultMode: 0440
        sources:
          {{- include "invite-relay.secretSources" . | trim | nindent 10 }}
    - name: tmp
      emptyDir:
        sizeLimit: 64Mi
    {{- if and $sqlite .Values.store.persistence.existingClaim }}
    - name: data
      persistentVolumeClaim:
        claimName: {{ .Values.store.persistence.existingClaim }}
    {{- end }}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml .Values.topologySpreadConstraints | nindent 4 }}
  {{- else if include "invite-relay.several" . }}
  topologySpreadConstraints:
    {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
    - topologyKey: {{ . }}
      maxSkew: 1
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "invite-relay.selectorLabels" $ | nindent 10 }}
      matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
{{- end }}

{{/* Only the keys that are read are mounted; one that a Secret lacks keeps the pod from starting, with an event that names it. */}}
{{- define "invite-relay.secretSources" -}}
{{- $own := list }}
{{- range $file := include "invite-relay.files" . | fromJsonArray }}
{{- if not (hasKey $.Values.secrets.from $file) }}{{ $own = append $own $file }}{{ end }}
{{- end }}
{{- if $own }}
- secret:
    name: {{ include "invite-relay.secretName" . }}
    items:
      {{- range $own }}
      - key: {{ . }}
        path: {{ . }}
      {{- end }}
{{- end }}
{{- range $file, $from := .Values.secrets.from }}
- secret:
    name: {{ $from.name }}
    items:
      - key: {{ $from.key }}
        path: {{ $file }}
{{- end }}
{{- end }}
