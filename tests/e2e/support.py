"""Starts `penstock run` on free ports in a folder of its own; standard library only."""
import atexit
import json
import os
import pathlib
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time


# Ordinary users begin with 1,024 descriptors; some suites hold more connections than that.
resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)

SKIPPED = 77    # as tests/CMakeLists.txt tells CTest


def program(name):
    """Where a program is, also where Debian puts servers and an ordinary user's path does not lead. None: nowhere."""
    return shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_until(check, what, seconds=15):
    end = time.monotonic() + seconds
    last = None
    while time.monotonic() < end:
        try:
            last = check()
            if last:
                return last
        except Exception as error:  # what is awaited may not be there yet
            last = error
        time.sleep(0.05)  # between two looks at the condition
    raise AssertionError(f"{what} did not happen within {seconds} s (last: {last})")


class Penstock:
    def __init__(self, binary, files=(), extra=()):
        self.binary = str(pathlib.Path(binary).resolve())
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="penstock-e2e-"))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)   # not every test does it, nor at every end
        self.data = self.folder / "data"
        self.api_port = free_port()
        self.files = list(files)
        self.extra = list(extra)
        self.env = {**os.environ, "KUBECONFIG": str(self.data / "kubeconfig.yaml"), "HOME": str(self.folder)}
        self.process = None

    def write(self, name, text):
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    def start(self):
        command = [self.binary, "run", "--data-dir", str(self.data), "--api-port", str(self.api_port), *self.extra]
        for file in self.files:
            command += ["-f", file]
        self.log = open(self.folder / "log", "ab")
        self.process = subprocess.Popen(command, stdout=self.log, stderr=self.log, env=self.env)
        wait_until(lambda: self.run("get", "namespace", "default").returncode == 0, "the resource API")
        return self

    def logs(self):
        return (self.folder / "log").read_text()

    def stop(self, how=signal.SIGTERM):
        if self.process and self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(timeout=20)
        code = self.process.returncode if self.process else None
        self.log.close()
        return code

    def run(self, *words, stdin=None, timeout=30):
        return subprocess.run([self.binary, *words], capture_output=True, text=True, env=self.env, input=stdin, timeout=timeout)

    def get(self, kind, name):
        answer = self.run("get", kind, name, "-o", "json")
        return json.loads(answer.stdout) if answer.returncode == 0 else None

    def status(self, kind, name):
        found = self.get(kind, name)
        return (found or {}).get("status", {})

    def wait_running(self, name, seconds=15):
        wait_until(lambda: self.status("brokerlistener", name).get("runtimeStatus", {}).get("status") == "Running", f"listener {name} running", seconds)

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, value, trace):
        try:
            self.stop()
        finally:
            if kind is not None:
                print("--- log of penstock ---\n" + self.logs()[-4000:])
            shutil.rmtree(self.folder, ignore_errors=True)


def in_own_network(script, *words):
    """Runs a script in a network of its own (Linux namespaces), where fixed ports and addresses are free. Answers its exit code;
    where namespaces are not allowed, says what is missing and answers that of a test that was skipped."""
    if os.environ.get("PENSTOCK_OWN_NETWORK"):
        return None
    setup = ("set -e; ip link set lo up; ip link add v0 type veth peer name v1; ip link set v0 up; ip link set v1 up; "
             "ip addr add 10.13.100.11/24 dev v0; ip addr add 100.81.128.71/32 dev v0; "
             "hosts=$(mktemp); printf '127.0.0.1 localhost\n::1 localhost\n10.13.100.11 n013edge.local\n' >$hosts; mount --bind $hosts /etc/hosts; rm -f $hosts; "
             'exec "$@"')
    flags = ["--net", "--mount"] if os.geteuid() == 0 else ["--net", "--mount", "--map-root-user"]
    allowed = subprocess.run(["unshare", *flags, "sh", "-c", "ip link set lo up && mount -t tmpfs tmpfs /mnt"], capture_output=True, text=True)
    if allowed.returncode != 0:
        print(f"SKIPPED: {pathlib.Path(script).name} needs network and mount namespaces of its own, and here they are refused ({allowed.stderr.strip()}). "
              "As root: a container needs CAP_SYS_ADMIN and CAP_NET_ADMIN (docker run --privileged); as an ordinary user: sysctl kernel.unprivileged_userns_clone=1, "
              "and on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0")
        return SKIPPED
    command = ["unshare", *flags, "bash", "-c", setup, "bash", sys.executable, script, *words]
    return subprocess.run(command, env={**os.environ, "PENSTOCK_OWN_NETWORK": "1"}).returncode


def listener(name, ports, service_type="ClusterIp", broker="default"):
    lines = [f"apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: BrokerListener\nmetadata: {{name: {name}, namespace: azure-iot-operations}}\n"
             f"spec:\n  brokerRef: {broker}\n  serviceType: {service_type}\n  ports:\n"]
    for port in ports:
        lines.append(f"    - {port}\n")
    return "".join(lines)


def broker(body="{}", annotations="{}"):
    return (f"apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\nmetadata: {{name: default, namespace: azure-iot-operations, "
            f"annotations: {annotations}}}\nspec: {body}\n")
