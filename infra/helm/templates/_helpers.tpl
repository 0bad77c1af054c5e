{{- define "ddpmctl.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag }}
{{- end }}

{{- /* What the autoscaler may start, as the orchestrator counts with it: Ray tells nobody. */ -}}
{{- define "ddpmctl.nodeTypes" -}}
[{"name": "cpu", "cpus": {{ .Values.cpu.cpus }}, "memory_gb": {{ trimSuffix "Gi" .Values.cpu.memory }}, "max_count": {{ .Values.cpu.maxReplicas }}}
{{- with .Values.gpu }}{{ if .enabled }}, {"name": "gpu", "cpus": {{ .cpus }}, "gpus": {{ .gpus }}, "memory_gb": {{ trimSuffix "Gi" .memory }}, "max_count": {{ .maxReplicas }}}{{ end }}{{ end }}]
{{- end }}

{{- /* A group of workers; of (name, root). */ -}}
{{- define "ddpmctl.group" -}}
{{- $group := index .root.Values .name }}
{{- $grows := .root.Values.autoscaling.enabled }}
- groupName: {{ .name }}
  replicas: {{ if $grows }}0{{ else }}{{ $group.replicas }}{{ end }}
  minReplicas: {{ if $grows }}0{{ else }}{{ $group.replicas }}{{ end }}
  maxReplicas: {{ if $grows }}{{ $group.maxReplicas }}{{ else }}{{ $group.replicas }}{{ end }}
  rayStartParams: {}
  template:
    metadata:
      labels: {app.kubernetes.io/name: ddpmctl, app.kubernetes.io/component: ray-worker}
    spec:
      serviceAccountName: ddpmctl
      automountServiceAccountToken: false
      terminationGracePeriodSeconds: 120
      {{- if $grows }}
      restartPolicy: Never        # autoscaler v2 replaces pods itself
      {{- end }}
      securityContext: {runAsNonRoot: true, runAsUser: 1000, fsGroup: 1000}
      {{- if eq .name "gpu" }}
      tolerations:
        - {key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}
        {{- if $group.spot.enabled }}
        - {key: {{ $group.spot.label }}, operator: Equal, value: {{ $group.spot.value | quote }}, effect: NoSchedule}
      nodeSelector: { {{- $group.spot.label }}: {{ $group.spot.value | quote -}} }
        {{- end }}
      {{- end }}
      containers:
        - name: ray-worker
          image: {{ include "ddpmctl.image" .root }}
          envFrom:
            - configMapRef: {name: ddpmctl-settings}
            - secretRef: {name: ddpmctl-store}
            - secretRef: {name: ddpmctl-mlflow}
          resources:
            {{- range list "requests" "limits" }}
            {{ . }}:
              cpu: {{ $group.cpus | quote }}
              memory: {{ $group.memory }}
              {{- if eq $.name "gpu" }}
              nvidia.com/gpu: {{ $group.gpus | quote }}
              {{- end }}
            {{- end }}
          securityContext:
            allowPrivilegeEscalation: false
            capabilities: {drop: [ALL]}
          volumeMounts:
            - {name: shm, mountPath: /dev/shm}
            - {name: ray, mountPath: /tmp/ray}
      volumes:
        - {name: shm, emptyDir: {medium: Memory, sizeLimit: {{ $group.sharedMemory }}}}
        - {name: ray, emptyDir: {}}
{{- end }}
