"""Runs every block of docs/runbook.md as it stands, in a network of its own with the addresses the document uses."""
import pathlib
import re
import subprocess
import sys
import tempfile

from support import Penstock, in_own_network, wait_until

code = in_own_network(__file__, *sys.argv[1:])
if code is not None:
    sys.exit(code)

binary = pathlib.Path(sys.argv[1]).resolve()
document = (pathlib.Path(__file__).resolve().parents[2] / "docs" / "runbook.md").read_text()
blocks = re.findall(r"```sh run\n(.*?)```", document, re.S)
failed = 0
wanted = {  # block → what it must print
    0: ["aio-broker-frontend-0", "aio-broker"],
    1: ["default-18883-tls", "azure-iot-operations-aio-certificate-issuer"],
    2: ["Nothing was refused lately."],
    3: ["no authentication: anybody"],
    4: ["loadbalancer-listener-service", "LoadBalancer", "kubernetes.io/tls"],
    5: ["CONNACK (0)", "no faults"],
    6: ["no faults", "good: CN = client42a <- CN = Clients Root CA"],
    7: ["CONNACK (0)", "PUBACK", "listener loadbalancer-listener:8883", "clients with certificates of this CA are refused"],
    8: ["is issued by \"CN = Somebody\", which is neither trusted here nor among the certificates sent"],
    10: ["none of them would lose anything", "yes: by rule 0 of BrokerAuthorization connectors", "no: the rules of BrokerAuthorization connectors about this client (rule 0) do not allow Subscribe \"#\"", "group=connector_group", "no rule allows it"],
    11: ["user ann set in Secret azure-iot-operations/plant-users", "cross the network in clear text"],
    12: ["condition met"],
}
with Penstock(binary) as p, tempfile.TemporaryDirectory(prefix="penstock-runbook-") as home:
    wait_until(lambda: p.status("brokerlistener", "default").get("runtimeStatus", {}).get("status") == "Running", "the default listener")
    wait_until(lambda: "aio-broker-frontend-0" in p.run("get", "pod", "-A").stdout, "the Pods")
    env = {**p.env, "PATH": f"{binary.parent}:{p.env['PATH']}"}
    for number, block in enumerate(blocks):
        done = subprocess.run(["bash", "-euo", "pipefail", "-c", block], cwd=home, env=env, capture_output=True, text=True, timeout=120)
        missing = [text for text in wanted.get(number, []) if text not in done.stdout + done.stderr]
        if done.returncode != 0 or missing:
            failed += 1
            print(f"--- block {number} ended with {done.returncode}, missing {missing}:\n{block}\n--- printed:\n{done.stdout}{done.stderr}")
            break
    # The rotation of the last block: both CAs are in the bundle.
    if not failed:
        wait_until(lambda: p.get("configmap", "azure-iot-operations-aio-ca-trust-bundle")["data"]["ca.crt"].count("BEGIN CERTIFICATE") == 2, "old and new CA side by side")
    if failed:
        print(p.logs()[-3000:])
print(f"{len(blocks) - failed} passed, {failed} failed")
sys.exit(1 if failed else 0)
