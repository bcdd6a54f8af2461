"""Disks without room, read-only, gone and back, and a standard error that takes nothing: whatever anything in the process writes."""
import fcntl
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import unittest
import urllib.request

from mqtt import Mqtt
from support import Penstock, in_own_network, wait_until

if __name__ == "__main__":
    code = in_own_network(__file__, *sys.argv[1:])
    if code is not None:
        sys.exit(code)
BINARY = sys.argv.pop(1)
PORT = 1883


def manifests(level="info"):
    spec = {"memoryProfile": "Tiny", "cardinality": {"frontend": {"replicas": 1, "workers": 2}, "backendChain": {"partitions": 1, "redundancyFactor": 1}},
            "diagnostics": {"metrics": {"prometheusPort": 9600}, "selfCheck": {"mode": "Disabled"}, "logs": {"level": level}},
            "diskBackedMessageBuffer": {"maxSize": "20M"},
            "persistence": {"maxSize": "1G", "retain": {"mode": "All"}, "subscriberQueue": {"mode": "All"}}}
    out = ""
    for kind, label, body in (("Broker", "default", spec), ("BrokerListener", "local", {"brokerRef": "default", "ports": [{"port": PORT}]})):
        out += json.dumps({"apiVersion": "mqttbroker.iotoperations.azure.com/v1", "kind": kind, "metadata": {"name": label, "namespace": "azure-iot-operations"}, "spec": body}) + "\n---\n"
    return out


def config_map(name, size=0):
    return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": {"a": "x" * size}})


class Case(unittest.TestCase):
    def prepare(self, level="info"):
        p = Penstock(BINARY)
        p.files = [p.write("m.yaml", manifests(level))]
        p.data.mkdir()
        self.addCleanup(self.clear, p)
        return p

    def clear(self, p):
        result = self._outcome.result
        if any(test is self for test, _ in result.failures + result.errors):
            print(f"--- log of penstock in {self.id()} ---\n{p.logs()[-8000:]}")
        if p.process and p.process.poll() is None:
            p.stop()
        subprocess.run(["umount", "-l", str(p.data)], capture_output=True)
        shutil.rmtree(p.folder, ignore_errors=True)

    def mount(self, p, size="160m"):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(p.data)], check=True)

    def up(self):
        wait_until(lambda: Mqtt(PORT).connect("probe") == 0, "the port", 30)

    def client(self, name, expiry=3600):
        out = Mqtt(PORT)
        self.assertEqual(out.connect(name, clean=False, expiry=expiry), 0)
        return out

    def alive(self, p):
        self.assertIsNone(p.process.poll(), p.logs()[-3000:])
        return True

    def put(self, client, *words, **named):
        """True when it is taken; no subscriber is no fault (0x10)."""
        return client.put(*words, **named) in (0, 0x10)

    def fill(self, p, name):
        """To the last byte."""
        with open(p.data / name, "wb", buffering=0) as file:
            for size in (65536, 4096, 1):
                try:
                    while True:
                        file.write(b"\0" * size)
                except OSError:
                    pass

    def retained(self, topics, name="reader"):
        reader = self.client(name, expiry=0)
        reader.subscribe(*topics)
        return {m[0]: m[1] for m in reader.messages(len(topics))}


class Disk(Case):
    def test_no_room_at_all(self):
        p = self.prepare()
        self.mount(p)
        p.start()
        self.up()
        listener = Mqtt(PORT)
        self.assertEqual(listener.connect("listener"), 0)   # its session ends with it: nothing of it is kept
        listener.subscribe("t")
        sender = self.client("sender")
        self.assertTrue(self.put(sender, "kept", "before", retain=True))
        for number in range(20):
            self.fill(p, f"fill{number}")
            sender.publish("t", f"x{number}" + "y" * 3000)
            self.alive(p)
        # What needs the disk is refused or waits, with the reason; what does not goes on.
        second = Mqtt(PORT)
        self.assertEqual(second.connect("second"), 0)
        second.send(0x30, b"\x00\x01t\x00quick")
        wait_until(lambda: listener.messages(1)[0][1] == "quick", "QoS 0 goes on")
        answer = wait_until(lambda: (a := p.run("apply", "-f", "-", stdin=config_map("large", 200_000))).returncode != 0 and a, "the refusal of a resource")
        self.assertIn("make room on its disk", answer.stderr + answer.stdout)
        self.assertEqual(p.run("get", "brokerlistener", "-A").returncode, 0)
        self.alive(p)
        # A start without room: all that it needs is there.
        p.stop(signal.SIGKILL)
        self.fill(p, "filler")
        p.start()
        self.up()
        self.assertEqual(Mqtt(PORT).connect("third"), 0)
        self.assertEqual(p.run("get", "brokerlistener", "-A").returncode, 0)
        self.alive(p)
        for file in p.data.glob("fill*"):
            file.unlink()
        self.assertEqual(wait_until(lambda: self.retained(["kept"]), "subscribing", 120), {"kept": "before"})
        wait_until(lambda: self.put(self.client("sender"), "kept", "after", retain=True), "writes", 120)
        wait_until(lambda: p.run("apply", "-f", "-", stdin=config_map("small")).returncode == 0, "resources", 120)
        wait_until(lambda: not p.status("broker", "default").get("healthState", {}).get("reasonCode", "").startswith("Disk"), "the status", 120)
        p.stop(signal.SIGKILL)
        p.start()
        self.up()
        self.assertEqual(self.retained(["kept"]), {"kept": "after"})
        self.assertFalse(list((p.data / "broker").glob("LOG*")))

    def test_a_first_start_without_room_says_so(self):
        p = self.prepare()
        self.mount(p, "1m")
        self.fill(p, "fill")
        done = subprocess.run([p.binary, "run", "--data-dir", str(p.data), "--api-port", str(p.api_port)], capture_output=True, text=True, timeout=30)
        self.assertEqual(done.returncode, 1)
        self.assertIn("No space left on device", done.stderr)
        self.assertFalse(list(p.data.rglob("*.new")))

    def test_read_only_at_the_start(self):
        p = self.prepare()
        self.mount(p)
        p.start()
        self.up()
        sender = self.client("sender")
        self.assertTrue(self.put(sender, "kept", "before", retain=True))
        for how in (signal.SIGTERM, signal.SIGKILL):   # with and without a log that the registry has to read
            p.stop(how)
            subprocess.run(["mount", "-o", "remount,ro", "tmpfs", str(p.data)], check=True)
            p.start()
            self.up()
            self.assertEqual(self.client("other", expiry=0).put("kept", "no", retain=True), 0x97)   # who resumes a session waits
            refused = p.run("apply", "-f", "-", stdin=config_map("no"))
            self.assertNotEqual(refused.returncode, 0)
            self.assertIn("read-only", refused.stderr + refused.stdout)
            subprocess.run(["mount", "-o", "remount,rw", "tmpfs", str(p.data)], check=True)
            self.assertEqual(wait_until(lambda: self.retained(["kept"]), "subscribing", 120), {"kept": "before"})
            wait_until(lambda: self.put(self.client("sender"), "kept", "before", retain=True), "writes", 120)
            wait_until(lambda: p.run("apply", "-f", "-", stdin=config_map("yes")).returncode == 0, "resources", 120)

    def test_a_data_folder_that_is_deleted(self):
        p = self.prepare()
        p.start()
        self.up()
        sender = self.client("sender")
        self.assertTrue(self.put(sender, "one", "before", retain=True))
        self.assertEqual(p.run("apply", "-f", "-", stdin=config_map("one")).returncode, 0)
        config = (p.data / "kubeconfig.yaml").read_text()
        subprocess.run(["rm", "-rf", str(p.data)], capture_output=True)   # files that are made meanwhile may stay
        p.env["KUBECONFIG"] = p.write("kubeconfig", config)
        wait_until(lambda: self.put(sender, "two", "after", retain=True), "it goes on", 120)
        wait_until(lambda: p.run("apply", "-f", "-", stdin=config_map("two")).returncode == 0, "resources", 120)
        wait_until(lambda: (p.data / "pki" / "state-keys").exists(), "the keys", 120)
        p.stop(signal.SIGKILL)
        p.env["KUBECONFIG"] = str(p.data / "kubeconfig.yaml")
        p.start()
        self.up()
        self.assertEqual(self.retained(["one", "two"]), {"one": "before", "two": "after"})
        for name in ("one", "two"):
            got = p.run("get", "configmap", name, "-n", "default")
            self.assertEqual(got.returncode, 0, got.stderr)

    def test_keys_and_files_that_are_deleted_while_it_runs(self):
        """What is in memory is written back before a crash makes a loss of it."""
        p = self.prepare()
        p.start()
        self.up()
        self.assertTrue(self.put(self.client("sender"), "one", "before", retain=True))
        names = sorted(str(f.relative_to(p.data)) for folder in (p.data, p.data / "pki") for f in folder.iterdir() if f.is_file() and not f.name.startswith("registry.sqlite"))
        self.assertIn("pki/state-keys", names)
        self.assertIn("kubeconfig.yaml", names)
        marks = [n for n in names if n.endswith(".mark")]
        keys = {n: (p.data / n).read_bytes() for n in names if n not in marks}
        there = lambda: all((p.data / n).exists() and (p.data / n).read_bytes() == keys[n] for n in keys) and (p.data / "pki.mark").exists()

        def crash():
            wait_until(there, "what was deleted", 120)
            p.stop(signal.SIGKILL)
            p.start()
            self.up()
            self.assertEqual(self.retained(["one"]), {"one": "before"})
            self.assertTrue(there())

        shutil.rmtree(p.data / "pki", ignore_errors=True)   # a file that is written back meanwhile stays
        (p.data / "pki.mark").unlink()
        (p.data / "kubeconfig.yaml").unlink()
        crash()
        self.assertIn("written back", p.logs())
        for name in names:
            (p.data / name).unlink(missing_ok=True)   # a mark may not be back yet
        crash()
        for name in names:
            (p.data / name).write_bytes(b"")
        crash()

    def test_a_file_that_does_not_answer(self):
        """Whoever opens a file on which another process has a lease waits (45 s, proc_sys_fs(5)), as for a mount that hangs."""
        p = self.prepare()
        path = pathlib.Path(p.files[0])

        def hold(path):
            file = os.open(path, os.O_RDWR)
            fcntl.fcntl(file, fcntl.F_SETSIG if hasattr(fcntl, "F_SETSIG") else 10, signal.SIGURG)   # ignored
            try:
                fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            except OSError as error:
                self.skipTest(f"no leases on this file system: {error}")
            return file

        lease = hold(path)
        try:
            p.start()
            wait_until(lambda: "manifests cannot be read, and nothing waits for them" in p.logs(), "what is waited for", 120)
            self.assertIn(str(path), p.logs())
            wait_until(lambda: p.run("apply", "-f", "-", stdin=config_map("one")).returncode == 0, "resources", 120)
            p.stop()   # an order to stop is followed
            # One without which nothing goes on: that is said, and an order to stop is followed.
            key = hold(p.data / "pki" / "api-ca.key")
            try:
                log = open(p.folder / "log", "ab")
                process = subprocess.Popen([p.binary, "run", "--data-dir", str(p.data), "--api-port", str(p.api_port)], stdout=log, stderr=log, env=p.env)
                wait_until(lambda: f"the start waits for the keys in {p.data / 'pki'}" in p.logs(), "what is waited for", 120)
                process.send_signal(signal.SIGTERM)
                self.assertEqual(process.wait(60), 1)
                self.assertIn("told to stop while the start waits for the keys", p.logs())
            finally:
                os.close(key)
            p.start()
        finally:
            os.close(lease)
        self.up()
        self.assertTrue(self.put(self.client("sender"), "one", "now", retain=True))

    def test_a_disk_that_is_unmounted_and_comes_back(self):
        p = self.prepare()
        disk = p.folder / "disk"
        disk.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(disk)], check=True)
        self.addCleanup(lambda: subprocess.run(["umount", "-l", str(disk)]))
        subprocess.run(["mount", "--bind", str(disk), str(p.data)], check=True)
        p.start()
        self.up()
        sender = self.client("sender")
        self.assertTrue(self.put(sender, "one", "before", retain=True))
        config = p.write("kubeconfig", (p.data / "kubeconfig.yaml").read_text())
        subprocess.run(["umount", "-l", str(p.data)], check=True)
        p.env["KUBECONFIG"] = config
        sender.publish("two", "meanwhile", retain=True)
        refused = wait_until(lambda: (a := p.run("apply", "-f", "-", stdin=config_map("no"))).returncode != 0 and a, "the refusal")
        self.assertIn("mount that again", refused.stderr + refused.stdout)
        self.assertFalse((p.data / "registry.sqlite").exists(), "nothing is begun anew beside the disk")
        wait_until(lambda: "certificates cannot be kept current" in p.logs(), "a look at the keys of the API", 120)
        self.assertEqual([str(f) for f in p.data.rglob("*")], [], "nothing at all is begun on the bare mount point")
        subprocess.run(["mount", "--bind", str(disk), str(p.data)], check=True)
        self.assertEqual(sender.receive(60)[0], 0x40)
        wait_until(lambda: self.put(sender, "three", "after", retain=True), "writes", 120)
        wait_until(lambda: p.run("apply", "-f", "-", stdin=config_map("yes")).returncode == 0, "resources", 120)
        p.stop(signal.SIGKILL)
        p.start()
        self.up()
        self.assertEqual(self.retained(["one", "three"]), {"one": "before", "three": "after"})


class StandardError(Case):
    def start(self, p, **words):
        command = [p.binary, "run", "--data-dir", str(p.data), "--api-port", str(p.api_port), "--log-level", "debug", "-f", p.files[0]]
        p.log = open(p.folder / "log", "ab")
        p.process = subprocess.Popen(command, env=p.env, **words)
        self.up()

    def lines_dropped(self):
        page = urllib.request.urlopen("http://127.0.0.1:9600/metrics").read().decode()
        return int(next(line for line in page.splitlines() if line.startswith("penstock_log_lines_dropped_total ")).rsplit(" ", 1)[1])

    def talk(self):
        """Connections are logged, at this level several lines each."""
        for number in range(200):
            self.assertEqual(Mqtt(PORT).connect(f"client{number}"), 0)

    def test_nobody_reads_it(self):
        p = self.prepare("debug")
        ours, theirs = os.pipe()
        self.start(p, stdout=theirs, stderr=theirs)   # both, as under many supervisors
        os.close(theirs)
        wait_until(lambda: (self.talk(), self.lines_dropped() > 0)[1], "more lines than the pipe and the queue take", 120)
        self.assertTrue(self.put(self.client("one"), "t"))
        # Somebody reads again: what is missing is said.
        with os.fdopen(ours, "rb") as reader:
            text = b""
            while b"lines of the log are lost" not in text:
                text += reader.read1(65536)
        # The reader went, and the process ends all the same.
        self.assertTrue(self.put(self.client("one"), "t"))
        self.assertEqual(p.stop(), 0)

    def test_it_is_closed(self):
        p = self.prepare("debug")
        self.start(p, preexec_fn=lambda: (os.close(0), os.close(1), os.close(2)))
        self.talk()
        sender = self.client("one")
        self.assertTrue(self.put(sender, "t", retain=True))
        held = {os.readlink(f"/proc/{p.process.pid}/fd/{number}") for number in range(3)}
        self.assertEqual(held, {"/dev/null"}, "no file of ours has its number")
        self.assertEqual(p.stop(), 0)

    def test_its_disk_is_full(self):
        p = self.prepare("debug")
        with open("/dev/full", "w") as full:
            self.start(p, stdout=full, stderr=full)
        self.talk()
        self.assertTrue(self.put(self.client("one"), "t"))
        self.assertGreater(self.lines_dropped(), 100)
        self.assertEqual(p.stop(), 0)


if __name__ == "__main__":
    unittest.main()
