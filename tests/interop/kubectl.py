"""Every kubectl of the matrix against `penstock run`: the verbs of the API one after the other. Run by `./dev interop`.
`kubectl.py PENSTOCK [VERSION...]` runs only some versions."""
import base64
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from clients import all_clients
from support import Penstock, free_port, listener, wait_until

NS = "azure-iot-operations"
failures = []


class Run:
    def __init__(self, penstock, name, binary):
        self.p, self.name, self.binary = penstock, name, str(binary)
        self.minor = int(name.split(".")[1])
        self.home = tempfile.mkdtemp(prefix="penstock-kubectl-")
        self.env = {**penstock.env, "HOME": self.home}

    def __call__(self, *words, stdin=None, timeout=60, env=None):
        return subprocess.run([self.binary, *words], capture_output=True, text=True, env={**self.env, **(env or {})}, input=stdin, timeout=timeout)

    def check(self, what, condition, result=None):
        good = bool(condition)
        if not good:
            failures.append(f"{self.name} {what}")
            print(f"FAIL kubectl {self.name}: {what}")
            if result is not None:
                print("   ", (result.stdout + result.stderr).strip()[:1500].replace("\n", "\n    "))
        return good

    def expect(self, what, text, *words, **more):
        """The command succeeds and prints the text."""
        result = self(*words, **more)
        self.check(what, result.returncode == 0 and text in result.stdout + result.stderr, result)
        return result

    def refuse(self, what, text, *words, **more):
        result = self(*words, **more)
        self.check(what, result.returncode != 0 and text in result.stderr, result)
        return result


def basics(k):
    k.expect("version", "v1.33.0", "version")
    k.expect("cluster-info", "running at", "cluster-info")
    k.expect("config view --flatten", "certificate-authority-data", "config", "view", "--flatten")
    k.expect("config use-context default", "Switched", "config", "use-context", "default")
    k.expect("get nodes -o wide", "Ready", "get", "nodes", "-o", "wide")
    k.expect("get pods", "aio-broker-frontend-0", "get", "pods", "-n", NS, "-o", "wide")
    k.expect("get all", "service/aio-broker", "get", "all", "-n", NS)
    k.expect("api-resources", "brokerlisteners", "api-resources")
    k.expect("api-versions", "mqttbroker.iotoperations.azure.com/v1", "api-versions")
    k.expect("get --raw", "ok", "get", "--raw", "/readyz")


def built_in_kinds(k):
    ns = f"test-{k.minor}"
    k.refuse("get namespace that is not there", "NotFound", "get", "namespace", ns)
    k.expect("create namespace", "created", "create", "namespace", ns)
    k.refuse("create it again", "AlreadyExists", "create", "namespace", ns)
    wait_until(lambda: k("get", "serviceaccount", "default", "-n", ns).returncode == 0, "the default account")
    k.expect("kube-root-ca.crt", "BEGIN CERTIFICATE", "get", "configmap", "kube-root-ca.crt", "-n", ns, "-o", r"jsonpath={.data.ca\.crt}")
    file = pathlib.Path(k.home) / "ca.pem"
    file.write_text("-----BEGIN X-----\n")
    k.expect("create configmap --from-file", "created", "create", "configmap", "clients42-ca", "-n", ns, f"--from-file=client_ca.pem={file}")
    r = k("get", "configmap", "clients42-ca", "-n", ns, "-o", "jsonpath={.data['client_ca\\.pem']}")
    k.check("jsonpath with brackets", r.stdout == file.read_text(), r)
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "tls.key", "-out", "tls.crt", "-subj", "/CN=x", "-days", "1"],
                   cwd=k.home, check=True, capture_output=True)
    k.expect("create secret tls", "created", "create", "secret", "tls", "broker-server-cert", "-n", ns, f"--cert={k.home}/tls.crt", f"--key={k.home}/tls.key")
    k.expect("create secret generic", "created", "create", "secret", "generic", "plain", "-n", ns, "--from-literal=a=b")
    k.expect("secret data", base64.b64encode(b"b").decode(), "get", "secret", "plain", "-n", ns, "-o", "jsonpath={.data.a}")
    k.expect("create secret docker-registry", "created", "create", "secret", "docker-registry", "litmus-credential", "-n", ns, "--docker-server=us-docker.pkg.dev", "--docker-username=_json_key", "--docker-password=x")
    k.expect("get secrets", "kubernetes.io/tls", "get", "secrets", "-n", ns)
    k.expect("field selector", "broker-server-cert", "get", "secrets", "-n", ns, "--field-selector", "type=kubernetes.io/tls", "-o", "name")
    k.expect("strategic patch", "patched", "patch", "configmap", "clients42-ca", "-n", ns, "-p", '{"data":{"more":"x"}}')
    k.expect("no change", "no change" if k.minor >= 20 else "", "patch", "configmap", "clients42-ca", "-n", ns, "-p", '{"data":{"more":"x"}}')
    k.expect("json patch", "patched", "patch", "configmap", "clients42-ca", "-n", ns, "--type=json", "-p", '[{"op":"remove","path":"/data/more"}]')
    k.expect("label", "labeled", "label", "configmap", "clients42-ca", "-n", ns, "line=7")
    k.expect("annotate", "annotated", "annotate", "configmap", "clients42-ca", "-n", ns, "note=x")
    k.expect("selector", "clients42-ca", "get", "cm", "-n", ns, "-l", "line in (7,8)", "-o", "name")
    k.expect("--show-labels", "line=7", "get", "cm", "-n", ns, "--show-labels")
    k.expect("--sort-by", "clients42-ca", "get", "cm", "-n", ns, "--sort-by=.metadata.name")
    k.expect("custom-columns", "clients42-ca", "get", "cm", "-n", ns, "-o", "custom-columns=N:.metadata.name")
    k.expect("describe", "client_ca.pem", "describe", "configmap", "clients42-ca", "-n", ns)
    k.expect("create service", "created", "create", "service", "nodeport", "web", "-n", ns, "--tcp=80:8080")
    r = k.expect("get service", "NodePort", "get", "svc", "web", "-n", ns)
    k.check("a node port is allocated", "80:3" in r.stdout, r)
    k.expect("create role", "created", "create", "role", "reader", "-n", ns, "--verb=get,list", "--resource=configmaps")
    k.expect("create quoted manifest", "kind: ConfigMap", "create", "configmap", "dry", "--dry-run=client", "-o", "yaml", "-n", ns)
    k.expect("--dry-run=server", "created (server dry run)", "create", "configmap", "dry", "--dry-run=server", "-n", ns)
    k.refuse("nothing was stored", "NotFound", "get", "configmap", "dry", "-n", ns)
    many = "\n---\n".join(f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: many-{i}, namespace: {ns}}}" for i in range(12))
    k.expect("apply many documents", "many-11", "apply", "-f", "-", stdin=many)
    k.expect("paging", "many-11", "get", "cm", "-n", ns, "--chunk-size=5")
    listed = json.dumps({"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "of-list", "namespace": ns}, "data": {"a": "b"}}]})
    k.expect("apply a List", "of-list", "apply", "-f", "-", stdin=listed)
    k.expect("create -f", "created", "create", "-f", "-", stdin=f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{generateName: made-, namespace: {ns}}}\n")
    if k.minor >= 28:
        k.expect("events", "PortOpen", "events", "-n", NS)
    k.expect("delete --all", "deleted", "delete", "configmap", "--all", "-n", ns)
    k.expect("delete namespace waits", "deleted", "delete", "namespace", ns)
    k.refuse("the namespace is gone", "NotFound", "get", "namespace", ns)


def accounts(k):
    ns, name = "default", f"user-{k.minor}"
    k.expect("create serviceaccount", "created", "create", "serviceaccount", name, "-n", ns)
    k.expect("create clusterrolebinding", "created", "create", "clusterrolebinding", f"{name}-binding", "--clusterrole", "cluster-admin", "--serviceaccount", f"{ns}:{name}")
    secret = f"apiVersion: v1\nkind: Secret\nmetadata:\n  name: {name}-secret\n  annotations:\n    kubernetes.io/service-account.name: {name}\ntype: kubernetes.io/service-account-token\n"
    k.expect("apply a token Secret", "created", "apply", "-f", "-", stdin=secret)
    token = wait_until(lambda: k("get", "secret", f"{name}-secret", "-o", "jsonpath={$.data.token}").stdout, "the token")
    plain = base64.b64decode(token).decode()
    server = k("config", "view", "-o", "jsonpath={.clusters[0].cluster.server}").stdout
    alone = {"KUBECONFIG": "/dev/null"}
    r = k("--server", server, "--insecure-skip-tls-verify", "--token", plain, "get", "namespaces", env=alone)
    k.check("the token is let in", r.returncode == 0 and "default" in r.stdout, r)
    r = k("--server", server, "--insecure-skip-tls-verify", "--token", plain + "x", "get", "namespaces", env=alone)
    k.check("a wrong token is 401", "Unauthorized" in r.stderr or "logged in" in r.stderr, r)
    k.expect("delete the binding", "deleted", "delete", "clusterrolebinding", f"{name}-binding")
    r = k("--server", server, "--insecure-skip-tls-verify", "--token", plain, "get", "namespaces", env=alone)
    k.check("without the binding it is forbidden", "Forbidden" in r.stderr or "forbidden" in r.stderr, r)
    k.expect("create role", "created", "create", "role", f"{name}-role", "--verb=get,list,create", "--resource=configmaps")
    k.expect("create rolebinding", "created", "create", "rolebinding", f"{name}-rb", f"--role={name}-role", f"--serviceaccount={ns}:{name}")
    r = k("--server", server, "--insecure-skip-tls-verify", "--token", plain, "get", "configmaps", env=alone)
    k.check("a role lets in", r.returncode == 0, r)
    r = k("--server", server, "--insecure-skip-tls-verify", "--token", plain, "get", "secrets", env=alone)
    k.check("and no further", "cannot list resource \"secrets\"" in r.stderr, r)
    r = k("--server", server, "--insecure-skip-tls-verify", "--token", plain, "create", "clusterrolebinding", "grab", "--clusterrole=cluster-admin", f"--serviceaccount={ns}:{name}", env=alone)
    k.check("nobody raises themselves", "forbidden" in r.stderr, r)
    r = k("auth", "can-i", "get", "secrets", f"--as=system:serviceaccount:{ns}:{name}")
    k.check("auth can-i --as: no", r.stdout.strip().startswith("no"), r)
    r = k("auth", "can-i", "get", "configmaps", f"--as=system:serviceaccount:{ns}:{name}")
    k.check("auth can-i --as: yes", r.stdout.strip() == "yes", r)
    k.expect("auth can-i --list", "configmaps", "auth", "can-i", "--list", f"--as=system:serviceaccount:{ns}:{name}")
    if k.minor >= 28:
        k.expect("auth whoami", "system:admin", "auth", "whoami")
    if k.minor >= 25:
        r = k("create", "token", name, "--audience", "aio-internal", "--duration", "20m")
        k.check("create token", r.returncode == 0 and r.stdout.count(".") == 2, r)
        claims = json.loads(base64.urlsafe_b64decode(r.stdout.split(".")[1] + "=="))
        k.check("its claims", claims["aud"] == ["aio-internal"] and claims["exp"] - claims["iat"] == 1200 and claims["sub"] == f"system:serviceaccount:{ns}:{name}", r)
    k.expect("delete serviceaccount", "deleted", "delete", "serviceaccount", name)
    wait_until(lambda: k("get", "secret", f"{name}-secret").returncode != 0, "the token Secret goes with its account")


def listeners(k):
    one, two = free_port(), free_port()
    manifest = listener("plant", [f"port: {one}"], "LoadBalancer")
    k.expect("apply creates", "created", "apply", "-f", "-", stdin=manifest)
    k.expect("apply again", "", "apply", "-f", "-", stdin=manifest)
    k.check("and changes nothing", k.p.get("brokerlistener", "plant")["metadata"]["generation"] == 1)
    k.p.wait_running("plant")
    k.expect("columns", "Running", "get", "brokerlistener", "-n", NS)
    r = k("get", "service", "-n", NS)
    k.check("get service | grep LoadBalancer", any("LoadBalancer" in line and "plant" in line and "<pending>" not in line for line in r.stdout.splitlines()), r)
    patch = json.dumps({"spec": {"ports": [{"port": two, "protocol": "Mqtt"}]}})
    k.expect("patch --type=merge", "patched", "patch", "brokerlistener", "plant", "-n", NS, "--type=merge", "-p=" + patch)
    wait_until(lambda: f"{two}/tcp" in k("get", "brokerlistener", "plant", "-n", NS).stdout, "the patched port")
    r = k("get", "brokerlistener", "plant", "-n", NS, "-o", "jsonpath={.spec.ports[0].port}")
    k.check("jsonpath", r.stdout == str(two), r)
    if k.minor >= 25:
        k.expect("wait --for=jsonpath", "condition met", "wait", "brokerlistener/plant", "-n", NS, "--for=jsonpath={.status.runtimeStatus.status}=Running", "--timeout=10s")
    k.refuse("a strategic patch of a custom kind is 415", "UnsupportedMediaType" if k.minor < 25 else "", "patch", "brokerlistener", "plant", "-n", NS, "--type=strategic", "-p", "{}")
    k.refuse("a fault names the field", "spec.ports[0].port", "apply", "-f", "-", stdin=listener("plant", ["port: 70000"], "LoadBalancer"))
    k.refuse("an unknown field is refused", "colour", "apply", "-f", "-", stdin=listener("plant", [f"{{port: {two}, colour: red}}"], "LoadBalancer"))
    k.expect("describe", "Runtime Status", "describe", "brokerlistener", "plant", "-n", NS)
    k.expect("explain", "FIELD", "explain", "brokerlistener.spec.ports")
    k.expect("diff sees nothing", "", "diff", "-f", "-", stdin=listener("plant", [f"{{port: {two}, protocol: Mqtt}}"], "LoadBalancer"))
    r = k("diff", "-f", "-", stdin=listener("plant", [f"{{port: {one}, protocol: Mqtt}}"], "LoadBalancer"))
    k.check("diff shows a change", r.returncode == 1 and f"+  - port: {one}" in r.stdout, r)
    k.expect("apply --dry-run=server", "dry run", "apply", "--dry-run=server", "-f", "-", stdin=listener("plant", [f"port: {one}"], "LoadBalancer"))
    live = k("get", "brokerlistener", "plant", "-n", NS, "-o", "json").stdout
    changed = json.loads(live)
    changed["spec"]["ports"][0]["port"] = one
    k.expect("replace", "replaced", "replace", "-f", "-", stdin=json.dumps(changed))
    k.refuse("a lost update is a conflict", "Conflict" if k.minor < 25 else "modified", "replace", "-f", "-", stdin=live)
    k.expect("edit", "edited", "edit", "brokerlistener", "plant", "-n", NS, env={"KUBE_EDITOR": f"sed -i s/port:.{one}/port:\\ {two}/"})
    k.expect("delete waits", "deleted", "delete", "brokerlistener", "plant", "-n", NS)
    k.refuse("not found", "NotFound", "get", "brokerlistener", "plant", "-n", NS)
    wait_until(lambda: k("get", "service", "plant", "-n", NS).returncode != 0, "the Service goes with its listener")


def server_side_apply(k):
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: ssa-{0}, namespace: default}}\ndata: {{{1}}}\n"
    k.expect("apply --server-side", "serverside-applied", "apply", "--server-side", "--field-manager=one", "-f", "-", stdin=text.format(k.minor, "a: '1', b: '1'"))
    r = k.refuse("a conflict names manager and field", "conflict with \"one\"", "apply", "--server-side", "--field-manager=two", "-f", "-", stdin=text.format(k.minor, "a: '2'"))
    k.check("the field", ".data.a" in r.stderr, r)
    k.expect("the same value is shared", "serverside-applied", "apply", "--server-side", "--field-manager=two", "-f", "-", stdin=text.format(k.minor, "a: '1', c: '3'"))
    k.expect("--force-conflicts", "serverside-applied", "apply", "--server-side", "--field-manager=two", "--force-conflicts", "-f", "-", stdin=text.format(k.minor, "a: '2'"))
    r = k("get", "configmap", f"ssa-{k.minor}", "-o", "jsonpath={.data}")
    k.check("what left the configuration is gone, what others own stays", json.loads(r.stdout) == {"a": "2", "b": "1"}, r)
    name = f"moved-{k.minor}"
    plain = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: default}}\ndata: {{a: '1'}}\n"
    k.expect("client-side apply", "created", "apply", "-f", "-", stdin=plain)
    k.expect("moves to server-side", "serverside-applied", "apply", "--server-side", "-f", "-", stdin=plain.replace("'1'", "'2'"))
    k.expect("and again", "serverside-applied", "apply", "--server-side", "-f", "-", stdin=plain.replace("'1'", "'3'"))
    k.expect("delete", "deleted", "delete", "configmap", name, f"ssa-{k.minor}")


def applied_labels(k):
    """Removing one label from an applied file leaves those of others; removing the whole map takes them too."""
    name = f"labels-{k.minor}"
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: " + name + "\n  namespace: default\n"
    k.expect("apply with labels", "created", "apply", "-f", "-", stdin=text + "  labels: {a: '1', b: '2'}\n")
    k.expect("a label of somebody else", "labeled", "label", "configmap", name, "c=3")
    k.expect("apply without one label", "configured", "apply", "-f", "-", stdin=text + "  labels: {a: '1'}\n")
    r = k("get", "configmap", name, "-o", "jsonpath={.metadata.labels}")
    k.check("the others stay", json.loads(r.stdout) == {"a": "1", "c": "3"}, r)
    k.expect("apply without labels", "configured", "apply", "-f", "-", stdin=text)
    r = k("get", "configmap", name, "-o", "jsonpath={.metadata.labels}")
    k.check("the whole map is gone", r.stdout == "", r)
    k.expect("delete", "deleted", "delete", "configmap", name)


def watches(k):
    lines = []
    watch = subprocess.Popen([k.binary, "get", "configmap", "-n", "default", "-w", "-o", "name"], stdout=subprocess.PIPE, text=True, env=k.env)
    reader = threading.Thread(target=lambda: lines.extend(watch.stdout), daemon=True)
    reader.start()
    name = f"watched-{k.minor}"
    try:
        wait_until(lambda: any("kube-root-ca" in line for line in lines), "the first state")
        k("create", "configmap", name)
        wait_until(lambda: any(name in line for line in lines), "the watch shows it")
    finally:
        watch.terminate()
        watch.wait()
    deleted = subprocess.Popen([k.binary, "wait", "--for=delete", f"configmap/{name}", "--timeout=20s", "-v=6"], env=k.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    # It must have found the object before that goes: kubectl 1.20 fails on one that is gone already.
    while (line := deleted.stderr.readline()) and not ("configmaps" in line and name in line and "200 OK" in line):
        pass
    k("delete", "configmap", name)
    deleted.communicate(timeout=30)
    k.check("wait --for=delete", deleted.returncode == 0)


def definitions(k):
    group = f"g{k.minor}.example.com"
    crd = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": f"valves.{group}"},
           "spec": {"group": group, "names": {"plural": "valves", "singular": "valve", "kind": "Valve", "shortNames": ["vv"]}, "scope": "Namespaced",
                    "versions": [{"name": "v1", "served": True, "storage": True, "subresources": {"status": {}},
                                  "additionalPrinterColumns": [{"name": "Opening", "type": "integer", "jsonPath": ".spec.opening"}],
                                  "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "required": ["opening"], "properties": {
                                      "opening": {"type": "integer", "minimum": 0, "maximum": 100, "description": "In percent."}, "mode": {"type": "string", "enum": ["auto", "manual"], "default": "auto"}}},
                                      "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}}}}]}}
    k.expect("apply a definition", "created", "apply", "-f", "-", stdin=json.dumps(crd))
    k.expect("wait for Established", "condition met", "wait", "--for=condition=Established", f"crd/valves.{group}", "--timeout=10s")
    valve = f"apiVersion: {group}/v1\nkind: Valve\nmetadata: {{name: inlet, namespace: default}}\nspec: {{opening: 30}}\n"
    k.expect("apply an object of it", "created", "apply", "-f", "-", stdin=valve)
    k.expect("its columns", "OPENING", "get", f"valves.{group}")
    k.expect("its default", "auto", "get", f"valve.{group}", "inlet", "-o", "jsonpath={.spec.mode}")
    k.refuse("its bounds", "spec.opening", "apply", "-f", "-", stdin=valve.replace("opening: 30", "opening: 300"))
    k.expect("explain reads its schema", "In percent", "explain", "valve.spec.opening", f"--api-version={group}/v1")
    k.expect("delete the definition", "deleted", "delete", "crd", f"valves.{group}")
    r = k("get", f"valves.{group}")
    k.check("its objects are gone with it", r.returncode != 0, r)


def owners(k):
    ns = "default"
    k.expect("owner", "created", "create", "configmap", "owner")
    uid = k("get", "configmap", "owner", "-o", "jsonpath={.metadata.uid}").stdout
    child = f"apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: child\n  namespace: {ns}\n  ownerReferences: [{{apiVersion: v1, kind: ConfigMap, name: owner, uid: {uid}, blockOwnerDeletion: true}}]\n"
    k.expect("child", "created", "apply", "-f", "-", stdin=child)
    k.expect("--cascade=orphan" if k.minor >= 20 else "--cascade=false", "deleted", "delete", "configmap", "owner", "--cascade=orphan")
    r = k("get", "configmap", "child", "-o", "jsonpath={.metadata.ownerReferences}")
    k.check("an orphan stays without owner", r.returncode == 0 and r.stdout == "", r)
    k("delete", "configmap", "child")
    k("create", "configmap", "owner")
    uid2 = k("get", "configmap", "owner", "-o", "jsonpath={.metadata.uid}").stdout
    k("apply", "-f", "-", stdin=child.replace(uid, uid2))
    k.expect("--cascade=foreground", "deleted", "delete", "configmap", "owner", "--cascade=foreground")
    k.check("the dependent went first", k("get", "configmap", "child").returncode != 0)
    held = f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: held, namespace: {ns}, finalizers: [example.com/hold]}}\n"
    k("apply", "-f", "-", stdin=held)
    k("delete", "configmap", "held", "--wait=false")
    r = k("get", "configmap", "held", "-o", "jsonpath={.metadata.deletionTimestamp}")
    k.check("a finalizer holds", r.returncode == 0 and r.stdout != "", r)
    k.expect("and lets go", "patched", "patch", "configmap", "held", "--type=merge", "-p", '{"metadata":{"finalizers":null}}')
    k.check("then it is gone", k("get", "configmap", "held").returncode != 0)


def pods(k):
    k.expect("logs -c broker", "the broker has started broker=azure-iot-operations/default", "-n", NS, "logs", "aio-broker-frontend-0", "-c", "broker")
    r = k.expect("logs of the operator", "listener open", "-n", NS, "logs", "aio-broker-operator-0", "-c", "operator")
    k.refuse("an unknown container", "is not valid for pod", "-n", NS, "logs", "aio-broker-operator-0", "-c", "nobody")
    r = k("-n", NS, "logs", "aio-broker-operator-0", "--tail=1", "--timestamps")
    k.check("--tail --timestamps", len(r.stdout.splitlines()) == 1 and r.stdout[:2] == "20", r)
    lines = []
    follow = subprocess.Popen([k.binary, "-n", NS, "logs", "-f", "--tail=0", "aio-broker-operator-0"], stdout=subprocess.PIPE, text=True, env=k.env)
    threading.Thread(target=lambda: lines.extend(follow.stdout), daemon=True).start()
    port = free_port()
    try:
        wait_until(lambda: follow.poll() is None, "logs -f runs")
        # The follower must be connected before the line is written: it is asked for again until it shows.
        def followed():
            k("apply", "-f", "-", stdin=listener("followed", [f"port: {port}"], "LoadBalancer"))
            k.p.wait_running("followed")
            k("delete", "brokerlistener", "followed", "-n", NS)
            return any("followed" in line for line in lines)
        wait_until(followed, "the followed line", 30)
    finally:
        follow.terminate()
        follow.wait()
    local = free_port()
    target = k("-n", NS, "get", "service", "aio-broker", "-o", "jsonpath={.spec.ports[0].port}").stdout
    # The default listener is TLS with service-account tokens.
    authority = pathlib.Path(k.home) / "ca.crt"
    authority.write_text(k("-n", NS, "get", "configmap", "azure-iot-operations-aio-ca-trust-bundle", "-o", r"jsonpath={.data.ca\.crt}").stdout)
    k("-n", NS, "create", "serviceaccount", f"forward-{k.minor}")
    token = k.p.run("create", "token", f"forward-{k.minor}", "-n", NS, "--audience", "aio-internal").stdout.strip()
    login = ["--cafile", str(authority), "-V", "5", "-D", "connect", "authentication-method", "K8S-SAT", "-D", "connect", "authentication-data", token]
    # A Service of type NodePort names the port that is bound, not the one it has itself.
    nodes = listener(f"nodes-{k.minor}", ["{port: 1884, nodePort: 31884}"], "NodePort")
    k.expect("apply a NodePort listener", "created", "apply", "-f", "-", stdin=nodes)
    k.p.wait_running(f"nodes-{k.minor}")
    for what, remote, words in (("pod/aio-broker-frontend-0", target, login), ("service/aio-broker", target, login), (f"service/nodes-{k.minor}", "1884", ["-V", "5"])):
        forward = subprocess.Popen([k.binary, "-n", NS, "port-forward", what, f"{local}:{remote}"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=k.env)
        try:
            said = forward.stdout.readline()
            if k.check(f"port-forward {what} starts", "Forwarding" in said):
                # Mosquitto through the forwarded port, twice.
                for _ in range(2):
                    r = subprocess.run(["mosquitto_pub", "-h", "localhost", "-p", str(local), *words, "-t", "a", "-m", "x" * 100_000, "-q", "1"], capture_output=True, text=True, timeout=20)
                    k.check(f"a client through port-forward {what}", r.returncode == 0, r)
            if remote == "1884":
                k.check("it leads to the node port", "-> 31884" in said)
        finally:
            forward.terminate()
            forward.communicate()
    k("-n", NS, "delete", "brokerlistener", f"nodes-{k.minor}")
    r = k("run", "x", "--image=y")
    k.check("pods cannot be made", r.returncode != 0, r)


def workloads(k):
    """Nothing here runs containers: what asks for them is answered, and what only looks for them goes on."""
    for words in (["create", "deployment", "x", "--image=y"], ["create", "job", "x", "--image=y"], ["run", "x", "--image=y"]):
        k.refuse(" ".join(words), "no containers", *words)
    k.refuse("exec", "no exec here: Pod aio-broker-frontend-0 is a role of the penstock process", "-n", NS, "exec", "aio-broker-frontend-0", "--", "ls")
    manifest = {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "x", "namespace": "default"},
                "spec": {"serviceName": "x", "selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "x", "image": "y"}]}}}}
    k.refuse("apply -f StatefulSet", "no StatefulSet here", "apply", "-f", "-", stdin=json.dumps(manifest))
    brought = [("autoscaling/v1", "HorizontalPodAutoscaler"), ("scheduling.k8s.io/v1", "PriorityClass"), ("networking.k8s.io/v1", "IngressClass"),
               ("v1", "ResourceQuota"), ("v1", "LimitRange"), ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
               ("policy/v1beta1" if k.minor < 21 else "policy/v1", "PodDisruptionBudget")]
    if k.minor >= 25:
        brought.append(("autoscaling/v2", "HorizontalPodAutoscaler"))
    for version, kind in brought:
        manifest = {"apiVersion": version, "kind": kind, "metadata": {"name": "x", "namespace": "default"}}
        k.refuse(f"apply -f {kind} of {version}", f"no {kind} here: Penstock runs", "apply", "-f", "-", stdin=json.dumps(manifest))
        k.expect(f"explain {kind}", "no containers", "explain", kind.lower())
    for words in (["quota", "x", "--hard=pods=1"], ["priorityclass", "x", "--value=1"], ["pdb", "x", "--selector=a=b", "--min-available=1"],
                  ["ingress", "x", "--rule=a.example/=b:80"], ["cronjob", "x", "--image=y", "--schedule=* * * * *"]):
        k.refuse("create " + words[0], "no containers", "create", *words)
    r = k("get", "hpa,pc,ingressclass,quota,limits,pdb,mutatingwebhookconfigurations,apiservices")
    k.check("get of what there is none of", r.returncode == 0 and "No resources found" in r.stderr, r)
    r = k.expect("get endpointslices", "kubernetes.io/service-name=aio-broker", "get", "endpointslices", "-n", NS, "--show-labels")
    k.check("its columns", "IPv4" in r.stdout and "ADDRESSTYPE" in r.stdout, r)
    address = k("get", "endpoints", "aio-broker", "-n", NS, "-o", "jsonpath={.subsets[0].addresses[0].ip}").stdout
    k.expect("describe service shows the addresses", f"{address}:", "describe", "service", "aio-broker", "-n", NS)
    for path in ("/api/v1/namespaces/", "/api/v1/configmaps"):
        k.refuse("a raw path without a name", "does not allow this method", "delete", "--raw", path)
    k.refuse("they are read-only", "written by Penstock alone" if k.minor >= 25 else "", "delete", "endpointslices", "--all", "-n", NS)
    k.expect("cluster-info dump", '"kind": "NodeList"', "cluster-info", "dump")
    # With the kinds that kubectl prunes when none are named, workloads among them.
    config = lambda name: {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default", "labels": {"pruned": "yes"}}}
    both = {"apiVersion": "v1", "kind": "List", "items": [config("stays"), config("goes")]}
    k.expect("apply two", "configmap/goes created", "apply", "-f", "-", stdin=json.dumps(both))
    k.expect("apply --prune", "configmap/goes pruned", "apply", "--prune", "-l", "pruned=yes", "-f", "-", stdin=json.dumps(config("stays")))
    k("delete", "configmap", "stays", "-n", "default")


def earlier_versions(k):
    group = "mqttbroker.iotoperations.azure.com"
    manifest = {"apiVersion": f"{group}/v1beta1", "kind": "BrokerAuthentication", "metadata": {"name": "of-old", "namespace": NS},
                "spec": {"authenticationMethods": [{"method": "x509Credentials", "x509Credentials": {"trustedClientCaCert": "client-ca"}}]}}
    r = k.expect("apply v1beta1", "brokerauthentication.mqttbroker.iotoperations.azure.com/of-old created", "apply", "-f", "-", stdin=json.dumps(manifest))
    k.check("it is deprecated", f"{group}/v1beta1 BrokerAuthentication is deprecated; use {group}/v1 BrokerAuthentication" in r.stderr, r)
    k.expect("apply it again", "of-old", "apply", "-f", "-", stdin=json.dumps(manifest))
    k.expect("it is kept as v1", "client-ca", "get", "brokerauthentication", "of-old", "-n", NS, "-o", "jsonpath={.spec.authenticationMethods[0].x509Settings.trustedClientCaCert}")
    k.expect("get by version", f"{group}/v1beta2", "get", f"brokerauthentications.v1beta2.{group}", "of-old", "-n", NS, "-o", "jsonpath={.apiVersion}")
    k.expect("delete by version", "deleted", "delete", f"brokerauthentications.v1beta1.{group}", "of-old", "-n", NS)


def main():
    binary, wanted = sys.argv[1], sys.argv[2:]
    found, skipped = all_clients()
    with Penstock(binary) as p:
        p.wait_running("default")
        for name, kubectl, _ in found:
            if wanted and name not in wanted:
                continue
            k = Run(p, name, kubectl)
            before = len(failures)
            for part in (basics, built_in_kinds, accounts, listeners, server_side_apply, applied_labels, watches, definitions, owners, pods, workloads, earlier_versions):
                try:
                    part(k)
                except Exception as error:
                    k.check(f"{part.__name__} ended: {error}", False)
            print(f"kubectl {name}: {'all ok' if len(failures) == before else f'{len(failures) - before} failures'}", flush=True)
            shutil.rmtree(k.home, ignore_errors=True)
    for reason in skipped:
        print(f"SKIPPED: {reason}")
    print(f"FAILED: {len(failures)}" if failures else "kubectl: all ok")
    sys.exit(1 if failures else 0)


main()
