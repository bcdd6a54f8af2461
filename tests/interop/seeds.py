"""The kubectl and helm lines a usual installation's notes have, as they are typed, against `penstock run`.
Run by `./dev interop` with the newest kubectl and helm of the matrix."""
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from clients import all_clients
from support import Penstock, listener, wait_until

LINES = [
    # (what is typed, what it must print; None: an empty answer without an error)
    ("kubectl config view --flatten > merged && cat merged", "certificate-authority-data"),
    ("kubectl config use-context default", "Switched to context"),
    ("kubectl version --client", "Client Version"),
    ("kubectl get nodes -o wide", "Ready"),
    ("kubectl get pods -n azure-arc -o wide", "No resources found"),
    ("kubectl create serviceaccount arc-user -n default", "created"),
    ("kubectl create clusterrolebinding arc-user-binding --clusterrole cluster-admin --serviceaccount default:arc-user", "created"),
    ("""kubectl apply -f - <<EOF
apiVersion: v1
kind: Secret
metadata:
  name: arc-user-secret
  annotations:
    kubernetes.io/service-account.name: arc-user
type: kubernetes.io/service-account-token
EOF""", "created"),
    ("sleep 1; TOKEN=$(kubectl get secret arc-user-secret -o jsonpath='{$.data.token}' | base64 -d); echo ${#TOKEN} ${TOKEN:0:2}", " ey"),
    ("kubectl get namespace azure-iot-operations || kubectl create namespace azure-iot-operations", "azure-iot-operations"),
    ("kubectl -n azure-iot-operations get pods", "aio-broker-frontend-0"),
    ("kubectl -n azure-iot-operations get svc | grep broker", "aio-broker"),
    ("""kubectl patch brokerlistener loadbalancer-listener -n azure-iot-operations --type='merge' -p='{
  "spec": {
    "ports": [
      {
        "port": 8883,
        "protocol": "Mqtt",
        "tls": {
          "mode": "automatic",
          "certManagerCertificateSpec": {
            "issuerRef": {
              "group": "cert-manager.io",
              "kind": "ClusterIssuer",
              "name": "azure-iot-operations-aio-certificate-issuer"
            },
            "privateKey": { "algorithm": "Ec256", "rotationPolicy": "Always" },
            "san": { "dns": ["n013edge.local"], "ip": ["10.13.100.11", "100.81.128.71"] }
          }
        }
      }
    ]
  }
}'""", "patched"),
    ("kubectl get service -n azure-iot-operations | grep LoadBalancer", "loadbalancer-listener"),
    ("sleep 1; kubectl get certificates -n azure-iot-operations", "loadbalancer-listener-8883-tls"),
    (r"kubectl get secret aio-broker-internal-ca -n azure-iot-operations -o jsonpath='{.data.ca\.crt}' | base64 -d > broker-ca.crt; head -1 broker-ca.crt", "BEGIN CERTIFICATE"),
    (r"""kubectl get configmap azure-iot-operations-aio-ca-trust-bundle -n azure-iot-operations -o "jsonpath={.data['ca\.crt']}" > ca.cert; head -1 ca.cert""", "BEGIN CERTIFICATE"),
    ("mosquitto_pub -h localhost -p 8883 -t 'test/topic' -m 'hello' --cafile broker-ca.crt -d", "CONNACK (0)"),
    ("""openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout mqtts-endpoint.key -out mqtts-endpoint.crt -subj /CN=endpoint -days 1 2>/dev/null
kubectl create secret tls broker-server-cert -n azure-iot-operations \\
  --cert=mqtts-endpoint.crt \\
  --key=mqtts-endpoint.key""", "created"),
    ("kubectl get secrets -n azure-iot-operations | grep tls", "broker-server-cert"),
    ("""cp mqtts-endpoint.crt clients_root_ca.crt; cp mqtts-endpoint.crt litmusedge_root_ca.crt
kubectl create configmap clients42-ca -n azure-iot-operations \\
  --from-file=client_ca.pem=clients_root_ca.crt""", "created"),
    ("kubectl -n azure-iot-operations logs aio-broker-frontend-0 -c broker", ""),
    ("kubectl create namespace 'le-prod'", "created"),
    ("kubectl create secret docker-registry litmus-credential --docker-server=us-docker.pkg.dev --docker-username=_json_key --docker-password=secret", "created"),
    ("helm upgrade --install litmusedge ./litmusedge -n le-prod --create-namespace", "STATUS: deployed"),
    ("helm upgrade --install litmusedge ./litmusedge -n le-prod --create-namespace --set service.externalAccess=true", "REVISION: 2"),
    ("kubectl create configmap litmusedge-ca -n azure-iot-operations --from-file=client_ca.pem=litmusedge_root_ca.crt", "created"),
]

CHART = {
    "Chart.yaml": "apiVersion: v2\nname: litmusedge\nversion: 0.1.0\n",
    "values.yaml": "service: {externalAccess: false}\n",
    "templates/service.yaml": "apiVersion: v1\nkind: Service\nmetadata: {name: litmusedge}\nspec:\n  type: {{ ternary \"LoadBalancer\" \"ClusterIP\" .Values.service.externalAccess }}\n  ports: [{name: https, port: 443}]\n",
}


def main():
    found, skipped = all_clients()
    found = [entry for entry in found if entry[2] is not None]
    if not found:
        print("SKIPPED: the typed lines: " + "; ".join(skipped))
        return 0
    name, kubectl, helm = found[-1]
    failures = 0
    with Penstock(sys.argv[1]) as p, tempfile.TemporaryDirectory(prefix="penstock-seeds-") as home:
        p.wait_running("default")
        expected = p.run("apply", "-f", p.write("lb.yaml", listener("loadbalancer-listener", ["{port: 8883, protocol: Mqtt}"], "LoadBalancer")))
        assert expected.returncode == 0, expected.stderr
        wait_until(lambda: p.get("service", "loadbalancer-listener"), "the Service")
        for file, text in CHART.items():
            path = pathlib.Path(home) / "litmusedge" / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        env = {**p.env, "HOME": home, "PATH": f"{pathlib.Path(kubectl).parent}:{pathlib.Path(helm).parent}:{p.env['PATH']}"}
        for line, text in LINES:
            r = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=env, cwd=home, timeout=60)
            if r.returncode != 0 or text not in r.stdout + r.stderr:
                failures += 1
                print(f"FAIL {line}\n    {(r.stdout + r.stderr).strip()}")
    print(f"typed lines with kubectl {name}: {'all ok' if failures == 0 else f'{failures} of {len(LINES)} failed'}")
    return 1 if failures else 0


sys.exit(main())
