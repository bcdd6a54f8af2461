"""Every helm of the matrix against `penstock run`: install, upgrade, list, history, get, rollback, uninstall, lookup, with a
chart of kinds that are served. Run by `./dev interop`; `helm.py PENSTOCK [VERSION...]` runs only some."""
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from clients import all_clients
from support import Penstock, free_port

failures = []

CHART = {
    "Chart.yaml": "apiVersion: v2\nname: plant\nversion: 0.1.0\nappVersion: '1'\nkubeVersion: '>=1.25.0-0'\n",
    "values.yaml": "port: 1883\nmessage: hello\n",
    "templates/config.yaml": """apiVersion: v1
kind: ConfigMap
metadata: {name: "{{ .Release.Name }}-config"}
data:
  message: {{ .Values.message | quote }}
  known: {{ .Capabilities.APIVersions.Has "mqttbroker.iotoperations.azure.com/v1/BrokerListener" | quote }}
  brokers: {{ (lookup "mqttbroker.iotoperations.azure.com/v1" "Broker" "azure-iot-operations" "default").metadata.name | default "none" | quote }}
""",
    "templates/secret.yaml": "apiVersion: v1\nkind: Secret\nmetadata: {name: \"{{ .Release.Name }}-secret\"}\nstringData: {a: b}\n",
    "templates/service.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: \"{{ .Release.Name }}-web\"}\nspec:\n  type: {{ .Values.type | default \"ClusterIP\" }}\n  ports: [{name: http, port: 80, targetPort: 8080}]\n",
    "templates/account.yaml": "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: \"{{ .Release.Name }}\"}\n",
    "templates/listener.yaml": """apiVersion: mqttbroker.iotoperations.azure.com/v1
kind: BrokerListener
metadata: {name: "{{ .Release.Name }}-listener", namespace: azure-iot-operations}
spec:
  brokerRef: default
  serviceType: LoadBalancer
  ports: [{port: {{ .Values.port }}, protocol: Mqtt}]
""",
}

# As `helm create` writes it, with the version that the server has.
HPA = """apiVersion: {{ if .Capabilities.APIVersions.Has "autoscaling/v2" }}autoscaling/v2{{ else }}autoscaling/v1{{ end }}
kind: HorizontalPodAutoscaler
metadata: {name: "{{ .Release.Name }}"}
spec:
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: "{{ .Release.Name }}"}
  minReplicas: 1
  maxReplicas: 3
  metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 80}}}]
"""


def main():
    binary, wanted = sys.argv[1], sys.argv[2:]
    found, skipped = all_clients()
    with Penstock(binary) as p:
        p.wait_running("default")
        for name, kubectl, helm in found:
            if helm is None or (wanted and name not in wanted):
                continue
            home = tempfile.mkdtemp(prefix="penstock-helm-")
            env = {**p.env, "HOME": home}
            chart = pathlib.Path(home) / "chart"
            for file, text in CHART.items():
                (chart / file).parent.mkdir(parents=True, exist_ok=True)
                (chart / file).write_text(text)
            version = subprocess.run([str(helm), "version", "--short"], capture_output=True, text=True, env=env).stdout.strip().split("+")[0]
            before = len(failures)

            def run(tool, *words):
                return subprocess.run([str(tool), *words], capture_output=True, text=True, env=env, timeout=90)

            def expect(what, text, tool, *words):
                r = run(tool, *words)
                if r.returncode != 0 or text not in r.stdout + r.stderr:
                    failures.append(f"helm {version} {what}")
                    print(f"FAIL helm {version}: {what}\n    " + (r.stdout + r.stderr).strip()[:1500].replace("\n", "\n    "))
                return r

            ns, port, other = f"le-{name.replace('.', '-')}", free_port(), free_port()
            expect("upgrade --install --create-namespace", "STATUS: deployed", helm, "upgrade", "--install", "plant", str(chart), "-n", ns, "--create-namespace", "--set", f"port={port}")
            expect("its ConfigMap", "hello", kubectl, "get", "cm", "plant-config", "-n", ns, "-o", "jsonpath={.data.message}")
            expect("Capabilities", "true", kubectl, "get", "cm", "plant-config", "-n", ns, "-o", "jsonpath={.data.known}")
            expect("lookup", "default", kubectl, "get", "cm", "plant-config", "-n", ns, "-o", "jsonpath={.data.brokers}")
            expect("its listener", str(port), kubectl, "get", "brokerlistener", "plant-listener", "-n", "azure-iot-operations", "-o", "jsonpath={.spec.ports[0].port}")
            expect("upgrade", "STATUS: deployed", helm, "upgrade", "plant", str(chart), "-n", ns, "--set", f"port={other},message=changed,type=NodePort")
            expect("the change", "changed", kubectl, "get", "cm", "plant-config", "-n", ns, "-o", "jsonpath={.data.message}")
            expect("the change of the Service", "NodePort", kubectl, "get", "svc", "plant-web", "-n", ns)
            values = pathlib.Path(home) / "v.yaml"
            values.write_text(f"port: {other}\nmessage: from file\n")
            expect("upgrade -f", "STATUS: deployed", helm, "upgrade", "plant", str(chart), "-n", ns, "-f", str(values))
            expect("list", "plant", helm, "list", "-n", ns)
            expect("status", "deployed", helm, "status", "plant", "-n", ns)
            expect("history", "superseded", helm, "history", "plant", "-n", ns)
            expect("get manifest", "kind: BrokerListener", helm, "get", "manifest", "plant", "-n", ns)
            expect("rollback", "Rollback was a success", helm, "rollback", "plant", "1", "-n", ns)
            expect("what it rolled back", "hello", kubectl, "get", "cm", "plant-config", "-n", ns, "-o", "jsonpath={.data.message}")
            expect("uninstall --wait", "uninstalled", helm, "uninstall", "plant", "-n", ns, "--wait")
            # A chart of kinds that come with containers: helm tells why it cannot be.
            scaled = pathlib.Path(home) / "scaled"
            for file, text in {"Chart.yaml": CHART["Chart.yaml"].replace("plant", "scaled"), "templates/hpa.yaml": HPA}.items():
                (scaled / file).parent.mkdir(parents=True, exist_ok=True)
                (scaled / file).write_text(text)
            r = run(helm, "install", "scaled", str(scaled), "-n", ns)
            if r.returncode == 0 or "no HorizontalPodAutoscaler here: Penstock runs its own roles" not in r.stderr:
                failures.append(f"helm {version}: a chart with a HorizontalPodAutoscaler")
                print(f"FAIL helm {version}: a chart with a HorizontalPodAutoscaler\n    " + (r.stdout + r.stderr).strip()[:1500])
            expect("uninstall what failed", "uninstalled", helm, "uninstall", "scaled", "-n", ns)
            if run(kubectl, "get", "svc", "plant-web", "-n", ns).returncode == 0:
                failures.append(f"helm {version}: the Service is still there")
            print(f"helm {version}: {'all ok' if len(failures) == before else f'{len(failures) - before} failures'}", flush=True)
            shutil.rmtree(home, ignore_errors=True)
    for reason in skipped:
        print(f"SKIPPED: {reason}")
    print(f"FAILED: {len(failures)}" if failures else "helm: all ok")
    sys.exit(1 if failures else 0)


main()
