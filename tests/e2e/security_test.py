"""Security as clients meet it: the usual commands as they are typed, certificates and rules that change under load, custom servers that
misbehave. Standard library, openssl, mosquitto-clients and kubectl; in a network of its own."""
import http.server
import json
import os
import pathlib
import pty
import re
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time
import unittest

from mqtt import Mqtt
from support import Penstock, broker, free_port, in_own_network, wait_until

if __name__ == "__main__":
    code = in_own_network(__file__, *sys.argv[1:])
    if code is not None:
        sys.exit(code)
BINARY = sys.argv.pop(1)
SPACE = "azure-iot-operations"


def manifest(kind, name, spec, group="mqttbroker.iotoperations.azure.com/v1", space=SPACE):
    return json.dumps({"apiVersion": group, "kind": kind, "metadata": {"name": name, **({"namespace": space} if space else {})}, "spec": spec}) + "\n---\n"


def automatic():
    return {"mode": "Automatic", "certManagerCertificateSpec": {"issuerRef": {"kind": "ClusterIssuer", "name": "azure-iot-operations-aio-certificate-issuer"}, "privateKey": {"algorithm": "Ec256", "rotationPolicy": "Always"}}}


class Case(unittest.TestCase):
    def start(self, *documents):
        p = Penstock(BINARY)
        p.files = [p.write("m.yaml", broker("{diagnostics: {metrics: {prometheusPort: 0}, selfCheck: {mode: Disabled}}}") + "---\n" + "".join(documents))]
        self.addCleanup(lambda: p.__exit__(*((None, None, None) if not self._outcome_bad() else (Exception, None, None))))
        return p.start()

    def _outcome_bad(self):
        return any(error for _, error in getattr(self._outcome, "errors", []) or [])

    def shell(self, p, line, ok=True, cwd=None):
        env = {**p.env, "PATH": f"{pathlib.Path(BINARY).resolve().parent}:{p.env['PATH']}"}
        done = subprocess.run(["bash", "-c", line], capture_output=True, text=True, env=env, cwd=cwd or p.folder, timeout=120)
        if ok:
            self.assertEqual(done.returncode, 0, f"{line}\n{done.stdout}{done.stderr}\n{p.logs()[-2000:]}")
        return done.stdout + done.stderr

    def port_status(self, p, name, index=0):
        return (p.status("brokerlistener", name).get("portStatus") or [{}] * (index + 1))[index]

    def ca(self, p):
        text = wait_until(lambda: p.get("configmap", "azure-iot-operations-aio-ca-trust-bundle")["data"]["ca.crt"], "the trust bundle")
        (p.folder / "ca.crt").write_text(text)
        return ssl.create_default_context(cadata=text)


class AsTyped(Case):
    def test_an_appendix_that_makes_unsound_certificates(self):
        """The openssl lines of a usual installation's notes, as they stand: the intermediate is no CA. The faults are named, with the cure."""
        p = self.start(manifest("BrokerListener", "lan", {"brokerRef": "default", "serviceType": "LoadBalancer", "ports": [{"port": 8883, "tls": {"mode": "Manual", "manual": {"secretRef": "broker-server-cert"}}}]}))
        status = wait_until(lambda: p.status("brokerlistener", "lan"), "a status")
        self.assertIn("kubectl create secret tls broker-server-cert", status["runtimeStatus"]["description"])
        self.shell(p, r'''
# Server root & intermediate
openssl genrsa -out aio_root_ca.key 4096
openssl req -x509 -new -key aio_root_ca.key -sha256 -days 3000 -subj "/CN=AIO Root CA" -out aio_root_ca.crt

openssl genrsa -out aio_int_ca.key 4096
openssl req -new -key aio_int_ca.key -subj "/CN=AIO Intermediate CA" -out aio_int_ca.csr
openssl x509 -req -in aio_int_ca.csr -CA aio_root_ca.crt -CAkey aio_root_ca.key -CAcreateserial -out aio_int_ca.crt -days 3000 -sha256

# Endpoint cert
openssl genrsa -out mqtts-endpoint.key 2048
openssl req -new -key mqtts-endpoint.key -subj "/CN=mqtts-endpoint" -out mqtts-endpoint.csr
cat > san.cnf <<EOF
[ req ]
distinguished_name=req
[ v3_req ]
subjectAltName=DNS:n013edge.local,IP:10.13.100.11,IP:100.81.128.71
EOF
openssl x509 -req -in mqtts-endpoint.csr -CA aio_int_ca.crt -CAkey aio_int_ca.key -CAcreateserial -out mqtts-endpoint.crt -days 3000 -sha256 -extfile san.cnf -extensions v3_req
cat mqtts-endpoint.crt aio_int_ca.crt > chain.crt
''')
        told = self.shell(p, "penstock pki inspect chain.crt --ca aio_root_ca.crt --purpose server", ok=False)
        self.assertIn('("CN = AIO Intermediate CA") signs others but is no CA: basicConstraints CA:TRUE is missing', told)
        self.assertIn('is named like a CA, but basicConstraints CA:TRUE is missing', self.shell(p, "penstock pki inspect aio_int_ca.crt", ok=False))
        self.assertIn("not good: ", self.shell(p, "penstock pki verify chain.crt --ca aio_root_ca.crt --purpose server", ok=False))
        self.shell(p, "kubectl create secret tls broker-server-cert -n azure-iot-operations --cert=chain.crt --key=mqtts-endpoint.key")
        # Clients that do not verify get in; those that do refuse, so that the listener does not claim to run.
        wait_until(lambda: "signs others but is no CA" in json.dumps(self.port_status(p, "lan").get("warnings", [])), "the warning")
        # Its names are those that its owner has clients use: that loopback's are not among them is no fault of a LoadBalancer.
        self.assertNotIn("does not cover", json.dumps(self.port_status(p, "lan")["warnings"]))
        status = p.status("brokerlistener", "lan")
        self.assertEqual((status["runtimeStatus"]["status"], status["healthState"]["status"], status["healthState"]["reasonCode"]), ("Failed", "Unavailable", "CertificateRefused"))
        self.assertIn("clients that verify its certificate refuse it: port 8883: certificate 2", status["runtimeStatus"]["description"])
        self.assertTrue(self.port_status(p, "lan")["open"])
        # A client says what we said: the chain is not sound.
        self.assertIn("a tls error", self.shell(p, "mosquitto_pub -h 10.13.100.11 -p 8883 -t t -m x --cafile aio_root_ca.crt 2>&1; true").lower())

    def test_an_endpoint_without_names(self):
        p = self.start(manifest("BrokerListener", "lan", {"brokerRef": "default", "serviceType": "LoadBalancer", "ports": [{"port": 8883, "tls": {"mode": "Manual", "manual": {"secretRef": "broker-server-cert"}}}]}))
        self.shell(p, "openssl req -x509 -newkey rsa:2048 -nodes -keyout k.pem -out c.pem -subj /CN=mqtts-endpoint -days 30 2>/dev/null; kubectl create secret tls broker-server-cert -n azure-iot-operations --cert=c.pem --key=k.pem")
        wait_until(lambda: "has no subjectAltName" in json.dumps(self.port_status(p, "lan").get("warnings", [])), "the warning")
        self.assertIn("fault: \"CN = mqtts-endpoint\" has no subjectAltName", self.shell(p, "penstock pki inspect 127.0.0.1:8883", ok=False))

    def test_a_key_that_no_tls_client_can_use(self):
        """secp256k1 is a curve of OpenSSL and of no TLS: the port stays closed and says so, and opens with the next certificate."""
        p = self.start(manifest("BrokerListener", "lan", {"brokerRef": "default", "serviceType": "LoadBalancer", "ports": [{"port": 8883, "tls": {"mode": "Manual", "manual": {"secretRef": "mine"}}}]}))
        make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:%s -nodes -keyout k.pem -out c.pem -subj /CN=odd -days 30 -addext subjectAltName=DNS:localhost,IP:127.0.0.1 2>/dev/null; "
        self.shell(p, make % "secp256k1" + "kubectl create secret generic mine -n azure-iot-operations --type=kubernetes.io/tls --from-file=tls.crt=c.pem --from-file=tls.key=k.pem")
        wait_until(lambda: "curve secp256k1" in p.status("brokerlistener", "lan")["runtimeStatus"]["description"], "the reason")
        status = p.status("brokerlistener", "lan")
        self.assertEqual((status["runtimeStatus"]["status"], status["healthState"]["status"]), ("Waiting", "Unavailable"))
        self.assertFalse(self.port_status(p, "lan")["open"])
        self.assertIn("fault: certificate 1 (\"CN = odd\") has a key on the curve secp256k1", self.shell(p, "penstock pki inspect c.pem --purpose server", ok=False))
        self.shell(p, make % "prime256v1" + "kubectl create secret tls mine -n azure-iot-operations --cert=c.pem --key=k.pem --dry-run=client -o yaml | kubectl apply -f -")
        p.wait_running("lan")
        self.shell(p, "mosquitto_pub -h 127.0.0.1 -p 8883 -t t -m x --cafile c.pem")

    def test_what_strangers_say_steers_no_terminal(self):
        """Names in SNI, client ids and resources, seen by kubectl, by penstock on a terminal, in the log and over HTTP."""
        p = self.start(manifest("BrokerListener", "lan", {"brokerRef": "default", "serviceType": "LoadBalancer", "ports": [{"port": 8883, "tls": automatic()}]}),
                       manifest("BrokerListener", "shut", {"brokerRef": "default", "ports": [{"port": 1884, "authenticationRef": "nobody"}]}),
                       manifest("BrokerAuthentication", "nobody", {"authenticationMethods": [{"method": "ServiceAccountToken", "serviceAccountTokenSettings": {"audiences": ["x"]}}]}))
        p.wait_running("lan")
        p.wait_running("shut")
        # A stranger's first packet: bytes that are no text, an escape sequence, a line of its own.
        self.shell(p, "for name in $'\\xff\\xfe.example' $'\\e[2J\\n<3>forged'; do openssl s_client -connect 127.0.0.1:8883 -servername \"$name\" </dev/null >/dev/null 2>&1; done; true")
        self.shell(p, "kubectl annotate brokerlistener lan -n azure-iot-operations looked=at")   # names are looked at when something changes, or once a minute
        wait_until(lambda: "\\xff\\xfe.example" in json.dumps(self.port_status(p, "lan").get("warnings", [])).replace("\\\\", "\\"), "the warning")
        p.wait_running("lan")
        evil = "fan\x1b[2J\u202e\"x\\ admin=\"yes"
        # Longer than the 256 bytes that the audit keeps, which end within a letter.
        self.assertEqual(Mqtt(1884).connect(evil + "é" * 200), 0x87)
        told = self.shell(p, "penstock auth explain", ok=True)
        self.assertIn("0x87", told)
        for output in (told, p.logs(), self.shell(p, "kubectl get brokerlistener -A -o wide; penstock get brokerlistener -A -o wide; penstock describe brokerlistener lan")):
            self.assertNotIn("\x1b", output)
            self.assertNotIn("\u202e", output)
        self.assertNotIn("\n<3>forged", p.logs())
        # On a terminal nothing gets through, whatever the command; a resource's own text included.
        self.shell(p, "kubectl create configmap odd -n azure-iot-operations --from-literal=text=$'one\\e]0;title\\a\\ntwo\\u202e'")
        for command in ("describe configmap odd", "get configmap odd -o yaml", "get configmap odd -o json", "auth explain", "get configmap odd -o jsonpath={.data.text}"):
            seen = self.on_terminal(p, command)
            self.assertNotIn(b"\x1b]", seen, command)
            self.assertNotIn("\u202e".encode(), seen, command)
        # A path that is no text has no object.
        self.assertIn("well-formed UTF-8", self.shell(p, "kubectl get --raw /api/v1/namespaces/%ff 2>&1; true"))

    def on_terminal(self, p, command):
        master, slave = pty.openpty()
        child = subprocess.Popen([str(pathlib.Path(BINARY).resolve()), *command.split()], stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, env=p.env)
        os.close(slave)
        seen = b""
        while True:
            try:
                more = os.read(master, 65536)
            except OSError:   # EIO: the other end is closed
                break
            if not more:
                break
            seen += more
        os.close(master)
        self.assertEqual(child.wait(30), 0, (command, seen))
        return seen

    def test_only_current_tls(self):
        p = self.start(manifest("BrokerListener", "local", {"brokerRef": "default", "ports": [{"port": 8883, "tls": automatic()}, {"port": 8884, "protocol": "WebSockets", "tls": automatic()}]}))
        p.wait_running("local")
        context = self.ca(p)
        for version in ("-tls1", "-tls1_1"):
            self.assertNotIn("Cipher is TLS", self.shell(p, f"openssl s_client -connect 127.0.0.1:8883 {version} -cipher ALL:@SECLEVEL=0 </dev/null 2>&1; true"))
        for cipher in ("AES128-SHA", "ECDHE-ECDSA-AES128-SHA", "NULL", "aNULL"):
            self.assertIn("(NONE)", self.shell(p, f"openssl s_client -connect 127.0.0.1:8883 -tls1_2 -cipher {cipher}:@SECLEVEL=0 </dev/null 2>&1; true"))
        self.assertIn("ALPN protocol: mqtt", self.shell(p, "openssl s_client -connect 127.0.0.1:8883 -alpn mqtt </dev/null 2>&1; true"))
        self.assertIn("no application protocol", self.shell(p, "openssl s_client -connect 127.0.0.1:8883 -alpn h2 </dev/null 2>&1; true"))
        self.assertIn("Verify return code: 0 (ok)", self.shell(p, "openssl s_client -connect 127.0.0.1:8883 -CAfile ca.crt -verify_hostname localhost </dev/null 2>&1; true"))
        resumed = self.shell(p, "openssl s_client -connect 127.0.0.1:8883 -tls1_2 -reconnect </dev/null 2>&1; true")
        self.assertEqual(resumed.count("Reused, TLSv1.2"), 5)
        # MQTT over WebSocket over TLS.
        sub = subprocess.Popen([p.binary, "sub", "--ws", "-h", "localhost", "-p", "8884", "--cafile", str(p.folder / "ca.crt"), "-t", "t/#", "-C", "1"], stdout=subprocess.PIPE, text=True)
        wait_until(lambda: p.run("pub", "-h", "127.0.0.1", "-p", "8883", "--cafile", str(p.folder / "ca.crt"), "-t", "t/1", "-m", "across", "-r", "-q", "1").returncode == 0, "a publication")
        self.assertEqual(sub.communicate(timeout=10)[0].strip(), "across")
        # Plain text on the TLS port, and clients that never shake hands, harm nobody.
        for noise in (b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00", b"GET / HTTP/1.0\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"x" * 1000):
            s = socket.create_connection(("127.0.0.1", 8883))
            s.sendall(noise)
            s.settimeout(15)
            try:
                while s.recv(1000):
                    pass
            except ConnectionResetError:
                pass
        idle = [socket.create_connection(("127.0.0.1", 8883)) for _ in range(300)]
        self.assertEqual(Mqtt(8883, context).connect("x"), 0)
        del idle


class Refusals(Case):
    """What a person is told of clients that did not get in."""
    def explained(self, p, action):
        told = json.loads(self.shell(p, "penstock auth explain --json"))
        return [(one["peer"].rsplit(":", 1)[0], one["why"], one["count"]) for one in told if one["action"] == action]

    def ends(self, host, port, sent, source="127.0.0.1", reset=False):
        """Sends bytes and waits for the end, or resets the connection at once."""
        with socket.create_connection((host, port), source_address=(source, 0), timeout=15) as s:
            if reset:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return s.sendall(sent)
            s.sendall(sent)
            try:
                while s.recv(1000):
                    pass
            except ConnectionResetError:
                pass

    def test_tls_failures_say_who_what_and_what_to_do(self):
        p = self.start(manifest("BrokerListener", "local", {"brokerRef": "default", "ports": [{"port": 8883, "tls": automatic()}, {"port": 1884}]}))
        p.wait_running("local")
        mqtt_words, http_words = b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00", b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: a browser, which sends more than this\r\n\r\n"
        for source, times in (("127.0.0.1", 3), ("127.0.0.2", 2), ("127.0.0.3", 1)):
            for _ in range(times):
                self.ends("127.0.0.1", 8883, mqtt_words, source)
        self.ends("127.0.0.1", 8883, http_words)
        # Who has closed before it is looked at is known by its address too.
        for _ in range(5):
            self.ends("127.0.0.1", 8883, mqtt_words, "127.0.0.7", reset=True)
        rows = lambda: self.explained(p, "TLS")
        count = lambda host, word: sum(times for peer, why, times in rows() if peer == host and word in why)
        wait_until(lambda: count("127.0.0.1", "what came looks like HTTP") == 1, "the browser")
        for host, times in (("127.0.0.1", 3), ("127.0.0.2", 2), ("127.0.0.3", 1)):
            self.assertEqual(count(host, "spoke no TLS on a TLS port, what came looks like MQTT; switch TLS on"), times, rows())
        self.assertNotIn("-", [peer for peer, _, _ in rows()])
        self.assertNotIn("TLS failed peer=- ", p.logs())
        # TLS where none is wanted, and HTTP.
        self.ends("127.0.0.1", 1884, http_words)
        self.shell(p, "openssl s_client -connect 127.0.0.1:1884 </dev/null >/dev/null 2>&1; true")
        wait_until(lambda: [why for _, why, _ in self.explained(p, "Protocol") if "spoke TLS on a port without TLS" in why], "TLS on a plain port")
        self.assertTrue([why for _, why, _ in self.explained(p, "Protocol") if "spoke HTTP on a port that speaks MQTT" in why])
        self.assertIn('why="the client spoke TLS on a port without TLS', p.logs())
        # By a client's own alerts, and by what it offers.
        self.ca(p)
        for line, word in (("openssl s_client -connect 127.0.0.1:8883 -verify_return_error -no-CAfile -no-CApath -no-CAstore", "does not trust the CA of this port's certificate; give it that CA"),
                           ("openssl s_client -connect 127.0.0.1:8883 -verify_return_error -CAfile ca.crt -verify_hostname elsewhere.example", "the name or address that it dials is not in it"),
                           ("openssl s_client -connect 127.0.0.1:8883 -tls1_1 -cipher ALL:@SECLEVEL=0", "have no version of TLS in common"),
                           ("openssl s_client -connect 127.0.0.1:8883 -tls1_2 -cipher AES128-SHA:@SECLEVEL=0", "have no cipher, curve or kind of key in common"),
                           ("openssl s_client -connect 127.0.0.1:8883 -alpn h2", "have it ask for mqtt or for none")):
            self.shell(p, line + " </dev/null >/dev/null 2>&1; true")
            wait_until(lambda: count("127.0.0.1", word) >= 1, line)

    def test_who_resets_its_connection_is_named_by_its_address(self):
        p = self.start(manifest("BrokerListener", "local", {"brokerRef": "default", "ports": [{"port": 8883, "tls": automatic()}, {"port": 1884}, {"port": 8080, "protocol": "WebSockets"}]}))
        p.wait_running("local")
        context = self.ca(p)
        reset = struct.pack("ii", 1, 0)
        # Few enough that each has its line: the log has ten ends a second.
        # Before CONNECT, plain and over WebSocket.
        wrong = b"\xff" * 64
        for port, source in ((1884, "127.0.0.7"), (8080, "127.0.0.8")):
            for _ in range(2):
                self.ends("127.0.0.1", port, wrong if port == 1884 else b"GET / HTTP/1.1\r\n\r\n", source, reset=True)
            wait_until(lambda: f" peer={source}:" in p.logs(), f"the end of {source}")
        # Of clients that were let in: their last packet is a wrong one, and read after the reset.
        for name, port, tls in (("plain", 1884, None), ("secret", 8883, context)):
            for turn in range(2):
                client = Mqtt(port, tls)
                self.assertEqual(client.connect(f"{name}-{turn}"), 0)
                address = "%s:%d" % client.socket.getsockname()
                client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
                client.socket.sendall(wrong)
                os.close(client.socket.detach())
                line = wait_until(lambda: [line for line in p.logs().splitlines() if f'connection ended client="{name}-{turn}"' in line], f"the end of {name}")[0]
                self.assertIn(f" peer={address} ", line)
        self.assertNotIn(" peer=- ", p.logs())

    def test_how_credentials_are_shown_is_said(self):
        p = self.start(manifest("BrokerListener", "local", {"brokerRef": "default", "ports": [{"port": 1884, "authenticationRef": "both"}]}),
                       manifest("BrokerAuthentication", "both", {"authenticationMethods": [
                           {"method": "ServiceAccountToken", "serviceAccountTokenSettings": {"audiences": ["x"]}},
                           {"method": "Password", "passwordSettings": {"secretRef": "staff"}}]}))
        self.assertEqual(p.run("passwd", "staff", "ann", stdin="right\n").returncode, 0)
        p.wait_running("local")
        self.assertEqual(Mqtt(1884).connect("fan"), 0x87)
        why = self.explained(p, "Authenticate")[-1][1]
        for part in ("authentication-method K8S-SAT", "authentication-data the token", "Password (user name and password of CONNECT)"):
            self.assertIn(part, why)


class Tokens(Case):
    def test_tokens_end_are_renewed_and_go_with_their_account(self):
        p = self.start(manifest("BrokerListener", "local", {"brokerRef": "default", "ports": [{"port": 18883, "authenticationRef": "default", "tls": automatic()}]}),
                       json.dumps({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "app", "namespace": SPACE, "annotations": {"aio-broker-auth/line": "7"}}}))
        p.wait_running("local")
        context = self.ca(p)

        def token(*words):
            return wait_until(lambda: p.run("create", "token", "app", *words).stdout.strip(), "a token")
        good = token("--audience", "aio-internal")
        first = Mqtt(18883, context)
        wait_until(lambda: Mqtt(18883, context).connect("probe", method="K8S-SAT", data=good) == 0, "the account is known")
        self.assertEqual(first.connect("app-1", method="K8S-SAT", data=good), 0)
        self.assertEqual(Mqtt(18883, context).connect("app-2", method="K8S-SAT", data=token()), 0x87)    # made for the API
        self.assertEqual(Mqtt(18883, context).connect("app-2"), 0x87)
        self.assertEqual(Mqtt(18883, context).connect("app-2", user="K8S-SAT", password=good), 0x87)
        clients = json.loads(p.run("auth", "clients", "--json").stdout)
        self.assertIn(("app-1", f"system:serviceaccount:{SPACE}:app", {"line": "7"}), [(c["client"], c["user"], c["attributes"]) for c in clients])
        # Re-authentication: a good token keeps the connection, a bad one ends it.
        first.auth(0x19, "K8S-SAT", token("--audience", "aio-internal"))
        answer = first.receive()
        self.assertEqual((answer[0], answer[1][:1] or b"\x00"), (0xF0, b"\x00"))
        second = Mqtt(18883, context)
        self.assertEqual(second.connect("app-3", method="K8S-SAT", data=good), 0)
        second.auth(0x19, "K8S-SAT", good[:-5] + "AAAAA")
        self.assertEqual(second.receive()[1][0], 0x87)
        # The account goes, and its clients with it.
        p.run("delete", "serviceaccount", "app")
        ended = first.receive()
        self.assertEqual((ended[0], ended[1][0]), (0xE0, 0x87))
        self.assertIn(b"is gone", ended[1])
        self.assertEqual(Mqtt(18883, context).connect("app-1", method="K8S-SAT", data=good), 0x87)


class Load:
    """A publisher and a subscriber that stay connected; every message must arrive, and nobody be thrown out."""

    def __init__(self, port, context, client, topic="load/t", **words):
        self.sub, self.pub = Mqtt(port, context), Mqtt(port, context)
        self.codes = [self.sub.connect(client + "-sub", **words), self.pub.connect(client + "-pub", **words)]
        self.sub.subscribe(topic)
        self.topic, self.sent, self.got, self.stopping, self.fault = topic, 0, [], threading.Event(), None
        self.threads = [threading.Thread(target=self.publish), threading.Thread(target=self.receive)]
        for thread in self.threads:
            thread.start()

    def publish(self):
        while not self.stopping.is_set():
            self.sent += 1
            self.pub.publish(self.topic, str(self.sent).encode(), self.sent % 60000 + 1)
            answer = self.pub.receive()
            if answer is None or answer[0] != 0x40:
                self.fault = f"publisher: {answer}"
                return
            self.stopping.wait(0.002)

    def receive(self):
        while self.fault is None:
            try:
                packet = self.sub.receive(timeout=1)
            except TimeoutError:
                if self.stopping.is_set():
                    return
                continue
            if packet is None or packet[0] >> 4 != 3:
                self.fault = f"subscriber: {packet}"
                return
            size = struct.unpack(">H", packet[1][:2])[0]
            packet_id = packet[1][2 + size:4 + size]
            self.got.append(int(packet[1][5 + size:]))
            self.sub.send(0x40, packet_id)

    def end(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join()
        return self.fault, self.sent, self.got


class UnderLoad(Case):
    def openssl(self, p, name, by=None, ca=True, use="serverAuth"):
        extension = "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n" if ca else f"subjectAltName=DNS:localhost,IP:127.0.0.1\nextendedKeyUsage={use}\n"
        (p.folder / "x.ext").write_text(extension)
        self.shell(p, f"openssl ecparam -name prime256v1 -genkey -noout -out {name}.key; openssl req -new -key {name}.key -subj '/CN={name}' -out {name}.csr; "
                   f"openssl x509 -req -in {name}.csr {f'-CA {by}.crt -CAkey {by}.key -CAcreateserial' if by else f'-signkey {name}.key'} -days 100 -extfile x.ext -out {name}.crt 2>/dev/null")

    def test_certificates_are_exchanged_and_nobody_notices(self):
        p = self.start(manifest("BrokerAuthentication", "x509", {"brokerRef": "default", "authenticationMethods": [{"method": "X509", "x509Settings": {"trustedClientCaCert": "clients"}}]}),
                       manifest("BrokerListener", "local", {"brokerRef": "default", "ports": [{"port": 8883, "authenticationRef": "x509", "tls": {"mode": "Manual", "manual": {"secretRef": "server"}}}]}))
        for n in (1, 2):
            self.openssl(p, f"root{n}")
            self.openssl(p, f"middle{n}", f"root{n}")
            self.openssl(p, f"server{n}", f"middle{n}", ca=False)
            self.openssl(p, f"clients{n}")
            self.openssl(p, f"fan{n}", f"clients{n}", ca=False, use="clientAuth")
        self.openssl(p, "middle1b", "root1")
        self.openssl(p, "server1b", "middle1", ca=False)
        self.openssl(p, "server1c", "middle1b", ca=False)
        self.shell(p, "cat server1.crt middle1.crt > chain.crt; kubectl create secret tls server -n azure-iot-operations --cert=chain.crt --key=server1.key; kubectl create configmap clients -n azure-iot-operations --from-file=ca.pem=clients1.crt")
        p.wait_running("local")

        def context(root, fan):
            out = ssl.create_default_context(cafile=p.folder / f"{root}.crt")
            out.load_cert_chain(p.folder / f"{fan}.crt", p.folder / f"{fan}.key")
            return out

        def served():
            return self.shell(p, "openssl s_client -connect 127.0.0.1:8883 </dev/null 2>/dev/null | openssl x509 -noout -serial; true").strip()

        def serial(name):
            return self.shell(p, f"openssl x509 -noout -serial -in {name}.crt").strip()
        load = Load(8883, context("root1", "fan1"), "load")
        self.assertEqual(load.codes, [0, 0])
        for server, middle in (("server1b", "middle1"), ("server1c", "middle1b"), ("server2", "middle2")):    # server, intermediate, root
            self.shell(p, f"cat {server}.crt {middle}.crt > chain.crt; kubectl create secret tls server -n azure-iot-operations --cert=chain.crt --key={server}.key --dry-run=client -o yaml | kubectl apply -f - 2>/dev/null")
            wait_until(lambda: served() == serial(server), f"{server} is served")
        self.assertEqual(Mqtt(8883, context("root2", "fan1")).connect("new"), 0)
        self.assertEqual(Mqtt(8883, context("root2", "fan2")).connect("early"), 0x87)
        # The trust bundle grows, then loses the old CA: only its clients go.
        self.shell(p, "cat clients1.crt clients2.crt > both.crt; kubectl create configmap clients -n azure-iot-operations --from-file=ca.pem=both.crt --dry-run=client -o yaml | kubectl apply -f - 2>/dev/null")
        wait_until(lambda: Mqtt(8883, context("root2", "fan2")).connect("second") == 0, "the second CA is trusted")
        second = Load(8883, context("root2", "fan2"), "second", "second/t")
        fault, sent, got = load.end()
        self.assertIsNone(fault)
        self.assertGreater(sent, 100)
        self.assertEqual(got, list(range(1, sent + 1)))
        self.shell(p, "kubectl create configmap clients -n azure-iot-operations --from-file=ca.pem=clients2.crt --dry-run=client -o yaml | kubectl apply -f - 2>/dev/null")
        ended = load.sub.receive()
        self.assertEqual((ended[0], ended[1][0]), (0xE0, 0x87))
        self.assertIn(b"the rules changed", ended[1])
        fault, sent, got = second.end()
        self.assertIsNone(fault)
        self.assertEqual(got, list(range(1, sent + 1)))

    def test_policies_of_others_change_and_nobody_notices(self):
        def policy(extra):
            rules = [{"principals": {"usernames": ["ann"]}, "brokerResources": [{"method": "Connect"}, {"method": "Publish", "topics": ["load/#"]}, {"method": "Subscribe", "topics": ["load/#"]}]}]
            rules += [{"principals": {"usernames": [f"user{i}"]}, "brokerResources": [{"method": "Connect"}, {"method": "Subscribe", "topics": [f"t/{i}"]}]} for i in range(extra)]
            return manifest("BrokerAuthorization", "rules", {"brokerRef": "default", "authorizationPolicies": {"rules": rules}})
        p = self.start(manifest("BrokerAuthentication", "people", {"brokerRef": "default", "authenticationMethods": [{"method": "Password", "passwordSettings": {"secretRef": "users"}}]}), policy(3),
                       manifest("BrokerListener", "local", {"brokerRef": "default", "ports": [{"port": 1883, "authenticationRef": "people", "authorizationRef": "rules"}]}))
        for user in ("ann", "user2"):
            self.assertEqual(p.run("passwd", "users", user, stdin="pw\n").returncode, 0)
        p.wait_running("local")
        for user in ("ann", "user2"):
            wait_until(lambda: Mqtt(1883).connect("first", user=user, password="pw") == 0, "the users are known")
        load = Load(1883, None, "ann", user="ann", password="pw")
        self.assertEqual(load.codes, [0, 0])
        other = Mqtt(1883)
        self.assertEqual(other.connect("other", user="user2", password="pw"), 0)
        self.assertEqual(other.subscribe("t/2", "t/3"), [1, 0x87])
        file = p.files[0]
        base = pathlib.Path(file).read_text()
        for extra in (10, 200, 3, 1):
            pathlib.Path(file).write_text(base.replace(policy(3), policy(extra)))
            wait_until(lambda: len(p.get("brokerauthorization", "rules")["spec"]["authorizationPolicies"]["rules"]) == extra + 1, "the rules")
        ended = other.receive()
        self.assertEqual((ended[0], ended[1][0]), (0xE0, 0x87))   # user2's rule went with the last change
        fault, sent, got = load.end()
        self.assertIsNone(fault)
        self.assertEqual(got, list(range(1, sent + 1)))
        # A password that changes ends its own client alone.
        ann = Mqtt(1883)
        self.assertEqual(p.run("passwd", "users", "user2", stdin="new\n").returncode, 0)
        self.assertEqual(ann.connect("again", user="ann", password="pw"), 0)
        p.run("passwd", "users", "ann", stdin="other\n")
        self.assertEqual(ann.receive()[1][0], 0x87)
        self.assertEqual(Mqtt(1883).connect("again", user="ann", password="pw"), 0x86)
        self.assertEqual(Mqtt(1883).connect("again", user="ann", password="other"), 0)


class Strangers(Case):
    def test_wrong_passwords_from_elsewhere_keep_nobody_out(self):
        """1,500 CONNECTs with wrong passwords wait for their hashes: a plant behind another address gets in meanwhile."""
        fleet = [f"device{i}" for i in range(8)]
        p = self.start(manifest("BrokerAuthentication", "people", {"brokerRef": "default", "authenticationMethods": [{"method": "Password", "passwordSettings": {"secretRef": "users"}}]}),
                       manifest("BrokerListener", "local", {"brokerRef": "default", "ports": [{"port": 1883, "authenticationRef": "people"}]}))
        for user in fleet:
            self.assertEqual(p.run("passwd", "users", user, stdin="pw\n").returncode, 0)
        p.wait_running("local")
        # The last of them is known once it gets in; of the others nobody was let in yet, as after a restart.
        tries = iter(range(1000))
        wait_until(lambda: Mqtt(1883, host="127.0.0.1").connect(f"try{next(tries)}", user=fleet[-1], password="pw") == 0, "the users are known")
        packet = lambda client, user, password: (lambda body: b"\x10" + bytes([len(body)]) + body)(
            b"\x00\x04MQTT\x05\xc2\x00\x00\x00" + b"".join(struct.pack(">H", len(t)) + t.encode() for t in (client, user, password)))
        def connect(source, client, user, password):
            peer = socket.create_connection(("127.0.0.1", 1883), source_address=(source, 0))
            self.addCleanup(peer.close)
            peer.sendall(packet(client, user, password))
            return peer
        strangers = [connect("127.0.0.2", f"stranger{i}", "device1", f"wrong{i}") for i in range(1500)]
        def code(peer):
            peer.settimeout(120)
            try:
                answer = peer.recv(4)
            except ConnectionError:
                return None
            return answer[3] if len(answer) == 4 else None
        plant = [connect("127.0.0.1", f"plant-{user}", user, "pw") for user in fleet]
        self.assertEqual([code(peer) for peer in plant], [0] * len(fleet))
        self.assertIn(code(strangers[0]), (0x86, 0x9F))


class Browsers(Case):
    def test_pages_are_asked_where_they_come_from(self):
        """RFC 6455 section 10.2: a page's script says its origin; a listener may name those it serves."""
        def rules(origins):
            out = json.loads(manifest("BrokerListener", "web", {"brokerRef": "default", "ports": [{"port": 9001, "protocol": "WebSockets"}]}).removesuffix("\n---\n"))
            out["metadata"]["annotations"] = {"penstock.io/websocket-origins": origins}
            return out
        p = self.start(manifest("BrokerListener", "web", {"brokerRef": "default", "ports": [{"port": 9001, "protocol": "WebSockets"}]}))
        p.wait_running("web")

        def upgrade(origin, protocol="mqtt"):
            with socket.create_connection(("127.0.0.1", 9001), timeout=10) as s:
                s.sendall((f"GET /mqtt HTTP/1.1\r\nHost: 127.0.0.1:9001\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
                           f"Sec-WebSocket-Protocol: {protocol}\r\n" + (f"Origin: {origin}\r\n" if origin else "") + "\r\n").encode())
                return s.recv(4096).decode()

        def status(origin):
            return int(upgrade(origin).split(" ")[1])

        self.assertEqual([status(None), status("https://anywhere.example")], [101, 101])
        self.shell(p, f"kubectl apply -f {p.write('rules.json', json.dumps(rules('https://portal.plant.example, http://LOCALHOST:*')))}")
        wait_until(lambda: status("https://anywhere.example") == 403, "the origins to act")
        self.assertEqual([status(None), status("https://portal.plant.example"), status("http://localhost:3000"), status("HTTPS://Portal.Plant.Example")], [101] * 4)
        self.assertEqual([status("https://portal.plant.example.evil.example"), status("http://portal.plant.example"), status("null"), status("http://localhost")], [403] * 4)
        self.assertIn("pages of https://anywhere.example may not connect here; the listener's annotation penstock.io/websocket-origins", upgrade("https://anywhere.example"))
        self.assertIn("400 Bad Request", upgrade(None, "amqp"))
        audit = self.shell(p, "penstock auth explain")
        self.assertIn("pages of https://anywhere.example may not connect here", audit)
        self.assertIn('the WebSocket sub-protocol must be "mqtt"', audit)
        for bad in ("https://portal.plant.example/app", "portal.plant.example", "https://"):
            self.assertIn("an origin such as https://portal.plant.example", self.shell(p, f"kubectl apply -f {p.write('bad.json', json.dumps(rules(bad)))} 2>&1", ok=False))


class Revocation(Case):
    def test_a_responder_is_asked_and_the_policy_holds_when_it_cannot_be(self):
        """OCSP (RFC 6960): the certificate names a responder by its host alone, as many CAs do."""
        p = self.start(manifest("BrokerListener", "local", {"brokerRef": "default", "ports": [{"port": 8883, "authenticationRef": "x509", "tls": automatic()}]}))
        rules = {"apiVersion": "mqttbroker.iotoperations.azure.com/v1", "kind": "BrokerAuthentication", "metadata": {"name": "x509", "namespace": SPACE, "annotations": {"penstock.io/ocsp": "SoftFail"}},
                 "spec": {"brokerRef": "default", "authenticationMethods": [{"method": "X509", "x509Settings": {"trustedClientCaCert": "clients"}}]}}
        responder = free_port()
        self.shell(p, f"""
openssl ecparam -name prime256v1 -genkey -noout -out ca.key
openssl req -x509 -new -key ca.key -subj "/CN=Fleet CA" -days 100 -addext keyUsage=critical,keyCertSign,cRLSign -out ca.pem
for name in good gone strange late hard; do
  openssl ecparam -name prime256v1 -genkey -noout -out $name.key
  openssl req -new -key $name.key -subj /CN=$name -out $name.csr
  printf 'extendedKeyUsage=clientAuth\nauthorityInfoAccess=OCSP;URI:http://127.0.0.1:{responder}\n' > x.ext
  openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 50 -extfile x.ext -out $name.crt 2>/dev/null
done
serial() {{ openssl x509 -in $1.crt -noout -serial | cut -d= -f2; }}
openssl ecparam -name prime256v1 -genkey -noout -out line.key
openssl req -new -key line.key -subj /CN=line -out line.csr
printf 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n' | cat - x.ext | grep -v extendedKeyUsage > ca.ext
openssl x509 -req -in line.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 50 -extfile ca.ext -out line.crt 2>/dev/null
openssl ecparam -name prime256v1 -genkey -noout -out below.key
openssl req -new -key below.key -subj /CN=below -out below.csr
printf 'extendedKeyUsage=clientAuth\n' > y.ext
openssl x509 -req -in below.csr -CA line.crt -CAkey line.key -CAcreateserial -days 50 -extfile y.ext -out below.crt 2>/dev/null
cat line.crt >> below.crt
printf 'V\t491231235959Z\t\t%s\tunknown\t/CN=good\nR\t491231235959Z\t250101000000Z\t%s\tunknown\t/CN=gone\nR\t491231235959Z\t250101000000Z\t%s\tunknown\t/CN=line\n' $(serial good) $(serial gone) $(serial line) > index.txt
kubectl create configmap clients -n {SPACE} --from-file=ca.pem=ca.pem""")
        self.shell(p, f"kubectl apply -f {p.write('rules.json', json.dumps(rules))}")
        p.wait_running("local")
        trusted = self.ca(p)
        asked = subprocess.Popen(["openssl", "ocsp", "-index", "index.txt", "-port", str(responder), "-rsigner", "ca.pem", "-rkey", "ca.key", "-CA", "ca.pem", "-nmin", "60"], cwd=p.folder,
                                 stdout=(p.folder / "responder.log").open("w"), stderr=subprocess.STDOUT)
        self.addCleanup(lambda: (asked.kill(), asked.wait()))
        wait_until(lambda: "ACCEPT" in (p.folder / "responder.log").read_text(), "the responder")   # a connection without a request would hang it

        def login(name):
            context = ssl.create_default_context(cafile=p.folder / "ca.crt")
            context.load_cert_chain(p.folder / f"{name}.crt", p.folder / f"{name}.key")
            client = Mqtt(8883, context)
            try:
                return client.connect(name)
            finally:
                client.socket.close()

        self.assertEqual(login("good"), 0)
        self.assertEqual(login("gone"), 0x87)
        self.assertIn("is revoked (OCSP", self.shell(p, "penstock auth explain gone"))
        self.assertEqual(login("below"), 0x87, "of those it hangs on one is revoked")
        self.assertIn('"CN = line" is revoked (OCSP', self.shell(p, "penstock auth explain below"))
        self.assertEqual(login("strange"), 0, "SoftFail: the responder does not know it")
        asked.kill()
        asked.wait()
        self.assertEqual(login("late"), 0, "SoftFail: nobody answers")
        self.assertEqual(login("gone"), 0x87, "the answer is remembered")
        rules["metadata"]["annotations"]["penstock.io/ocsp"] = "HardFail"
        self.shell(p, f"kubectl apply -f {p.write('rules.json', json.dumps(rules))}")
        wait_until(lambda: login("hard") == 0x87, "HardFail to act")
        self.assertIn("the policy is HardFail", self.shell(p, "penstock auth explain hard"))
        self.assertIsNotNone(trusted)


class CustomServer(http.server.ThreadingHTTPServer):
    daemon_threads = True


class Custom(Case):
    def test_contract_and_servers_that_misbehave(self):
        seen = []

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                seen.append((self.path, dict(self.headers), body))
                user = body.get("username", "")
                status, answer = 200, {"attributes": {"site": "oslo"}}
                if user.startswith("deny"):
                    status, answer = 403, {"reason": 135, "message": "not you"}
                elif user.startswith("zero"):
                    status, answer = 403, {"reason": 0}
                elif user.startswith("expire"):
                    answer = {"expiry": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3))}
                elif user.startswith("garbage"):
                    answer = [1, 2, 3]
                elif user.startswith("version"):
                    if "0.5.0" in self.path:
                        status, answer = 422, {"supportedVersions": ["0.4.0"]}
                elif user.startswith("hang"):
                    hanging.wait(20)
                elif user.startswith("endless"):
                    self.send_response(200)
                    self.end_headers()
                    try:
                        while True:
                            self.wfile.write(b"x" * 65536)
                    except OSError:
                        return
                data = json.dumps(answer).encode()
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    pass

            def log_message(self, *_):
                pass
        hanging = threading.Event()
        server_port = free_port()
        p = self.start(manifest("BrokerAuthentication", "custom", {"brokerRef": "default", "authenticationMethods": [
            {"method": "Custom", "customSettings": {"endpoint": f"https://localhost:{server_port}", "caCertConfigMap": "auth-ca", "auth": {"x509": {"secretRef": "auth-client"}}, "headers": {"X-Tenant": "oslo"}}},
            {"method": "Password", "passwordSettings": {"secretRef": "users"}}]}),
            manifest("BrokerListener", "local", {"brokerRef": "default", "ports": [{"port": 1883, "authenticationRef": "custom"}]}))
        self.shell(p, "penstock pki root CA --out root; penstock pki server auth --host localhost --ca root.crt --ca-key root.key; penstock pki client broker --ca root.crt --ca-key root.key; "
                   "kubectl create configmap auth-ca -n azure-iot-operations --from-file=ca.crt=root.crt; kubectl create secret tls auth-client -n azure-iot-operations --cert=broker.crt --key=broker.key; echo pw | penstock passwd users ann")
        p.wait_running("local")

        def code(user, password="pw"):
            client = Mqtt(1883)
            return client, client.connect("c-" + user, user=user, password=password)
        # Nobody answers: the next method decides.
        self.assertEqual(code("ann")[1], 0)
        self.assertEqual(code("bob")[1], 0x86)
        server = CustomServer(("127.0.0.1", server_port), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(p.folder / "auth.crt", p.folder / "auth.key")
        context.load_verify_locations(p.folder / "root.crt")
        context.verify_mode = ssl.CERT_REQUIRED
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.shutdown)
        self.assertEqual(code("carl", "secret")[1], 0)
        path, headers, body = seen[-1]
        self.assertEqual((path, headers["X-Tenant"], headers["Content-Type"]), ("/?api-version=0.5.0", "oslo", "application/json"))
        self.assertEqual(body, {"type": "connect", "username": "carl", "password": "c2VjcmV0"})
        self.assertEqual(code("deny-1")[1], 135)
        self.assertEqual(code("zero")[1], 0x87)
        self.assertEqual(code("garbage")[1], 0x87)
        self.assertEqual(code("version")[1], 0)
        self.assertEqual(seen[-1][0], "/?api-version=0.4.0")
        # Those who wait for a server that hangs or never ends hold nobody up.
        waiting = threading.Thread(target=lambda: (code("hang"), code("endless")))
        waiting.start()
        wait_until(lambda: seen[-1][2].get("username") == "hang", "the server hangs")
        self.assertEqual(code("dora")[1], 0)
        self.assertTrue(waiting.is_alive())   # the other still waits
        expires, answer = code("expire")
        self.assertEqual(answer, 0)
        ended = expires.receive()
        self.assertEqual((ended[0], ended[1][0]), (0xE0, 0x87))
        waiting.join()
        hanging.set()
        # What a client calls itself does not steer the terminal of who looks.
        self.assertEqual(code("deny\x1b[2J")[1], 0x87)
        told = p.run("auth", "explain").stdout
        self.assertNotIn("\x1b", told)
        self.assertIn("deny\\x1b[2J", told)
        self.assertIn("code 135 not you", told)
        self.assertIn("without a JSON object", told)


if __name__ == "__main__":
    result = unittest.main(exit=False, warnings="ignore").result
    bad = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - bad} passed, {bad} failed")
    sys.exit(1 if bad else 0)
