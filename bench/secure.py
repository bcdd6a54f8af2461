#!/usr/bin/env python3
"""TLS and persistence side by side with Debian's mosquitto, alternating, in one run, with the same certificate.

usage: secure.py BINARY [SECONDS] [--kept] [--buffer] [--markdown FILE] (persistence alone, the disk buffer alone). Broker CPU per message or handshake (user and system, whole process); read the
ratios. Mosquitto's persistence writes its whole state once a second and never syncs per message; Penstock's
keeps what it acknowledges, encrypted. The column beside tells syncs per 1,000 messages, and the same without encryption and in memory."""
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import urllib.request

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "e2e"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from compare import measure, mosquitto_program, shown
from support import Penstock, broker, free_port, listener, wait_until

TLS = [
    ("TLS connect + CONNACK, EC P-256", "connect --connections 3000"),
    ("TLS p2p QoS 0, 10 pairs, window 32", "p2p"),
    ("TLS p2p QoS 1, 10 pairs, window 32", "p2p -q 1"),
    ("TLS fan-out 1 to 500, window 8, QoS 0", "fan-out --window 8"),
    ("TLS 1 KiB, QoS 0", "p2p --payload 1024"),
    ("2000 idle TLS connections", "idle --connections 2000"),
]
KEPT = [
    ("p2p QoS 1, kept sessions, 10 pairs, window 32", "p2p -q 1 --persistent"),
    ("p2p QoS 1, kept sessions, 100 pairs, window 8", "p2p -q 1 --persistent --pairs 100 --window 8"),
    ("p2p QoS 2, kept sessions, 10 pairs, window 16", "p2p -q 2 --window 16 --persistent"),
    ("p2p QoS 1, 1 KiB, kept sessions", "p2p -q 1 --payload 1024 --persistent"),
    ("offline QoS 1: fill, drain 100000", "offline"),
    ("20000 retained: set, get", "retained --topics 20000"),
]


def mosquitto(folder, extra):
    port = free_port()
    config = pathlib.Path(folder) / f"m{port}.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nuser root\nmax_inflight_messages 0\nmax_queued_messages 0\n{extra}")
    process = subprocess.Popen([mosquitto_program(), "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: __import__("socket").create_connection(("127.0.0.1", port), timeout=1).close() is None, "mosquitto")
    return process, port


def metric(port, name):
    page = urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics").read().decode()
    return float(re.search(rf"^{name}{{[^}}]*}} (\S+)", page, re.M)[1])


def main():
    binary = str(pathlib.Path(sys.argv[1]).resolve())
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 and not sys.argv[2].startswith("-") else 3
    folder = tempfile.mkdtemp(prefix="penstock-bench-")
    run = lambda line: subprocess.run(line, shell=True, check=True, cwd=folder, capture_output=True)
    run(f"{binary} pki root CA --out ca && {binary} pki server broker --host 127.0.0.1 --host localhost --ca ca.crt --ca-key ca.key --out server")
    rows = []

    def add(name, ours, theirs, note=""):
        ratio = ""
        if not ours["error"] and not theirs["error"]:
            key = "broker_bytes_per_connection" if "connections" in ours else "broker_cpu_us_per_message"
            ratio = f"{theirs[key] / ours[key]:.1f}" if ours[key] > 0 else ""
        per_second = lambda r: f" ({r['delivered'] / r['seconds'] / 1000:.0f} k/s)" if r.get("delivered") and r.get("seconds") else ""
        rows.append((name, shown(ours) + per_second(ours), shown(theirs) + per_second(theirs), ratio, note))
        print(f"{name:<48} penstock {rows[-1][1]:<34} mosquitto {rows[-1][2]:<34} {ratio:<6} {note}", flush=True)

    for name, words in [] if "--kept" in sys.argv or "--buffer" in sys.argv else TLS:
        port = free_port()
        p = Penstock(binary)
        p.files = [p.write("m.yaml", broker("{diagnostics: {metrics: {prometheusPort: 0}, selfCheck: {mode: Disabled}}}", "{penstock.io/sys-topics: Disabled}") + "---\n" +
                           listener("one", [f"{{port: {port}, tls: {{mode: Manual, manual: {{secretRef: server}}}}}}"]))]
        with p:
            cert, key = ((pathlib.Path(folder) / f"server.{e}").read_text() for e in ("crt", "key"))
            secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "server", "namespace": "azure-iot-operations"}, "type": "kubernetes.io/tls", "stringData": {"tls.crt": cert, "tls.key": key}}
            assert p.run("apply", "-f", p.write("s.json", json.dumps(secret))).returncode == 0
            p.wait_running("one")
            ours = measure(binary, f"{words} --cafile {folder}/ca.crt", port, p.process.pid, seconds)
        process, port = mosquitto(folder, f"certfile {folder}/server.crt\nkeyfile {folder}/server.key\n")
        try:
            theirs = measure(binary, f"{words} --cafile {folder}/ca.crt", port, process.pid, seconds)
        finally:
            process.terminate()
            process.wait()
        add(name, ours, theirs)

    for name, words in [] if "--buffer" in sys.argv else KEPT:
        reports = []
        note = ""
        kept = "persistence: {maxSize: 20G, retain: {mode: All}, subscriberQueue: {mode: All}, encryption: {mode: %s}}, "
        for persistence in (kept % "Enabled", kept % "Disabled", ""):
            port, page = free_port(), free_port()
            p = Penstock(binary)
            p.files = [p.write("m.yaml", broker(f"{{{persistence}diagnostics: {{metrics: {{prometheusPort: {page}}}, selfCheck: {{mode: Disabled}}}}}}", "{penstock.io/sys-topics: Disabled}") + "---\n" + listener("one", [f"port: {port}"]))]
            with p:
                p.wait_running("one")
                reports.append(measure(binary, words, port, p.process.pid, seconds))
                if "Enabled" in persistence and not reports[-1]["error"]:
                    messages = max(1, reports[-1].get("delivered", 0) or 100_000)
                    note = f"{metric(page, 'penstock_persistence_syncs_total') / messages * 1000:.1f} syncs per 1,000"
        process, port = mosquitto(folder, f"persistence true\npersistence_location {folder}/\nautosave_interval 1\n")
        try:
            theirs = measure(binary, words, port, process.pid, seconds)
        finally:
            process.terminate()
            process.wait()
        add(name, reports[0], theirs, f"{note}; in the clear {shown(reports[1])}; in memory {shown(reports[2])}")
    # Queues on the overflow's disk: 200 MB of messages and 64 MiB of memory for them.
    words = "offline --payload 2048"
    reports = []
    for memory in ("memoryProfile: Low, diskBackedMessageBuffer: {maxSize: 2G}", "memoryProfile: High"):
        port = free_port()
        p = Penstock(binary)
        p.files = [p.write("m.yaml", broker(f"{{{memory}, cardinality: {{frontend: {{replicas: 1, workers: 2}}, backendChain: {{partitions: 1, redundancyFactor: 1, workers: 1}}}}, diagnostics: {{metrics: {{prometheusPort: 0}}, selfCheck: {{mode: Disabled}}}}}}", "{penstock.io/sys-topics: Disabled}") + "---\n" + listener("one", [f"port: {port}"]))]
        with p:
            p.wait_running("one")
            reports.append(measure(binary, words, port, p.process.pid, seconds))
    process, port = mosquitto(folder, "persistence false\n")
    try:
        theirs = measure(binary, words, port, process.pid, seconds)
    finally:
        process.terminate()
        process.wait()
    add("offline QoS 1, 2 KiB, through the disk buffer", reports[0], theirs, f"in memory {shown(reports[1])}; mosquitto has it in memory")
    shutil.rmtree(folder, ignore_errors=True)
    if "--markdown" in sys.argv:
        with open(sys.argv[sys.argv.index("--markdown") + 1], "w") as out:
            out.write("| Scenario | Penstock | Mosquitto | Mosquitto / Penstock | |\n|---|---|---|---|---|\n")
            for row in rows:
                out.write("| " + " | ".join(row) + " |\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
