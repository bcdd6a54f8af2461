"""Runs a command while Penstock listens on TCP and WebSocket; the ports are in TCP_PORT and WS_PORT."""
import os
import pathlib
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
from support import Penstock, broker, free_port, listener

tcp, web = free_port(), free_port()
p = Penstock(sys.argv[1])
p.files = [p.write("m.yaml", broker("{diagnostics: {metrics: {prometheusPort: 0}}}") + "---\n" + listener("one", [f"port: {tcp}", f"port: {web}\n      protocol: WebSockets"]))]
with p:
    p.wait_running("one")
    code = subprocess.run(sys.argv[2:], env={**os.environ, "TCP_PORT": str(tcp), "WS_PORT": str(web)}).returncode
sys.exit(code)
