"""What is there after a restart, and what a Broker says whose state is not as it should be."""
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import unittest

from mqtt import Mqtt
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


class Durable(unittest.TestCase):
    def start(self, text):
        p = Penstock(BINARY)
        p.files = [p.write("m.yaml", text)]
        self.addCleanup(lambda: (p.stop() if p.process.poll() is None else None, shutil.rmtree(p.folder, ignore_errors=True)))
        p.start()
        self.up()
        return p

    def up(self):
        wait_until(lambda: Mqtt(1883).connect("probe") == 0, "the port", 30)

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
        one = self.client("one", expiry=3600)
        one.subscribe("t")
        one.drop()
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
        again = self.client("one", expiry=3600)
        self.assertEqual(again.messages(1)[0][1], "before")
        self.assertTrue(again.silent())

    def test_state_that_is_not_as_it_should_be(self):
        p = self.start(manifests())
        one = self.client("one", expiry=3600)
        one.subscribe("t")
        one.drop()
        sender = self.client("sender")
        for number in range(200):
            sender.put("t", f"{number}")
        p.stop()
        folder = p.data / "broker"
        self.assertEqual(folder.stat().st_mode & 0o777, 0o700)
        # Another Broker's state is not taken for one's own.
        pathlib.Path(p.files[0]).write_text(manifests(name="another"))
        (p.data / "registry.sqlite").unlink()
        p.start()
        wait_until(lambda: "holds the state of Broker azure-iot-operations/default, not of azure-iot-operations/another" in p.status("broker", "another").get("runtimeStatus", {}).get("description", ""), "the refusal")
        with self.assertRaises(OSError):
            Mqtt(1883)

    def test_damaged_files_are_named(self):
        p = self.start(manifests())
        one = self.client("one", expiry=3600)
        one.subscribe("t")
        one.drop()
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
        p.stop()
        # The list of files gone: it is told, set aside and repaired, or refused; never begun anew in silence.
        for manifest in folder.glob("MANIFEST-*"):
            data = bytearray(manifest.read_bytes())
            data[len(data) // 2] ^= 0xFF
            manifest.write_bytes(bytes(data))
        p.start()
        wait_until(lambda: re.search(r"was damaged|damaged and not to be repaired|Corruption", p.logs()), "the damage is told", 20)

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
        subprocess.run(["mount", "-o", "remount,size=400m", str(p.data / "broker")], check=True)
        wait_until(lambda: sender.put("t", "y") != 0x97, "it goes on by itself")


if __name__ == "__main__":
    result = unittest.main(exit=False, warnings="ignore").result
    bad = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - bad} passed, {bad} failed")
    sys.exit(1 if bad else 0)
