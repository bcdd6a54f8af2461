"""What a person types: run, get, apply, delete, validate, pub, sub, metrics, and what bad input gets."""
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import unittest
import urllib.request

from support import Penstock, broker, free_port, listener, wait_until

BINARY = sys.argv.pop(1)
SOURCE = pathlib.Path(__file__).resolve().parents[2]


def page(port, path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
        return answer.read().decode()


class Run(unittest.TestCase):
    def test_a_pipe_without_a_writer_holds_up_nothing(self):
        port = free_port()
        p = Penstock(BINARY)
        fifo = p.folder / "pipe"
        os.mkfifo(fifo)
        p.files = [str(fifo)]
        with p:
            wait_until(lambda: "nothing has been written into it yet" in p.logs(), "what it waits for")
            fifo.write_text(broker("{diagnostics: {metrics: {prometheusPort: 0}}}") + "---\n" + listener("piped", [f"port: {port}"]))
            p.wait_running("piped", 30)
        self.assertEqual(p.process.returncode, 0)
        stopped = Penstock(BINARY)
        os.mkfifo(stopped.folder / "pipe")
        stopped.files = [str(stopped.folder / "pipe")]
        with stopped:
            stopped.stop()
        self.assertEqual(stopped.process.returncode, 1, "it never ran what -f names")

    def test_files_are_applied_followed_and_pruned(self):
        first, second, metrics = free_port(), free_port(), free_port()
        p = Penstock(BINARY)
        folder = p.folder / "manifests"
        p.write("manifests/a.yaml", broker(f"{{diagnostics: {{metrics: {{prometheusPort: {metrics}}}}}}}") + "---\n" + listener("one", [f"port: {first}"]))
        p.files = [str(folder)]
        with p:
            p.wait_running("one")
            watcher = subprocess.Popen([p.binary, "sub", "-p", str(first), "-t", "stay/#", "-C", "1"], stdout=subprocess.PIPE, text=True, env=p.env)
            p.write("manifests/b.yaml", listener("two", [f"port: {second}", "port: 0\n      protocol: websockets"], "loadBalancer"))
            p.wait_running("two")
            self.assertEqual(p.run("pub", "-p", str(second), "-t", "x", "-m", "y", "-q", "2").returncode, 0)
            # A fault keeps everything as it is.
            p.write("manifests/b.yaml", listener("two", [f"port: {second}", "prot: 1"], "Sideways"))
            wait_until(lambda: "stays as it was" in p.logs(), "the refusal")
            self.assertIn("manifests/b.yaml: document 1 (line 1): spec.serviceType: Unsupported value: \"Sideways\"", p.logs())
            self.assertIn("did you mean \"port\"?", p.logs())
            self.assertEqual(p.run("pub", "-p", str(second), "-t", "x", "-m", "y", "-q", "1").returncode, 0)
            # Neither does a file that is still being written, nor one that is gone for a moment.
            whole = listener("two", [f"port: {second}", "port: 0\n      protocol: websockets"], "loadBalancer")
            said = p.logs().count("manifests are not taken yet")
            with open(folder / "b.yaml", "w") as generator:
                generator.write(whole[:len(whole) // 2])
                generator.flush()
                wait_until(lambda: p.logs().count("manifests are not taken yet") > said, "the half-written file is noticed")
                self.assertIsNotNone(p.get("brokerlistener", "two"))
                generator.write(whole[len(whole) // 2:])
            (folder / "b.yaml").rename(folder / "aside")
            wait_until(lambda: "left them and would be deleted" in p.logs(), "the absence is noticed")
            node = json.loads(p.run("get", "nodes", "-o", "json").stdout)["items"][0]
            self.assertIn("ManifestsApplied", [c["type"] for c in node["status"]["conditions"]])
            (folder / "aside").rename(folder / "b.yaml")
            self.assertEqual(p.run("pub", "-p", str(second), "-t", "x", "-m", "y", "-q", "1").returncode, 0)
            (folder / "b.yaml").unlink()
            wait_until(lambda: p.get("brokerlistener", "two") is None, "the listener that left the files is deleted", 30)
            wait_until(lambda: p.run("pub", "-p", str(second), "-t", "x", "-m", "y", "-q", "1").returncode != 0, "its port is closed")
            # The subscriber on the other listener noticed nothing.
            self.assertEqual(p.run("pub", "-p", str(first), "-t", "stay/1", "-m", "still here").returncode, 0)
            self.assertEqual(watcher.communicate(timeout=10)[0].strip(), "still here")
            for name in ("aio_broker_publishes_received", "aio_broker_store_total_sessions", "aio_broker_buffer_pool_used_percent", "aio_broker_connect_latency_mu_ms",
                         "aio_broker_backpressure_packets_rejected_memory", "aio_broker_authorization_deny", "aio_broker_ping_correctness"):
                self.assertIn(name, page(metrics, "/metrics"))
            self.assertEqual(page(metrics, "/healthz"), "ok\n")
            self.assertEqual(page(metrics, "/readyz"), "ok\n")
        self.assertEqual(p.process.returncode, 0)

    def test_the_number_of_workers_changes_while_it_runs(self):
        port = free_port()
        p = Penstock(BINARY)
        manifest = lambda workers: (broker(f"{{cardinality: {{frontend: {{replicas: 1, workers: {workers}}}, backendChain: {{partitions: 1, redundancyFactor: 1}}}}, diagnostics: {{metrics: {{prometheusPort: 0}}}}}}")
                                    + "---\n" + listener("one", [f"port: {port}"]))
        p.files = [p.write("m.yaml", manifest(1))]
        with p:
            p.wait_running("one")
            self.assertEqual(p.get("broker", "default")["status"]["workers"], 1)
            p.run("pub", "-p", str(port), "-t", "stay/0", "-m", "first", "-r")
            watcher = subprocess.Popen([p.binary, "sub", "-p", str(port), "-t", "stay/#", "-q", "2", "-C", "3"], stdout=subprocess.PIPE, text=True, env=p.env)
            self.assertEqual(watcher.stdout.readline(), "first\n")
            for workers in (2, 1):
                p.write("m.yaml", manifest(workers))
                wait_until(lambda: p.get("broker", "default")["status"]["workers"] == min(workers, os.cpu_count()), f"{workers} workers")
                self.assertEqual(p.run("pub", "-p", str(port), "-t", "stay/1", "-m", f"with {workers}", "-q", "2").returncode, 0)
                self.assertEqual(watcher.stdout.readline(), f"with {workers}\n")
            self.assertEqual(watcher.wait(10), 0)
            watcher.stdout.close()

    def test_traces_of_the_probe_and_of_who_asks(self):
        port = free_port()
        p = Penstock(BINARY)
        manifest = lambda traces: (broker(f"{{diagnostics: {{metrics: {{prometheusPort: 0}}, selfCheck: {{mode: Disabled}}, traces: {traces}}}}}", "{penstock.io/sys-topics: Disabled}") + "---\n" + listener("one", [f"port: {port}"]))
        p.files = [p.write("m.yaml", manifest("{selfTracing: {intervalSeconds: 1}}"))]
        with p:
            p.wait_running("one")
            rows = lambda: [line.split() for line in p.run("traces", "--limit", "500").stdout.splitlines()[1:]]
            wait_until(lambda: {"connect", "ping", "subscribe", "publish", "unsubscribe"} <= {row[2] for row in rows()}, "traces of the probe")
            trace = next(row[1] for row in rows() if row[2] == "publish")
            shown = p.run("traces", trace).stdout
            for name in ("publish", "Publish", "check_backpressure", "get_pub_authz_context", "dispatch_publishes", "respond_and_ack", "receive publish"):
                self.assertIn(f"  {name}", shown)
            mine = "0af7651916cd43dd8448eb211c80319c"
            self.assertEqual(p.run("pub", "-p", str(port), "-V", "5", "-q", "1", "-t", "plant/x", "-m", "hi", "-D", "publish", "user-property", "traceparent", f"00-{mine}-b7ad6b7169203331-01").returncode, 0)
            spans = json.loads(p.run("traces", mine, "--otlp").stdout)["resourceSpans"][0]["scopeSpans"][0]["spans"]
            self.assertEqual([span["parentSpanId"] for span in spans if span["name"] == "Publish"], ["b7ad6b7169203331"])
            self.assertIn({"key": "messaging.destination.name", "value": {"stringValue": "plant/x"}}, next(span["attributes"] for span in spans if span["name"] == "Publish"))
            missing = p.run("traces", "1234")
            self.assertEqual((missing.returncode, missing.stderr), (1, "error: there is no trace 1234; penstock traces lists those that are kept\n"))
            # Probes that are only traced say nothing of the health. Switched off, all is forgotten.
            self.assertEqual(p.get("broker", "default")["status"]["selfCheck"], {"status": "Disabled"})
            p.write("m.yaml", manifest("{mode: Disabled}"))
            wait_until(lambda: "No traces are kept" in p.run("traces").stdout, "the traces to go")

    def test_port_taken_is_told_and_retried(self):
        taken, free = free_port(), free_port()
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", taken))
            holder.listen()
            p = Penstock(BINARY)
            p.files = [p.write("m.yaml", broker("{diagnostics: {metrics: {prometheusPort: 0}}}") + "---\n" + listener("held", [f"port: {taken}"]) + "---\n" + listener("open", [f"port: {free}"], "LoadBalancer"))]
            p.start()
            try:
                p.wait_running("open")
                status = wait_until(lambda: p.status("brokerlistener", "held"), "a status")
                self.assertEqual(status["runtimeStatus"]["status"], "Recovering")
                self.assertIn(f"port {taken} cannot be opened: Address already in use: python3 (process {os.getpid()}) holds it; end that program (kill {os.getpid()}) or choose another port", status["runtimeStatus"]["description"])
                self.assertEqual(p.status("broker", "default")["healthState"]["status"], "Degraded")
                holder.close()
                p.wait_running("held")
                wait_until(lambda: p.status("broker", "default")["healthState"]["status"] == "Available", "health")
            finally:
                p.stop()

    def test_a_port_that_asks_for_security_never_opens_without_it(self):
        port = free_port()
        p = Penstock(BINARY)
        p.files = [p.write("m.yaml", broker("{diagnostics: {metrics: {prometheusPort: 0}}}") + "---\n" + listener("secure", [f"port: {port}\n      authenticationRef: x"]))]
        with p:
            status = wait_until(lambda: p.status("brokerlistener", "secure"), "a status")
            self.assertEqual(status["runtimeStatus"]["status"], "Waiting")
            self.assertIn("authenticationRef: BrokerAuthentication azure-iot-operations/x does not exist", status["runtimeStatus"]["description"])
            with self.assertRaises(OSError):
                socket.create_connection(("127.0.0.1", port), timeout=1).close()

    def test_apply_get_watch_delete(self):
        port = free_port()
        with Penstock(BINARY, extra=[]) as p:
            p.run("delete", "brokerlistener", "default")
            file = p.write("l.yaml", listener("plant", [f"port: {port}"]))
            self.assertEqual(p.run("apply", "-f", file).stdout, "brokerlistener.mqttbroker.iotoperations.azure.com/plant created\n")
            self.assertEqual(p.run("apply", "-f", file).stdout, "brokerlistener.mqttbroker.iotoperations.azure.com/plant unchanged\n")
            p.wait_running("plant")
            watch = subprocess.Popen([p.binary, "get", "brokerlistener", "-w", "--no-headers"], stdout=subprocess.PIPE, text=True, env=p.env)
            self.assertIn("plant", watch.stdout.readline())
            other = free_port()
            p.write("l.yaml", listener("plant", [f"port: {other}"]))
            self.assertIn("configured", p.run("apply", "-f", file).stdout)
            wait_until(lambda: f"{other}/tcp" in watch.stdout.readline(), "the watch shows the new port")
            watch.terminate()
            watch.wait()
            watch.stdout.close()
            table = p.run("get", "brokerlisteners").stdout.splitlines()
            self.assertEqual(table[0].split(), ["NAME", "TYPE", "PORTS", "STATUS", "HEALTH", "AGE"])
            self.assertEqual(p.run("get", "brokerlistener/plant", "-o", "jsonpath={.spec.ports[0].port}").stdout, str(other))
            self.assertEqual(p.run("get", "brokerlistener", "-o", "name").stdout, "brokerlistener.mqttbroker.iotoperations.azure.com/plant\n")
            self.assertIn("kind: BrokerListener", p.run("get", "brokerlistener", "plant", "-o", "yaml").stdout)
            owner = p.get("brokerlistener", "plant")["metadata"]["ownerReferences"][0]
            self.assertEqual((owner["kind"], owner["name"]), ("Broker", "default"))
            self.assertIn("ClusterIP", p.run("get", "svc").stdout)
            self.assertEqual(p.run("delete", "-f", file).stdout, "brokerlistener.mqttbroker.iotoperations.azure.com/plant deleted\n")
            self.assertIn("not found", p.run("get", "brokerlistener", "plant").stderr)
            wait_until(lambda: "plant" not in p.run("get", "svc").stdout, "its Service goes too")
            wrong = p.write("w.yaml", listener("plant", ["port: 70000"]))
            refused = p.run("apply", "-f", wrong)
            self.assertEqual(refused.returncode, 1)
            self.assertIn("spec.ports[0].port: Invalid value: 70000: must be less than or equal to 65535", refused.stderr)
            self.assertIn("did you mean brokers?", p.run("get", "broekrs").stderr)

    def test_validate_names_every_fault(self):
        p = Penstock(BINARY)
        file = p.write("w.yaml", broker("{memoryProfil: Low, cardinality: {frontend: {replicas: 0}}}") + "---\nkind: Broke\napiVersion: v1\n")
        answer = p.run("validate", "-f", file)
        self.assertEqual(answer.returncode, 1)
        for text in ("document 1 (line 1): spec.memoryProfil: unknown field", "did you mean \"memoryProfile\"?", "spec.cardinality.backendChain: Required value",
                     "spec.cardinality.frontend.replicas: Invalid value: 0", "document 2", "did you mean Broker?", "4 faults in 2 documents"):
            self.assertIn(text, answer.stderr)
        for example in (SOURCE / "examples").glob("*.yaml"):
            self.assertEqual(p.run("validate", "-f", str(example)).returncode, 0, example)
        together = p.run("validate", "-f", str(SOURCE / "examples"))   # alternatives: not one installation
        self.assertIn("a broker takes one listener per service type", together.stderr)
        origin = p.write("o.yaml", listener("plant", ["port: 1883"]).replace("metadata: {", "metadata: {annotations: {penstock.io/websocket-origins: example.org}, "))
        answer = p.run("validate", "-f", origin)
        self.assertEqual((answer.returncode, answer.stdout), (1, ""))
        self.assertIn("metadata.annotations[penstock.io/websocket-origins]: Invalid value: \"example.org\"", answer.stderr)
        users = p.write("u.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: users, namespace: azure-iot-operations}\nstringData: {ann: $6$c2FsdHNhbHQ=$aGFzaA==}\n---\n"
                        "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: BrokerAuthentication\nmetadata: {name: people, namespace: azure-iot-operations}\n"
                        "spec: {authenticationMethods: [{method: Password, passwordSettings: {secretRef: users}}]}\n")
        answer = p.run("validate", "-f", users)
        self.assertEqual((answer.returncode, answer.stdout), (0, "2 documents valid\n"))
        self.assertIn("warning: ", answer.stderr)
        self.assertIn("$6$, a salted SHA-512 of mosquitto_passwd before 2.0", answer.stderr)
        broken = p.write("b.yaml", "a: [1\n")
        self.assertIn("line 2", p.run("validate", "-f", broken).stderr)

    def test_broker_changes_act_live(self):
        port = free_port()
        p = Penstock(BINARY)
        p.files = [p.write("m.yaml", broker("{diagnostics: {metrics: {prometheusPort: 0}}}") + "---\n" + listener("one", [f"port: {port}"]))]
        with p:
            p.wait_running("one")
            keeps = subprocess.Popen([p.binary, "sub", "-p", str(port), "-t", "t", "-C", "1"], stdout=subprocess.PIPE, text=True, env=p.env)
            big = p.run("pub", "-p", str(port), "-t", "big", "-m", "x" * 5000, "-q", "1")
            self.assertEqual(big.returncode, 0, big.stderr)
            p.write("m.yaml", broker("{advanced: {clients: {maxPacketSizeBytes: 1000}}, diskBackedMessageBuffer: {}}") + "---\n" + listener("one", [f"port: {port}"]))
            wait_until(lambda: "spec.diskBackedMessageBuffer.maxSize: Required" in p.logs(), "the refusal names the field")
            p.write("m.yaml", broker("{advanced: {clients: {maxPacketSizeBytes: 1000}}, diagnostics: {metrics: {prometheusPort: 0}}}", "{penstock.io/compatibility: aio}") + "---\n" + listener("one", [f"port: {port}"]))
            wait_until(lambda: "the broker takes 1000" in p.run("pub", "-p", str(port), "-t", "big", "-m", "x" * 5000, "-q", "1").stderr, "the new limit")
            self.assertIn("at most QoS 1", p.run("pub", "-p", str(port), "-t", "t2", "-m", "x", "-q", "2").stderr)
            p.run("pub", "-p", str(port), "-t", "t", "-m", "same connection")
            self.assertEqual(keeps.communicate(timeout=10)[0].strip(), "same connection")

    def test_default_without_files(self):
        with Penstock(BINARY) as p:
            p.wait_running("default")
            self.assertEqual(p.get("brokerlistener", "default")["spec"]["serviceName"], "aio-broker")
            status = p.status("brokerlistener", "default")
            self.assertEqual((status["portStatus"][0]["tls"], status["portStatus"][0]["methods"], status["portStatus"][0]["interfaces"]), ("Automatic", "ServiceAccountToken", "loopback"))
            self.assertEqual(status["runtimeStatus"]["description"], "Accepting connections.")
            self.assertNotEqual(p.run("pub", "-h", "localhost", "-p", "18883", "-t", "t", "-m", "x").returncode, 0)    # no TLS, no token: no way in
            wait_until(lambda: p.status("broker", "default").get("selfCheck", {}).get("status") == "Passed", "the self-test", 20)

    def test_what_an_earlier_run_left_is_told_and_taken_away_as_the_documents_say(self):
        """The README's tour, then a start without files, then the runbook's and the three listeners."""
        tour, three = (str(SOURCE / "examples" / f"{name}.yaml") for name in ("quickstart", "three-listeners"))
        p = Penstock(BINARY, files=[tour])
        with p:
            p.wait_running("local")
            self.assertNotIn("an earlier run", p.logs())
            # The three listeners beside the tour: the refusal names the way out, which is one command.
            p.stop()
            p.files = [three]
            p.start()
            refused = wait_until(lambda: re.search(r"listener local has this type already.*", p.logs()), "the refusal")[0]
            self.assertIn("kubectl delete brokerlistener local -n azure-iot-operations", refused)
            self.assertIn("tried again by itself within a minute, and at once when the file changes or with: kill -HUP ", refused)
            p.run("delete", "brokerlistener", "local", "-n", "azure-iot-operations")
            os.kill(p.process.pid, signal.SIGHUP)
            for name in ("default", "nodeport-listener", "loadbalancer-listener"):
                p.wait_running(name)
            p.stop()
            # Without files: what they left is told, and goes by the command that is told.
            p.files = []
            p.start()
            told = r"(4 objects of files that an earlier run followed \((\S+)\) stay in force: penstock get broker,brokerlistener -A "
            told += r"--kubeconfig \S+ shows them, (penstock delete -f FILE --kubeconfig \S+) deletes)"
            found = wait_until(lambda: re.search("(?m)^  from before " + told, p.logs()), "the terminal's line")
            self.assertEqual(p.logs().count(found[1]), 2, "on the terminal and in the log")
            self.assertEqual(found[2], three)
            self.assertEqual(p.run(*found[3].replace("FILE", three).split()[1:]).returncode, 0)
            lacks = wait_until(lambda: re.search(r"control: there is no Broker resource.*", p.logs()), "the broker's line")[0]
            self.assertIn("make one with: ", lacks)
            self.assertNotIn("comes back with", lacks, "no file has any")
            p.stop()
            said = len(p.logs())
            p.start()
            p.wait_running("default")
            self.assertNotIn("an earlier run", p.logs()[said:])
            # What a person made with words of other capitals, as the files have it: nothing to quarrel about.
            service = "loadBalancer\n  serviceName: loadbalancer-listener-service"
            mine = listener("loadbalancer-listener", ["port: 8883\n      protocol: mqtt"], service)
            self.assertEqual(p.run("apply", "-f", "-", stdin=mine).returncode, 0)
            p.stop()
            p.files = [three]
            p.start()
            wait_until(lambda: p.status("brokerlistener", "loadbalancer-listener")["portStatus"][0]["tls"] == "Automatic", "the files are in force")
            self.assertNotIn("others own fields", p.logs())
            self.assertIn("LoadBalancer", p.run("get", "brokerlistener", "loadbalancer-listener").stdout)

    def test_second_process_on_the_same_data_is_refused(self):
        with Penstock(BINARY) as p:
            again = subprocess.run([p.binary, "run", "--data-dir", str(p.data), "--api-port", "0"], capture_output=True, text=True, timeout=20, env=p.env)
            self.assertEqual(again.returncode, 1)
            self.assertIn("is another penstock running", again.stderr)

    def test_restart_keeps_resources(self):
        port = free_port()
        p = Penstock(BINARY)
        p.start()
        p.run("apply", "-f", "-", stdin=listener("kept", [f"port: {port}"], "LoadBalancer"))
        uid = p.get("brokerlistener", "kept")["metadata"]["uid"]
        p.stop(9)
        p.start()
        self.assertEqual(p.get("brokerlistener", "kept")["metadata"]["uid"], uid)
        p.wait_running("kept")
        p.stop()

    def test_the_log_of_the_run_before_is_there_after_a_kill(self):
        port = free_port()
        p = Penstock(BINARY)
        p.start()
        role = ("logs", "aio-broker-frontend-0", "-c", "broker", "-n", "azure-iot-operations")
        wait_until(lambda: p.run(*role).returncode == 0, "the Pod")
        none = p.run(*role, "--previous")
        self.assertEqual((none.returncode, none.stdout), (1, ""))
        self.assertIn('previous terminated container "broker" in pod "aio-broker-frontend-0" not found', none.stderr)
        now = p.run(*role).stdout
        self.assertRegex(now, r"(?m)app: penstock [0-9.]+ has started data=\S+ ")
        self.assertRegex(now, r"(?m)control: the broker has started broker=azure-iot-operations/default workers=[0-9]+ persistence=off$")
        p.run("apply", "-f", "-", stdin=listener("kept", [f"port: {port}"], "LoadBalancer"))
        opened = f"listener open listener=azure-iot-operations/kept port={port} "
        wait_until(lambda: opened in p.run(*role).stdout and opened in (p.data / "log" / "run.log").read_text(), "the line in the file of the run")
        last = p.run(*role, "--tail", "1").stdout
        p.stop(9)
        # A start that gives up is no run: whatever it is that keeps it from becoming one.
        def gives_up(*words, code=1):
            start = subprocess.run([BINARY, "run", "--data-dir", str(p.data), *words], capture_output=True, text=True, env=p.env, timeout=60)
            self.assertEqual(start.returncode, code, start.stderr)

        with socket.create_server(("127.0.0.1", 0)) as taken:
            gives_up("--api-port", str(taken.getsockname()[1]))
        gives_up("--api-address", "192.0.2.1")
        gives_up("--api-port", "0", "--log-level", "loud")
        key = p.data / "pki" / "service-account.key"
        key.rename(p.data / "away")
        gives_up("--api-port", "0")
        (p.data / "away").rename(key)
        p.files = [str(p.folder / "absent.yaml")]
        p.start()
        wait_until(lambda: "has started, and is not ready" in p.logs(), "the start that waits for its file")
        self.assertIn(opened, p.run(*role, "-p").stdout, "what waits for its first manifests is no run yet")
        self.assertEqual(p.stop(), 1)
        p.files = []
        p.start()
        gives_up("--api-port", "0")    # the data folder is another one's
        wait_until(lambda: p.run(*role).returncode == 0, "the Pod")
        before = p.run(*role, "-p")
        self.assertEqual(before.returncode, 0, before.stderr)
        self.assertIn(opened, before.stdout)
        self.assertIn(last, before.stdout)
        self.assertEqual(p.run(*role, "-p", "--tail", "1").stdout.count("\n"), 1)
        p.stop()
        p.start()
        wait_until(lambda: p.run(*role).returncode == 0, "the Pod")
        self.assertIn("app: stopping", p.run("logs", "aio-broker-operator-0", "-n", "azure-iot-operations", "-p").stdout, "an ordinary end is told to its end")
        p.stop()

    def test_pub_and_sub_options(self):
        port, metrics = free_port(), free_port()
        p = Penstock(BINARY)
        settings = f"{{diagnostics: {{metrics: {{prometheusPort: {metrics}}}, selfCheck: {{mode: Disabled}}}}}}"
        p.files = [p.write("m.yaml", broker(settings) + "---\n" + listener("one", [f"port: {port}", f"port: {free_port()}\n      protocol: WebSockets"]))]
        with p:
            p.wait_running("one")
            web = p.get("brokerlistener", "one")["spec"]["ports"][1]["port"]
            sub = subprocess.Popen([p.binary, "sub", "-p", str(web), "--ws", "-t", "a/#", "-q", "2", "-C", "2", "-F", "%t|%p|%q|%r|%P|%C"], stdout=subprocess.PIPE, text=True, env=p.env)
            wait_until(lambda: "aio_broker_store_subscriptions" in page(metrics, "/metrics") and self.subscriptions(metrics) >= 1, "the subscription")
            self.assertEqual(p.run("pub", "-p", str(port), "-t", "a/1", "-m", "x", "-q", "2", "-D", "publish", "user-property", "k", "v", "-D", "publish", "content-type", "text/plain").returncode, 0)
            self.assertEqual(p.run("pub", "-p", str(port), "-t", "a/2", "-n", "-q", "1", "-V", "311").returncode, 0)
            self.assertEqual(sub.communicate(timeout=10)[0].splitlines(), ["a/1|x|2|0|k:v|text/plain", "a/2||1|0||"])
            self.assertEqual(p.run("pub", "-p", str(port), "-t", "a/+", "-m", "x").returncode, 1)
            self.assertEqual(p.run("sub", "-p", str(port), "-t", "none", "-W", "1").returncode, 27)
            self.assertEqual(p.run("pub", "-p", str(port), "-t", "kept", "-m", "r", "-r", "-q", "1").returncode, 0)
            self.assertEqual(p.run("sub", "-p", str(port), "-t", "kept", "-C", "1", "-v").stdout, "kept r\n")
            mosquitto = subprocess.run(["mosquitto_sub", "-p", str(port), "-t", "kept", "-C", "1", "-V", "mqttv5", "-W", "5"], capture_output=True, text=True)
            self.assertEqual(mosquitto.stdout, "r\n")
            bench = p.run("bench", "p2p", "-p", str(port), "--pairs", "2", "--seconds", "0.3", "--warm-up", "0.1", "--json", "-q", "1", timeout=60)
            report = json.loads(bench.stdout)
            self.assertEqual(report["error"], "")
            self.assertGreater(report["delivered"], 100)

    def test_bench_counts_what_is_refused_and_waits_for_the_rest(self):
        port = free_port()
        p = Penstock(BINARY)
        p.files = [p.write("m.yaml", broker("{memoryProfile: Tiny, diagnostics: {metrics: {prometheusPort: 0}, selfCheck: {mode: Disabled}}}") + "---\n" + listener("one", [f"port: {port}"]))]
        with p:
            p.wait_running("one")
            report = json.loads(p.run("bench", "offline", "-p", str(port), "--payload", "4096", "--json", timeout=50).stdout)
            self.assertEqual(report["error"], "")
            self.assertGreater(report["refused"], 0)
            self.assertEqual(report["drained"] + report["refused"], 100_000)

    @staticmethod
    def subscriptions(metrics):
        return sum(int(line.rsplit(" ", 1)[1]) for line in page(metrics, "/metrics").splitlines() if line.startswith("aio_broker_store_subscriptions{"))


if __name__ == "__main__":
    unittest.main(verbosity=0)
