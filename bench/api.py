#!/usr/bin/env python3
"""The resource API's figures on a Release build: requests per second with latency, time from a patch to its effect on a
listener, memory and start-up with many objects and watchers. Standard library only."""
import http.client
import json
import pathlib
import socket
import ssl
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "tests" / "e2e"))
from support import Penstock, broker, free_port, listener, wait_until

NS = "azure-iot-operations"


def main():
    p = Penstock(sys.argv[1])
    rows = []
    with p:
        p.wait_running("default")
        binding = p.write("a.yaml", "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: all}\nroleRef: {kind: ClusterRole, name: cluster-admin}\nsubjects: [{kind: ServiceAccount, name: default, namespace: default}]\n")
        assert p.run("apply", "-f", binding).returncode == 0
        token = p.run("create", "token", "default", "-n", "default", "--duration", "2h").stdout.strip()
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        auth = {"Authorization": "Bearer " + token, "Content-Type": "application/json"}

        def connection():
            return http.client.HTTPSConnection("127.0.0.1", p.api_port, context=context)

        link = connection()

        def ask(method, path, body=None, media="application/json"):
            link.request(method, path, body=body, headers={**auth, "Content-Type": media})
            answer = link.getresponse()
            text = answer.read()
            assert answer.status < 300, (method, path, answer.status, text[:300])
            return text

        def resident():
            return int(next(line for line in open(f"/proc/{p.process.pid}/status") if line.startswith("VmRSS")).split()[1]) / 1024

        def cpu():
            fields = open(f"/proc/{p.process.pid}/stat").read().rsplit(")", 1)[1].split()
            return (int(fields[11]) + int(fields[12])) / 100

        maps = "/api/v1/namespaces/default/configmaps"

        def measure(name, count, call):
            times, used, begun = [], cpu(), time.perf_counter()
            for i in range(count):
                at = time.perf_counter()
                call(i)
                times.append(time.perf_counter() - at)
            wall = time.perf_counter() - begun
            times.sort()
            rows.append((name, f"{count / wall:.0f}/s", f"p50 {times[count // 2] * 1e3:.2f} ms, p99 {times[int(count * 0.99)] * 1e3:.2f} ms", f"{(cpu() - used) / count * 1e6:.0f} µs CPU each"))

        empty = resident()
        ask("POST", maps, json.dumps({"metadata": {"name": "one"}, "data": {"a": "b"}}))
        measure("get", 2000, lambda i: ask("GET", maps + "/one"))
        measure("merge patch (one fsync each)", 1000, lambda i: ask("PATCH", maps + "/one", json.dumps({"data": {"a": str(i)}}), "application/merge-patch+json"))
        measure("server-side apply (one fsync each)", 500, lambda i: ask("PATCH", maps + "/one?fieldManager=x&force=true", json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "data": {"b": str(i)}}), "application/apply-patch+yaml"))
        used, begun = cpu(), time.perf_counter()
        for i in range(10_000):
            ask("POST", maps, json.dumps({"metadata": {"name": f"m{i}", "labels": {"n": str(i % 10)}}, "data": {"a": "x" * 200}}))
        wall = time.perf_counter() - begun
        rows.append(("create", f"{10_000 / wall:.0f}/s", "", f"{(cpu() - used) / 10_000 * 1e6:.0f} µs CPU each"))
        full = resident()
        rows.append(("memory with 10,000 ConfigMaps of 200 bytes", f"{full:.0f} MiB", f"{(full - empty) * 1024 / 10_000:.1f} KiB each, history included", ""))
        measure("list 10,000", 10, lambda i: ask("GET", maps))
        measure("list a page of 500", 100, lambda i: ask("GET", maps + "?limit=500"))
        measure("list by label (1,000 of 10,000)", 50, lambda i: ask("GET", maps + "?labelSelector=n%3D3"))
        watchers = []
        for _ in range(1000):
            raw = context.wrap_socket(socket.create_connection(("127.0.0.1", p.api_port)))
            raw.sendall(f"GET /api/v1/namespaces/kube-system/configmaps?watch=true&resourceVersion={json.loads(ask('GET', maps + '/one'))['metadata']['resourceVersion']} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
            watchers.append(raw)
        for raw in watchers:
            raw.settimeout(10)
            assert raw.recv(100).startswith(b"HTTP/1.1 200")
        watched = resident()
        rows.append(("memory with 1,000 watchers more", f"{watched:.0f} MiB", f"{(watched - full) * 1024 / 1000:.1f} KiB each, TLS included", ""))
        measure("merge patch that no watcher wants, with 1,000 watchers", 100, lambda i: ask("PATCH", maps + "/one", json.dumps({"data": {"a": f"w{i}"}}), "application/merge-patch+json"))
        for raw in watchers:
            raw.close()

        one = "/apis/mqttbroker.iotoperations.azure.com/v1/namespaces/azure-iot-operations/brokerlisteners"
        ports = [free_port() for _ in range(20)]
        ask("POST", one, json.dumps({"metadata": {"name": "moves"}, "spec": {"brokerRef": "default", "serviceType": "LoadBalancer", "ports": [{"port": ports[0]}]}}))
        p.wait_running("moves")
        delays = []
        for port in ports[1:]:
            at = time.perf_counter()
            ask("PATCH", one + "/moves", json.dumps({"spec": {"ports": [{"port": port}]}}), "application/merge-patch+json")
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.0005)  # between two tries
            delays.append(time.perf_counter() - at)
        delays.sort()
        rows.append(("patch of a listener until its new port accepts", "", f"p50 {delays[len(delays) // 2] * 1e3:.1f} ms, worst of {len(delays)} {delays[-1] * 1e3:.1f} ms", ""))
        p.process.terminate()
        p.process.wait()
        at = time.perf_counter()
        p.start()
        rows.append(("start until the API answers, 10,000 objects", "", f"{(time.perf_counter() - at) * 1e3:.0f} ms", ""))
    print("| | Rate or size | Time | Cost |\n|---|---|---|---|")
    for row in rows:
        print("| " + " | ".join(row) + " |")


main()
