#!/usr/bin/env python3
"""Every scenario of `penstock bench` against Penstock and Debian's mosquitto, alternating, in one run.

usage: compare.py BINARY [SECONDS] [--markdown FILE]. Figures are broker CPU per delivered message (user and system, whole
process); read the ratios, wall time is noisy. Each broker is started fresh for each scenario, so that memory is its own."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "e2e"))
from support import Penstock, broker, free_port, listener, program, wait_until

SCENARIOS = [
    ("p2p QoS 0, 10 pairs, window 32", "p2p"),
    ("p2p QoS 1, 10 pairs, window 32", "p2p -q 1"),
    ("p2p QoS 2, 10 pairs, window 16", "p2p -q 2 --window 16"),
    ("p2p QoS 0, 1 KiB", "p2p --payload 1024"),
    ("p2p QoS 0, 64 KiB, window 4", "p2p --payload 65536 --window 4"),
    ("500 pairs, window 1, QoS 0", "p2p --pairs 500 --window 1"),
    ("500 pairs, window 1, QoS 1", "p2p --pairs 500 --window 1 -q 1"),
    ("fan-in 200 to 1, window 8, QoS 0", "fan-in --window 8"),
    ("fan-in 200 to 1, window 2, QoS 1", "fan-in --window 2 -q 1"),
    ("fan-in 200 to shared group of 4", "shared --subscribers 4 --window 8"),
    ("fan-out 1 to 500, window 8, QoS 0", "fan-out --window 8"),
    ("fan-out 1 to 500, window 8, QoS 1", "fan-out --window 8 -q 1"),
    ("fan-out 1 to 500, window 1, QoS 0", "fan-out --window 1"),
    ("1000 wildcard subscribers, 2000 topics", "wildcard --subscribers 1000"),
    ("20000 retained: set, get", "retained --topics 20000"),
    ("offline QoS 1: fill, drain 100000", "offline"),
    ("connect + CONNACK", "connect --connections 20000"),
    ("latency at 2000 msg/s", "latency"),
    ("8000 idle connections", "idle --connections 8000"),
    ("8000 idle, one subscription each", "idle --connections 8000 --subscribe"),
]


def mosquitto_program():
    return program("mosquitto") or sys.exit("bench: there is no mosquitto to compare with; ./dev bench installs it")


def start_mosquitto(folder):
    port = free_port()
    config = pathlib.Path(folder) / f"m{port}.conf"
    config.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\nmax_inflight_messages 0\nmax_queued_messages 0\n")
    process = subprocess.Popen([mosquitto_program(), "-c", str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    wait_until(lambda: subprocess.run(["mosquitto_pub", "-p", str(port), "-t", "x", "-n"], capture_output=True).returncode == 0, "mosquitto")
    return process, port


def measure(binary, words, port, pid, seconds):
    answer = subprocess.run([binary, "bench", *words.split(), "-p", str(port), "--pid", str(pid), "--seconds", str(seconds), "--warm-up", "0.5", "--json"],
                            capture_output=True, text=True, timeout=300)
    return json.loads(answer.stdout)


def shown(report):
    if report["error"]:
        return report["error"]
    if "set_broker_us" in report:
        return f"{report['set_broker_us']:.2f} / {report['get_broker_us']:.2f} µs"
    if "fill_broker_us" in report:
        return f"{report['fill_broker_us']:.2f} / {report['drain_broker_us']:.2f} µs"
    if "p50_us" in report:
        return f"p50 {report['p50_us']:.0f}, p99 {report['p99_us']:.0f}, p99.9 {report['p999_us']:.0f} µs; CPU {report['broker_cpu_us_per_message']:.1f} µs"
    if "connections" in report:
        return f"{report['broker_bytes_per_connection']:.0f} bytes"
    return f"{report['broker_cpu_us_per_message']:.2f} µs"


def main():
    binary = str(pathlib.Path(sys.argv[1]).resolve())
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 3
    rows = []
    folder = tempfile.mkdtemp(prefix="penstock-bench-")
    for name, words in SCENARIOS:
        port = free_port()
        p = Penstock(binary)
        p.files = [p.write("m.yaml", broker("{diagnostics: {metrics: {prometheusPort: 0}, selfCheck: {mode: Disabled}}}", "{penstock.io/sys-topics: Disabled}") + "---\n" + listener("one", [f"port: {port}"]))]
        with p:
            p.wait_running("one")
            ours = measure(binary, words, port, p.process.pid, seconds)
        process, port = start_mosquitto(folder)
        try:
            theirs = measure(binary, words, port, process.pid, seconds)
        finally:
            process.terminate()
            process.wait()
        ratio = ""
        if not ours["error"] and not theirs["error"]:
            a, b = ours["broker_cpu_us_per_message"], theirs["broker_cpu_us_per_message"]
            if "connections" in ours:
                a, b = ours["broker_bytes_per_connection"], theirs["broker_bytes_per_connection"]
            ratio = f"{b / a:.1f}" if a > 0 else ""
        rows.append((name, shown(ours), shown(theirs), ratio))
        print(f"{name:<42} penstock {rows[-1][1]:<44} mosquitto {rows[-1][2]:<44} {ratio}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    if "--markdown" in sys.argv:
        with open(sys.argv[sys.argv.index("--markdown") + 1], "w") as out:
            out.write("| Scenario | Penstock | Mosquitto | Mosquitto / Penstock |\n|---|---|---|---|\n")
            for row in rows:
                out.write("| " + " | ".join(row) + " |\n")
    print(f"Next: docs/performance/README.md says how to read this ({os.cpu_count()} cores here)")


if __name__ == "__main__":
    main()
