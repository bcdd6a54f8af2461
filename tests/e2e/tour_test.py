"""Pastes the README's tour line by line into a shell, against the example that `./dev run` starts."""
import pathlib
import re
import subprocess
import sys

from support import Penstock

binary = pathlib.Path(sys.argv[1]).resolve()
source = pathlib.Path(__file__).resolve().parents[2]
block = re.search(r"```sh tour\n(.*?)```", (source / "README.md").read_text(), re.S)[1]
block = block.replace('export PATH="$PWD/build/release:$PATH"', f'export PATH="{binary.parent}:$PATH"')

p = Penstock(binary, files=[str(source / "examples" / "quickstart.yaml")])
with p:
    p.wait_running("local")
    done = subprocess.run(["bash", "-euo", "pipefail", "-c", block], cwd=source, env=p.env, capture_output=True, text=True, timeout=60)
out = done.stdout
wanted = ["plant/line1/temperature 21.5\nplant/line1/temperature 21.5\n", "plant/line1/state running shift:night text/plain\n", "NAME", "Running", "kind: BrokerListener",
          "brokerlistener.mqttbroker.iotoperations.azure.com/lab created", "\n21.5\n", "aio_broker_publishes_received{", "ok\n", "throughput", "deleted"]
missing = [w for w in wanted if w not in out]
for text in ("metadata.name: Invalid value", "did you mean \"serviceType\"?", "must be less than or equal to 65535", 'supported values: "Mqtt", "WebSockets"'):
    if text not in done.stderr:
        missing.append(text)
if done.returncode != 0 or missing:
    print(out, done.stderr, f"exit {done.returncode}, missing: {missing}", sep="\n")
print(f"{0 if missing or done.returncode else 1} passed, {1 if missing or done.returncode else 0} failed")
sys.exit(1 if missing or done.returncode else 0)
