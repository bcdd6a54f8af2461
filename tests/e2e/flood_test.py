#!/usr/bin/env python3
"""Peers that ask without reading, or announce more than they send: the broker's memory stays bounded and others are served."""
import select
import socket
import sys
import unittest

from support import Penstock, broker, free_port, listener, wait_until

BINARY = sys.argv.pop(1)

UPGRADE = (b"GET /mqtt HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
           b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n")


def connect_packet(client):
    body = b"\x00\x04MQTT\x04\x02\x00\x00" + len(client).to_bytes(2, "big") + client
    return b"\x10" + bytes([len(body)]) + body


def frame(payload):
    """One masked binary frame, with a mask of zeros."""
    size = len(payload)
    head = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big") if size < 65536 else b"\xff" + size.to_bytes(8, "big")
    return b"\x82" + head + b"\0\0\0\0" + payload


def flood(peer, packet, total):
    """Sends until `total` bytes left or nobody takes them any more; how many left."""
    peer.settimeout(1)
    data, sent = packet * max(1, 65536 // len(packet)), 0
    try:
        while sent < total:
            sent += peer.send(data[sent % len(data):] if sent % len(data) else data)
    except OSError:
        pass
    return sent


class Flood(unittest.TestCase):
    def setUp(self):
        self.port, self.web = free_port(), free_port()
        self.p = Penstock(BINARY)
        self.p.files = [self.p.write("m.yaml", broker("{diagnostics: {metrics: {prometheusPort: 0}, selfCheck: {mode: Disabled}}}", "{penstock.io/sys-topics: Disabled}") + "---\n" +
                                     listener("one", [f"port: {self.port}", f"{{port: {self.web}, protocol: WebSockets}}"]))]
        self.p.__enter__()
        self.addCleanup(self.p.__exit__, None, None, None)
        self.p.wait_running("one")
        self.open = []
        self.addCleanup(lambda: [peer.close() for peer in self.open])

    def memory(self):
        with open(f"/proc/{self.p.process.pid}/status") as status:
            return int(next(line for line in status if line.startswith("VmRSS")).split()[1]) * 1024

    def peer(self, port, first):
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(("127.0.0.1", port))
        peer.sendall(first)
        self.open.append(peer)
        return peer

    def others_are_served(self):
        other = self.peer(self.port, connect_packet(b"other"))
        other.settimeout(10)
        self.assertEqual(other.recv(4), b"\x20\x02\x00\x00")
        other.sendall(b"\xc0\x00")
        self.assertEqual(other.recv(2), b"\xd0\x00")

    def test_pings_without_reading(self):
        before = self.memory()
        peer = self.peer(self.port, connect_packet(b"pings"))
        sent = flood(peer, b"\xc0\x00", 60_000_000)
        self.assertLess(sent, 60_000_000, "TCP holds it back")
        self.assertLess(self.memory() - before, 16 << 20)
        self.others_are_served()
        # It reads after all, and gets what it asked for.
        peer.settimeout(10)
        got = 0
        while got < 4 + 2_000_000:
            got += len(peer.recv(1 << 16))

    def test_websocket_pings_without_reading(self):
        before = self.memory()
        peer = self.peer(self.web, UPGRADE)
        flood(peer, b"\x89\xfd\0\0\0\0" + b"x" * 125, 60_000_000)
        self.assertLess(self.memory() - before, 16 << 20)
        self.others_are_served()

    def test_subscribers_on_websocket_that_do_not_read(self):
        peer = self.peer(self.web, UPGRADE)
        peer.sendall(frame(connect_packet(b"slow")) + frame(b"\x82\x06\x00\x01\x00\x01#\x00"))
        got = b""
        peer.settimeout(10)
        while b"\x90\x03\x00\x01" not in got:   # SUBACK; from here on it reads nothing
            got += peer.recv(4096)
        publisher = self.peer(self.port, connect_packet(b"publisher"))
        before = self.memory()
        message = b"\x30\x84\x08\x00\x02t/" + b"x" * 1024
        publisher.settimeout(30)
        for _ in range(200):
            publisher.sendall(message * 500)   # 100 MB of QoS 0 in all, of which a slow reader keeps a bounded part
        self.others_are_served()
        self.assertLess(self.memory() - before, 60 << 20)

    def test_a_frame_larger_than_connect_may_be(self):
        peer = self.peer(self.web, UPGRADE + b"\x82\xff" + (100_000_000).to_bytes(8, "big") + b"\0\0\0\0")
        before = self.memory()
        sent = flood(peer, b"x" * 65536, 100_000_000)
        # After the end 16 MiB are read and thrown away, so that the refusal arrives; the rest is what both kernels hold.
        self.assertLess(sent, 60_000_000, "refused: nobody sends 100 MB before CONNECT")
        self.assertLess(self.memory() - before, 8 << 20)

    def test_connects_that_never_end(self):
        before = self.memory()
        for _ in range(700):
            peer = self.peer(self.port, b"\x10\xf0\xff\x1f\x00\x04MQTT\x04\x02\x00\x00\x00\x01x")
            peer.setblocking(False)
            sent = 0
            try:
                while sent < 400_000:
                    sent += peer.send(b"y" * 65536)
            except OSError:
                pass
        wait_until(lambda: select.select(self.open, [], [], 0)[0], "some to be closed for the others")
        # In all 280 MB; they get a bounded part, and the message pool is not theirs.
        self.assertLess(self.memory() - before, 130 << 20)
        self.others_are_served()


if __name__ == "__main__":
    result = unittest.main(exit=False, warnings="ignore").result
    bad = len(result.failures) + len(result.errors)
    print(f"{result.testsRun - bad} passed, {bad} failed")
    sys.exit(1 if bad else 0)
