"""kubectl against `penstock run`: what a person types about brokers and listeners. Run by `./dev interop`."""
import json
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from support import Penstock, broker, free_port, listener, wait_until

NS = "azure-iot-operations"
p = Penstock(sys.argv[1])
failures = []


def kubectl(*words, stdin=None):
    return subprocess.run(["kubectl", *words], capture_output=True, text=True, env=p.env, input=stdin, timeout=60)


def check(name, condition, shown=""):
    print(("ok   " if condition else "FAIL ") + name)
    if not condition:
        failures.append(name)
        print(shown)


with p:
    r = kubectl("version", "--short") if "--short" in kubectl("version", "--help").stdout else kubectl("version")
    check("version", "v1.33.0" in r.stdout, r.stderr)
    r = kubectl("get", "namespaces")
    check("get namespaces", NS in r.stdout, r.stderr)
    one, two = free_port(), free_port()
    manifest = listener("plant", [f"port: {one}"], "LoadBalancer")
    r = kubectl("apply", "-f", "-", stdin=manifest)
    check("apply creates", "created" in r.stdout, r.stderr)
    r = kubectl("apply", "-f", "-", stdin=manifest)
    # kubectl sends the list again because the live one has a defaulted field; the object must stay what it was.
    check("apply again changes nothing", r.returncode == 0 and p.get("brokerlistener", "plant")["metadata"]["generation"] == 1, r.stdout + r.stderr)
    p.wait_running("plant")
    r = kubectl("get", "brokerlistener", "-n", NS)
    check("get shows columns", "PORTS" in r.stdout and "Running" in r.stdout, r.stdout + r.stderr)
    r = kubectl("get", "service", "-n", NS)
    check("get service shows the load balancer", any("LoadBalancer" in line and "plant" in line for line in r.stdout.splitlines()), r.stdout)
    r = kubectl("patch", "brokerlistener", "plant", "-n", NS, "--type=merge", "-p=" + json.dumps({"spec": {"ports": [{"port": two, "protocol": "Mqtt"}]}}))
    check("patch --type=merge", "patched" in r.stdout, r.stderr)
    wait_until(lambda: f"{two}/tcp" in kubectl("get", "brokerlistener", "plant", "-n", NS).stdout, "the patched port")
    r = kubectl("get", "brokerlistener", "plant", "-n", NS, "-o", "jsonpath={.spec.ports[0].port}")
    check("jsonpath", r.stdout == str(two), r.stdout + r.stderr)
    r = kubectl("wait", "brokerlistener/plant", "-n", NS, "--for=jsonpath={.status.runtimeStatus.status}=Running", "--timeout=10s")
    check("wait", "condition met" in r.stdout, r.stdout + r.stderr)
    r = kubectl("apply", "-f", "-", stdin=listener("plant", ["port: 70000"], "LoadBalancer"))
    check("a fault names the field", "spec.ports[0].port" in r.stderr, r.stderr)
    r = kubectl("label", "brokerlistener", "plant", "-n", NS, "line=7")
    check("label", "labeled" in r.stdout, r.stderr)
    r = kubectl("get", "brokerlistener", "-A", "-l", "line=7", "-o", "name")
    check("selector", "plant" in r.stdout, r.stderr)
    r = kubectl("describe", "brokerlistener", "plant", "-n", NS)
    check("describe", "Runtime Status" in r.stdout, r.stderr)
    r = kubectl("explain", "brokerlistener.spec.ports")
    check("explain", "FIELD" in r.stdout, r.stdout + r.stderr)
    r = kubectl("delete", "brokerlistener", "plant", "-n", NS)
    check("delete", "deleted" in r.stdout, r.stderr)
    r = kubectl("get", "brokerlistener", "plant", "-n", NS)
    check("not found", "NotFound" in r.stderr, r.stderr)
print(f"{'FAILED: ' + ', '.join(failures) if failures else 'kubectl: all ok'}")
sys.exit(1 if failures else 0)
