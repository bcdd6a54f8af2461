"""Kills the broker in the middle of its work, again and again, and compares what comes back with what was acknowledged:
nothing acknowledged is missing, nothing at QoS 2 comes twice, order is kept, retained messages and the keys of the state store are the last
acknowledged ones. The state is encrypted, its key changes now and then, and queues overflow to the disk.

crash_test.py BINARY [ROUNDS] [SEED]; PENSTOCK_LONG=1: hundreds of rounds"""
import json
import os
import random
import signal
import socket
import struct
import sys
import threading
import time

from mqtt import Mqtt, text, varint
from support import Penstock, broker, free_port, listener, wait_until

ROUNDS = int(sys.argv[2]) if len(sys.argv) > 2 else 300 if os.environ.get("PENSTOCK_LONG") else 6
SEED = int(sys.argv[3]) if len(sys.argv) > 3 else 1


class Link(Mqtt):
    """One MQTT 5 connection; its thread hands packets to the owner until it breaks."""

    def __init__(self, port, client, clean, on_packet):
        super().__init__(port)
        self.lock = threading.Lock()
        body = text("MQTT") + bytes([5, 2 if clean else 0, 0, 0]) + b"\x05\x11\xff\xff\xff\xff" + text(client)
        self.send(0x10, body)
        first = self.receive()
        if first is None or first[0] != 0x20 or first[1][1] != 0:
            raise ConnectionError(f"CONNECT of {client}: {first}")
        self.present = first[1][0] & 1
        self.on_packet = on_packet
        self.alive = True
        self.thread = None

    def start(self):
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def send(self, first, body):
        with self.lock:
            super().send(first, body)

    def run(self):
        try:
            while (packet := self.receive(30)) is not None:
                self.on_packet(self, *packet)
        except (OSError, ValueError):
            pass
        self.alive = False

    def close(self):
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()
        if self.thread:
            self.thread.join()


class Publisher:
    """Numbers messages; keeps what is not acknowledged and sends it again, as the protocol wants, after each crash."""

    def __init__(self, name, qos, size):
        self.name, self.qos, self.size = name, qos, size
        self.next, self.acknowledged = 1, 0
        self.inflight = {}                     # packet id → [number, step]
        self.retained = (0, 0)                 # newest number sent, newest acknowledged
        self.lock = threading.Lock()
        self.link = None

    def payload(self, number):
        return f"{self.name} {number} ".encode().ljust(self.size, b".")

    def packet(self, number, packet_id, dup):
        return 0x30 | (8 if dup else 0) | self.qos << 1, text(f"crash/{self.name}") + struct.pack(">H", packet_id) + b"\x00" + self.payload(number)

    def connect(self, port):
        self.link = Link(port, f"pub-{self.name}", False, self.on_packet)
        with self.lock:
            if not self.link.present and self.inflight and self.qos == 2:
                raise AssertionError(f"{self.name}: the session is gone")
            for packet_id, (number, step) in sorted(self.inflight.items(), key=lambda item: item[1][0]):
                if step == "publish":
                    self.link.send(*self.packet(number, packet_id, True))
                else:
                    self.link.send(0x62, struct.pack(">H", packet_id))
        self.link.start()

    def fill(self, window):
        with self.lock:
            while len(self.inflight) < window:
                number = self.next
                self.next += 1
                packet_id = next(i for i in range((number - 1) % 60000 + 1, 65536) if i not in self.inflight)
                self.inflight[packet_id] = [number, "publish"]
                self.link.send(*self.packet(number, packet_id, False))

    def on_packet(self, link, first, body):
        packet_id = struct.unpack(">H", body[:2])[0]
        reason = body[2] if len(body) > 2 else 0
        with self.lock:
            if packet_id not in self.inflight:
                return
            if first >> 4 == 4 or first >> 4 == 7:      # PUBACK, PUBCOMP
                assert reason in (0, 0x10, 0x92), reason
                number = self.inflight.pop(packet_id)[0]
                self.acknowledged = max(self.acknowledged, number)
                done.setdefault(self.name, set()).add(number)
            elif first >> 4 == 5:                       # PUBREC
                assert reason in (0, 0x10), reason
                self.inflight[packet_id][1] = "release"
                link.send(0x62, struct.pack(">H", packet_id))


class Subscriber:
    """A session that never expires; writes down what it got, deals with QoS 2 as a receiver must."""

    def __init__(self, name, filters):
        self.name, self.filters = name, filters
        self.got = {}                          # publisher → numbers in order of arrival
        self.pending = {}                      # QoS 2 packet ids between PUBLISH and PUBREL
        self.link = None

    def connect(self, port):
        self.link = Link(port, f"sub-{self.name}", False, self.on_packet)
        if not self.link.present:
            if self.got:
                raise AssertionError(f"{self.name}: the session is gone")
            self.link.send(0x82, b"\x00\x01\x00" + b"".join(text(f) + b"\x02" for f in self.filters))
            assert self.link.receive()[0] == 0x90
        self.link.start()

    def on_packet(self, link, first, body):
        kind = first >> 4
        if kind == 6:                                   # PUBREL
            packet_id = struct.unpack(">H", body[:2])[0]
            self.pending.pop(packet_id, None)
            link.send(0x70, struct.pack(">H", packet_id))
            return
        if kind != 3:
            return
        qos = first >> 1 & 3
        size = struct.unpack(">H", body[:2])[0]
        at = 2 + size
        packet_id = 0
        if qos:
            packet_id = struct.unpack(">H", body[at:at + 2])[0]
            at += 2
        name, number, _ = body[at + 1:].split(b" ", 2)
        if qos == 2:
            if packet_id not in self.pending:           # method B of MQTT 5.0 §4.3.3
                self.pending[packet_id] = True
                self.got.setdefault(name.decode(), []).append((int(number), first & 8))
            link.send(0x50, struct.pack(">H", packet_id))
        else:
            self.got.setdefault(name.decode(), []).append((int(number), first & 8))
            if qos == 1:
                link.send(0x40, struct.pack(">H", packet_id))


REQUEST = "statestore/v1/FA9AE35F-2F64-47CD-9BFF-08E2B32A0FE8/command/invoke"


class Store:
    """A client of the state store that changes keys at random, one request after the other, and knows what each must hold."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.model = {}
        self.under_way = None                  # the key and value of a request whose answer never came
        self.version = ""                      # the newest of an answer
        self.count = self.changes = 0
        self.link = None

    def ask(self, *words):
        """Payload of the answer; sets self.version_of_answer."""
        self.count += 1
        correlation = struct.pack(">QQ", 9, self.count)
        payload = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in (w.encode() for w in words))
        properties = b"\x08" + text("clients/store/answers") + b"\x09" + text(correlation) + b"\x26" + text("__ts") + text(f"{int(time.time() * 1000):015}:00000:store")
        self.link.send(0x32, text(REQUEST) + struct.pack(">H", self.count % 60000 + 1) + varint(len(properties)) + properties + payload)
        while (packet := self.link.receive(30)) is not None:
            if packet[0] >> 4 != 3:
                continue
            at = 2 + struct.unpack(">H", packet[1][:2])[0]
            if packet[0] & 6:
                self.link.send(0x40, packet[1][at:at + 2])
                at += 2
            length, shift = 0, 0
            while True:
                byte, at = packet[1][at], at + 1
                length, shift = length | (byte & 127) << shift, shift + 7
                if byte < 128:
                    break
            props = packet[1][at:at + length]
            if correlation not in props:
                continue
            stamp = props.find(b"__ts")
            self.version_of_answer = props[stamp + 6:stamp + 6 + struct.unpack(">H", props[stamp + 4:stamp + 6])[0]].decode() if stamp >= 0 else ""
            return packet[1][at + length:]
        raise ConnectionError("closed")

    def connect(self, port):
        self.link = Link(port, "store", True, lambda *_: None)
        self.link.send(0x82, b"\x00\x01\x00" + text("clients/store/answers") + b"\x01")
        assert self.link.receive()[0] == 0x90

    def check(self, where):
        for key in [f"key{n}" for n in range(20)]:
            answer = self.ask("GET", key)
            value = None if answer == b"$-1\r\n" else answer.split(b"\r\n")[1].decode()
            allowed = [self.model.get(key)]
            if self.under_way and self.under_way[0] == key:
                allowed.append(self.under_way[1])
            if value not in allowed:
                faults.append(f"{where}: {key} is {value}, must be one of {allowed}")
            self.model[key] = value
        self.under_way = None

    def work(self, until):
        try:
            while time.monotonic() < until:
                key = f"key{self.random.randrange(20)}"
                value = None if self.random.random() < 0.3 else f"{self.changes} " + "v" * self.random.randrange(0, 3000)
                self.under_way = (key, value)
                answer = self.ask("DEL", key) if value is None else self.ask("SET", key, value)
                had = self.model.get(key) is not None
                expected = (b":1\r\n" if had else b":0\r\n") if value is None else b"+OK\r\n"
                if answer != expected:
                    faults.append(f"{'DEL' if value is None else 'SET'} {key} answered {answer}")
                if value is not None:
                    if self.version_of_answer <= self.version:
                        faults.append(f"the version of {key} went from {self.version} back to {self.version_of_answer}")
                    self.version = self.version_of_answer
                self.model[key] = value
                self.under_way = None
                self.changes += 1
        except (OSError, ConnectionError):
            pass


done = {}
faults = []


def main():
    rng = random.Random(SEED)
    port = free_port()
    p = Penstock(sys.argv[1])
    manifest = lambda key, workers: broker("{memoryProfile: Low, cardinality: {frontend: {replicas: 1, workers: WORKERS}, backendChain: {partitions: 1, redundancyFactor: 1, workers: 1}}, diskBackedMessageBuffer: {maxSize: 10G}, "
                                  "persistence: {maxSize: 10G, retain: {mode: All}, subscriberQueue: {mode: All}, stateStore: {mode: All}}, diagnostics: {metrics: {prometheusPort: 0}, selfCheck: {mode: Disabled}}}".replace("WORKERS", str(workers)),
                                  f"{{penstock.io/persistence-key: \"{key}\"}}") + "---\n" + listener("local", [f"port: {port}"])
    p.files = [p.write("m.yaml", manifest(0, 2))]
    key, workers = 0, 2
    store = Store(SEED)
    publishers = [Publisher(f"p{i}q{qos}", qos, size) for i, (qos, size) in enumerate([(1, 30), (1, 900), (2, 30), (2, 900)])]
    subscribers = [Subscriber("all", ["crash/#"]), Subscriber("two", ["crash/p2q2", "crash/p3q2"]), Subscriber("away", ["crash/#"])]
    retained_sent, retained_acknowledged = 0, 0

    def retained_value():
        out = p.run("sub", "-p", str(port), "-t", "keep/value", "-C", "1", "-W", "3", "--retained-only")
        return int(out.stdout) if out.returncode == 0 and out.stdout.strip() else 0
    p.start()
    for round_number in range(1, ROUNDS + 1):
        wait_until(lambda: socket.create_connection(("127.0.0.1", port), timeout=1).close() is None, "the port", 30)
        value = retained_value()
        if not retained_acknowledged <= value <= retained_sent:
            faults.append(f"round {round_number}: retained is {value}, acknowledged {retained_acknowledged}, sent {retained_sent}")
        for subscriber in subscribers:
            if subscriber.name != "away" or round_number % 3 == 1:
                subscriber.connect(port)
        for publisher in publishers:
            publisher.connect(port)
        store.connect(port)
        store.check(f"round {round_number}")
        # Another key for the state, another number of workers: while all goes on, so that some kills come in the middle of it.
        if round_number % 10 == 5:
            key = round_number
        if round_number % 2 == 0:
            workers = 3 - workers
        p.write("m.yaml", manifest(key, workers))
        end = time.monotonic() + rng.uniform(0.05, 1.2)
        changes = threading.Thread(target=store.work, args=(end + 5,), daemon=True)
        changes.start()
        keeper = Link(port, "keeper", True, lambda *_: None)
        try:
            while time.monotonic() < end:
                for publisher in publishers:
                    publisher.fill(20)
                retained_sent += 1
                keeper.send(0x33, text("keep/value") + struct.pack(">H", retained_sent % 60000 + 1) + b"\x00" + str(retained_sent).encode())
                if (answer := keeper.receive()) is not None and answer[0] == 0x40:
                    retained_acknowledged = retained_sent
        except OSError as error:
            faults.append(f"round {round_number}: a connection broke before the kill: {error}")
        os.kill(p.process.pid, signal.SIGKILL)
        p.process.wait()
        changes.join()
        store.link.close()
        for one in publishers + subscribers:
            if one.link:
                one.link.close()
                one.link = None
        keeper.close()
        p.start()
    # The last start: everything that was acknowledged must come, to everybody.
    wait_until(lambda: socket.create_connection(("127.0.0.1", port), timeout=1).close() is None, "the port", 30)
    try:
        for one in subscribers + publishers:
            one.connect(port)
    except ConnectionError as error:
        print(f"FAULT {error}\n" + p.logs()[-3000:])
        p.stop()
        return 1
    wait_until(lambda: all(not one.inflight for one in publishers), "the last acknowledgements", 30)

    def missing():
        out = []
        for subscriber in subscribers:
            for publisher in publishers:
                if subscriber.name == "two" and publisher.qos != 2:
                    continue
                have = {number for number, _ in subscriber.got.get(publisher.name, [])}
                lost = done.get(publisher.name, set()) - have
                if lost:
                    out.append(f"{subscriber.name} misses {len(lost)} acknowledged messages of {publisher.name}, the first {min(lost)} of {publisher.next - 1}")
        return out
    try:
        wait_until(lambda: not missing(), "all acknowledged messages", 30)
    except AssertionError:
        faults.extend(missing())
    total = 0
    for subscriber in subscribers:
        for publisher in publishers:
            seen, newest = set(), 0
            for number, dup in subscriber.got.get(publisher.name, []):
                total += 1
                if number in seen and publisher.qos == 2:
                    faults.append(f"{subscriber.name} got {publisher.name} {number} twice at QoS 2")
                if number < newest and number not in seen:
                    faults.append(f"{subscriber.name} got {publisher.name} {number} after {newest}")
                seen.add(number)
                newest = max(newest, number)
    store.connect(port)
    store.check("at the end")
    store.link.close()
    status = p.status("broker", "default").get("persistence", {})
    for one in publishers + subscribers:
        one.link.close()
    p.stop()
    acknowledged = sum(len(numbers) for numbers in done.values())
    print(f"crash: seed {SEED}, {ROUNDS} kills, {acknowledged} messages acknowledged, {total} deliveries checked, {store.changes} changes of keys, {p.logs().count('the number of workers changed')} of the number of workers, persistence {json.dumps(status)}")
    for fault in faults[:20]:
        print("FAULT " + fault)
    print(f"{ROUNDS if not faults else 0} passed, {len(faults)} failed")
    if faults:
        print(p.logs()[-3000:])
    return 1 if faults else 0


sys.exit(main())
