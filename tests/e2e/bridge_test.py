"""Mosquitto as a bridge, with its default settings, in each protocol version, both directions, with and without TLS. Standard library,
mosquitto and mosquitto-clients; the bridge is a process of the test's own on ports of its own."""
import getpass
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "bench"))
import compare
import secure
from support import SKIPPED, Penstock, broker, free_port, program, wait_until

BINARY = sys.argv.pop(1)
SPACE = "azure-iot-operations"
MOSQUITTO = program("mosquitto")
VERSIONS = ("mqttv31", "mqttv311", "mqttv50")


def listener(name, *ports):
    return json.dumps({"apiVersion": "mqttbroker.iotoperations.azure.com/v1", "kind": "BrokerListener", "metadata": {"name": name, "namespace": SPACE},
                       "spec": {"brokerRef": "default", "serviceType": "ClusterIp", "ports": list(ports)}}) + "\n---\n"


class Bridge:
    """One mosquitto with a bridge `edge` to a port of Penstock."""

    def __init__(self, folder, version, remote, ca=None, more=""):
        self.port = free_port()
        self.version = version
        path = pathlib.Path(folder) / f"bridge-{self.port}.conf"
        # As root it would become another user, who may not read the test's folder.
        path.write_text(f"user {getpass.getuser()}\nlistener {self.port} 127.0.0.1\nallow_anonymous true\nconnection edge\naddress 127.0.0.1:{remote}\n"
                        "topic out/# out 1\ntopic in/# in 1\ntopic both/# both 1\n"
                        f"bridge_protocol_version {version}\n" + (f"bridge_cafile {ca}\n" if ca else "") + more)
        self.log = open(path.with_suffix(".log"), "wb")
        self.process = subprocess.Popen([MOSQUITTO, "-c", str(path)], stdout=self.log, stderr=self.log)

    def said(self):
        return pathlib.Path(self.log.name).read_text(errors="replace")

    def end(self):
        self.process.kill()
        self.process.wait(timeout=20)
        self.log.close()


def publish(port, topic, payload, *words):
    done = subprocess.run(["mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), "-q", "1", "-t", topic, "-m", payload, *words], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done


class Subscriber:
    """Collects so many messages as `retain topic payload`. Its subscription is there once this returns."""

    def __init__(self, port, topic, count, *words):
        command = ["stdbuf", "-oL", "mosquitto_sub", "-h", "127.0.0.1", "-p", str(port), "-q", "1", "-t", topic, "-C", str(count), "-W", "60", "-F", "%r %t %p", "-d", *words]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while not self.process.stdout.readline().startswith("Subscribed"):
            assert self.process.poll() is None, "mosquitto_sub ended without a subscription"

    def lines(self):
        out, _ = self.process.communicate(timeout=70)
        return [line for line in out.splitlines() if line[:2] in ("0 ", "1 ")]


def first(port, topic, *words):
    """The first message there; retained ones are there at once."""
    done = subprocess.run(["mosquitto_sub", "-h", "127.0.0.1", "-p", str(port), "-q", "1", "-t", topic, "-C", "1", "-W", "1", "-F", "%r %t %p", *words], capture_output=True, text=True, timeout=30)
    return done.stdout.strip()


class Bridges(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.plain, cls.secured = free_port(), free_port()
        tls = {"mode": "Automatic", "certManagerCertificateSpec": {"issuerRef": {"kind": "ClusterIssuer", "name": "azure-iot-operations-aio-certificate-issuer"}}}
        p = cls.penstock = Penstock(BINARY)
        p.files = [p.write("m.yaml", broker("{diagnostics: {metrics: {prometheusPort: 0}, selfCheck: {mode: Disabled}}}") + "---\n" +
                           listener("bridges", {"port": cls.plain}, {"port": cls.secured, "tls": tls}))]
        p.start()
        cls.addClassCleanup(p.__exit__, None, None, None)
        p.wait_running("bridges", 60)
        cls.ca = p.write("ca.crt", wait_until(lambda: p.get("configmap", "azure-iot-operations-aio-ca-trust-bundle")["data"]["ca.crt"], "the trust bundle"))

    def bridge(self, version, tls, more=""):
        made = Bridge(self.penstock.folder, version, self.secured if tls else self.plain, self.ca if tls else None, more)
        self.addCleanup(lambda: made.process.poll() is None and made.end())
        return made

    def each(self, check):
        for version in VERSIONS:
            for tls in (False, True):
                with self.subTest(version=version, tls=tls):
                    check(version, tls, f"{version}-{'tls' if tls else 'plain'}")

    def state(self):
        """Of the bridge, as it tells it; by whatever host name it uses."""
        return first(self.plain, "$SYS/broker/connection/+/state")

    def connected(self, bridge):
        try:
            wait_until(lambda: self.state().endswith(".edge/state 1"), "the bridge's notification", 30)
        except AssertionError as error:
            raise AssertionError(f"{error}; mosquitto says:\n{bridge.said()}") from None
        self.assertTrue(self.state().startswith("1 "), "the state is retained")

    def test_both_directions(self):
        def check(version, tls, name):
            bridge = self.bridge(version, tls)
            self.connected(bridge)
            out = Subscriber(self.plain, f"out/{name}", 1)
            publish(bridge.port, f"out/{name}", "from the bridge", "-r")
            self.assertEqual(out.lines(), [f"0 out/{name} from the bridge"])
            self.assertEqual(first(self.plain, f"out/{name}"), f"1 out/{name} from the bridge", "it is retained here as there")
            # The bridge gets retained messages as they were published, and retains them on its side.
            publish(self.plain, f"in/{name}", "from penstock", "-r")
            wait_until(lambda: first(bridge.port, f"in/{name}") == f"1 in/{name} from penstock", "the retained message on the other side")
            # What went over the bridge does not come back by it.
            here, there = Subscriber(self.plain, f"both/{name}", 2), Subscriber(bridge.port, f"both/{name}", 2)
            reached = Subscriber(self.plain, f"both/{name}", 1)
            publish(bridge.port, f"both/{name}", "one", "-r")
            self.assertEqual(reached.lines(), [f"0 both/{name} one"])
            publish(self.plain, f"both/{name}", "two", "-r")
            for subscriber in (here, there):
                self.assertEqual(subscriber.lines(), [f"0 both/{name} one", f"0 both/{name} two"])
            self.assertNotIn("error", bridge.said().lower())
            bridge.end()
            wait_until(lambda: self.state().endswith(".edge/state 0"), "the will that tells that the bridge is gone")

        self.each(check)

    def test_large_and_many(self):
        """QoS 2 and payloads of 100 kB, in order, both ways."""
        def check(version, tls, name):
            bridge = self.bridge(version, tls, "topic two/# both 2\n")
            self.connected(bridge)
            here, there = Subscriber(self.plain, f"two/{name}/there", 20, "-q", "2"), Subscriber(bridge.port, f"two/{name}/here", 20, "-q", "2")
            for port, side in ((bridge.port, "there"), (self.plain, "here")):
                lines = "".join(f"{n} {'x' * 100_000}\n" for n in range(20))
                subprocess.run(["mosquitto_pub", "-h", "127.0.0.1", "-p", str(port), "-q", "2", "-t", f"two/{name}/{side}", "-l"], input=lines, text=True, check=True, timeout=60)
            for subscriber in (here, there):
                self.assertEqual([(int(line.split()[2]), len(line.split()[3])) for line in subscriber.lines()], [(n, 100_000) for n in range(20)])
            bridge.end()
            wait_until(lambda: self.state().endswith(".edge/state 0"), "the will that tells that the bridge is gone")

        self.each(check)

    def test_a_bridge_that_is_told_not_to_say_so(self):
        """`try_private false`: an ordinary client, whose own messages come back to it."""
        bridge = self.bridge("mqttv311", False, "try_private false\n")
        self.connected(bridge)
        publish(self.plain, "in/ordinary", "x")
        bridge.end()
        wait_until(lambda: self.state().endswith(".edge/state 0"), "the will that tells that the bridge is gone")


class Comparison(unittest.TestCase):
    def test_the_benches_find_mosquitto_with_an_ordinary_users_path(self):
        for start in (compare.start_mosquitto, lambda folder: secure.mosquitto(folder, "")):
            with tempfile.TemporaryDirectory() as folder, mock.patch.dict(os.environ, PATH="/usr/local/bin:/usr/bin:/bin"):
                process, _ = start(folder)
                self.assertIsNone(process.poll())
                process.kill()
                process.wait(timeout=20)


if __name__ == "__main__":
    if MOSQUITTO is None:
        print("SKIPPED: bridge_test.py needs the program mosquitto (apt-get install mosquitto)")
        sys.exit(SKIPPED)
    unittest.main(verbosity=2)
