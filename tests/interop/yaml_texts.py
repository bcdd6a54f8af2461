"""Texts that YAML readers differ in: what `penstock get -o yaml` writes is read by every kubectl of the matrix, by PyYAML
and by Penstock, and all read the same; and words and documents that kubectl and Penstock must read alike. Run by `./dev interop`.
`yaml_texts.py PENSTOCK [VERSION...]` runs only some versions."""
import json
import pathlib
import random
import subprocess
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
from clients import all_clients
from support import Penstock

TEXTS = ["", " ", "\n", "\n\n", "a\n", "a\n\n", "a\n\n\n", "\na", "\n a", " a", "a ", " a\nb", "a\n b", "a \nb", "a\n\nb", "a\n \nb", "\ta", "a\t", "a\tb", "\ta\nb", "a\n\tb", "a\r\nb", "a\rb", "\r", "\t",
         "\x01", "\x1b[31m", "\x7f", "\x80", "\x85", "a\x85b\nc", "\xa0", "\u2028", "a\u2029b\n", "\ufeff", "\ufeffx\ny", "\ufffd", "\U0001F600", "a\n\U0001F600\n", "\u00e4\u6f22", "\u202e",
         "true", "True", "yes", "No", "on", "OFF", "y", "N", "null", "~", "~a", "<<", "=", "!", "!!str", "&a", "*a", "%a", "@a", "`a", "|", ">", "-", "- a", "-a", "--", "---", "--- a", "...", "?", "? a", ":", ": a", "a:", "a: b",
         "a #b", "#a", "a\n#b", ",", "[", "]", "{", "}", "{}", "[]", "'", '"', "it's", "a\\b", "\\n", "1", "-1", "+1", "012", "0o17", "0x1F", "0b11", "1_000", "1.5", ".5", "5.", "1e3", ".", ".inf", ".nan", "1:30", "1:30:15.5",
         "2001-01-01", "2001-1-1", "2001-12-14T21:59:43Z", "2001-12-14 21:59:43.10 -5", "9223372036854775808", "1e999", "08", "10.0.0.1", "500m", "-----BEGIN X-----\nMIIB\n-----END X-----\n", "a\n---\nb", "a\n...\nb\n", "x" * 3000, "x y " * 1000]
ATOMS = ["a", "1", "e", " ", "\n", "\t", ":", "#", "-", "?", "!", "&", "*", "|", ">", "'", '"', "\\", "%", "@", "{", "]", ",", ".", "_", "+", "=", "~", "no", "\u00e4", "\x85", "\u2028", "\ufeff", "\U0001F600", "\x01"]
HEAD = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n"
DOCUMENTS = [HEAD + "data:\n  <<: {a: one, b: one}\n  a: two\n", HEAD + "data:\n  a: two\n  <<: {a: one, b: one}\n", HEAD + "data:\n  <<: [{a: one}, {a: two, b: two}]\n", HEAD + "data: {a: &x b, c: *x}\n", HEAD + "data: {1: a, yes: b, 1.5: c, 1e3: d, 0x10: e}\n",
             "--- # c\n" + HEAD + "data: {a: 2001-01-01, b: !!str 12, c: !!binary aGVsbG8=}\n...\n---\n" + HEAD, "\ufeff" + HEAD + "data: {a: b}\n", HEAD.replace("\n", "\r\n") + "data:\r\n  a: |\r\n    b\r\n    c\r\n",
             '{"apiVersion": "v1", "kind": "ConfigMap",\t"metadata": {"name": "x"}, "data": {"a": "\\ud83d\\ude00 \\ud800 \\/"}}\n{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "y"}, "data": {}}',
             HEAD + 'data: {a: "\\x41\\u00e4\\U0001F600\\e\\_\\N\\L\\P\\0"}\n', HEAD + "data:\n  a: >\n    x\n    y\n\n     z\n  b: |+\n    x\n\n  c: |2-\n     x\n  d: plain\n    text\n"]
failures = []


def check(what, good, detail=""):
    if not good:
        failures.append(what)
        print(f"FAIL {what} {detail[:1500]}", flush=True)


def as_kubectl(kubectl, file):
    """The data of the objects of a file by name, as kubectl reads them without a server; and what it complains of."""
    done = subprocess.run([str(kubectl), "annotate", "--local", "-f", str(file), "read=yes", "-o", "json"], capture_output=True, text=True, env={"HOME": str(file.parent)})
    out, rest = {}, done.stdout.strip()
    while rest:
        one, end = json.JSONDecoder().raw_decode(rest)
        rest = rest[end:].strip()
        out[one["metadata"]["name"]] = one.get("data", {})
    return out, done.stderr


def as_penstock(p, file):
    for name in ("x", "y"):
        p.run("delete", "configmap", name, "-n", "default")
    taken, out = p.run("apply", "-n", "default", "-f", str(file)), {}
    for name in ("x", "y"):
        shown = p.run("get", "configmap", name, "-n", "default", "-o", "json")
        if shown.returncode == 0:
            out[name] = json.loads(shown.stdout).get("data", {})
    return out, taken.stderr


def main():
    binary, wanted = sys.argv[1], sys.argv[2:]
    found, skipped = all_clients()
    clients = [(name, kubectl) for name, kubectl, _ in found if not wanted or name in wanted]
    try:
        import yaml
        readers = [(name, getattr(yaml, name)) for name in ("SafeLoader", "CSafeLoader") if hasattr(yaml, name)]
    except ImportError:
        readers, skipped = [], skipped + [f"PyYAML does not read the texts: {sys.executable} has none (apt-get install python3-yaml)"]
    chance = random.Random(20261128)
    texts = TEXTS + ["".join(chance.choices(ATOMS, k=chance.randint(1, 7))) for _ in range(300)]
    data = {f"t{i}": text for i, text in enumerate(texts)}
    with tempfile.TemporaryDirectory() as folder, Penstock(binary) as p:
        folder = pathlib.Path(folder)
        annotations = {f"example.com/t{i}": text for i, text in enumerate(texts)}
        made = p.run("apply", "--server-side", "-f", p.write("texts.json", json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "texts", "namespace": "default", "annotations": annotations}, "data": data})))
        check("the texts are taken", made.returncode == 0, made.stderr)
        file = folder / "texts.yaml"
        file.write_bytes(subprocess.run([binary, "get", "configmap", "texts", "-n", "default", "-o", "yaml"], capture_output=True, env=p.env).stdout)

        def same(who, read):
            for name, text in data.items():
                got = (read or {}).get(name)
                check(f"{who} reads {text[:40]!r} from what penstock wrote", got == text, f"as {got!r}")

        for name, kubectl in clients:
            read, error = as_kubectl(kubectl, file)
            check(f"kubectl {name} reads the file", list(read) == ["texts"], error)
            same(f"kubectl {name}", read.get("texts"))
        for name, loader in readers:
            with open(file, encoding="utf-8", newline="") as text:
                whole = yaml.load(text.read(), loader)
            same(f"PyYAML's {name}", whole["data"])
            check(f"PyYAML's {name} reads the annotations", all(whole["metadata"]["annotations"].get(key) == text for key, text in annotations.items()))
        p.run("delete", "configmap", "texts", "-n", "default")
        with open(file, encoding="utf-8", newline="") as text:
            until_kind = text.read().partition("\nkind: ")[0]   # what the server adds is not taken back
        file.write_bytes((until_kind + "\nkind: ConfigMap\nmetadata: {name: texts}\n").encode())
        again = p.run("apply", "--server-side", "-n", "default", "-f", str(file))
        check("penstock reads the file", again.returncode == 0, again.stderr)
        shown = p.run("get", "configmap", "texts", "-n", "default", "-o", "json").stdout
        same("penstock", json.loads(shown or "{}").get("data"))
        for number, text in enumerate(DOCUMENTS):
            file = folder / f"d{number}.yaml"
            file.write_bytes(text.encode())
            own, refusal = as_penstock(p, file)
            for name, kubectl in clients:
                read, error = as_kubectl(kubectl, file)
                check(f"kubectl {name} and penstock read document {number} alike", read and read == own, f"{read} {error} {own} {refusal}")
    for reason in skipped:
        print(f"SKIPPED: {reason}")
    print(f"FAILED: {len(failures)}" if failures else f"yaml: {len(texts)} texts, {len(clients)} kubectl, {'PyYAML' if readers else 'WITHOUT PyYAML'}, all ok")
    sys.exit(1 if failures else 0)


main()
