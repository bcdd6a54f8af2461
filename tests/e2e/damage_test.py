"""A data folder whose files are damaged, one at a time: Penstock reads what is right, or says what is wrong and what to do, and makes
nothing new beside old state. PENSTOCK_LONG=1: more kinds of damage, and the files in broker/ too (unit tests cover them always)."""
import json
import os
import shutil
import signal
import subprocess
import sys
import unittest

from mqtt import Mqtt
from support import Penstock, in_own_network, wait_until

if __name__ == "__main__":
    code = in_own_network(__file__, *sys.argv[1:])
    if code is not None:
        sys.exit(code)
BINARY = sys.argv.pop(1)
LONG = os.environ.get("PENSTOCK_LONG") == "1"
MESSAGES = 60


def manifests():
    spec = {"cardinality": {"frontend": {"replicas": 1, "workers": 2}, "backendChain": {"partitions": 1, "redundancyFactor": 1}},
            "diagnostics": {"metrics": {"prometheusPort": 0}, "selfCheck": {"mode": "Disabled"}},
            "persistence": {"maxSize": "1G", "retain": {"mode": "All"}, "subscriberQueue": {"mode": "All"}}}
    out = ""
    for kind, label, body in (("Broker", "default", spec), ("BrokerListener", "local", {"brokerRef": "default", "ports": [{"port": 1883}]})):
        out += json.dumps({"apiVersion": "mqttbroker.iotoperations.azure.com/v1", "kind": kind,
                           "metadata": {"name": label, "namespace": "azure-iot-operations"}, "spec": body}) + "\n---\n"
    return out


def cut(path, part):
    os.truncate(path, int(path.stat().st_size * part))


def blank(path, begin, size):
    data = bytearray(path.read_bytes())
    end = min(len(data), begin + size)
    data[begin:end] = bytes(max(0, end - begin))
    path.write_bytes(bytes(data))


def flip(path, part):
    data = bytearray(path.read_bytes())
    if data:
        data[int((len(data) - 1) * part)] ^= 1
        path.write_bytes(bytes(data))


KINDS = {"missing": lambda f: f.unlink(), "empty": lambda f: f.write_bytes(b""), "cut": lambda f: cut(f, 0.4),
         "NUL": lambda f: blank(f, f.stat().st_size // 3, 4096), "flipped": lambda f: flip(f, 0.5)}
if LONG:
    KINDS |= {"cut at its end": lambda f: cut(f, 0.97), "all NUL": lambda f: blank(f, 0, f.stat().st_size), "flipped early": lambda f: flip(f, 0.17),
              "flipped late": lambda f: flip(f, 0.83)}


class Damage(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.p = p = Penstock(BINARY)
        p.files = [p.write("m.yaml", manifests())]
        p.start()
        wait_until(lambda: Mqtt(1883).connect("probe") == 0, "the port", 30)
        for number in range(3):
            made = p.run("apply", "-f", p.write("c.yaml", json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"witness-{number}", "namespace": "azure-iot-operations"}, "data": {"text": "w" * 300}})))
            assert made.returncode == 0, made.stderr
        sender = Mqtt(1883)
        sender.connect("sender")
        for number in range(MESSAGES):
            sender.put(f"r/{number}", f"{number}", retain=True)
        p.stop(signal.SIGKILL)
        p.start()   # tables have some of it now
        wait_until(lambda: Mqtt(1883).connect("probe") == 0, "the port", 30)
        sender = Mqtt(1883)
        sender.connect("sender")
        for number in range(MESSAGES, 2 * MESSAGES):
            sender.put(f"r/{number}", f"{number}", retain=True)
        p.stop(signal.SIGKILL)
        cls.image = p.folder / "image"
        shutil.copytree(p.data, cls.image)
        cls.right = cls.facts(cls.image)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.p.folder, ignore_errors=True)

    @staticmethod
    def facts(data):
        """What must never be another one in silence."""
        return {name: (data / "pki" / name).read_bytes() if (data / "pki" / name).exists() else None for name in ("api-ca.crt", "api-ca.key", "service-account.key", "state-keys")}

    def start(self):
        """What Penstock says when it refuses; else None, and it runs."""
        p = self.p
        (p.folder / "log").write_text("")
        p.log = open(p.folder / "log", "ab")
        p.process = subprocess.Popen([p.binary, "run", "--data-dir", str(p.data), "--api-port", str(p.api_port), "-f", p.files[0]], stdout=p.log, stderr=p.log, env=p.env)
        wait_until(lambda: p.process.poll() is not None or "Ctrl-C stops it" in p.logs(), "an end or the resource API", 30)
        return p.logs() if p.process.poll() is not None else None

    def retained(self):
        client = Mqtt(1883)
        self.assertEqual(client.connect("reader"), 0)
        client.subscribe("r/#")
        client.publish("r/end")
        found = {}
        while "r/end" not in found:
            for topic, payload, _ in client.messages(1):
                found[topic] = payload
        del found["r/end"]
        return found

    def settled(self):
        status = self.p.status("broker", "default")
        return status if status.get("runtimeStatus", {}).get("status") in ("Running", "Failed") else None

    def look(self, name):
        """One start on a damaged folder, judged; answers what became of it."""
        p = self.p
        refused = self.start()
        try:
            if refused is not None:
                said = refused.strip().splitlines()[-1]
                self.assertEqual(p.process.returncode, 1, refused)
                self.assertIn(str(p.data), said)
                self.assertRegex(said, "put .*back|restore a backup|remove it|move it away", name)
                if "restore a backup" in said:
                    self.assertIn(f"penstock restore FOLDER --data-dir {p.data})", said, name)
                return "refused"
            for number in range(3):
                self.assertEqual((p.get("configmap", f"witness-{number}") or {}).get("data"), {"text": "w" * 300})
            wait_until(self.settled, "the Broker's status", 30)
            status = p.status("broker", "default")
            health = wait_until(lambda: p.status("broker", "default").get("healthState"), "health")
            now = self.facts(p.data)
            for file in ("api-ca.crt", "api-ca.key", "service-account.key"):
                self.assertEqual(now[file], self.right[file], file)
            if status["runtimeStatus"]["status"] == "Failed":
                said = status["runtimeStatus"]["description"]
                self.assertIn(str(p.data), said)
                self.assertRegex(said, "put .*back|restore a backup|to begin anew|keys")
                self.assertEqual(health["status"], "Unavailable")
                return "the Broker refuses"
            wait_until(lambda: Mqtt(1883).connect("probe") == 0, "the port", 30)
            found = self.retained()
            right = {f"r/{n}": str(n) for n in range(2 * MESSAGES)}
            if found == right:
                return "right"
            self.assertLessEqual(found.items(), right.items())
            health = wait_until(lambda: (lambda h: h if h.get("status") == "Degraded" else None)(p.status("broker", "default").get("healthState", {})), "the health")
            self.assertEqual(health["reasonCode"], "StateWasDamaged")
            self.assertIn("state was damaged", p.logs())
            return "told"
        finally:
            p.stop(signal.SIGKILL)

    def each(self, names):
        outcomes = {}
        for name in names:
            for kind, damage in KINDS.items():
                with self.subTest(file=name, kind=kind):
                    shutil.rmtree(self.p.data, ignore_errors=True)
                    shutil.copytree(self.image, self.p.data)
                    damage(self.p.data / name)
                    outcomes[f"{name} {kind}"] = self.look(f"{name} {kind}")
        if LONG:
            print(json.dumps(outcomes, indent=1))
        return outcomes

    def files(self, *folders):
        return sorted(str(f.relative_to(self.image)) for folder in folders for f in (self.image / folder).iterdir() if f.is_file() and f.name not in ("LOCK", "LOG"))

    def test_registry_and_marks(self):
        outcomes = self.each([n for n in self.files(".")])
        self.assertEqual(outcomes.get("registry.sqlite missing"), "refused")
        self.assertEqual(outcomes.get("registry.sqlite empty"), "refused")
        self.assertEqual(outcomes.get("registry.sqlite-wal missing"), "refused")
        self.assertEqual(outcomes.get("kubeconfig.yaml NUL"), "right")

    def test_keys(self):
        outcomes = self.each(self.files("pki"))
        for kind in KINDS:
            self.assertEqual(outcomes.get(f"pki/admin.crt {kind}"), "right", "the CA issues another")
        for name in ("api-ca.crt", "api-ca.key", "service-account.key"):
            self.assertEqual(outcomes.get(f"pki/{name} missing"), "refused")
        for kind in ("missing", "empty"):
            self.assertEqual(outcomes.get(f"pki/state-keys {kind}"), "the Broker refuses")

    @unittest.skipUnless(LONG, "unit tests cover these")
    def test_state(self):
        self.each(self.files("broker"))

    def test_a_hole_in_the_log(self):
        shutil.rmtree(self.p.data, ignore_errors=True)
        shutil.copytree(self.image, self.p.data)
        log = max((self.p.data / "broker").glob("*.log"), key=lambda f: int(f.stem))
        blank(log, log.stat().st_size // 3, 512)
        self.assertEqual(self.look("log"), "told")
        self.assertTrue(list((self.p.data / "broker" / "lost").glob("*/" + log.name)))

    def test_whole_folders(self):
        for name, outcome in (("pki", "refused"), ("broker", "the Broker refuses"), ("manifests", "right")):
            with self.subTest(folder=name):
                shutil.rmtree(self.p.data, ignore_errors=True)
                shutil.copytree(self.image, self.p.data)
                shutil.rmtree(self.p.data / name)
                self.assertEqual(self.look(name), outcome)
                self.assertFalse((self.p.data / name).exists() and name == "broker" and any((self.p.data / name).iterdir()))

    def test_a_registry_that_is_gone_with_its_mark(self):
        """What stands beside it says that there was one."""
        for left in ("pki.mark", "broker.mark"):
            with self.subTest(left=left):
                shutil.rmtree(self.p.data, ignore_errors=True)
                shutil.copytree(self.image, self.p.data)
                for file in list(self.p.data.glob("registry.sqlite*")) + [self.p.data / name for name in ("pki.mark", "broker.mark") if name != left]:
                    file.unlink()
                self.assertEqual(self.look(left), "refused")
                self.assertIn(f"remove {self.p.data / left}", self.p.logs())
                self.assertFalse((self.p.data / "registry.sqlite").exists())

    def test_beginning_anew_on_purpose(self):
        """What each refusal tells a person to do works."""
        p = self.p
        for begun, kept in (("registry.sqlite", ["registry.sqlite-wal", "registry.sqlite-shm", "pki.mark", "broker.mark"]), ("broker", []), ("pki", [])):
            with self.subTest(what=begun):
                shutil.rmtree(p.data, ignore_errors=True)
                shutil.copytree(self.image, p.data)
                for name in [begun, begun + ".mark", *kept]:
                    path = p.data / name
                    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
                if begun == "pki":
                    (p.data / "pki").mkdir()
                    shutil.copy(self.image / "pki" / "state-keys", p.data / "pki")
                self.assertIsNone(self.start())
                try:
                    wait_until(lambda: Mqtt(1883).connect("probe") == 0, "the port", 30)
                    self.assertEqual(len(self.retained()), 0 if begun == "broker" else 2 * MESSAGES)
                finally:
                    p.stop(signal.SIGKILL)


if __name__ == "__main__":
    unittest.main(verbosity=2)
