#!/usr/bin/env python3
"""How long a start takes with so many queued messages, retained topics and sessions on disk, and what it holds then.

usage: recovery.py BINARY [COUNT...]   (10000 100000)"""
import json
import os
import pathlib
import signal
import socket
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "e2e"))
from mqtt import Mqtt, text, varint
from support import Penstock, broker, free_port, listener, wait_until


def flood(client, count, packet):
    """Sends `count` QoS 1 PUBLISH, up to 500 without their PUBACK."""
    sent = acknowledged = 0
    while acknowledged < count:
        batch = b""
        while sent < count and sent - acknowledged < 500:
            sent += 1
            first, body = packet(sent)
            batch += bytes([first]) + varint(len(body)) + body
        if batch:
            client.socket.sendall(batch)
        answer = client.receive(30)
        assert answer is not None and answer[0] == 0x40, answer
        acknowledged += 1


def make_sessions(port, count, processes=4):
    """Each with a subscription of its own. Their connections are reset, so that no port waits."""
    children = []
    for part in range(processes):
        child = os.fork()
        if child:
            children.append(child)
            continue
        try:
            for n in range(part, count, processes):
                one = Mqtt(port)
                one.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                connect = text("MQTT") + bytes([5, 0, 0, 0]) + b"\x05\x11" + struct.pack(">I", 86400) + text(f"session-{n}")
                subscribe = b"\x00\x01\x00" + text(f"cmd/{n}") + b"\x01"
                one.socket.sendall(b"\x10" + varint(len(connect)) + connect + b"\x82" + varint(len(subscribe)) + subscribe)
                assert one.receive(30)[0] == 0x20 and one.receive(30)[0] == 0x90
                one.drop()
        except BaseException as error:
            print(f"session: {error}", file=sys.stderr)
            os._exit(1)
        os._exit(0)
    assert all(os.waitpid(child, 0)[1] == 0 for child in children), "not all sessions were made"


def resident(pid, what):
    return int(next(line for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(what)).split()[1]) / 1024


def run(binary, what, count):
    port = free_port()
    p = Penstock(binary)
    p.files = [p.write("m.yaml", broker("{memoryProfile: High, persistence: {maxSize: 50G, retain: {mode: All}, subscriberQueue: {mode: All}}, diagnostics: {metrics: {prometheusPort: 0}, selfCheck: {mode: Disabled}}}", "{penstock.io/sys-topics: Disabled}") + "---\n" + listener("one", [f"port: {port}"]))]
    up = lambda: wait_until(lambda: Mqtt(port).connect("probe") == 0, "the port", 120)
    p.start()
    up()
    sender = Mqtt(port)
    sender.connect("sender")
    identifier = lambda n: struct.pack(">H", n % 60000 + 1)
    if what == "queued messages":
        away = Mqtt(port)
        away.connect("away", clean=False, expiry=86400)
        away.subscribe("t")
        away.drop()
        flood(sender, count, lambda n: (0x32, text("t") + identifier(n) + b"\x00" + b"x" * 100))
    elif what == "retained topics":
        flood(sender, count, lambda n: (0x33, text(f"plant/{n % 100}/{n}") + identifier(n) + b"\x00" + b"x" * 50))
    else:
        make_sessions(port, count)
    p.stop(signal.SIGKILL)
    p.start()
    up()
    began = wait_until(lambda: p.status("broker", "default").get("persistence", {}), "a status", 60)
    size = sum(f.stat().st_size for f in (p.data / "broker").iterdir() if f.is_file()) / 1e6
    if os.environ.get("SHOW"): print(p.logs()[-1500:])
    print(f"| {count:,} {what} | {began['recoverySeconds']:.2f} s | {resident(p.process.pid, 'VmHWM'):.0f} MiB | {resident(p.process.pid, 'VmRSS'):.0f} MiB | {size:.0f} MB |", flush=True)
    p.stop()


print("| After kill -9, on disk | ready after | memory at most | memory then | on disk |\n|---|---|---|---|---|")
for count in [int(word) for word in sys.argv[2:]] or [10_000, 100_000]:
    for what in ("queued messages", "retained topics", "sessions"):
        run(sys.argv[1], what, count)
