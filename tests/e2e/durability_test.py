"""What is there after a restart, and what a Broker says whose state is not as it should be."""
import base64
import json
import os
import pathlib
import re
import shutil
import signal
import struct
import subprocess
import sys
import time
import unittest

from mqtt import Mqtt, text, varint
from support import Penstock, free_port, in_own_network, wait_until

if __name__ == "__main__":
    code = in_own_network(__file__, *sys.argv[1:])
    if code is not None:
        sys.exit(code)
BINARY = sys.argv.pop(1)
ALL = {"maxSize": "1G", "retain": {"mode": "All"}, "subscriberQueue": {"mode": "All"}}


def manifests(persistence=ALL, workers=2, name="default", limits=None):
    spec = {"cardinality": {"frontend": {"replicas": 1, "workers": workers}, "backendChain": {"partitions": 1, "redundancyFactor": 1}}, "diagnostics": {"metrics": {"prometheusPort": 0}, "selfCheck": {"mode": "Disabled"}}}
    if persistence:
        spec["persistence"] = persistence
    if limits:
        spec["advanced"] = {"clients": limits}
    out = ""
    for kind, label, body in (("Broker", name, spec), ("BrokerListener", "local", {"brokerRef": name, "ports": [{"port": 1883}]})):
        out += json.dumps({"apiVersion": "mqttbroker.iotoperations.azure.com/v1", "kind": kind, "metadata": {"name": label, "namespace": "azure-iot-operations"}, "spec": body}) + "\n---\n"
    return out


class Case(unittest.TestCase):
    def start(self, text):
        p = Penstock(BINARY)
        p.files = [p.write("m.yaml", text)]
        self.addCleanup(lambda: (p.stop() if p.process.poll() is None else None, shutil.rmtree(p.folder, ignore_errors=True)))
        p.start()
        self.up()
        return p

    def up(self):
        wait_until(lambda: Mqtt(1883).connect("probe") == 0, "the port", 30)

    def leave_subscribed(self):
        """The session `one` waits for `t`, its client is away."""
        one = self.client("one", expiry=3600)
        one.subscribe("t")
        one.drop()

    def assert_only_before(self):
        one = self.client("one", expiry=3600)
        self.assertEqual(one.messages(1)[0][1], "before")
        self.assertTrue(one.silent())

    def restart(self, p, how=signal.SIGKILL, text=None):
        p.stop(how)
        if text:
            pathlib.Path(p.files[0]).write_text(text)
        p.start()
        self.up()

    def client(self, name, **words):
        out = Mqtt(1883)
        self.assertEqual(out.connect(name, clean=False, **words), 0)
        return out


class Durable(Case):
    def test_everything_kept_comes_back(self):
        p = self.start(manifests())
        away = self.client("away", expiry=3600, will=("will/away", "gone"), will_delay=4)
        away.subscribe("plant/#", "$share/g/work/#")
        short = self.client("short", expiry=2)
        short.subscribe("plant/#")
        wills = self.client("wills", expiry=3600)
        wills.subscribe("will/#")
        away.drop()
        short.drop()
        sender = self.client("sender", expiry=0)
        for number in range(50):
            sender.put("plant/q", f"{number}", expiry=600 if number == 7 else 3 if number == 8 else None)
        sender.put("plant/big", "b" * 5000)
        sender.put("state/t", "kept", retain=True)
        sender.put("state/soon", "ends", retain=True, expiry=3)
        sender.put("state/cleared", "x", retain=True)
        sender.put("state/cleared", "", retain=True)
        self.restart(p)
        self.assertGreaterEqual(p.status("broker", "default")["persistence"]["recoverySeconds"], 0)
        time.sleep(3.2)   # what ends after three seconds has ended: on the wall clock, restart or not
        again = self.client("away", expiry=3600)
        self.assertEqual(again.present, 1)
        got = again.messages(50)
        self.assertEqual([m[1] for m in got], [str(n) for n in range(50) if n != 8] + ["b" * 5000])
        self.assertLess(got[7][2], 600)
        self.assertEqual(self.client("short", expiry=2).present, 0)
        watcher = self.client("watcher")
        watcher.subscribe("state/#")
        self.assertEqual(watcher.messages(1)[0][:2], ("state/t", "kept"))
        self.assertTrue(watcher.silent())
        # The subscriptions live, the shared one too; and a delivery that was under way comes again with DUP.
        sender = self.client("sender", expiry=0)
        sender.put("plant/new", "1")
        sender.put("work/new", "2")
        self.assertEqual(sorted(m[1] for m in again.messages(2)), ["1", "2"])
        sender.put("plant/last", "3")
        packet = again.receive()
        self.assertEqual(packet[0] & 8, 0)
        self.restart(p)
        again = self.client("away", expiry=3600)
        packet = again.receive()
        self.assertEqual((packet[0] & 8, packet[1][-1:]), (8, b"3"))

    def test_the_log_says_what_came_back(self):
        """As `kubectl logs -c broker` shows it, of the role that has the connections and of the one that keeps the state."""
        text = manifests({**ALL, "stateStore": {"mode": "All"}})
        p = self.start(text.replace('"name": "default"', '"name": "default", "annotations": {"penstock.io/sys-topics": "Disabled"}', 1))
        logs = lambda pod: p.run("logs", pod, "-c", "broker", "-n", "azure-iot-operations").stdout
        recovered = "the state was read back: recovered sessions={} subscriptions={} shared_subscriptions={} retained_messages={} queued_messages={} in_flight={} wills={} state_keys={} "
        self.assertIn(recovered.format(0, 0, 0, 0, 0, 0, 0, 0), wait_until(lambda: logs("aio-broker-frontend-0"), "the Pod"))
        one, two = self.client("one", expiry=3600, will=("gone", "one"), will_delay=3600), self.client("two", expiry=3600)
        one.subscribe("t/#", "$share/g/work/#")
        two.subscribe("t/#")
        one.drop()
        sender = self.client("sender", expiry=0)
        for number in range(3):
            sender.put(f"t/{number}", "x")
        # Delivered, and nobody says that it arrived.
        two.receive()
        sender.put("state/a", "1", retain=True)
        sender.put("state/b", "2", retain=True)
        self.assertEqual(p.run("state", "set", "k", "v", "-p", "1883").returncode, 0)
        self.restart(p)
        expected = re.compile(r"store: the state was read back: recovered sessions=2 subscriptions=2 shared_subscriptions=1 retained_messages=2 queued_messages=([0-9]+) in_flight=([0-9]+) "
                              r"wills=1 state_keys=1 folder=\S+/broker seconds=[0-9.]+\n")
        wait_until(lambda: logs("aio-broker-backend-1-0"), "the Pod")
        for pod in ("aio-broker-frontend-0", "aio-broker-backend-1-0"):
            found = expected.search(logs(pod))
            self.assertIsNotNone(found, logs(pod))
            self.assertEqual(int(found[1]) + int(found[2]), 6, "three for each, sent or not")
        self.assertRegex(logs("aio-broker-frontend-0"), r"control: the broker has started broker=azure-iot-operations/default workers=2 persistence=on\n")

    def test_sys_topics_go_when_they_are_switched_off(self):
        silent = manifests().replace('"name": "default"', '"name": "default", "annotations": {"penstock.io/sys-topics": "Disabled"}', 1)
        p = self.start(manifests())
        self.client("sender").put("state/a", "1", retain=True)

        def retained():
            reader = self.client("reader")
            reader.subscribe("$SYS/#", "state/#")
            out = []
            while not out or out[-1] != "state/a":
                out += [message[0] for message in reader.messages(1)]
            reader.drop()
            return out
        wait_until(lambda: len(retained()) > 10, "values")
        pathlib.Path(p.files[0]).write_text(silent)
        wait_until(lambda: retained() == ["state/a"], "they go", 70)
        self.restart(p)
        self.assertEqual(retained(), ["state/a"])
        self.assertRegex(p.logs(), "recovered sessions=[^\n]* retained_messages=1 ")

    def test_wills_wait_across_a_restart(self):
        p = self.start(manifests())
        watcher = self.client("watcher", expiry=3600)
        watcher.subscribe("will/#")
        open_one = self.client("open", expiry=3600, will=("will/open", "by the crash"))
        ended = self.client("ended", expiry=3600, will=("will/ended", "by its delay"), will_delay=3)
        ended.drop()
        wait_until(lambda: int(self.client("counter").put("x") or 1) and True, "the broker has gone on")
        self.restart(p)
        watcher = self.client("watcher", expiry=3600)
        self.assertEqual(sorted(m[1] for m in watcher.messages(2)), ["by its delay", "by the crash"])
        # Acknowledgements and the wills' end are on disk, whichever worker the sessions live on: CONNACK of a session that is
        # kept waits for all that its worker wrote before.
        watcher.put("done")
        for number in range(16):
            self.client(f"barrier-{number}", expiry=3600)
        self.restart(p)
        watcher = self.client("watcher", expiry=3600)
        self.assertTrue(watcher.silent(2))   # once, not at each start
        del open_one

    def test_policies_decide_what_is_kept(self):
        p = self.start(manifests({"maxSize": "1G", "retain": {"mode": "Custom", "retainSettings": {"topics": ["keep/#"]}}, "subscriberQueue": {"mode": "Custom", "subscriberQueueSettings": {"subscriberClientIds": ["line-*"]}}}))
        for name, asks in (("line-1", False), ("other", False), ("asks", True)):
            one = self.client(name, expiry=3600, asks=asks)
            one.subscribe("t")
            one.drop()
        sender = self.client("sender")
        sender.put("t", "queued")
        sender.put("keep/a", "1", retain=True)
        sender.put("lose/a", "2", retain=True)
        sender.put("lose/asked", "3", retain=True, asks=True)
        self.restart(p)
        for name, kept in (("line-1", True), ("other", False), ("asks", True)):
            one = self.client(name, expiry=3600)
            self.assertEqual(one.present, 1, name)
            if kept:
                self.assertEqual(one.messages(1)[0][1], "queued", name)
            else:
                self.assertTrue(one.silent(), name)
        watcher = self.client("watcher")
        watcher.subscribe("keep/#", "lose/#")
        self.assertEqual(sorted(m[1] for m in watcher.messages(2)), ["1", "3"])
        self.assertTrue(watcher.silent())

    def test_another_number_of_workers(self):
        p = self.start(manifests(workers=2))
        for i in range(8):
            one = self.client(f"c{i}", expiry=3600)
            one.subscribe("t")
            one.drop()
        sender = self.client("sender")
        for number in range(5):
            sender.put("t", f"{number} " + "x" * 3000)   # one body for all receivers of a worker
        for workers in (1, 2):
            self.restart(p, text=manifests(workers=workers))
            for i in (0, 1):
                name = f"c{i + (0 if workers == 1 else 2)}"
                self.assertEqual([m[1].split()[0] for m in self.client(name, expiry=3600).messages(5)], list("01234"), name)
        for i in range(4, 8):
            self.assertEqual([m[1].split()[0] for m in self.client(f"c{i}", expiry=3600).messages(5)], list("01234"))

    def test_a_graceful_stop_and_a_backup(self):
        p = self.start(manifests())
        self.leave_subscribed()
        self.client("sender").put("t", "before")
        copy = p.folder / "copy"
        done = p.run("backup-broker", str(copy))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.client("sender").put("t", "after")
        self.restart(p, signal.SIGTERM)
        self.assertEqual([m[1] for m in self.client("one", expiry=3600).messages(2)], ["before", "after"])
        p.stop()
        shutil.rmtree(p.data / "broker")
        shutil.copytree(copy, p.data / "broker")
        p.start()
        self.up()
        self.assert_only_before()

    def test_all_of_it_goes_into_a_backup_and_comes_back(self):
        p = self.start(manifests())
        self.leave_subscribed()
        self.client("sender").put("t", "before")
        secret = p.write("s.yaml", "{apiVersion: v1, kind: Secret, metadata: {name: kept, namespace: azure-iot-operations}, stringData: {a: b}}")
        self.assertEqual(p.run("apply", "-f", secret).returncode, 0)
        copy = p.folder / "backup"
        done = p.run("backup", str(copy))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(copy.stat().st_mode & 0o777, 0o700)
        again = p.run("backup", str(copy))
        self.assertEqual((again.returncode, "is there already" in again.stderr), (1, True), again.stderr)
        self.assertEqual(p.run("delete", "secret", "kept").returncode, 0)
        self.client("sender").put("t", "after")
        restore = lambda folder: subprocess.run([p.binary, "restore", str(folder), "--data-dir", str(p.data)], capture_output=True, text=True)
        busy = restore(copy)
        self.assertEqual((busy.returncode, "penstock runs on it; stop it first" in busy.stderr), (1, True), busy.stderr)
        p.stop()
        nothing = restore(p.folder)
        self.assertEqual((nothing.returncode, "is no backup" in nothing.stderr), (1, True), nothing.stderr)
        # What was left behind of a writing anew, or of a restore, is not part of what is restored.
        for folder in (p.data, copy):
            left = folder / "broker" / "anew"
            left.mkdir()
            for file in (p.data / "broker").iterdir():
                if file.is_file() and file.name not in ("LOCK", "penstock.mark"):
                    shutil.copy(file, left)
            (left / "WHOLE").write_bytes(b"")
        (p.data / "restore-1").mkdir()
        done = restore(copy)
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertFalse((p.data / "restore-1").exists())
        self.assertFalse((p.data / "broker" / "anew").exists())
        self.assertEqual(len(list(p.data.glob("before-restore-*/registry.sqlite"))), 1)
        p.start()
        self.up()
        self.assertEqual(p.run("get", "secret", "kept").returncode, 0)
        self.assert_only_before()

    def test_persistence_begins_while_it_runs(self):
        p = self.start(manifests(persistence=None))
        self.leave_subscribed()
        half = self.client("half", expiry=3600)
        half.subscribe("plant/#")
        sender = self.client("sender", expiry=3600)
        for number in range(100):
            sender.put("t", f"{number}")
        sender.put("plant/a", "under way")
        self.assertEqual(half.receive()[1][-9:], b"under way")   # and not acknowledged
        sender.put("keep/me", "kept", retain=True)
        sender.send(0x34, text("t") + b"\x00\x09\x00" + b"twice")   # QoS 2, not released
        self.assertEqual(sender.receive()[0], 0x50)
        store = Store("writer")
        store.ask("SET", "key", "value")
        pathlib.Path(p.files[0]).write_text(manifests({**ALL, "stateStore": {"mode": "All"}}))
        wait_until(lambda: p.status("broker", "default").get("persistence", {}).get("status") == "Active", "it begins", 70)
        sender.put("t", "after")
        self.restart(p)
        sender = self.client("sender", expiry=3600)
        self.assertEqual(sender.present, 1)
        sender.send(0x3C, text("t") + b"\x00\x09\x00" + b"twice")   # again: it was received already
        self.assertEqual(sender.receive()[0], 0x50)
        self.assertEqual([m[1] for m in self.client("one", expiry=3600).messages(102)], [str(n) for n in range(100)] + ["twice", "after"])
        packet = self.client("half", expiry=3600).receive()
        self.assertEqual((packet[0] & 8, packet[1][-9:]), (8, b"under way"))
        watcher = self.client("watcher")
        watcher.subscribe("keep/#")
        self.assertEqual(watcher.messages(1)[0][:2], ("keep/me", "kept"))
        self.assertEqual(Store("reader").ask("GET", "key")[0], b"$5\r\nvalue\r\n")
        # What was kept before is not mixed with what is in memory: both come at the next start.
        pathlib.Path(p.files[0]).write_text(manifests(persistence=None))
        wait_until(lambda: "persistence" not in p.get("broker", "default")["spec"], "the field goes")
        self.restart(p)
        pathlib.Path(p.files[0]).write_text(manifests())
        wait_until(lambda: "holds what was kept before" in p.status("broker", "default").get("runtimeStatus", {}).get("description", ""), "the reason", 70)

    def test_a_policy_that_changes_covers_sessions_that_are_there(self):
        none = {"maxSize": "1G", "subscriberQueue": {"mode": "None"}}
        p = self.start(manifests(none))
        self.leave_subscribed()
        sender = self.client("sender")
        sender.put("t", "before")
        pathlib.Path(p.files[0]).write_text(manifests())
        def in_force():   # the status follows what the workers were told
            broker = p.get("broker", "default")
            return broker["spec"]["persistence"]["subscriberQueue"]["mode"] == "All" and broker["status"]["observedGeneration"] == broker["metadata"]["generation"]
        wait_until(in_force, "the policy", 70)
        sender.put("t", "after")
        self.restart(p)
        self.assertEqual([m[1] for m in self.client("one", expiry=3600).messages(2)], ["before", "after"])

    def test_a_session_becomes_durable_and_is_not_any_more(self):
        custom = {"maxSize": "1G", "subscriberQueue": {"mode": "Custom", "subscriberQueueSettings": {"subscriberClientIds": [], "dynamic": {"mode": "Enabled"}}}}
        p = self.start(manifests(custom))
        self.leave_subscribed()
        sender = self.client("sender")
        sender.put("t", "1")
        asking = self.client("one", expiry=3600, asks=True)
        self.assertEqual(asking.receive()[1][-1:], b"1")   # not acknowledged
        asking.drop()
        sender.put("t", "2")
        self.restart(p)
        again = self.client("one", expiry=3600)
        self.assertEqual([m[1] for m in again.messages(2)], ["1", "2"])
        again.drop()
        self.client("one", expiry=0).drop()   # and its session ends with the connection
        wait_until(lambda: self.client("one", expiry=3600).present == 0, "a new session")
        self.restart(p)
        self.assertTrue(self.client("one", expiry=3600).silent())

    def has_bytes(self, p, marker):
        return any(marker in f.read_bytes() for f in (p.data / "broker").rglob("*") if f.is_file())

    def sealing(self, p):
        return p.status("broker", "default").get("persistence", {}).get("encryption", {})

    def test_encryption_at_rest(self):
        sealed = json.loads(json.dumps(ALL))
        p = self.start(manifests(sealed))
        self.leave_subscribed()
        self.client("sender").put("t", "before")
        self.client("sender").put("recipe", "marker-of-the-recipe" * 40, retain=True)
        ring = p.data / "pki" / "state-keys"
        self.assertEqual(ring.stat().st_mode & 0o777, 0o600)
        self.restart(p)
        self.assertFalse(self.has_bytes(p, b"marker-of-the-recipe"))
        wait_until(lambda: self.sealing(p) == {"mode": "Enabled", "key": 1, "filesToRewrite": 0}, "the status", 20)
        # Another name for the key makes another key; what the old one sealed is rewritten, and it goes.
        first = ring.read_text()
        done = p.run("apply", "-f", p.write("key.yaml", json.dumps({"apiVersion": "mqttbroker.iotoperations.azure.com/v1", "kind": "Broker", "metadata": {"name": "default", "namespace": "azure-iot-operations", "annotations": {"penstock.io/persistence-key": "2026-12"}}})))
        self.assertEqual(done.returncode, 0, done.stderr)
        wait_until(lambda: self.sealing(p) == {"mode": "Enabled", "key": 2, "filesToRewrite": 0}, "the new key", 30)
        wait_until(lambda: len([l for l in ring.read_text().splitlines() if not l.startswith("#")]) == 1, "the old key goes", 60)
        self.assertIn("2 ", ring.read_text())
        # A copy has its key with it, and is whole without the machine it was made on.
        copy = p.folder / "backup"
        done = p.run("backup", str(copy))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((copy / "broker" / "state-keys").stat().st_mode & 0o777, 0o600)
        p.stop()
        # Without the key, or with another one, nothing is begun anew.
        ring.write_text(first)
        p.start()
        wait_until(lambda: "sealed with key 2, which is not among the keys at hand" in p.status("broker", "default").get("runtimeStatus", {}).get("description", ""), "the refusal")
        with self.assertRaises(OSError):
            Mqtt(1883)
        self.assertEqual(ring.read_text(), first, "no new key in the place of the one that is missing")
        p.stop()
        shutil.rmtree(p.data)
        done = subprocess.run([p.binary, "restore", str(copy), "--data-dir", str(p.data)], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stderr)
        p.start()
        self.up()
        self.assert_only_before()
        # Off: written in the clear from now on, and what is there is rewritten.
        sealed["encryption"] = {"mode": "Disabled"}
        pathlib.Path(p.files[0]).write_text(manifests(sealed))
        wait_until(lambda: self.sealing(p) == {"mode": "Disabled", "filesToRewrite": 0}, "the end of sealing", 30)
        self.assertTrue(self.has_bytes(p, b"marker-of-the-recipe"))

    def test_keys_that_somebody_else_keeps(self):
        p = Penstock(BINARY)
        p.files = [p.write("m.yaml", manifests())]
        self.addCleanup(lambda: (p.stop(), shutil.rmtree(p.folder, ignore_errors=True)))
        given = pathlib.Path(p.write("credentials/penstock-state-keys", "# none yet\n"))
        p.env["CREDENTIALS_DIRECTORY"] = str(given.parent)
        p.start()
        wait_until(lambda: "penstock-state-keys: has no key" in p.status("broker", "default").get("runtimeStatus", {}).get("description", ""), "the refusal")
        line = lambda number: f"{number} " + base64.b64encode(os.urandom(32)).decode() + "\n"
        given.write_text(line(1))
        self.up()
        self.client("sender").put("recipe", "r", retain=True)
        wait_until(lambda: self.sealing(p).get("key") == 1, "the first key", 70)
        given.write_text(given.read_text() + line(2))
        wait_until(lambda: self.sealing(p).get("key") == 2 and self.sealing(p)["filesToRewrite"] == 0, "the second key", 70)
        given.write_text(given.read_text() + "3 short\n")
        wait_until(lambda: "penstock-state-keys line 3: the key is not 32 bytes" in self.sealing(p).get("fault", ""), "the fault", 70)
        self.assertEqual(len(given.read_text().splitlines()), 3)
        self.assertFalse((p.data / "pki" / "state-keys").exists())

    def test_state_that_is_not_as_it_should_be(self):
        p = self.start(manifests())
        self.leave_subscribed()
        sender = self.client("sender")
        for number in range(200):
            sender.put("t", f"{number}")
        p.stop()
        folder = p.data / "broker"
        self.assertEqual(folder.stat().st_mode & 0o777, 0o700)
        # Another Broker's state is not taken for one's own.
        pathlib.Path(p.files[0]).write_text(manifests(name="another"))
        for name in ("registry.sqlite", "registry.sqlite.mark", "pki.mark", "broker.mark"):
            (p.data / name).unlink()
        p.start()
        wait_until(lambda: "holds the state of Broker azure-iot-operations/default, not of azure-iot-operations/another" in p.status("broker", "another").get("runtimeStatus", {}).get("description", ""), "the refusal")
        with self.assertRaises(OSError):
            Mqtt(1883)

    def test_damaged_files_are_named(self):
        p = self.start(manifests())
        self.leave_subscribed()
        sender = self.client("sender")
        for number in range(200):
            sender.put("t", f"{number}")
        p.stop(signal.SIGKILL)
        folder = p.data / "broker"
        # The end of the log torn off: what stands before it is there.
        log = max(folder.glob("*.log"), key=lambda f: f.stat().st_size)
        os.truncate(log, log.stat().st_size - 7)
        p.start()
        self.up()
        got = [m[1] for m in self.client("one", expiry=3600).messages(199)]
        self.assertEqual(got, [str(n) for n in range(199)])
        # No crash tore that: the last message had been acknowledged.
        wait_until(lambda: p.status("broker", "default").get("healthState", {}).get("reasonCode") == "StateWasDamaged", "the health")
        self.assertIn(log.name, p.status("broker", "default")["persistence"]["notice"])
        self.assertTrue(list((folder / "lost").glob("*/" + log.name)))
        p.stop()
        # The list of files gone: it is told, set aside and repaired, or refused; never begun anew in silence.
        for manifest in folder.glob("MANIFEST-*"):
            data = bytearray(manifest.read_bytes())
            data[len(data) // 2] ^= 0xFF
            manifest.write_bytes(bytes(data))
        p.start()
        wait_until(lambda: re.search(r"was damaged|damaged and not to be repaired|Corruption", p.logs()), "the damage is told", 20)

    def test_a_disk_that_is_read_only(self):
        p = Penstock(BINARY)
        p.files = [p.write("m.yaml", manifests())]
        folder = str(p.data / "broker")
        self.addCleanup(lambda: (p.stop(), subprocess.run(["umount", folder]), shutil.rmtree(p.folder, ignore_errors=True)))
        os.makedirs(folder)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=400m", "tmpfs", folder], check=True)
        p.start()
        self.up()
        self.leave_subscribed()
        self.client("sender").put("t", "before")
        p.stop()
        subprocess.run(["mount", "-o", "remount,ro", "tmpfs", folder], check=True)
        p.start()
        # What is there is read; what would have to be kept is refused.
        self.up()
        self.assertEqual(self.client("sender").put("t", "no"), 0x97)
        wait_until(lambda: "read-only" in p.status("broker", "default")["healthState"]["message"].lower(), "the reason", 70)
        self.assertEqual(p.status("broker", "default")["healthState"]["status"], "Degraded")
        subprocess.run(["mount", "-o", "remount,rw", "tmpfs", folder], check=True)
        wait_until(lambda: self.client("sender").put("other") in (0, 0x10), "it goes on by itself", 70)
        self.assert_only_before()

    def test_a_disk_without_room(self):
        p = Penstock(BINARY)
        p.files = [p.write("m.yaml", manifests())]
        self.addCleanup(lambda: (p.stop(), subprocess.run(["umount", str(p.data / "broker")]), shutil.rmtree(p.folder, ignore_errors=True)))
        (p.data / "broker").mkdir(parents=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40m", "tmpfs", str(p.data / "broker")], check=True)
        p.start()
        self.up()
        one = self.client("one", expiry=3600)
        one.subscribe("t")
        sender = self.client("sender")
        wait_until(lambda: sender.put("t", "x") == 0x97, "the refusal")
        wait_until(lambda: p.status("broker", "default")["healthState"]["reasonCode"] == "DiskNotWritable", "the status", 70)
        subprocess.run(["mount", "-o", "remount,size=400m", "tmpfs", str(p.data / "broker")], check=True)
        wait_until(lambda: sender.put("t", "y") != 0x97, "it goes on by itself")


REQUEST = "statestore/v1/FA9AE35F-2F64-47CD-9BFF-08E2B32A0FE8/command/invoke"


class Store:
    """A state store client written from the protocol alone: RESP payloads, response topic, correlation data, timestamps."""

    def __init__(self, name):
        self.name = name
        self.mqtt = Mqtt(1883)
        assert self.mqtt.connect(name, clean=True) == 0
        self.answers = f"clients/{name}/services/statestore/_any_/command/invoke/response"
        assert self.mqtt.subscribe(self.answers) == [1]
        self.count = 0
        self.notified = []

    def ask(self, *words, fence=None, timestamp=True, ahead=0):
        """(payload, version) of the answer."""
        self.count += 1
        payload = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in (w.encode() if isinstance(w, str) else w for w in words))
        correlation = struct.pack(">QQ", 7, self.count)
        user = [("__ts", f"{int(time.time() * 1000) + ahead:015}:00000:{self.name}")] if timestamp else []
        if fence:
            user.append(("__ft", fence))
        properties = b"\x08" + text(self.answers) + b"\x09" + text(correlation) + b"".join(b"\x26" + text(n) + text(v) for n, v in user)
        self.mqtt.send(0x32, text(REQUEST) + struct.pack(">H", self.count) + varint(len(properties)) + properties + payload)
        while True:
            topic, props, body = self.next()
            if topic == self.answers:
                assert correlation in props and b"__stat\x00\x03200" in props
                version = re.search(rb"__ts..(\d+:\d+:StateStore)", props, re.S)
                return body, version and version[1].decode()
            self.notified.append((topic, body))

    def next(self, timeout=10):
        while True:
            packet = self.mqtt.receive(timeout)
            assert packet is not None, "closed"
            if packet[0] >> 4 != 3:
                continue
            size = struct.unpack(">H", packet[1][:2])[0]
            topic, at = packet[1][2:2 + size].decode(), 2 + size
            self.mqtt.send(0x40, packet[1][at:at + 2])
            at += 2
            length, shift = 0, 0
            while True:
                byte = packet[1][at]
                length |= (byte & 127) << shift
                shift, at = shift + 7, at + 1
                if byte < 128:
                    break
            return topic, packet[1][at:at + length], packet[1][at + length:]


class StateStore(Case):
    def test_protocol_notifications_and_restart(self):
        p = self.start(manifests({"maxSize": "1G", "retain": {"mode": "None"}, "subscriberQueue": {"mode": "None"}, "stateStore": {"mode": "Custom", "stateStoreSettings": {"stateStoreResources": [{"keys": ["keep-*"]}]}}}))
        a, b = Store("alpha"), Store("beta-2")     # homes on either worker
        body, version = a.ask("SET", "keep-lamp", "on")
        self.assertEqual(body, b"+OK\r\n")
        self.assertEqual(b.ask("GET", "keep-lamp"), (b"$2\r\non\r\n", version))
        self.assertEqual(b.ask("GET", "none")[0], b"$-1\r\n")
        self.assertEqual(b.ask("SET", "keep-lamp", "off", "NX")[0], b":-1\r\n")
        self.assertEqual(b.ask("SET", "keep-lamp", "x", timestamp=False)[0], b"-ERR missing timestamp\r\n")
        self.assertEqual(b.ask("SET", "keep-lamp", "x", ahead=120_000)[0], b"-ERR the request timestamp is too far in the future; ensure that the client and broker system clocks are synchronized\r\n")
        # A lock with a lease, and what it protects.
        body, fence = a.ask("SET", "keep-lock", "alpha", "NEX", "PX", "1000")
        self.assertEqual(a.ask("SET", "keep-guarded", "1", fence=fence)[0], b"+OK\r\n")
        self.assertEqual(b.ask("SET", "keep-guarded", "2")[0], b"-ERR a fencing token is required for this request\r\n")
        self.assertEqual(b.ask("SET", "keep-guarded", "2", fence="000000000000001:00000:x")[0], b"-ERR the request fencing token is a lower version than the fencing token protecting the resource\r\n")
        # Whoever watches the lock is told at once when the lease ends, without any subscription.
        self.assertEqual(b.ask("KEYNOTIFY", "keep-lock")[0], b"+OK\r\n")
        began = time.monotonic()
        topic, _, body = b.next()
        self.assertEqual(topic, "clients/statestore/v1/FA9AE35F-2F64-47CD-9BFF-08E2B32A0FE8/" + b"beta-2".hex().upper() + "/command/notify/" + b"keep-lock".hex().upper())
        self.assertEqual(body, b"*2\r\n$6\r\nNOTIFY\r\n$6\r\nDELETE\r\n")
        self.assertLess(time.monotonic() - began, 5)
        a.ask("SET", "keep-lock", b"\x00\xff", "PX", "3600000")
        self.assertEqual(b.next()[2], b"*4\r\n$6\r\nNOTIFY\r\n$3\r\nSET\r\n$5\r\nVALUE\r\n$2\r\n\x00\xff\r\n")
        a.ask("SET", "other", "not kept")
        self.assertEqual(a.ask("SCAN", "keep-*")[0], b"*1\r\n*3\r\n$12\r\nkeep-guarded\r\n$9\r\nkeep-lamp\r\n$9\r\nkeep-lock\r\n")
        self.restart(p)
        a = Store("alpha")
        self.assertEqual(a.ask("GET", "keep-lamp"), (b"$2\r\non\r\n", version))
        self.assertEqual(a.ask("GET", "keep-lock")[0], b"$2\r\n\x00\xff\r\n")
        self.assertEqual(a.ask("GET", "other")[0], b"$-1\r\n")
        self.assertEqual(a.ask("SET", "keep-guarded", "2")[0], b"-ERR a fencing token is required for this request\r\n")
        later = a.ask("SET", "keep-lamp", "again")[1]
        self.assertGreater(later, version)
        # The command line for people.
        run = lambda *words: p.run("state", words[0], "-p", "1883", *words[1:])
        self.assertEqual(run("set", "by-hand", "value").returncode, 0)
        self.assertEqual(run("get", "by-hand").stdout, "value\n")
        self.assertEqual(run("scan", "by-*").stdout, "by-hand\n")
        lines = [json.loads(line) for line in run("export", "by-*").stdout.splitlines()]
        self.assertEqual([line["key"] for line in lines], ["by-hand"])
        self.assertEqual(set(lines[0]), {"key", "value", "version"})
        self.assertEqual(lines[0]["value"] + "\n", run("get", "by-hand").stdout)
        lock = json.loads(run("export", "keep-lock").stdout)
        self.assertEqual((lock["key"], lock["valueBase64"]), ("keep-lock", "AP8="))
        self.assertEqual(run("del", "by-hand").returncode, 0)
        self.assertEqual(run("get", "by-hand").returncode, 1)

    def test_requests_that_are_none(self):
        self.start(manifests(None))
        a = Store("alpha")
        for payload, text_ in (((b"FLY", b"x"), b"unknown command"), ((b"GET",), b"wrong number of arguments"), ((b"GET", b""), b"the key length is zero"), ((b"SET", b"k", b"v", b"XX"), b"syntax error"), ((b"SET", b"k", b"v", b"PX", b"soon"), b"syntax error")):
            self.assertEqual(a.ask(*payload)[0], b"-ERR " + text_ + b"\r\n")
        # No answer is possible: the acknowledgement says so.
        self.assertEqual(self.client("plain").put(REQUEST, "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"), 0x83)
        b = Store("beta")
        b.answers = REQUEST
        with self.assertRaises(AssertionError):
            b.ask("GET", "k")


if __name__ == "__main__":
    result = unittest.main(exit=False, warnings="ignore").result
    bad = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - bad} passed, {bad} failed")
    sys.exit(1 if bad else 0)
