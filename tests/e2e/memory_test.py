#!/usr/bin/env python3
"""What anonymous peers can fill: the process stays within its memory profile and a constant, and names of strangers do not stay."""
import http.client
import socket
import ssl
import struct
import sys
import time
import unittest

from mqtt import Mqtt, text, varint
from support import Penstock, broker, free_port, listener, wait_until

BINARY = sys.argv.pop(1)
MIB = 1 << 20
POOL = 16 * MIB        # of the memory profile Tiny
CONSTANT = 64 * MIB    # what docs/operating.md states beside it, for two workers and no persistence


def publish(topic, payload=b"", retain=False, properties=b""):
    """QoS 0 of version 5."""
    body = text(topic) + varint(len(properties)) + properties + payload
    return bytes([0x31 if retain else 0x30]) + varint(len(body)) + body


def user_property(name, value=b""):
    return b"\x26" + text(name) + text(value)


def name(i, size):
    return struct.pack(">I", i).hex().encode().ljust(size, b"x")


class Memory(unittest.TestCase):
    def setUp(self):
        self.port, self.metrics = free_port(), free_port()
        self.p = Penstock(BINARY)
        self.p.files = [self.p.write("m.yaml", broker(f"{{memoryProfile: Tiny, cardinality: {{frontend: {{replicas: 1, workers: 2}}, backendChain: {{partitions: 1, redundancyFactor: 1, workers: 1}}}}, "
                                                      f"diagnostics: {{metrics: {{prometheusPort: {self.metrics}}}, selfCheck: {{mode: Disabled}}}}}}", "{penstock.io/sys-topics: Disabled}") +
                                     "---\n" + listener("one", [f"port: {self.port}"]))]
        self.p.__enter__()
        self.addCleanup(self.p.__exit__, None, None, None)
        self.p.wait_running("one")
        self.before = self.memory()
        self.open = []
        self.addCleanup(lambda: [one.socket.close() for one in self.open])

    def memory(self, what="VmHWM"):
        with open(f"/proc/{self.p.process.pid}/status") as status:
            return int(next(line for line in status if line.startswith(what)).split()[1]) * 1024

    def client(self, client_id, **words):
        one = Mqtt(self.port)
        self.open.append(one)
        self.assertEqual(one.connect(client_id, **words), 0)
        return one

    def page(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.metrics, timeout=20)
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()

    def pool_percent(self):
        return float(next(line for line in self.page().splitlines() if line.startswith("aio_broker_buffer_pool_used_percent")).split()[-1])

    def wait_answered(self, one):
        one.send(0xC0, b"")
        while one.receive(60)[0] != 0xD0:
            pass

    def wait_handled(self, one):
        """All that the client sent was read, and what it caused elsewhere has arrived."""
        self.wait_answered(one)
        self.assertEqual(self.client("other").put("other"), 0x10, "others are served")

    def stays_small(self, bound=POOL + CONSTANT):
        taken = self.memory() - self.before
        print(f"{self.id().split('.')[-1]}: {taken / MIB:.0f} MiB, pool {self.pool_percent():.0f} %")
        self.assertLess(taken, bound)

    def test_clearing_what_nobody_retained(self):
        one = self.client("a")
        for i in range(5000):
            one.socket.sendall(publish(name(i, 60_000), retain=True))
        self.wait_handled(one)
        self.stays_small()

    def test_topics_that_nobody_subscribes_to(self):
        one = self.client("a")
        for size, count in ((60_000, 9000), (500, 30_000)):
            for i in range(count):
                one.socket.sendall(publish(name(i, size)))
        self.wait_handled(one)
        self.stays_small()

    def test_retained_topics_of_many_levels(self):
        one = self.client("a")
        for i in range(20_000):
            one.socket.sendall(publish(f"{i}" + "/" * 199, b"x", retain=True))
        self.wait_answered(one)
        self.stays_small()

    def test_urgent_messages(self):
        one = self.client("a")
        for i in range(2000):
            one.socket.sendall(publish(name(i, 50), b"x" * 60_000, retain=True, properties=user_property("$high_priority")))
        self.wait_answered(one)
        self.stays_small()

    def test_sessions_with_long_names(self):
        reasons = set()
        for i in range(1500):
            one = Mqtt(self.port)
            reasons.add(one.connect(name(i, 60_000), expiry=86_400))
            one.socket.close()
        self.assertEqual(reasons, {0, 0x97})
        self.stays_small()

    def test_filters(self):
        reasons = set()
        clients = [self.client(f"c{c}") for c in range(8)]
        for c, one in enumerate(clients):
            for i in range(130):
                reasons |= set(one.subscribe(name(c * 1000 + i, 60_000)))
        self.assertEqual(reasons, {1, 0x97})
        self.stays_small()

    def test_one_message_in_many_queues(self):
        for c in range(500):
            one = Mqtt(self.port)
            one.connect(f"c{c}", expiry=86_400)
            one.subscribe("t")
            one.socket.close()
        one = self.client("a")
        reasons = {one.put("t") for _ in range(2000)}
        self.assertEqual(reasons, {0, 0x97})
        self.stays_small()

    def test_one_message_with_large_properties_for_many(self):
        for c in range(300):
            one = self.client(f"c{c}")
            one.subscribe("t")
        one = self.client("a")
        one.socket.sendall(publish("t", b"", properties=user_property("n", b"v" * 60_000) * 40) * 2)
        self.wait_handled(one)
        self.stays_small(POOL + CONSTANT + 32 * MIB)   # the senders' sockets are this process's too

    def test_keys_of_the_state_store(self):
        one = self.client("a")
        topic = "statestore/v1/FA9AE35F-2F64-47CD-9BFF-08E2B32A0FE8/command/invoke"
        for i in range(500):
            key, value = name(i, 100), b"v" * 200_000
            payload = b"*3\r\n$3\r\nSET\r\n$%d\r\n%s\r\n$%d\r\n%s\r\n" % (len(key), key, len(value), value)
            properties = b"\x08" + text("answers") + b"\x09" + text("1") + user_property("__ts", f"{int(time.time() * 1000)}:00000:a")
            one.packet = one.packet % 60_000 + 1
            one.send(0x32, text(topic) + struct.pack(">H", one.packet) + varint(len(properties)) + properties + payload)
            while one.receive(30)[0] != 0x40:
                pass
        self.stays_small()

    def test_metric_categories(self):
        for i in range(3000):
            one = Mqtt(self.port)
            properties = user_property("metriccategory", f"category-{i}")
            one.send(0x10, text("MQTT") + bytes([5, 2, 0, 60]) + varint(len(properties)) + properties + text(f"c{i}"))
            self.assertEqual(one.receive()[0], 0x20)
            one.socket.close()
        names = {line.split('category="')[1].split('"')[0] for line in self.page().splitlines() if 'category="' in line}
        self.assertGreater(len(names), 500)
        self.assertLessEqual(len(names), 1000)

    def test_requests_of_strangers_to_the_api(self):
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        peers = []
        try:
            for _ in range(100):
                peer = context.wrap_socket(socket.create_connection(("127.0.0.1", self.p.api_port), timeout=20))
                peers.append(peer)
                peer.sendall(b"POST /api/v1/namespaces HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 3000000\r\n\r\n")
                try:
                    for _ in range(45):
                        peer.sendall(b" " * 65_536)
                except OSError:
                    pass   # it was turned away
            # Of 300 MB they get a part, and it is not that of those who are known.
            self.assertEqual(self.p.run("get", "namespace", "default").returncode, 0)
        finally:
            for peer in peers:
                peer.close()
        self.stays_small(POOL + CONSTANT + 48 * MIB)

    def test_a_client_that_comes_and_goes(self):
        wait_until(lambda: self.once(5000), "5,000 connections", 60)
        first = self.memory("VmRSS")
        self.once(20_000)
        self.assertLess(self.memory("VmRSS") - first, 2 * MIB)

    def once(self, count):
        connect = text("MQTT") + bytes([5, 0, 0, 60, 5, 0x11]) + struct.pack(">I", 86_400) + text("same")
        for _ in range(count):
            one = socket.create_connection(("127.0.0.1", self.port), timeout=10)
            one.sendall(b"\x10" + varint(len(connect)) + connect)
            one.recv(64)
            one.sendall(b"\xe0\x00")
            one.recv(64)
            one.close()
        return True


if __name__ == "__main__":
    result = unittest.main(exit=False, warnings="ignore").result
    bad = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - bad} passed, {bad} failed")
    sys.exit(1 if bad else 0)
