"""Queues larger than memory: they go to the disk, come back in order, and are bounded."""
import json
import pathlib
import shutil
import signal
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
BODY = "x" * 10_000
POOL = 16 << 20   # of the Tiny profile


def manifests(size="200M", annotations=None, persistence=False):
    spec = {"memoryProfile": "Tiny", "cardinality": {"frontend": {"replicas": 1, "workers": 2}, "backendChain": {"partitions": 1, "redundancyFactor": 1, "workers": 1}},
            "diagnostics": {"metrics": {"prometheusPort": 9600}, "selfCheck": {"mode": "Disabled"}}}
    if size:
        spec["diskBackedMessageBuffer"] = {"maxSize": size}
    if persistence:
        spec["persistence"] = {"maxSize": "1G", "subscriberQueue": {"mode": "All"}}
    out = ""
    for kind, label, body, notes in (("Broker", "default", spec, annotations or {}), ("BrokerListener", "local", {"brokerRef": "default", "ports": [{"port": 1883}]}, {})):
        out += json.dumps({"apiVersion": "mqttbroker.iotoperations.azure.com/v1", "kind": kind, "metadata": {"name": label, "namespace": "azure-iot-operations", "annotations": notes}, "spec": body}) + "\n---\n"
    return out


class Overflow(unittest.TestCase):
    def start(self, text):
        p = Penstock(BINARY)
        p.files = [p.write("m.yaml", text)]
        self.addCleanup(lambda: (p.stop() if p.process.poll() is None else None, shutil.rmtree(p.folder, ignore_errors=True)))
        p.start()
        wait_until(lambda: Mqtt(1883).connect("probe") == 0, "the port", 30)
        return p

    def client(self, name):
        out = Mqtt(1883)
        self.assertEqual(out.connect(name, clean=False, expiry=3600), 0)
        return out

    def leave(self, *names):
        for name in names:
            away = self.client(name)
            away.subscribe("t")
            away.drop()

    def deliver(self, sender, number):
        """A slow disk makes a publisher wait (0x97), no more."""
        wait_until(lambda: sender.put("t", f"{number} {BODY}") == 0, "it is taken")

    def metric(self, name):
        page = urllib.request.urlopen("http://127.0.0.1:9600/metrics").read().decode()
        return sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(name + "{"))

    def used(self, p):
        return p.status("broker", "default").get("diskBackedMessageBuffer", {})

    def test_a_queue_larger_than_memory_comes_back_in_order(self):
        p = self.start(manifests())
        self.leave("one", "two")
        sender = self.client("sender")
        for number in range(4000):
            self.deliver(sender, number)
        self.assertLess(self.metric("aio_broker_buffer_pool_used_percent"), 75)
        self.assertGreater(self.metric("aio_broker_total_disk_backed_message_buffer_usage"), 20e6)
        files = list((p.data / "buffer").iterdir())
        self.assertTrue(files)
        self.assertEqual({f.stat().st_mode & 0o777 for f in files}, {0o600})
        self.assertFalse(any(b"xxxxxxxx" in f.read_bytes() for f in files))
        for name in ("one", "two"):
            again = self.client(name)
            got = again.messages(4000)
            self.assertEqual([m[1].split(" ")[0] for m in got], [str(n) for n in range(4000)])
            self.assertTrue(all(m[1].endswith(BODY) for m in got))
            again.drop()
        wait_until(lambda: self.metric("aio_broker_total_disk_backed_message_buffer_usage") == 0, "the room is given back")
        wait_until(lambda: not list((p.data / "buffer").iterdir()), "the files go")
        self.assertEqual(self.metric("aio_broker_disk_transfers_failed"), 0)
        self.assertGreater(self.metric("aio_broker_disk_transfers_completed"), 4000)

    def test_full_is_told_and_passes(self):
        p = self.start(manifests(size="5M"))
        self.leave("one")
        sender = self.client("sender")
        count = 0

        def is_full():
            nonlocal count
            while (code := sender.put("t", f"{count} {BODY}")) == 0:
                count += 1
                self.assertLess(count, 4000)
            self.assertEqual(code, 0x97)
            return self.used(p).get("status") == "Full"   # else the disk was behind for a moment
        wait_until(is_full, "the status", 70)
        self.assertGreater(count, 1500)   # 12 MiB of memory and 5 MB of disk
        self.assertEqual(self.used(p)["fault"], "diskBackedMessageBuffer.maxSize is used up")
        self.assertGreater(self.metric("aio_broker_backpressure_packets_rejected_disk"), 0)
        # More of it, while it runs.
        pathlib.Path(p.files[0]).write_text(manifests(size="100M"))
        again = self.client("one")
        self.assertEqual([m[1].split(" ")[0] for m in again.messages(count)], [str(n) for n in range(count)])
        again.drop()
        wait_until(lambda: self.used(p).get("status") == "Active" and p.get("broker", "default")["spec"]["diskBackedMessageBuffer"]["maxSize"] == "100M", "more room", 70)
        for number in range(3000):
            self.deliver(sender, number)

    def test_off_and_on_while_it_runs(self):
        p = self.start(manifests(size=None))
        self.leave("one")
        sender = self.client("sender")
        count = 0
        while sender.put("t", f"{count} {BODY}") == 0:
            count += 1
        self.assertEqual(self.used(p), {})
        self.assertFalse((p.data / "buffer").exists())
        again = self.client("one")
        self.assertEqual(len(again.messages(count // 2)), count // 2)
        again.drop()
        pathlib.Path(p.files[0]).write_text(manifests())
        wait_until(lambda: self.used(p).get("status") == "Active", "it is on", 30)
        for number in range(count, count + 3000):
            self.deliver(sender, number)
        # The last acknowledgements may have been lost with the connection: those messages come again.
        again = self.client("one")
        got = [int(again.messages(1)[0][1].split(" ")[0])]
        self.assertLessEqual(got[0], count // 2)
        got += [int(m[1].split(" ")[0]) for m in again.messages(count + 3000 - got[0] - 1)]
        self.assertEqual(got, list(range(got[0], count + 3000)))

    def test_what_waits_there_ends_with_its_age(self):
        self.start(manifests(annotations={"penstock.io/message-buffer-age": "2s"}))
        self.leave("one")
        sender = self.client("sender")
        for number in range(2000):
            sender.put("t", f"{number} {BODY}")
        wait_until(lambda: self.metric("aio_broker_total_disk_backed_message_buffer_usage") == 0, "what is too old goes", 20)
        self.assertGreater(self.metric("aio_broker_store_expired_messages"), 1000)

    def test_a_durable_queue_larger_than_memory_survives(self):
        p = self.start(manifests(persistence=True))
        self.leave("one")
        sender = self.client("sender")
        for number in range(3000):
            self.deliver(sender, number)
        for _ in range(2):
            p.stop(signal.SIGKILL)
            p.start()
            wait_until(lambda: Mqtt(1883).connect("probe") == 0, "the port", 60)
            self.assertLess(self.metric("aio_broker_buffer_pool_used_percent"), 75)
        again = self.client("one")
        self.assertEqual([int(m[1].split(" ")[0]) for m in again.messages(3000)], list(range(3000)))

    def test_settings_that_are_none_are_refused(self):
        p = self.start(manifests())
        for size, annotations, why in (("5", {}, "spec.diskBackedMessageBuffer.maxSize"), ("1K", {}, "at least 1M"), ("1G", {"penstock.io/message-buffer-age": "soon"}, "a duration such as 24h"),
                                       ("1G", {"penstock.io/subscriber-queue-bytes": "much"}, "a size such as 64Mi"), ("1G", {"penstock.io/persistence-sync": "1h"}, "a duration up to 10s")):
            done = p.run("apply", "-f", p.write("bad.yaml", manifests(size, annotations)))
            self.assertEqual((done.returncode, why in done.stderr + done.stdout), (1, True), done.stderr + done.stdout)


if __name__ == "__main__":
    result = unittest.main(exit=False, warnings="ignore").result
    bad = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - bad} passed, {bad} failed")
    sys.exit(1 if bad else 0)
