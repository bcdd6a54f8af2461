"""The resource commands, manifests beside people, the roles in processes of their own. Standard library only."""
import base64
import gzip
import json
import os
import pathlib
import re
import resource
import shutil
import signal
import socket
import sqlite3
import ssl
import struct
import subprocess
import sys
import time
import urllib.error
import urllib.request
import zlib

from support import Penstock, broker, free_port, listener, wait_until

BINARY = sys.argv[1]
NS = "azure-iot-operations"


def expect(result, text, code=0):
    assert result.returncode == code and text in result.stdout + result.stderr, (result.args, result.returncode, result.stdout, result.stderr)
    return result.stdout


def commands():
    with Penstock(BINARY) as p:
        p.wait_running("default")
        expect(p.run("get", "all"), "aio-broker-frontend-0")
        expect(p.run("get", "node", "-o", "wide"), "KERNEL-VERSION")
        expect(p.run("describe", "brokerlistener", "default"), "Runtime Status")
        wait_until(lambda: "PortOpen" in p.run("describe", "brokerlistener/default").stdout, "the Event in describe")
        expect(p.run("explain", "brokerlistener.spec.ports.protocol"), "Transport.")
        expect(p.run("explain", "brokerlistener.spec.prots"), "did you mean ports?", 1)
        expect(p.run("api-resources"), "brokerlisteners")
        expect(p.run("wait", "brokerlistener/default", "--for=jsonpath={.status.runtimeStatus.status}=Running"), "condition met")
        expect(p.run("wait", "pod/aio-broker-frontend-0", "--for=condition=Ready"), "condition met")
        expect(p.run("wait", "brokerlistener/default", "--for=jsonpath={.status.runtimeStatus.status}=Gone", "--timeout=1s"), "timed out", 1)
        expect(p.run("wait", "brokerlistener/default", "--for=sunshine"), "not known", 1)
        expect(p.run("logs", "aio-broker-operator-0", "--tail", "1"), "control")
        expect(p.run("logs", "aio-broker-operator-0", "-c", "nobody"), "not valid for pod", 1)
        token = expect(p.run("create", "token", "default", "-n", "default", "--audience", "aio-internal", "--duration", "15m"), "ey")
        assert token.count(".") == 2
        expect(p.run("create", "token", "nobody"), "NotFound", 1)
        expect(p.run("completion", "bash"), "complete -F")
        subprocess.run(["bash", "-n"], input=p.run("completion", "bash").stdout, text=True, check=True)
        expect(p.run("get", "nothing"), "doesn't have a resource type", 1)

        # A kind of one's own is known to every command at once.
        crd = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "valves.example.com"},
               "spec": {"group": "example.com", "scope": "Namespaced", "names": {"plural": "valves", "kind": "Valve", "shortNames": ["vv"]}, "versions": [
                   {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": {"type": "object", "properties": {"opening": {"type": "integer", "description": "In percent."}}}}}}}]}}
        file = p.write("valve.yaml", json.dumps(crd) + "\n---\napiVersion: example.com/v1\nkind: Valve\nmetadata: {name: inlet}\nspec: {opening: 3}\n")
        expect(p.run("apply", "-f", file), "valve.example.com/inlet created")
        expect(p.run("get", "vv"), "inlet")
        expect(p.run("explain", "valve.spec.opening"), "In percent.")
        expect(p.run("delete", "-f", file), "deleted")

        # Server-side apply.
        one = p.write("one.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: '1'}\n")
        two = p.write("two.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: '2'}\n")
        expect(p.run("apply", "--server-side", "--field-manager", "one", "-f", one), "created")
        expect(p.run("apply", "--server-side", "--field-manager", "two", "-f", two), ".data.a", 1)
        expect(p.run("apply", "--server-side", "--field-manager", "two", "--force-conflicts", "-f", two), "configured")

        # kubectl's further flags.
        for i in (3, 1, 2):
            expect(p.run("apply", "-f", "-", stdin=f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: s{i}, labels: {{group: s}}}}\ndata: {{order: '{10 - i}'}}\n"), "created")
        assert [line.split()[0] for line in p.run("get", "cm", "-l", "group in (s,t)", "--sort-by", ".data.order", "--no-headers").stdout.splitlines()] == ["s3", "s2", "s1"]
        expect(p.run("get", "cm", "--field-selector", "metadata.name=s1", "--show-labels"), "group=s")
        expect(p.run("apply", "-f", "-", stdin="apiVersion: v1\nkind: Namespace\nmetadata: {name: short}\n"), "created")
        expect(p.run("delete", "namespace", "short"), "deleted")
        expect(p.run("get", "namespace", "short"), "NotFound", 1)
        expect(p.run("delete", "cm", "-l", "group=s"), "deleted")
        expect(p.run("delete", "cm"), "--all", 1)

        # A copy of the registry while it runs.
        copy = str(p.folder / "copy.sqlite")
        expect(p.run("backup-registry", copy), "holds the registry")
        assert sqlite3.connect(copy).execute("select count(*) from objects where kind='configmaps' and name='m'").fetchone() == (1,)
        assert not (p.data / "registry-copy.sqlite").exists()
        assert oct((p.data / "kubeconfig.yaml").stat().st_mode)[-3:] == "600"


def manifests():
    one, two = free_port(), free_port()
    with Penstock(BINARY) as p:
        p.wait_running("default")
        folder = p.data / "manifests"
        (folder / "plant.yaml").write_text(listener("plant", [f"{{port: {one}, protocol: Mqtt}}"], "LoadBalancer"))
        wait_until(lambda: p.status("brokerlistener", "plant").get("runtimeStatus", {}).get("status") == "Running", "the manifest's listener")
        # A person changes a field: the file does not silently take it back, the conflict is shown.
        expect(p.run("apply", "--server-side", "--force-conflicts", "--field-manager", "kubectl", "-f", p.write("person.yaml", listener("plant", [f"{{port: {one}, protocol: WebSockets}}"], "LoadBalancer"))), "configured")
        (folder / "plant.yaml").write_text(listener("plant", [f"{{port: {one}, protocol: Mqtt}}", f"{{port: {two}, protocol: Mqtt}}"], "LoadBalancer"))
        wait_until(lambda: "FileConflict" in p.run("get", "event").stdout, "the conflict as an Event")
        assert "others own fields of it" in p.logs(), p.logs()
        ports = p.get("brokerlistener", "plant")["spec"]["ports"]
        assert [port["protocol"] for port in ports] == ["WebSockets"], ports
        (folder / "plant.yaml").unlink()
        wait_until(lambda: p.get("brokerlistener", "plant") is None, "what leaves the folder is deleted", 60)


def roles():
    """`penstock api` and `penstock broker` as two processes; the API dies and comes back, clients notice nothing."""
    p = Penstock(BINARY)
    port = free_port()
    command = [BINARY, "api", "--data-dir", str(p.data), "--api-port", str(p.api_port)]

    def start_api():
        process = subprocess.Popen(command, stdout=p.log, stderr=p.log, env=p.env)
        wait_until(lambda: p.run("get", "namespace", "default").returncode == 0, "the resource API")
        return process

    p.folder.mkdir(exist_ok=True)
    p.log = open(p.folder / "log", "ab")
    api = start_api()
    metrics = free_port()
    file = p.write("broker.yaml", broker(f"{{diagnostics: {{metrics: {{prometheusPort: {metrics}}}}}}}") + "---\n" + listener("plant", [f"port: {port}"]))
    expect(p.run("apply", "-f", file), "created")
    runner = subprocess.Popen([BINARY, "broker", "--kubeconfig", str(p.data / "kubeconfig.yaml")], stdout=p.log, stderr=p.log, env=p.env)
    second = None
    try:
        p.wait_running("plant")
        wait_until(lambda: p.get("service", "plant"), "the Service")
        subscriber = subprocess.Popen(["mosquitto_sub", "-p", str(port), "-t", "a", "-C", "1", "-i", "s"], stdout=subprocess.PIPE, text=True)
        wait_until(lambda: b"clients" in urllib.request.urlopen(f"http://127.0.0.1:{metrics}/metrics").read(), "the metrics")
        # A second broker waits for the lease.
        second = subprocess.Popen([BINARY, "broker", "--kubeconfig", str(p.data / "kubeconfig.yaml")], stdout=p.log, stderr=p.log, env=p.env)
        wait_until(lambda: "waiting for a lease that another holds" in p.logs(), "the second broker waits")
        assert second.poll() is None
        assert p.get("lease", "penstock-broker")["spec"]["leaseTransitions"] == 0
        api.send_signal(signal.SIGKILL)
        api.wait()
        assert subprocess.run(["mosquitto_pub", "-p", str(port), "-t", "b", "-m", "x", "-q", "1"], timeout=20).returncode == 0, "the broker serves without its API"
        api = start_api()
        other = free_port()
        expect(p.run("apply", "-f", p.write("more.yaml", listener("more", [f"port: {other}"], "LoadBalancer"))), "created")
        p.wait_running("more", 40)
        subprocess.run(["mosquitto_pub", "-p", str(other), "-t", "a", "-m", "hello", "-q", "1"], timeout=20, check=True)
        assert subscriber.communicate(timeout=10)[0] == "hello\n", "who was connected is still"
        # The leader ends in good order: the other takes over at once.
        runner.terminate()
        runner.wait(timeout=20)
        wait_until(lambda: subprocess.run(["mosquitto_pub", "-p", str(port), "-t", "b", "-m", "x", "-q", "1"], capture_output=True, timeout=20).returncode == 0, "the second broker acts", 20)
        assert p.get("lease", "penstock-broker")["spec"]["leaseTransitions"] == 1
        # The API alone: its page, and its files again when told so; one that cannot be read leaves what is there.
        manifest = p.data / "manifests" / "m.yaml"
        manifest.write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept}\n")
        wait_until(lambda: p.get("cm", "kept"), "the file's object")
        expect(p.run("delete", "cm", "kept"), "deleted")
        api.send_signal(signal.SIGHUP)
        wait_until(lambda: p.get("cm", "kept"), "the file's object, again")
        manifest.write_text("a: [b\n")
        before = len((p.folder / "log").read_text())
        api.send_signal(signal.SIGHUP)
        wait_until(lambda: str(manifest) in (p.folder / "log").read_text()[before:], "the fault is told")
        assert p.get("cm", "kept") and api.poll() is None
        ca, certificate, key = identity_of(p.data / "kubeconfig.yaml", p.folder)
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(certificate, key)
        page = urllib.request.urlopen(f"https://127.0.0.1:{p.api_port}/metrics", context=context).read().decode()
        assert "\n# TYPE penstock_reconciles_total counter\n" in page and "\npenstock_log_output_failing 0" in "\n" + page, page[:2000]
        # A broker that was sent elsewhere says where it asks now.
        api.terminate()
        api.wait(timeout=20)
        elsewhere = free_port()
        kubeconfig = p.data / "kubeconfig.yaml"
        kubeconfig.write_text(re.sub(r"(server: https://127\.0\.0\.1:)\d+", rf"\g<1>{elsewhere}", kubeconfig.read_text()))
        second.send_signal(signal.SIGHUP)

        def readiness():
            try:
                return urllib.request.urlopen(f"http://127.0.0.1:{metrics}/readyz?verbose").read().decode()
            except urllib.error.HTTPError as refused:
                return refused.read().decode()

        wait_until(lambda: f"the resource API at 127.0.0.1:{elsewhere} does not tell the keys" in readiness(), "the address that is asked now", 30)
        assert f":{p.api_port}" not in readiness(), readiness()
    except BaseException:
        print((p.folder / "log").read_text()[-4000:])
        raise
    finally:
        for process in (runner, second, api):
            if process is not None and process.poll() is None:
                process.terminate()
                process.wait(timeout=20)
        p.log.close()


def rotation():
    """A controller outside with a token in a file: a token that is refused is read again, as soon as there is a new one."""
    with Penstock(BINARY, extra=["--log-level", "info"]) as p:
        p.wait_running("default")
        binding = p.write("a.yaml", "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: all}\nroleRef: {kind: ClusterRole, name: cluster-admin}\nsubjects: [{kind: ServiceAccount, name: default, namespace: default}]\n")
        expect(p.run("apply", "-f", binding), "created")
        token = p.run("create", "token", "default", "-n", "default").stdout.strip()
        plain = (p.data / "kubeconfig.yaml").read_text()
        users = plain[plain.index("users:"):plain.index("contexts:")]
        p.write("token", token[:-6] + "AAAAAA")
        config = p.write("outside.yaml", plain.replace(users, "users:\n- name: default\n  user:\n    tokenFile: token\n").replace("tokenFile: token", f"tokenFile: {p.folder}/token"))
        told = open(p.folder / "outside.log", "ab")
        outside = subprocess.Popen([BINARY, "broker", "--kubeconfig", config, "-n", "default"], stdout=told, stderr=told, env=p.env)
        try:
            wait_until(lambda: "status=401" in (p.folder / "outside.log").read_text(), "it is refused")
            assert p.run("get", "lease", "penstock-broker", "-n", "default").returncode != 0
            p.write("token.new", token)
            os.replace(p.folder / "token.new", p.folder / "token")
            wait_until(lambda: p.run("get", "lease", "penstock-broker", "-n", "default").returncode == 0, "it is let in", 30)
        finally:
            outside.terminate()
            outside.wait(timeout=20)
            told.close()


def scrape():
    """Prometheus on another machine: the whole page by the API's port, for who has the right, by token or certificate."""
    with Penstock(BINARY) as p:
        p.wait_running("default")
        example = pathlib.Path(__file__).resolve().parents[2] / "examples" / "monitoring.yaml"
        expect(p.run("apply", "-f", str(example)), "created")
        kept = wait_until(lambda: p.get("secret", "prometheus").get("data", {}).get("token") and p.get("secret", "prometheus")["data"], "the token")
        ca = p.write("ca.crt", base64.b64decode(kept["ca.crt"]).decode())
        token = base64.b64decode(kept["token"]).decode()

        def page(context, token=None, headers={}):
            request = urllib.request.Request(f"https://127.0.0.1:{p.api_port}/metrics", headers={**headers, **({"Authorization": f"Bearer {token}"} if token else {})})
            with urllib.request.urlopen(request, context=context) as answer:
                return answer.headers["Content-Type"], answer.read()

        plain = ssl.create_default_context(cafile=ca)
        of_ca, certificate, key = identity_of(p.data / "kubeconfig.yaml", p.folder)
        known = ssl.create_default_context(cafile=of_ca)
        known.load_cert_chain(certificate, key)
        families = ("aio_broker_publishes_received", "penstock_selftest_step_duration_seconds_bucket", "penstock_reconciles_total",
                    "penstock_api_certificate_not_after_timestamp_seconds", "penstock_log_lines_dropped_total")
        for context, shown in ((plain, token), (known, None)):
            kind, text = page(context, shown)
            assert kind == "text/plain; version=0.0.4", kind
            for family in families:
                assert f"\n{family}{{" in text.decode() or f"\n{family} " in text.decode(), family
            names = [line.split()[2] for line in text.decode().splitlines() if line.startswith("# TYPE ")]
            assert len(names) == len(set(names)), "a family in pieces"
            assert gzip.decompress(page(context, shown, {"Accept-Encoding": "gzip"})[1]).startswith(b"# HELP ")
        # Somebody else has no right to it, and this one to nothing else.
        other = p.run("create", "token", "default").stdout.strip()
        for target, shown, code in (("/metrics", other, 403), ("/metrics", "none", 401), ("/api/v1/namespaces/azure-iot-operations/secrets", token, 403)):
            request = urllib.request.Request(f"https://127.0.0.1:{p.api_port}{target}", headers={"Authorization": f"Bearer {shown}"})
            try:
                urllib.request.urlopen(request, context=plain)
                raise AssertionError(f"{target} was answered")
            except urllib.error.HTTPError as refused:
                assert refused.code == code, (target, refused.code)


def hangup():
    """SIGHUP has a broker outside read its access again; one that is faulty is told, and the last good one stays in force."""
    with Penstock(BINARY, extra=["--log-level", "info"]) as p:
        p.wait_running("default")
        binding = p.write("a.yaml", "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: all}\nroleRef: {kind: ClusterRole, name: cluster-admin}\nsubjects: [{kind: ServiceAccount, name: default, namespace: default}]\n")
        expect(p.run("apply", "-f", binding), "created")
        plain = (p.data / "kubeconfig.yaml").read_text()
        users = plain[plain.index("users:"):plain.index("contexts:")]
        token = p.run("create", "token", "default", "-n", "default").stdout.strip()
        p.write("token", token)
        by_token = plain.replace(users, f"users:\n- name: default\n  user:\n    tokenFile: {p.folder}/token\n")
        config = p.write("outside.yaml", by_token)
        told = open(p.folder / "outside.log", "ab")
        outside = subprocess.Popen([BINARY, "broker", "--kubeconfig", config, "-n", "default"], stdout=told, stderr=told, env=p.env)

        def put(name, text):
            p.write(name + ".new", text)
            os.replace(p.folder / (name + ".new"), p.folder / name)

        def renewed():
            answer = p.run("get", "lease", "penstock-broker", "-n", "default", "-o", "json")
            return json.loads(answer.stdout)["spec"]["renewTime"] if answer.returncode == 0 else None

        def lines():
            return (p.folder / "outside.log").read_text()

        try:
            wait_until(renewed, "the lease", 30)
            ca = re.search(r"certificate-authority-data: (\S+)", plain)[1]
            certificate, key = (re.search(what + r"-data: (\S+)", users)[1] for what in ("client-certificate", "client-key"))
            nothing = base64.b64encode(b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n").decode()
            for change, word in ((lambda: put("outside.yaml", by_token.replace(ca, nothing)), f"outside.yaml: the CA of the resource API"),
                                 (lambda: put("outside.yaml", plain.replace(key, base64.b64encode(b"no key").decode())), "outside.yaml: the client key: it is not that of the client certificate"),
                                 (lambda: put("outside.yaml", plain.replace(certificate, nothing)), "outside.yaml: the client certificate"),
                                 (lambda: put("outside.yaml", "a: [b"), "outside.yaml"),
                                 (lambda: (put("outside.yaml", by_token), put("token", "\n")), f"{p.folder}/token: no token in the file")):
                change()
                before = len(lines())
                outside.send_signal(signal.SIGHUP)
                wait_until(lambda: any("cannot be read again and stays as it was" in line and word in line for line in lines()[before:].splitlines()), word, 30)
                old = renewed()
                wait_until(lambda: renewed() > old, "what was in force stays so", 30)
            # Another way of knowing it: by its certificate. Connections that were open are made anew.
            put("outside.yaml", plain)
            before = len(lines())
            outside.send_signal(signal.SIGHUP)
            wait_until(lambda: "the access to the resource API was read again" in lines()[before:], "the access is taken over", 30)
            (p.folder / "token").unlink()
            expect(p.run("delete", "clusterrolebinding", "all"), "deleted")
            old = renewed()
            wait_until(lambda: renewed() > old, "the lease goes on by the certificate", 30)
            assert outside.poll() is None
        except BaseException:
            print(lines()[-4000:])
            raise
        finally:
            outside.terminate()
            outside.wait(timeout=20)
            told.close()


def identity_of(kubeconfig, folder):
    """The CA, certificate and key of a kubeconfig as files."""
    text = pathlib.Path(kubeconfig).read_text()
    files = []
    for key in ("certificate-authority-data", "client-certificate-data", "client-key-data"):
        path = pathlib.Path(folder) / f"{pathlib.Path(kubeconfig).stem}-{key}.pem"
        path.write_bytes(base64.b64decode(re.search(key + r": (\S+)", text)[1]))
        files.append(str(path))
    return files


def certificates():
    """The API's own CA is replaced while it runs: everything follows, who trusts the old one goes on until it is taken out of the trusted ones."""
    with Penstock(BINARY) as p:
        p.wait_running("default")
        old = p.folder / "old.yaml"
        shutil.copy(p.data / "kubeconfig.yaml", old)
        listed = expect(p.run("pki", "list"), "API pki/api-server.crt (server)")
        assert "API pki/admin.crt (admin)" in listed and "service-account.key (service-account-key)" in listed, listed
        ca, certificate, key = identity_of(old, p.folder)
        context = ssl.create_default_context(cafile=ca)
        context.load_cert_chain(certificate, key)

        def connect(session=None):
            return context.wrap_socket(socket.create_connection(("127.0.0.1", p.api_port), timeout=30), server_hostname="127.0.0.1", session=session)

        def ask(stream, path):
            stream.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

        # A session that is resumed, as browsers and Node do it, and the identity with it.
        first = connect()
        ask(first, "/api/v1/namespaces/default/configmaps")
        assert first.recv(12) == b"HTTP/1.1 200"
        second = connect(first.session)
        ask(second, "/api/v1/namespaces/default/configmaps")
        assert second.recv(12) == b"HTTP/1.1 200" and second.session_reused
        watch = connect()
        ask(watch, "/api/v1/namespaces/default/configmaps?watch=true")
        assert watch.recv(12) == b"HTTP/1.1 200"

        for name in ("api-ca.crt", "api-ca.key"):
            (p.data / "pki" / name).unlink()
        wait_until(lambda: (p.data / "kubeconfig.yaml").read_text() != old.read_text(), "the kubeconfig follows", 30)
        for kubeconfig in (p.data / "kubeconfig.yaml", old):
            expect(p.run("get", "namespace", "default", "--kubeconfig", str(kubeconfig)), "default")
        wait_until(lambda: p.get("cm", "kube-root-ca.crt")["data"]["ca.crt"].count("BEGIN") == 2, "the namespaces' CA follows")
        (p.data / "manifests" / "m.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: later, namespace: default}\n")
        seen = b""
        while b'"later"' not in seen:   # written by the process's own client, seen by a watch of before
            piece = watch.recv(65536)
            assert piece, seen[-500:]
            seen += piece
        assert "(former-ca)" in p.run("pki", "list").stdout
        ca, certificate, key = identity_of(p.data / "kubeconfig.yaml", p.folder)
        fresh = ssl.create_default_context(cafile=ca)
        fresh.load_cert_chain(certificate, key)
        page = urllib.request.urlopen(f"https://127.0.0.1:{p.api_port}/metrics", context=fresh).read().decode()
        assert 'penstock_api_certificate_not_after_timestamp_seconds{certificate="server",number="0"}' in page and "penstock_issuer_ca_not_after_timestamp_seconds{" in page, page[-2000:]

        # The old CA is trusted no longer: its certificate is refused with the reason, also on a connection of before, and its watch ends.
        trusted = (p.data / "pki" / "api-ca-trusted.crt").read_text()
        (p.data / "pki" / "api-ca-trusted.crt").write_text(trusted[:trusted.index("-----BEGIN", 5)])
        wait_until(lambda: "Unauthorized: " in p.run("get", "namespace", "default", "--kubeconfig", str(old)).stderr, "the old certificate is refused", 30)
        ask(second, "/api/v1/namespaces/default/configmaps")
        rest = b""
        while b"HTTP/1.1 401" not in rest:
            piece = second.recv(65536)
            assert piece, rest[-500:]
            rest += piece
        while watch.recv(65536):
            pass
        expect(p.run("get", "namespace", "default"), "default")
        assert "Traceback" not in p.logs() and p.process.poll() is None


def hostile():
    """What the API answers to bad input over the wire; it keeps running."""
    with Penstock(BINARY) as p:
        p.wait_running("default")
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        token = p.run("create", "token", "default", "-n", "default").stdout.strip()
        admin = f"https://127.0.0.1:{p.api_port}"

        def ask(method, path, body=None, headers=None):
            request = urllib.request.Request(admin + path, data=body, method=method, headers=headers or {})
            try:
                with urllib.request.urlopen(request, context=context, timeout=30) as answer:
                    return answer.status, answer.read()
            except urllib.error.HTTPError as error:
                return error.code, error.read()

        code, body = ask("GET", "/api/v1/secrets")
        assert code == 403 and json.loads(body)["kind"] == "Status", body
        code, body = ask("GET", "/api/v1/secrets", headers={"Authorization": "Bearer " + token})
        assert code == 403 and b"system:serviceaccount:default:default" in body, body
        assert ask("GET", "/api/v1/secrets", headers={"Authorization": "Bearer " + token[:-4] + "AAAA"})[0] == 401
        assert ask("GET", "/api/v1/secrets", headers={"Authorization": "Basic eDp5"})[0] == 401
        assert ask("GET", "/version")[0] == 200
        for path in ("/api/v1/namespaces/../secrets", "/api/v1/namespaces/%2e%2e/secrets", "/api//v1", "/apis/%00", "/api/v1/namespaces/x%2Fy/configmaps"):
            code, body = ask("GET", path, headers={"Authorization": "Bearer " + token})
            assert code in (403, 404), (path, code, body)
        # With rights, through the kubeconfig's certificate.
        kube = json.loads(p.run("get", "namespace", "default", "-o", "json").stdout)
        assert kube["kind"] == "Namespace"
        binding = p.write("admin.yaml", "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: all}\nroleRef: {kind: ClusterRole, name: cluster-admin}\nsubjects: [{kind: ServiceAccount, name: default, namespace: default}]\n")
        expect(p.run("apply", "-f", binding), "created")
        auth = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}
        maps = "/api/v1/namespaces/default/configmaps"
        assert ask("POST", maps, b"{" + b" " * (4 << 20) + b"}", auth)[0] == 413
        assert ask("POST", maps, b'{"a":' * 500 + b"1" + b"}" * 500, auth)[0] == 400
        assert ask("POST", maps, b"\xff\xfe", auth)[0] == 400
        assert ask("POST", maps, b"k8s\x00\x0a\xff\xff\xff\xff\x0f", {**auth, "Content-Type": "application/vnd.kubernetes.protobuf"})[0] == 400
        assert ask("POST", maps, b"{}", {**auth, "Content-Type": "application/cbor"})[0] == 415
        assert ask("POST", maps + "?dryRun=Some", b"{}", auth)[0] == 422
        assert ask("POST", maps + "?dryRun=", b'{"metadata": {"name": "tried"}}', auth)[0] == 422
        # Paths that end before their name, and a slash that is part of one.
        for path, code in (("/api/v1/namespaces", 405), ("/api/v1/namespaces/", 405), ("/api/v1/configmaps", 405), (maps + "/", 405), (maps + "/kube-root-ca.crt?dryRun=", 422),
                           ("/api/v1/namespaces/default%2Fconfigmaps", 404), (maps + "/kube-root-ca.crt%2F", 404)):
            assert ask("DELETE", path, headers=auth)[0] == code, path
        assert ask("GET", maps + "/kube-root-ca.crt", headers=auth)[0] == 200
        assert ask("GET", maps + "?labelSelector=%3D%3D", headers=auth)[0] == 400
        assert ask("GET", maps + "?limit=x", headers=auth)[0] == 400
        assert ask("GET", maps + "?watch=true&timeoutSeconds=x", headers=auth)[0] == 400
        assert ask("GET", maps + "?resourceVersion=99999999", headers=auth)[0] == 504
        assert ask("PATCH", maps + "/none", b"{}", {**auth, "Content-Type": "application/merge-patch+json"})[0] == 404
        assert ask("GET", "/" + "x" * 70_000, headers=auth)[0] in (414, 431)
        # Connections that say nothing, and watchers that never read, hinder nobody.
        def resident():
            return int(next(line for line in open(f"/proc/{p.process.pid}/status") if line.startswith("VmRSS")).split()[1])

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
        before = resident()
        idle = [socket.create_connection(("127.0.0.1", p.api_port)) for _ in range(min(hard, 20_000) // 2 - 200)]
        assert resident() - before < 100_000, f"{len(idle)} idle connections cost {resident() - before} KiB"
        assert ask("GET", "/version")[0] == 200
        watchers = []
        for _ in range(50):
            raw = context.wrap_socket(socket.create_connection(("127.0.0.1", p.api_port)))
            raw.sendall(f"GET {maps}?watch=true HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
            watchers.append(raw)
        big = json.dumps({"metadata": {"name": "big"}, "data": {"a": "x" * 500_000}}).encode()
        assert ask("POST", maps, big, auth)[0] == 201
        for i in range(20):
            assert ask("PATCH", maps + "/big", json.dumps({"data": {"b": str(i)}}).encode(), {**auth, "Content-Type": "application/merge-patch+json"})[0] == 200
        assert resident() < 700_000, f"{resident()} KiB with 50 watchers that never read"
        for s in idle + watchers:
            s.close()
        assert p.process.poll() is None
        expect(p.run("get", "cm", "big", "-n", "default"), "big")


def crashes():
    """Killed again and again in the middle of writes: what was acknowledged is there, and no version is given out twice."""
    p = Penstock(BINARY)
    acknowledged, versions = {}, set()
    for round_number in range(6):
        p.start()
        for name, version in acknowledged.items():
            found = p.get("cm", name)
            assert found is not None and found["metadata"]["resourceVersion"] == version, (name, version, found)
        writers = []
        for i in range(4):
            name = f"c{round_number}-{i}"
            text = "\n---\n".join(f"apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}-{n}}}" for n in range(25))
            writers.append(subprocess.Popen([BINARY, "apply", "-f", p.write(f"{name}.yaml", text)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=p.env))
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline and p.run("get", "cm", f"c{round_number}-0-{round_number + 1}").returncode != 0:
            pass
        for entry in json.loads(p.run("get", "cm", "-o", "json").stdout).get("items", []):
            version = entry["metadata"]["resourceVersion"]
            if acknowledged.get(entry["metadata"]["name"]) != version:
                assert version not in versions, f"version {version} was given out twice"
                versions.add(version)
                acknowledged[entry["metadata"]["name"]] = version
        p.stop(signal.SIGKILL)
        for writer in writers:
            writer.communicate()
    assert len(acknowledged) > 20, len(acknowledged)


def spdy_dictionary():
    """The words that both ends of SPDY/3.1 compress headers with (its section 2.6.10.1), from where the server has them."""
    source = (pathlib.Path(__file__).resolve().parents[2] / "src" / "api" / "spdy_dictionary.cc").read_text()
    words = re.findall(r'"([^"]*)"', source.split("words[] =")[1].split("std::string_view text =")[0])
    text = re.findall(r'"([^"]*)"', source.split("std::string_view text =")[1].split("}  // namespace")[0])
    return b"".join(struct.pack(">I", len(word)) + word.encode() for word in words) + "".join(text).encode()


def farewell():
    """A client of port-forward says that it sends no more (TLS close_notify, or an end of TCP alone), with a forwarded connection open that is idle, or
    with a lot on its way to it: the server goes on. What it still wrote beside the end of the stream ended the process."""
    with Penstock(BINARY) as p:
        p.wait_running("default")
        port = free_port()
        expect(p.run("apply", "-f", p.write("open.yaml", listener("open", [f"port: {port}"]))), "created")
        p.wait_running("open")
        big = p.write("big", "x" * 3_000_000)
        for i in range(4):
            subprocess.run(["mosquitto_pub", "-p", str(port), "-t", f"big/{i}", "-f", big, "-r", "-q", "1"], check=True, timeout=30)
        context = ssl.create_default_context(cadata=field_of(p, "certificate-authority-data"))
        with open(p.folder / "pair.pem", "w") as pair:
            pair.write(field_of(p, "client-certificate-data") + field_of(p, "client-key-data"))
        context.load_cert_chain(p.folder / "pair.pem")
        for turn in range(40):
            raw = socket.create_connection(("127.0.0.1", p.api_port), timeout=20)
            taken, given = ssl.MemoryBIO(), ssl.MemoryBIO()
            tls = context.wrap_bio(taken, given, server_hostname="127.0.0.1")

            def run(step):
                while True:
                    try:
                        return step()
                    except ssl.SSLWantReadError:
                        raw.sendall(given.read())
                        taken.write(raw.recv(1 << 16))
                    finally:
                        if given.pending:
                            raw.sendall(given.read())

            run(tls.do_handshake)
            run(lambda: tls.write(f"POST /api/v1/namespaces/{NS}/pods/aio-broker-frontend-0/portforward HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n"
                                  "X-Stream-Protocol-Version: portforward.k8s.io\r\nContent-Length: 0\r\n\r\n".encode()))
            assert b"101 Switching" in run(lambda: tls.read(4096))
            packer = zlib.compressobj(zdict=spdy_dictionary())

            def opened(number, kind):
                headers = {"streamtype": kind, "port": str(port), "requestid": "0"}
                block = struct.pack(">I", len(headers)) + b"".join(struct.pack(">I", len(x)) + x.encode() for pair in headers.items() for x in pair)
                body = struct.pack(">IIH", number, 0, 0) + packer.compress(block) + packer.flush(zlib.Z_SYNC_FLUSH)
                return b"\x80\x03\x00\x01" + struct.pack(">I", len(body)) + body

            hello = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04burs" + (b"\x82\x0a\x00\x01\x00\x05big/#\x00" if turn % 4 == 0 else b"")
            run(lambda: tls.write(opened(1, "error") + opened(3, "data") + struct.pack(">II", 3, len(hello)) + hello))
            got = 0
            while got < (500_000 if turn % 4 == 0 else 12):
                got += len(run(lambda: tls.read(1 << 16)))
            if turn % 2 == 0:
                try:
                    tls.unwrap()  # close_notify is written; the peer's is not waited for
                except ssl.SSLError:
                    pass
                raw.sendall(given.read())
            else:
                raw.shutdown(socket.SHUT_WR)  # as the kernel does for a client that is killed
            while raw.recv(1 << 16):
                pass
            raw.close()
            assert p.process.poll() is None, p.logs()[-2000:]
        expect(p.run("get", "brokerlistener", "open"), "Running")


def field_of(p, name):
    text = re.search(rf"{name}: (\S+)", (p.data / "kubeconfig.yaml").read_text())[1]
    return base64.b64decode(text).decode()


for part in (commands, manifests, roles, rotation, scrape, hangup, certificates, hostile, farewell, crashes):
    part()
    print(f"{part.__name__}: ok", flush=True)
