"""Whether health tells the truth, and what a deletion does to those who are connected. Standard library, openssl and kubectl; in a
network of its own."""
import base64
import json
import os
import pathlib
import shutil
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import unittest

from mqtt import Mqtt
from support import Penstock, broker, in_own_network, wait_until

if __name__ == "__main__":
    code = in_own_network(__file__, *sys.argv[1:])
    if code is not None:
        sys.exit(code)
BINARY = sys.argv.pop(1)
SPACE = "azure-iot-operations"
SETTINGS = "{diagnostics: {metrics: {prometheusPort: %d}, selfCheck: {mode: Disabled}}}"


def manifest(kind, name, spec, group="mqttbroker.iotoperations.azure.com/v1"):
    return json.dumps({"apiVersion": group, "kind": kind, "metadata": {"name": name, "namespace": SPACE}, "spec": spec}) + "\n---\n"


def listener(name, *ports, service_type="ClusterIp"):
    return manifest("BrokerListener", name, {"brokerRef": "default", "serviceType": service_type, "ports": list(ports)})


def users(name, secret):
    return manifest("BrokerAuthentication", name, {"brokerRef": "default", "authenticationMethods": [{"method": "Password", "passwordSettings": {"secretRef": secret}}]})


X509 = manifest("BrokerAuthentication", "x509", {"brokerRef": "default", "authenticationMethods": [
    {"method": "X509", "x509Settings": {"trustedClientCaCert": "client-ca"}}]})
AUTOMATIC = {"mode": "Automatic", "certManagerCertificateSpec": {
    "issuerRef": {"kind": "ClusterIssuer", "name": "azure-iot-operations-aio-certificate-issuer"},
    "privateKey": {"algorithm": "Ec256"}}}


class Case(unittest.TestCase):
    def penstock(self):
        p = Penstock(BINARY)
        self.addCleanup(lambda: p.__exit__(*((Exception if self.failed() else None), None, None)))
        return p

    def failed(self):
        return any(error for _, error in getattr(self._outcome, "errors", []) or [])

    def start(self, *documents, metrics=0):
        p = self.penstock()
        p.files = [p.write("m.yaml", broker(SETTINGS % metrics) + "---\n" + "".join(documents))]
        return p.start()

    def shell(self, p, line, ok=True):
        env = {**p.env, "PATH": f"{pathlib.Path(BINARY).resolve().parent}:{p.env['PATH']}"}
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=env, cwd=p.folder, timeout=60)
        if ok:
            self.assertEqual(done.returncode, 0, f"{line}\n{done.stdout}{done.stderr}")
        return done.stdout + done.stderr

    def apply(self, p, text):
        p.write("applied.yaml", text)
        return self.shell(p, "kubectl apply -f applied.yaml")

    def ready(self, p, verbose=False):
        """What /readyz says, by kubectl: an answer that is not 200 is in the error."""
        return self.shell(p, "kubectl get --raw '/readyz%s'" % ("?verbose" if verbose else ""), ok=False)

    def told(self, p, *words):
        """Waits until /readyz has all words, and answers it."""
        return wait_until(lambda: (lambda said: said if all(w in said for w in words) else None)(self.ready(p)), f"/readyz with {words}", 20)

    def well(self, p):
        wait_until(lambda: self.ready(p).strip() == "ok", "/readyz ok", 20)

    def cure(self, p, subject, word, without="\n"):
        """The finding about an object that has a word, with its cure, as `status.findings` tells it."""
        def look():
            for one in p.status("broker", "default").get("findings", []):
                said = one["message"] + "; " + one.get("cure", "")
                if one["subject"] == subject and word in said and without not in said:
                    return said
        return wait_until(look, f"a finding about {subject} with {word}", 20)

    def commands(self, text):
        """What stands behind each `with: `, up to the end of that part of the sentence."""
        out = []
        for part in text.split("with: ")[1:]:
            quoted, depth, end = False, 0, len(part)
            for at, char in enumerate(part):
                quoted ^= char == "'"
                depth += 0 if quoted else (char == "(") - (char == ")")
                if not quoted and (depth < 0 or depth == 0 and part[at:].startswith(("; ", ", or "))):
                    end = at
                    break
            out.append(part[:end])
        return out

    def follow(self, p, text, editor="true"):
        """Types what a cure says into a shell, word for word; who edits is a command that changes the file."""
        done = self.commands(text)
        self.assertTrue(done, text)
        for line in done:
            self.shell(p, f"export KUBE_EDITOR={shlex.quote(editor)}; {line}")

    def gone(self, p, *words):
        wait_until(lambda: not any(word in self.ready(p) for word in words), f"/readyz without {words}", 20)

    def health(self, p, kind, name):
        return p.status(kind, name).get("healthState", {})


class Truth(Case):
    def test_cures_are_followed_as_they_are_printed(self):
        """What was deleted by hand: the commands in the findings are cut out and run, nothing is added."""
        p = self.start(listener("one", {"port": 1883}))
        self.well(p)
        cure = lambda said, begin, end: begin + said.split(begin, 1)[1].split(end, 1)[0]
        self.shell(p, f"kubectl delete brokerlistener one -n {SPACE}")
        said = self.told(p, "no BrokerListener names Broker", "BrokerListener azure-iot-operations/one of ", "was deleted by somebody", "kill -HUP ")
        self.shell(p, cure(said, "(echo '", "; what the followed files"))
        wait_until(lambda: "no BrokerListener names Broker" not in self.ready(p), "a listener is there")
        self.assertEqual(Mqtt(1883).connect("c"), 0)
        self.shell(p, f"kubectl delete brokerlistener local -n {SPACE}")
        self.shell(p, cure(self.told(p, "was deleted by somebody").split("was deleted by somebody", 1)[1], "kill -HUP ", ";"))
        self.well(p)
        self.assertEqual(Mqtt(1883).connect("c"), 0)
        self.shell(p, f"kubectl delete broker default -n {SPACE}")
        self.shell(p, cure(self.told(p, "there is no Broker resource"), "(echo '", "; what the followed files"))
        wait_until(lambda: "there is no Broker resource" not in self.ready(p), "a Broker is there")

    def test_a_listener_names_its_broker_as_the_cure_says(self):
        """Of a service type that another one has, with a port of another one, of a name that is taken, in another namespace."""
        p = self.start(listener("one", {"port": 1883}))
        self.well(p)
        lost = lambda name, port, space=SPACE, **spec: json.dumps({"apiVersion": "mqttbroker.iotoperations.azure.com/v1", "kind": "BrokerListener", "metadata": {"name": name, "namespace": space},
                                                                   "spec": {"brokerRef": "defualt", "ports": [{"port": port}], **spec}})
        self.apply(p, lost("two", 1884))
        self.follow(p, self.cure(p, f"BrokerListener {SPACE}/two", "did you mean"))
        self.gone(p, f"{SPACE}/two")
        self.assertEqual(Mqtt(1884).connect("c"), 0)
        self.apply(p, lost("three", 1883))
        said = self.cure(p, f"BrokerListener {SPACE}/three", "did you mean")
        self.assertIn("listener one has this port", said)
        self.follow(p, said.split(", or ")[0], "sed -i -e s/defualt/default/ -e s/1883/1885/")
        self.gone(p, f"{SPACE}/three")
        self.assertEqual(Mqtt(1885).connect("c"), 0)
        # The other way out.
        self.apply(p, lost("four", 1883))
        self.follow(p, "with: " + self.commands(self.cure(p, f"BrokerListener {SPACE}/four", "did you mean"))[-1])
        self.gone(p, f"{SPACE}/four")
        # From another namespace, where its name, service type and port are taken.
        self.shell(p, f"kubectl patch broker default -n {SPACE} --type merge -p 'metadata: {{annotations: null}}'; kubectl create namespace lab")
        self.apply(p, lost("one", 1883, space="lab"))
        said = self.cure(p, "BrokerListener lab/one", "metadata.namespace")
        for word in ("metadata.name", "listener one has this port"):
            self.assertIn(word, said)
        p.write("FILE", lost("six", 1887).replace("defualt", "default"))
        self.follow(p, said)
        self.gone(p, "lab/one")
        self.assertEqual(Mqtt(1887).connect("c"), 0)
        self.assertEqual(Mqtt(1883).connect("c"), 0)
        self.well(p)

    def test_a_broker_is_made_and_named_as_the_cure_says(self):
        """For two listeners of one service type that name what cannot be a Broker."""
        p = self.start()
        # The controllers act after files and defaults are in, which else would bring it back.
        wait_until(lambda: (p.get("broker", "default") or {}).get("status", {}).get("runtimeStatus"), "the broker is acted on")
        self.shell(p, f"kubectl delete broker default -n {SPACE}")
        for name, port in (("one", 1883), ("two", 1884)):
            self.apply(p, json.dumps({"apiVersion": "mqttbroker.iotoperations.azure.com/v1", "kind": "BrokerListener", "metadata": {"name": name, "namespace": SPACE}, "spec": {"brokerRef": f"My {name}", "ports": [{"port": port}]}}))
        for name in ("one", "two"):
            said = lambda: p.status("brokerlistener", name)["runtimeStatus"]["description"]
            wait_until(lambda: f"My {name}" in said(), "the listener is told of")
            self.follow(p, said())
            p.wait_running(name)
        self.assertEqual([Mqtt(port).connect("c") for port in (1883, 1884)], [0, 0])

    def test_a_pair_is_put_into_a_secret_of_any_type_as_the_cure_says(self):
        p = self.start(listener("one", {"port": 8883, "tls": {"mode": "Manual", "manual": {"secretRef": "mine"}}}))
        self.shell(p, "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout KEY.key -out CHAIN.crt -subj /CN=mine "
                      "-addext subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1 -addext basicConstraints=critical,CA:FALSE -days 300 2>/dev/null")
        self.follow(p, self.cure(p, f"BrokerListener {SPACE}/one", "does not exist"))
        p.wait_running("one")
        pair = {"tls.crt": "", "tls.key": "", "ca.crt": "Yg=="}
        for secret in ({"data": {"a": "Yg=="}}, {"type": "plant.example/t", "data": {"a": "Yg=="}},
                       {"type": "kubernetes.io/basic-auth", "data": {"username": "Yg=="}},
                       {"type": "kubernetes.io/tls", "immutable": True, "data": pair}, {"immutable": True},
                       {"immutable": True, "type": "plant.example/t", "data": {"a": "Yg=="}},
                       {"type": "kubernetes.io/tls", "data": pair}):
            self.shell(p, f"kubectl delete secret mine -n {SPACE}")
            self.apply(p, self.kept("Secret", "mine", secret))
            said = self.cure(p, f"BrokerListener {SPACE}/one", f"Secret {SPACE}/mine", without="does not exist")
            before = p.get("secret", "mine")
            self.follow(p, said)
            self.gone(p, "goes on being served")
            self.assert_kept(before, p.get("secret", "mine"), "tls.crt", "tls.key")

    def kept(self, kind, name, content):
        """An object that a person has put more into than what is asked for."""
        metadata = {"name": name, "namespace": SPACE, "labels": {"hall": "4"}, "annotations": {"owner": "ann"}}
        return json.dumps({"apiVersion": "v1", "kind": kind, "metadata": metadata, **content})

    def assert_kept(self, before, after, *put):
        """All is as it was, but for the entries that were put in."""
        whole = lambda of: {**of, "data": {k: v for k, v in of.get("data", {}).items() if k not in put}}
        mine = lambda of: {k: v for k, v in of["metadata"].items() if k in ("labels", "annotations", "finalizers")}
        for of in (before, after):
            of["metadata"] = mine(of)
            of["metadata"]["annotations"].pop("kubectl.kubernetes.io/last-applied-configuration", None)   # kubectl's own
            if not of.get("binaryData"):
                of.pop("binaryData", None)
        self.assertEqual(whole(before), whole(after))

    def test_persistence_that_keeps_little_says_so_to_whoever_writes_it(self):
        settings = "{persistence: {maxSize: 1G%s}, diagnostics: {metrics: {prometheusPort: 0}, selfCheck: {mode: Disabled}}}"
        p = self.penstock()
        p.files = [p.write("m.yaml", broker(settings % ", retain: {mode: All}") + "---\n" + listener("one", {"port": 1883}))]
        p.start()
        missing = "spec.persistence: without subscriberQueue, stateStore (absent is mode None)"
        wait_until(lambda: missing in p.logs(), "what the API says of followed files in the log")
        text = p.write("little.yaml", broker(settings % ", subscriberQueue: {mode: None}"))
        self.assertIn("spec.persistence: without retain, stateStore (absent is mode None)", p.run("validate", "-f", text).stderr)
        missing = "Warning: spec.persistence: without stateStore (absent is mode None)"   # retain is there already
        self.assertIn(missing, p.run("apply", "--dry-run", "-f", text).stderr)
        self.assertIn(missing, self.shell(p, "kubectl apply --dry-run=server -f little.yaml"))
        said = self.cure(p, f"Broker {SPACE}/default", "without subscriberQueue, stateStore")
        self.well(p)
        wait_until(lambda: self.health(p, "broker", "default").get("status") == "Available", "a note leaves it Available")
        self.follow(p, said)
        wait_until(lambda: "without" not in str(p.status("broker", "default").get("findings")), "nothing is left out")
        kept = p.get("broker", "default")["spec"]["persistence"]
        self.assertEqual([kept[one]["mode"] for one in ("retain", "subscriberQueue", "stateStore")], ["All"] * 3)
        for words in (("edit", "broker", "default"), ("patch", "broker", "default", "--type", "json", "-p", '[{"op": "remove", "path": "/spec/persistence/retain"}]')):
            p.env["EDITOR"] = "sed -i /stateStore:/,+1d"
            self.assertIn("Warning: spec.persistence: without ", p.run(*words).stderr, words)
        p.stop()
        # The example keeps everything.
        done = p.run("validate", "-f", str(pathlib.Path(__file__).parents[2] / "examples/durable.yaml"))
        self.assertEqual((done.returncode, done.stderr), (0, ""), done)

    def test_names_that_no_object_can_have_are_named_anew_as_the_cure_says(self):
        long = "a" * 64
        issuer = lambda name: {"mode": "Automatic", "certManagerCertificateSpec": {"issuerRef": {"kind": "Issuer", "name": name}, "privateKey": {"algorithm": "Ec256"}}}
        p = self.start(listener("one", {"port": 1883, "authenticationRef": "People"}), listener("two", {"port": 1884, "authenticationRef": "default", "authorizationRef": long}, service_type="LoadBalancer"),
                       listener("three", {"port": 1885, "tls": issuer("Plant CA")}, service_type="NodePort"))
        for name, field, was, now in (("one", "authenticationRef", "People", "clients"), ("two", "authorizationRef", long, "rules"), ("three", "issuerRef", "Plant CA", "plant")):
            said = self.cure(p, f"BrokerListener {SPACE}/{name}", field)
            for word in ("no object can have that name", f"name: {now}"):
                self.assertIn(word, said)
            self.follow(p, said, f"sed -i -e 's/{field}: {was}$/{field}: {now}/' -e 's/name: {was}$/name: {now}/'")
            wait_until(lambda: p.status("brokerlistener", name)["runtimeStatus"]["status"] == "Running", f"{name} runs", 20)
        for field, spec in (("manual.secretRef", {"tls": {"mode": "Manual", "manual": {"secretRef": "My Pair"}}}),):
            self.apply(p, listener("one", {"port": 1883, **spec}))
            said = self.cure(p, f"BrokerListener {SPACE}/one", "no object can have that name")
            self.assertNotIn("kubectl create", said)
            self.follow(p, said, "sed -i -e 's/secretRef: My Pair/secretRef: mypair/'")
            self.cure(p, f"BrokerListener {SPACE}/one", "kubectl create secret tls mypair")

    def test_an_issuer_gets_its_pair_and_a_port_its_user_as_the_cures_say(self):
        tls = {"mode": "Automatic", "certManagerCertificateSpec": {"issuerRef": {"kind": "Issuer", "name": "hall"}, "privateKey": {"algorithm": "Ec256"}}}
        p = self.start(manifest("Issuer", "hall", {"ca": {"secretName": "Hall CA"}}, "cert-manager.io/v1"), users("people", "people"), listener("one", {"port": 8883, "authenticationRef": "people", "tls": tls}))
        self.shell(p, "penstock pki root Hall --out CHAIN && mv CHAIN.key KEY.key")
        subject = f"BrokerListener {SPACE}/one"
        adds = [one for one in self.commands(self.cure(p, subject, "penstock passwd")) if one.startswith("penstock passwd")]
        # From a shell that does not know where the platform has its files.
        self.shell(p, f"unset KUBECONFIG; printf 'secret\\n' | {adds[0]}")
        self.assertIn("USER", p.get("secret", "people")["data"])
        self.follow(p, self.cure(p, subject, "no object can have that name", without="passwd"), "sed -i -e 's/secretName: Hall CA/secretName: hall-ca/'")
        self.apply(p, json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hall-ca", "namespace": SPACE}, "data": {"other": "Yg=="}}))
        self.follow(p, self.cure(p, subject, "needs tls.crt and tls.key"))
        self.well(p)
        self.assertEqual(sorted(p.get("secret", "hall-ca")["data"]), ["other", "tls.crt", "tls.key"])

    def test_a_bundle_is_renewed_entry_by_entry_as_the_cure_says(self):
        """What stands beside the certificate that has ended stays: another CA, and a revocation list."""
        x509 = manifest("BrokerAuthentication", "x509", {"brokerRef": "default", "authenticationMethods": [{"method": "X509", "x509Settings": {"trustedClientCaCert": "client-ca"}}]})
        p = self.start(x509, listener("one", {"port": 8883, "authenticationRef": "x509", "tls": {"mode": "Automatic", "certManagerCertificateSpec": {"issuerRef": {"kind": "ClusterIssuer", "name": "azure-iot-operations-aio-certificate-issuer"}, "privateKey": {"algorithm": "Ec256"}}}}))
        self.shell(p, """set -e
make() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $1.key -out $1.crt -subj "/CN=$1" -days $2 2>/dev/null; }
make old 2; make other 300; make ALL-CAS 300; cp ALL-CAS.crt CA.crt""")
        self.follow(p, self.cure(p, f"BrokerListener {SPACE}/one", "client-ca does not exist"))
        self.well(p)
        self.shell(p, f"kubectl delete configmap client-ca -n {SPACE}; kubectl create configmap client-ca -n {SPACE} --from-file=mine.pem=old.crt --from-file=other.pem=other.crt --dry-run=client -o yaml | kubectl apply -f -")
        self.follow(p, self.cure(p, f"BrokerListener {SPACE}/one", "ends in"))
        self.well(p)
        self.assertEqual(sorted(p.get("configmap", "client-ca")["data"]), ["mine.pem", "other.pem"])
        for bundle in ({"data": {"README": "to come"}}, {"data": {"README": "to come"}, "immutable": True}):
            self.shell(p, f"kubectl delete configmap client-ca -n {SPACE}")
            self.apply(p, self.kept("ConfigMap", "client-ca", bundle))
            said = self.cure(p, f"BrokerListener {SPACE}/one", "has no certificate in PEM")
            before = p.get("configmap", "client-ca")
            self.follow(p, said)
            self.well(p)
            self.assert_kept(before, p.get("configmap", "client-ca"), "client_ca.pem")

    def test_an_immutable_bundle_keeps_its_revocation_list_as_the_cure_says(self):
        """Also one whose certificate stands in binaryData, and one with an entry that is damaged."""
        p = self.start(X509, listener("one", {"port": 8883, "authenticationRef": "x509", "tls": AUTOMATIC}))
        self.shell(p, """set -e
make() { openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $1.key -out $1.crt -subj "/CN=$1" -days $2 2>/dev/null; }
make old 2; make ca2 300; make ALL-CAS 300; touch index
printf '[ca]\ndefault_ca=a\n[a]\ndatabase=index\ndefault_md=sha256\ndefault_crl_days=300\n' > ca.cnf
openssl ca -config ca.cnf -gencrl -keyfile ca2.key -cert ca2.crt -out ca2.crl 2>/dev/null""")
        text = lambda name: (p.folder / name).read_text()
        subject = f"BrokerListener {SPACE}/one"
        others = {"ca2.pem": text("ca2.crt"), "ca2.crl": text("ca2.crl")}
        for immutable in (True, False):
            for binary in (True, False):
                with self.subTest(immutable=immutable, binary=binary):
                    old = {"1e3": base64.b64encode(text("old.crt").encode()).decode() if binary else text("old.crt")}
                    bundle = {"data": others, "binaryData": old} if binary else {"data": {**others, **old}}
                    self.shell(p, f"kubectl delete configmap client-ca -n {SPACE} --ignore-not-found")
                    self.apply(p, self.kept("ConfigMap", "client-ca", {**bundle, "immutable": immutable}))
                    said = self.cure(p, subject, "ends in", without="does not exist")
                    before = p.get("configmap", "client-ca")
                    self.follow(p, said)
                    self.well(p)
                    after = p.get("configmap", "client-ca")
                    self.assertEqual(after["data"]["1e3"], text("ALL-CAS.crt"))
                    before.pop("binaryData", None)
                    self.assert_kept(before, after, "1e3")
        # Written by hand: an editor that puts the entry right.
        self.shell(p, f"kubectl delete configmap client-ca -n {SPACE}")
        damaged = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        self.apply(p, self.kept("ConfigMap", "client-ca", {"data": {**others, "bad.pem": damaged}, "immutable": True}))
        said = self.cure(p, subject, "entry bad.pem", without="does not exist")
        before = p.get("configmap", "client-ca")
        self.follow(p, said, "sed -i -e '/bad.pem: |/,/END/s/---.*---/none/'")
        self.gone(p, "bad.pem")
        self.assert_kept(before, p.get("configmap", "client-ca"), "bad.pem")

    def test_a_user_gets_a_password_as_the_cure_says(self):
        """In a Secret that is immutable, and a user whose name looks like an option."""
        p = self.start(users("people", "people"), listener("one", {"port": 1883, "authenticationRef": "people"}))
        for immutable in (False, True):
            for data, word, name in (({}, "has no user", "USER"), ({"--help": "Yg==", "USER": "Yg=="}, "--help", "--help")):
                with self.subTest(immutable=immutable, name=name):
                    self.shell(p, f"kubectl delete secret people -n {SPACE} --ignore-not-found")
                    self.apply(p, self.kept("Secret", "people", {"data": data, "immutable": immutable}))
                    said = self.cure(p, f"BrokerListener {SPACE}/one" if not data else f"BrokerAuthentication {SPACE}/people",
                                     word, without="does not exist")
                    before = p.get("secret", "people")
                    line = next(one for one in self.commands(said) if "penstock passwd" in one and one.count(name))
                    self.shell(p, f"unset KUBECONFIG; printf 'secret\\n' > pw; export KUBECONFIG={p.env['KUBECONFIG']}; "
                                  f"{{ {line.rstrip('.')}; }} < pw")
                    self.assert_kept(before, p.get("secret", "people"), name)
                    wait_until(lambda: Mqtt(1883).connect("c", name, "secret") == 0, f"{name} logs in")

    def test_a_password_file_becomes_its_users_as_the_cure_says(self):
        """Also in a Secret that is immutable, with a user beside who has the file's name, and one whose name begins with a digit."""
        p = self.start(users("people", "people"), listener("one", {"port": 1883, "authenticationRef": "people"}))
        subject = f"BrokerAuthentication {SPACE}/people"
        self.shell(p, """set -e; : > file; : > named
mosquitto_passwd -b file ann secret; mosquitto_passwd -b file 4711 secret; mosquitto_passwd -b named passwd secret; mosquitto_passwd -b named bob secret""")
        text = lambda name: base64.b64encode((p.folder / name).read_bytes()).decode()
        for immutable in (False, True):
            for name, added in (("file", ("ann", "4711")), ("named", ("passwd", "bob"))):
                with self.subTest(immutable=immutable, name=name):
                    self.shell(p, f"kubectl delete secret people -n {SPACE} --ignore-not-found")
                    self.apply(p, self.kept("Secret", "people", {"data": {"passwd": text(name), "README": text("m.yaml")}, "immutable": immutable}))
                    said = self.cure(p, subject, "whole password file with 2 users", without="does not exist")
                    before = p.get("secret", "people")
                    line = next(one for one in self.commands(said) if "--import" in one)
                    self.shell(p, line)
                    after = p.get("secret", "people")
                    self.assertEqual(sorted(after["data"]), sorted({"README", *added}))
                    self.assert_kept(before, after, "passwd", *added)
                    for user in added:
                        wait_until(lambda: Mqtt(1883).connect("c", user, "secret") == 0, f"{user} logs in")
                    self.gone(p, "whole password file")

    def test_a_pair_is_issued_anew_and_what_stands_beside_stays_as_the_cure_says(self):
        """In the Secret of an Automatic certificate: entries, labels and annotations that somebody put there."""
        p = self.start(listener("one", {"port": 8883, "tls": AUTOMATIC}))
        p.wait_running("one")
        secret, subject = "one-8883-tls", f"BrokerListener {SPACE}/one"
        # One of the right names and CA, which the issuer has nothing against, and no client takes.
        self.shell(p, f"""set -e
entry() {{ kubectl get secret $1 -n $2 -o go-template="{{{{index .data \\"$3\\" | base64decode}}}}"; }}
ca=azure-iot-operations-aio-ca-certificate
entry $ca cert-manager tls.crt > ca.crt; entry $ca cert-manager tls.key > ca.key; entry {secret} {SPACE} tls.crt > now.crt; entry {secret} {SPACE} tls.key > now.key
echo extendedKeyUsage=clientAuth > ext; openssl x509 -in now.crt -noout -ext subjectAltName | tail -n1 | sed 's/IP Address:/IP:/g; s/^ */subjectAltName=/' >> ext
openssl req -new -key now.key -subj "/CN=$(openssl x509 -in now.crt -noout -subject -nameopt multiline | sed -n 's/.*commonName *= //p')" -out csr
openssl x509 -req -in csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 90 -extfile ext -out useless.crt""")
        useless = base64.b64encode((p.folder / "useless.crt").read_bytes()).decode()
        key = base64.b64encode((p.folder / "now.key").read_bytes()).decode()
        patch = {"metadata": {"labels": {"hall": "4"}, "annotations": {"owner": "ann"}}, "data": {"token": "eA==", "tls.crt": useless, "tls.key": key}}
        self.shell(p, f"kubectl patch secret {secret} -n {SPACE} --type merge -p {shlex.quote(json.dumps(patch))}")
        said = self.cure(p, subject, "have it issued anew")
        before = p.get("secret", secret)
        self.follow(p, said)
        self.well(p)
        after = p.get("secret", secret)
        self.assertNotIn(after["data"]["tls.crt"], (useless, base64.b64encode(b"none").decode()))
        self.assert_kept(before, after, "tls.crt", "tls.key", "ca.crt")
        # Nothing of anybody's beside it: the whole may go.
        self.shell(p, f"kubectl patch secret {secret} -n {SPACE} --type merge -p " + shlex.quote(json.dumps({"metadata": {"labels": {"hall": None}, "annotations": {"owner": None}}, "data": {"token": None, "tls.crt": useless, "tls.key": key}})))
        said = self.cure(p, subject, "have it issued anew")
        self.assertIn(f"kubectl delete secret {secret} -n {SPACE}", said)
        self.follow(p, said)
        self.well(p)

    def test_a_ca_of_its_own_that_was_taken_away_is_made_again_or_says_how(self):
        """As long as Penstock makes it, nothing is told that its owner should make."""
        p = self.start(listener("one", {"port": 8883, "tls": AUTOMATIC}))
        p.wait_running("one")
        ca, issuer = "azure-iot-operations-aio-ca-certificate", "azure-iot-operations-aio-certificate-issuer"
        made = lambda: self.shell(p, f"kubectl get secret {ca} -n cert-manager --ignore-not-found -o jsonpath='{{.data.tls\\.crt}}'")
        first = made()
        self.shell(p, f"kubectl delete secret {ca} -n cert-manager")
        second = wait_until(lambda: (lambda now: now if now not in ("", first) else None)(made()), "a CA again")
        self.well(p)
        self.shell(p, f"kubectl delete certificate {ca} -n cert-manager; kubectl delete secret {ca} -n cert-manager")
        message = lambda: json.loads(self.shell(p, f"kubectl get clusterissuer {issuer} -o json"))["status"]["conditions"][0]["message"]
        said = wait_until(lambda: message() if "made anew" in message() else None, "the issuer says how")
        self.assertIn(f"kubectl create secret tls {ca} -n cert-manager", said)
        self.shell(p, self.commands(said)[-1])
        wait_until(lambda: made() not in ("", second), "a CA again")
        self.well(p)

    def test_a_broker_whose_name_is_a_number_is_named_as_the_cure_says(self):
        p = self.penstock()
        made = broker(SETTINGS % 0).replace("name: default", "name: '123'") + "---\n" + listener("one", {"port": 1883})
        p.files = [p.write("m.yaml", made.replace('"default"', '"123"'))]
        p.start()
        p.wait_running("one")
        lost = listener("two", {"port": 1884}, service_type="NodePort").replace("default", "124")
        self.apply(p, lost)
        said = lambda: p.status("brokerlistener", "two")["runtimeStatus"]["description"]
        wait_until(lambda: "did you mean" in said(), "the listener is told of")
        self.follow(p, said())
        p.wait_running("two")

    def test_names_of_manifests_forge_no_line(self):
        """A name may have a line's end and what steers a terminal: neither is in a page or a condition."""
        p = self.start(listener("one", {"port": 1883}), metrics=9601)
        self.well(p)
        forged = "b\n[+]manifests ok\n\x1b[31m.yaml"
        p.write("data/manifests/" + forged, self.kept("ConfigMap", "a", {}))
        wait_until(lambda: p.get("configmap", "a"), "the manifest is applied")
        clean = lambda said: (self.assertNotIn("\x1b", said), self.assertNotIn("\n[+]manifests ok\n", said))
        self.shell(p, f"kubectl delete configmap a -n {SPACE}")
        self.told(p, "was deleted by somebody")
        for page in ("readyz", "readyz?verbose", "metrics"):
            clean(self.shell(p, f"curl -s '127.0.0.1:9601/{page}'"))
        clean(self.ready(p, verbose=True))
        # Of a file that is refused.
        p.write("data/manifests/" + forged, "kind: ConfigMap\n: [")
        self.told(p, "manifests degraded", "line 2")
        clean(self.ready(p, verbose=True))
        node = json.loads(self.shell(p, "kubectl get node -o json"))["items"][0]
        said = next(one for one in node["status"]["conditions"] if one["type"] == "ManifestsApplied")["message"]
        clean(said)
        for one in p.status("broker", "default")["findings"]:
            clean(one["message"] + one.get("cure", ""))

    def test_a_first_manifest_that_is_absent_or_refused_is_not_said_to_run(self):
        p = self.penstock()
        p.files = [str(p.folder / "m.yaml")]
        p.start()
        self.assertIn("not ready", self.told(p, "manifests unavailable", "nothing of the manifests is in force", "m.yaml"))
        wait_until(lambda: "has started, and is not ready" in p.logs(), "what a person is told")
        self.assertNotIn("is running", p.logs())
        wait_until(lambda: self.health(p, "broker", "default").get("status") == "Unavailable", "the Broker's health")
        self.assertIn("nothing of the manifests", json.dumps(p.status("broker", "default")["findings"]))
        p.write("m.yaml", broker("{memoryProfile: Huge}"))
        self.told(p, "spec.memoryProfile", "penstock validate -f")
        # Ended like that, it never did what it was told.
        self.assertEqual(p.stop(), 1)
        self.assertIn("ended without ever having run what -f names", p.logs())
        p.start()
        self.told(p, "spec.memoryProfile")
        p.write("m.yaml", broker(SETTINGS % 0) + "---\n" + listener("one", {"port": 1883}))
        self.well(p)
        # What was in force stays so while a file is wrong: that is told, and it is ready.
        p.write("m.yaml", broker("{memoryProfile: Huge}"))
        self.assertIn("ok, with faults", self.told(p, "spec.memoryProfile", "what was applied before stays"))
        self.assertEqual(Mqtt(1883).connect("c"), 0)
        self.assertEqual(p.stop(), 0)

    def test_no_listener_no_broker_a_metrics_port_that_is_taken(self):
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 9601))
            holder.listen()
            p = self.start(metrics=9601)
            self.told(p, "no BrokerListener names Broker", "kubectl apply -f")
            self.assertIn(f"[-]Broker {SPACE}/default unavailable", self.ready(p, verbose=True))
            self.assertIn("[+]registry ok", self.ready(p, verbose=True))
            self.told(p, "metrics port 9601 cannot be opened", "prometheusPort")
            self.assertRegex(p.logs(), r"metrics port 9601 cannot be opened: .*; the port is spec\.diagnostics\.metrics\.prometheusPort of the Broker")
            self.apply(p, listener("one", {"port": 1883}))
            self.told(p, "ok, with faults", "metrics port 9601")
            wait_until(lambda: self.shell(p, "kubectl get broker -A --no-headers").split()[2:5] == ["Medium", "Running", "Degraded"], "the columns", 20)
            self.assertIn("metrics port 9601", self.shell(p, "kubectl get broker -A -o wide"))
        self.well(p)
        wait_until(lambda: self.shell(p, f"kubectl get brokerlistener -n {SPACE} --no-headers").split()[:5] == ["one", "ClusterIp", "1883/tcp", "Running", "Available"], "the columns")
        self.shell(p, f"kubectl delete broker default -n {SPACE}")
        self.told(p, "there is no Broker resource")
        with self.assertRaises(OSError):
            Mqtt(1883)

    def test_a_certificate_that_is_about_to_be_issued_is_no_fault_until_it_lasts(self):
        automatic = lambda issuer: {"mode": "Automatic", "certManagerCertificateSpec": {"issuerRef": {"kind": "ClusterIssuer", "name": issuer}}}
        p = self.start(listener("one", {"port": 8883, "tls": automatic("azure-iot-operations-aio-certificate-issuer")}))
        p.wait_running("one")
        self.assertNotRegex(p.logs(), r"\[WARN\].*listener not open")
        self.assertNotIn("PortRefused", self.shell(p, f"kubectl get event -n {SPACE}"))
        # One whose issuer is not there, or never comes to it.
        self.apply(p, listener("two", {"port": 8884, "tls": automatic("nobody")}, service_type="LoadBalancer"))
        wait_until(lambda: "PortRefused" in self.shell(p, f"kubectl get event -n {SPACE}"), "the Event", 40)
        self.assertRegex(p.logs(), r"\[WARN\].*listener not open listener=azure-iot-operations/two")

    def test_certificates_that_end_a_chain_with_a_gap_an_issuer_that_is_gone(self):
        p = self.start(listener("one", {"port": 8883, "tls": {"mode": "Manual", "manual": {"secretRef": "mine"}}}))
        p.write("ext", "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1\nextendedKeyUsage=serverAuth\n")
        self.shell(p, """set -e
penstock pki root Root --out root; penstock pki intermediate Between --ca root.crt --ca-key root.key --out between
openssl ecparam -name prime256v1 -genkey -noout -out key.pem; openssl req -new -key key.pem -subj /CN=localhost -out csr
openssl x509 -req -in csr -CA between.crt -CAkey between.key -CAcreateserial -days 3 -extfile ext -out soon.crt
openssl x509 -req -in csr -CA between.crt -CAkey between.key -CAcreateserial -days 300 -extfile ext -out leaf.crt
cat soon.crt between.crt > soon-chain.crt; cat leaf.crt between.crt > chain.crt""")
        secret = lambda cert: self.shell(p, f"kubectl create secret tls mine -n {SPACE} --cert={cert} --key=key.pem --dry-run=client -o yaml | kubectl apply -f -")
        secret("soon-chain.crt")
        self.told(p, "ok, with faults", "ends in 2 days", "nobody renews it", "kubectl create secret tls mine")
        wait_until(lambda: self.health(p, "brokerlistener", "one")["status"] == "Degraded", "the listener")
        self.assertIn("ends in 2 days", self.shell(p, f"kubectl get brokerlistener one -n {SPACE} -o wide"))
        secret("leaf.crt")
        self.told(p, "Between", "cat LEAF.crt INTERMEDIATE.crt")
        secret("chain.crt")
        wait_until(lambda: "Between" not in self.ready(p), "the chain is whole")
        # A certificate whose issuer goes is good, and will not be renewed.
        tls = {"mode": "Automatic", "certManagerCertificateSpec": {"issuerRef": {"kind": "Issuer", "name": "plant"}, "privateKey": {"algorithm": "Ec256"}}}
        self.apply(p, manifest("Issuer", "plant", {"selfSigned": {}}, "cert-manager.io/v1") + listener("two", {"port": 8884, "tls": tls}, service_type="LoadBalancer"))
        p.wait_running("two")
        self.shell(p, f"kubectl delete issuer plant -n {SPACE}")
        self.told(p, 'the Issuer "plant" does not exist any more', "issuerRef")
        wait_until(lambda: self.health(p, "brokerlistener", "two")["status"] == "Degraded", "the listener")
        self.assertIn("cannot be renewed", self.shell(p, f"kubectl get certificate two-8884-tls -n {SPACE} -o wide"))

    def test_a_custom_server_that_is_down_and_rules_that_let_nobody_in(self):
        custom = manifest("BrokerAuthentication", "custom", {"brokerRef": "default", "authenticationMethods": [{"method": "Custom", "customSettings": {"endpoint": "https://127.0.0.1:9443"}}]})
        p = self.start(custom, users("people", "people"), listener("one", {"port": 1883, "authenticationRef": "custom"}, {"port": 1884, "authenticationRef": "people"}))
        self.shell(p, f"kubectl create secret generic people -n {SPACE}")
        self.told(p, "https://127.0.0.1:9443 does not answer", "Secret azure-iot-operations/people has no user who can log in", "penstock passwd")
        wait_until(lambda: self.health(p, "brokerauthentication", "custom")["status"] == "Unavailable", "the BrokerAuthentication")
        self.assertIn("Unavailable", self.shell(p, f"kubectl get brokerauthentication people -n {SPACE}"))
        self.shell(p, f"printf 'secret\\n' | penstock passwd -n {SPACE} people ada")
        wait_until(lambda: self.health(p, "brokerauthentication", "people")["status"] == "Available", "a user is there")

    def test_after_a_crash_nothing_shows_the_run_before(self):
        p = self.start(listener("one", {"port": 1883}))
        self.well(p)
        wait_until(lambda: self.health(p, "brokerlistener", "one").get("status") == "Available", "health")
        p.stop(signal.SIGKILL)
        # The API alone: no broker stands behind what was written.
        api = subprocess.Popen([p.binary, "api", "--data-dir", str(p.data), "--api-port", str(p.api_port)], env=p.env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.addCleanup(lambda: (api.kill(), api.wait()))
        wait_until(lambda: self.health(p, "brokerlistener", "one").get("status") == "Unknown", "Unknown", 20)
        wait_until(lambda: p.status("broker", "default")["runtimeStatus"]["status"] == "Unknown", "Unknown")
        self.assertIn("no broker has taken the Lease", self.health(p, "broker", "default")["message"])

    def test_a_disk_of_the_registry_that_is_full(self):
        p = self.penstock()
        p.data.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(p.data)], check=True)
        self.addCleanup(lambda: (p.stop(), subprocess.run(["umount", str(p.data)])))
        p.files = [p.write("m.yaml", broker(SETTINGS % 0) + "---\n" + listener("one", {"port": 1883}))]
        p.start()
        self.well(p)
        subprocess.run(f"cat /dev/zero > {p.data}/fill", shell=True, stderr=subprocess.DEVNULL)
        write = lambda: subprocess.run(["kubectl", "create", "configmap", f"x{id(object())}", "--from-literal=a=" + "x" * 20000], env=p.env, capture_output=True, text=True)
        refused = wait_until(lambda: (lambda done: done if done.returncode != 0 else None)(write()), "a write that is refused")
        self.assertIn("cannot be written", refused.stderr)
        self.told(p, "ok, with faults", "registry degraded", "df -h")
        wait_until(lambda: self.health(p, "broker", "default").get("reasonCode") == "RegistryNotWritable", "the status, which no disk has", 20)
        self.assertIn("Degraded", self.shell(p, "kubectl get broker -A"))
        self.assertEqual(Mqtt(1883).connect("c"), 0)
        (p.data / "fill").unlink()
        self.well(p)
        wait_until(lambda: self.health(p, "broker", "default").get("status") == "Available", "the status", 20)

    def test_what_stands_in_the_place_of_the_log(self):
        """Said on standard error, in health, and to who asks for the run before, who is never shown an earlier one."""
        p = self.start(listener("one", {"port": 1883}))
        log, saved = p.data / "log", p.folder / "saved"
        former = lambda: self.shell(p, f"kubectl logs aio-broker-operator-0 -n {SPACE} --previous", ok=False)
        p.stop()
        p.start()
        wait_until(lambda: "app: stopping" in former(), "the log of the run before")
        p.stop()
        cases = ((log / "run.log", lambda at: (at / "mine").mkdir(parents=True), "a folder stands there"),
                 (log / "previous.log", os.mkfifo, "a pipe stands there"),
                 (log, pathlib.Path.touch, "a file stands there and no folder"),
                 (log, lambda at: at.symlink_to("nowhere"), "a link stands there that leads nowhere"))
        for place, make, says in cases:
            with self.subTest(f"{place.name}: {says}"):
                shutil.copytree(log, saved)
                shutil.rmtree(place) if place.is_dir() else place.unlink()
                make(place)
                p.start()
                self.told(p, "ok, with faults", "process degraded", f"{place}: {says}", f"ls -la {log}")
                self.assertIn(f"Internal error occurred: {place}: {says}", wait_until(former, "an answer"))
                self.assertIn(f"{place}: {says}", p.logs())
                wait_until(lambda: self.health(p, "broker", "default").get("reasonCode") == "RunLogNotKept", "the Broker's health", 20)
                shutil.rmtree(place) if place.is_dir() and not place.is_symlink() else place.unlink()
                self.well(p)
                self.assertIn("lines of the log are lost", (log / "run.log").read_text())
                p.stop()
                shutil.rmtree(log)
                saved.rename(log)
        # While it runs: what follows is kept, and is the log of the run before for the next one.
        p.start()
        wait_until((log / "run.log").exists, "the file of the run")
        shutil.rmtree(log, ignore_errors=True)   # a file that is begun anew meanwhile stays
        wait_until((log / "run.log").exists, "the file of the run")
        p.stop()
        p.start()
        wait_until(lambda: "app: stopping" in former(), "the log of the run before")


class Deleted(Case):
    def pings(self, client):
        client.send(0xC0, b"")
        return client.receive()

    def test_the_secret_of_a_certificate_in_use(self):
        p = self.start(listener("one", {"port": 8883, "tls": {"mode": "Manual", "manual": {"secretRef": "mine"}}}))
        self.shell(p, "for n in first second; do openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $n.key -out $n.crt -subj /CN=$n "
                      "-addext subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1 -addext basicConstraints=critical,CA:FALSE -days 300 2>/dev/null || exit 1; done")
        make = lambda name: self.shell(p, f"kubectl create secret tls mine -n {SPACE} --cert={name}.crt --key={name}.key")
        make("first")
        p.wait_running("one")
        before = self.ready(p)
        trust = ssl.create_default_context(cafile=str(p.folder / "first.crt"))
        trust.load_verify_locations(str(p.folder / "second.crt"))
        stays = Mqtt(8883, trust)
        self.assertEqual(stays.connect("stays"), 0)
        self.shell(p, f"kubectl delete secret mine -n {SPACE}")
        self.told(p, "Secret azure-iot-operations/mine does not exist", "goes on being served", "kubectl create secret tls mine")
        self.assertEqual(self.pings(stays), (0xD0, b""))
        newcomer = Mqtt(8883, trust)
        self.assertEqual(newcomer.connect("newcomer"), 0)
        self.assertIn("goes on", p.logs())
        wait_until(lambda: self.health(p, "brokerlistener", "one")["status"] == "Degraded", "the listener")
        make("second")
        wait_until(lambda: "does not exist" not in self.ready(p), "all is as before")
        self.assertEqual(before.split("(since")[0], self.ready(p).split("(since")[0])
        served = lambda: dict(part[0] for part in Mqtt(8883, trust).socket.getpeercert()["subject"])["commonName"]
        wait_until(lambda: served() == "second", "the new certificate")
        self.assertEqual(self.pings(stays), (0xD0, b""))
        self.assertEqual(self.pings(newcomer), (0xD0, b""))
        # After a restart there is nothing to go on with.
        self.shell(p, f"kubectl delete secret mine -n {SPACE}")
        p.stop()
        p.start()
        wait_until(lambda: p.status("brokerlistener", "one").get("runtimeStatus", {}).get("status") == "Waiting", "the port waits")
        self.assertIn("kubectl create secret tls mine", p.status("brokerlistener", "one")["runtimeStatus"]["description"])
        with self.assertRaises(OSError):
            Mqtt(8883)

    def test_rules_and_what_they_are_made_of(self):
        p = self.start()
        self.shell(p, f"printf 'secret\\n' | penstock passwd -n {SPACE} people ada")
        may = {"rules": [{"principals": {"usernames": ["ada"]}, "brokerResources": [{"method": "Connect"}, {"method": "Publish", "topics": ["t"]}]}]}
        p.write("rules.yaml", users("people", "people") + manifest("BrokerAuthorization", "may", {"brokerRef": "default", "authorizationPolicies": may}))
        self.shell(p, "kubectl apply -f rules.yaml")
        self.apply(p, listener("one", {"port": 1883, "authenticationRef": "people", "authorizationRef": "may"}))
        wait_until(lambda: Mqtt(1883).connect("new", "ada", "secret") == 0, "the port")
        stays = Mqtt(1883)
        self.assertEqual(stays.connect("stays", "ada", "secret"), 0)
        (p.folder / "people.json").write_text(self.shell(p, f"kubectl get secret people -n {SPACE} -o json"))
        for what, again in (("secret people", "create -f people.json"), ("brokerauthentication people", "apply -f rules.yaml"), ("brokerauthorization may", "apply -f rules.yaml")):
            with self.subTest(what):
                self.shell(p, f"kubectl delete {what} -n {SPACE}")
                self.told(p, "newcomers are refused (0x88)")
                # Nobody gets in, whatever he shows; who is in stays, within his rights.
                self.assertEqual(Mqtt(1883).connect("new", "ada", "secret"), 0x88)
                self.assertEqual(Mqtt(1883).connect("stranger"), 0x88)
                self.assertIn(stays.put("t"), (0, 0x10))
                self.assertEqual(stays.put("other"), 0x87)
                self.shell(p, f"kubectl {again}")
                wait_until(lambda: Mqtt(1883).connect("new", "ada", "secret") == 0, "the port")
                self.assertEqual(self.pings(stays), (0xD0, b""))
        # Another name that stands for nothing yet is no reason to end anybody either.
        self.apply(p, listener("one", {"port": 1883, "authenticationRef": "nobody", "authorizationRef": "may"}))
        self.told(p, "BrokerAuthentication azure-iot-operations/nobody does not exist", "newcomers are refused (0x88)")
        self.assertEqual(Mqtt(1883).connect("new", "ada", "secret"), 0x88)
        self.assertEqual(self.pings(stays), (0xD0, b""))
        self.apply(p, listener("one", {"port": 1883, "authenticationRef": "people", "authorizationRef": "may"}))
        wait_until(lambda: Mqtt(1883).connect("new", "ada", "secret") == 0, "the port")
        # A restart has no last rules: the port waits.
        self.shell(p, f"kubectl delete brokerauthorization may -n {SPACE}")
        p.stop()
        p.start()
        wait_until(lambda: p.status("brokerlistener", "one").get("runtimeStatus", {}).get("status") == "Waiting", "the port waits")
        with self.assertRaises(OSError):
            Mqtt(1883)

    def test_a_listener_that_is_replaced(self):
        p = self.start()
        p.write("l.yaml", listener("one", {"port": 1883}))
        self.shell(p, "kubectl create -f l.yaml")
        self.well(p)
        stays = Mqtt(1883)
        self.assertEqual(stays.connect("stays"), 0)
        self.shell(p, "kubectl replace --force -f l.yaml")
        wait_until(lambda: self.code("new") == 0, "the port")
        self.assertEqual(self.pings(stays), (0xD0, b""))
        # Deleted for good, it goes after a moment.
        self.shell(p, "kubectl delete -f l.yaml")
        wait_until(lambda: self.code("new") != 0, "newcomers are refused")
        self.assertEqual(stays.receive(15)[0], 0xE0, "DISCONNECT")
        wait_until(lambda: self.code("new") == "closed", "the port is closed")

    def code(self, name):
        try:
            return Mqtt(1883).connect(name)
        except OSError:
            return "closed"


if __name__ == "__main__":
    result = unittest.main(exit=False, warnings="ignore").result
    bad = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - bad} passed, {bad} failed")
    sys.exit(1 if bad else 0)
