"""The command line as somebody who knows kubectl expects it: words, exit codes, shapes of output, 80 columns."""
import gzip
import http.client
import base64
import json
import os
import pathlib
import re
import select
import shlex
import signal
import socket
import ssl
import subprocess
import sys
import threading
import unittest

from support import Penstock, broker, free_port, listener, wait_until

BINARY = sys.argv.pop(1)


class Commands(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.port, cls.metrics = free_port(), free_port()
        p = cls.p = Penstock(BINARY)
        cls.manifest = p.write("m.yaml", broker("{diagnostics: {metrics: {prometheusPort: %d}}}" % cls.metrics) + "---\n" + listener("plant", [f"port: {cls.port}"]))
        p.files = [cls.manifest]
        p.start()
        p.wait_running("plant")

    @classmethod
    def tearDownClass(cls):
        cls.p.__exit__(None, None, None)

    def ok(self, *words, **more):
        answer = self.p.run(*words, **more)
        self.assertEqual(answer.returncode, 0, f"{words}: {answer.stderr}")
        return answer.stdout

    def refused(self, *words):
        answer = self.p.run(*words)
        self.assertEqual((answer.returncode, answer.stdout), (1, ""), words)
        return answer.stderr

    def test_help_names_the_program_and_each_command(self):
        self.assertIn("Usage: penstock [OPTIONS]", self.ok("--help"))
        self.assertEqual(self.ok(), self.ok("help"))
        self.assertIn("Usage: penstock get [OPTIONS]", self.ok("help", "get"))
        self.assertEqual(self.ok("get", "--help"), self.ok("help", "get"))
        self.assertIn("Usage: penstock auth can-i [OPTIONS]", self.ok("help", "auth", "can-i"))
        self.assertEqual(self.ok("auth"), self.ok("help", "auth"))
        self.assertIn("unknown command \"gte\" for \"penstock\"", self.refused("help", "gte"))

    def test_words_that_are_not_known_get_the_nearest_one(self):
        self.assertEqual(self.refused("gte", "broker"), 'error: unknown command "gte" for "penstock"\n\nDid you mean this?\n\tget\n\nSee \'penstock --help\' for usage.\n')
        self.assertIn("Did you mean this?\n\texplain\n", self.refused("auth", "explian"))
        self.assertIn("unknown flag: --all-namespace\n\nDid you mean this?\n\t--all-namespaces\n", self.refused("get", "broker", "--all-namespace"))
        self.assertIn("unknown shorthand flag: 'z' in -zA", self.refused("get", "broker", "-zA"))
        self.assertIn("See 'penstock pki verify --help' for usage.", self.refused("pki", "verify"))
        self.assertIn("unable to match a printer suitable for the output format \"yml\"", self.refused("get", "broker", "-o", "yml"))

    def test_flags_are_read_as_kubectl_reads_them(self):
        get = ("brokerlistener", "plant")
        for words in (("get", *get, "-n=azure-iot-operations", "-o=name"), ("get", *get, "-nazure-iot-operations", "-oname"),
                      ("-n", "azure-iot-operations", "get", *get, "-o", "name"),
                      ("-n=azure-iot-operations", "get", *get, "-o", "name"),
                      ("--namespace=nowhere", "get", *get, "-n", "azure-iot-operations", "-o", "name"),
                      ("--kubeconfig", self.p.env["KUBECONFIG"], "--namespace", "azure-iot-operations", "get", *get, "-o=name")):
            self.assertEqual(self.ok(*words), "brokerlistener.mqttbroker.iotoperations.azure.com/plant\n", words)
        self.assertIn(" plant ", self.ok("get", "brokerlistener", "-A=true"))
        self.assertEqual(self.ok("get", "brokerlistener", "-A=false", "-o=name"), self.ok("get", "brokerlistener", "-o", "name"))
        self.assertIn("nowhere", self.p.run("-n=nowhere", "get", "broker").stderr)
        self.assertEqual(self.ok("validate", f"-f={self.manifest}"), "2 documents valid\n")
        made = lambda *words: json.loads(self.ok("create", *words, "--dry-run=client", "-o=json"))
        # Only what is a flag: not the value of another one, not what stands behind `--`.
        self.assertEqual(made("cm", "x", "--from-literal", "-n=y", "-n==z")["metadata"]["namespace"], "=z")
        self.assertEqual(made("cm", "x", "--from-literal", "a=-n=y")["data"], {"a": "-n=y"})
        self.assertEqual(made("cm", "x", "--from-literal", "-n=y")["data"], {"-n": "y"})
        self.assertEqual(self.ok("patch", "brokerlistener", "plant", "--dry-run", '-p={"metadata":{"annotations":{"a":"b=c"}}}', "-o=name"),
                         "brokerlistener.mqttbroker.iotoperations.azure.com/plant patched (server dry run)\n")
        self.assertEqual(json.loads(self.ok("create", "-n", "later", "secret", "-n=now", "generic", "x", "--dry-run=client", "-o=json"))["metadata"]["namespace"], "now")
        # Behind `--` stands no flag, and the value of one may end in `=`.
        self.assertIn("-n=x", self.refused("get", "brokerlistener", "--", "-n=x"))
        self.assertEqual(self.ok("pub", "-p", str(self.port), "-t=plant/flags", "-m", "--x="), "")
        self.assertEqual(self.refused("get", "broker", "-n="), "error: -n= has no value: write one behind it, or leave -n out\n")
        self.assertEqual(self.refused("get", "broker", "--namespace="), "error: --namespace= has no value: write one behind it, or leave --namespace out\n")
        # What is said stays what it was.
        self.assertEqual(self.refused("--namespace"), "error: flag needs an argument: --namespace\n")
        self.assertIn('unknown command "gte" for "penstock"', self.refused("-n", "x", "gte"))
        self.assertIn("Did you mean this?\n\tsecret\n", self.refused("-n", "x", "create", "secrte"))
        self.assertIn("unknown flag: --namespace", self.refused("-n", "x", "validate", "-f", self.manifest))
        self.assertEqual(self.ok("-n", "x", "help", "get"), self.ok("help", "get"))
        self.assertEqual(self.ok("-n", "x", "create"), self.ok("help", "create"))

    def test_the_version_is_the_one_of_cmake(self):
        built = re.search(r"(?m)^project\(penstock VERSION ([0-9.]+) ", (pathlib.Path(__file__).resolve().parents[2] / "CMakeLists.txt").read_text())[1]
        self.assertEqual(self.ok("--version"), built + "\n")
        self.assertTrue(self.ok("version", "--client").startswith(f"Client Version: v{built} ("))

    def test_version_says_what_was_built(self):
        build = r"commit ([0-9a-f]{12}|unknown), (20[0-9]{2}-[0-9-]{5}T[0-9:]{8}Z|unknown), linux/[a-z0-9]+"
        self.assertRegex(self.ok("version"), rf"\AClient Version: v[0-9.]+ \({build}\)\nServer Version: v1\.33\.0\+penstock \(penstock v[0-9.]+, {build}\)\n\Z")
        self.assertNotIn("Server", self.ok("version", "--client"))
        both = json.loads(self.ok("version", "-o", "json"))
        for field in ("gitCommit", "buildDate", "platform", "compiler", "gitTreeState"):
            self.assertEqual(both["clientVersion"][field], both["serverVersion"][field], field)
        self.assertRegex(both["serverVersion"]["platform"], r"\Alinux/(amd64|arm64|arm|riscv64)\Z")
        self.assertNotEqual(both["serverVersion"]["buildDate"], "2026-01-01T00:00:00Z")
        nobody = self.p.run("version", "--kubeconfig", "/nowhere")
        self.assertEqual(nobody.returncode, 1)
        self.assertIn("Client Version", nobody.stdout)

    def test_get_all_custom_columns_and_no_managed_fields(self):
        everything = self.ok("get", "all")
        self.assertRegex(everything, r"(?m)^pod/aio-broker-frontend-0 ")
        self.assertRegex(everything, r"(?m)^service/plant ")
        self.assertRegex(self.ok("get", "broker,brokerlistener"), r"(?m)^brokerlistener\.mqttbroker\.iotoperations\.azure\.com/plant ")
        self.assertEqual(self.ok("get", "brokerlistener", "-o", "custom-columns=NAME:.metadata.name,PORTS:.spec.ports[*].port,GONE:.spec.nothing"), f"NAME    PORTS   GONE\nplant   {self.port:<5}   <none>\n")
        self.assertEqual(self.ok("get", "brokerlistener", "--no-headers", "-o", "custom-columns=X:{.metadata.name}"), "plant\n")
        spec = self.p.write("columns", "NAME TYPE\n.metadata.name .spec.serviceType\n")
        self.assertEqual(self.ok("get", "brokerlistener", "plant", "-o", f"custom-columns-file={spec}"), "NAME    TYPE\nplant   ClusterIp\n")
        self.assertIn("unexpected custom-columns spec: NAME, expected <header>:<json-path-expr>", self.refused("get", "broker", "-o", "custom-columns=NAME"))
        for form in ("yaml", "json"):
            self.assertNotIn("managedFields", self.ok("get", "brokerlistener", "-o", form))
            self.assertIn("managedFields", self.ok("get", "brokerlistener", "plant", "-o", form, "--show-managed-fields"))

    def test_patch(self):
        self.ok("apply", "-f", "-", stdin="apiVersion: v1\nkind: ConfigMap\nmetadata: {name: words}\ndata: {a: b, c: d}\n")
        self.assertEqual(self.ok("patch", "configmap", "words", "-p", "data: {a: x}"), "configmap/words patched\n")
        self.assertEqual(self.ok("patch", "configmap/words", "-p", '{"data":{"a":"x"}}'), "configmap/words patched (no change)\n")
        self.ok("patch", "configmap", "words", "--type", "json", "-p", '[{"op":"remove","path":"/data/c"}]')
        self.assertEqual(json.loads(self.ok("get", "configmap", "words", "-o", "json"))["data"], {"a": "x"})
        label = self.ok("patch", "brokerlistener", "plant", "--dry-run", "-p", '{"metadata":{"labels":{"site":"oslo"}}}')
        self.assertEqual(label, "brokerlistener.mqttbroker.iotoperations.azure.com/plant patched (server dry run)\n")
        self.assertIn("Error from server (Invalid)", self.refused("patch", "brokerlistener", "plant", "-p", '{"spec":{"serviceType":"Pigeon"}}'))
        self.assertIn("Error from server (NotFound)", self.refused("patch", "configmap", "nobody", "-p", "{}"))
        self.assertIn("must specify --patch or --patch-file", self.refused("patch", "configmap", "words"))

    def test_annotate_and_label(self):
        self.ok("apply", "-f", "-", stdin="apiVersion: v1\nkind: ConfigMap\nmetadata: {name: marked, labels: {batch: one}}\n")
        about = lambda: json.loads(self.ok("get", "configmap", "marked", "-o", "json"))["metadata"]
        try:
            self.assertEqual(self.ok("annotate", "configmap", "marked", "who=ann", "why=a=b", "empty="), "configmap/marked annotated\n")
            self.assertEqual(about()["annotations"] | {"who": "ann", "why": "a=b", "empty": ""}, about()["annotations"])
            self.assertEqual(self.refused("annotate", "configmap/marked", "who=bob"),
                             "error: --overwrite is false but found the following declared annotation(s): 'who' already has a value (ann)\n")
            self.ok("annotate", "configmap", "marked", "who=ann")
            self.assertEqual(about()["annotations"]["who"], "ann")
            self.ok("annotate", "configmap", "marked", "who=bob", "why-", "--overwrite")
            self.assertEqual((about()["annotations"]["who"], "why" in about()["annotations"]), ("bob", False))
            self.assertEqual(self.ok("annotate", "configmap", "marked", "gone-"), 'annotation "gone" not found.\nconfigmap/marked annotated\n')
            label = ("label", "configmap", "marked")
            self.assertEqual(self.ok(*label, "site=oslo"), "configmap/marked labeled\n")
            self.assertEqual(self.ok(*label, "site=oslo"), "configmap/marked not labeled\n")
            self.assertEqual(self.refused(*label, "site=rome"), "error: 'site' already has a value (oslo), and --overwrite is false\n")
            self.assertEqual(self.ok(*label, "site=rome", "--overwrite", "--dry-run"), "configmap/marked labeled (server dry run)\n")
            self.assertEqual(about()["labels"], {"batch": "one", "site": "oslo"})
            self.assertEqual(self.ok(*label, "site-"), "configmap/marked unlabeled\n")
            self.assertEqual(self.ok("label", "configmap", "-l", "batch=one", "by=selector"), "configmap/marked labeled\n")
            self.assertEqual(self.ok("label", "-f", "-", "by-", "line=7", stdin="apiVersion: v1\nkind: ConfigMap\nmetadata: {name: marked}\n"), "configmap/marked labeled\n")
            self.assertEqual(about()["labels"], {"batch": "one", "line": "7"})
            self.assertEqual(json.loads(self.ok("label", "configmap", "marked", "x=y", "-o", "json"))["metadata"]["labels"]["x"], "y")
            self.assertIn("configmap/marked annotated\n", self.ok("annotate", "configmap", "--all", "all=yes"))
            for words, why in ((("annotate", "configmap", "marked"), "at least one annotation update is required"), (("label", "configmap", "marked"), "at least one label update is required"),
                               (("annotate", "configmap", "marked", "a=b", "a-"), "can not both modify and remove an annotation in the same command"),
                               (("label", "configmap", "a=b", "marked"), "all resources must be specified before label changes: marked"),
                               (("label", "configmap", "marked", "=b"), "invalid label format: =b; write KEY=VALUE"), (("label", "configmap", "a=b"), "name what is to be labeled"),
                               (("annotate", "configmap", "nobody", "a=b"), "Error from server (NotFound)"), (("label", "configmap", "marked", "a=b c"), "Error from server (Invalid)"),
                               (("label", "configmap", "-l", "batch=none", "a=b"), "no resources found"), (("label", "-f", self.manifest, "configmap", "a=b"), "there is no need to specify"),
                               (("annotate", "configmap", "", "a=b"), "a name is empty"), (("annotate", "a=b"), "a kind is needed")):
                self.assertIn(why, self.refused(*words), words)
        finally:
            self.ok("delete", "configmap", "marked")
        self.assertIn("Usage: penstock annotate [OPTIONS]", self.ok("help", "annotate"))
        self.assertRegex(self.ok("completion", "bash"), r"annotate\|label|label\)")

    def test_edit(self):
        self.ok("apply", "-f", "-", stdin="apiVersion: v1\nkind: ConfigMap\nmetadata: {name: draft}\ndata: {a: first}\n")
        editor = self.p.write("editor", "#!/bin/sh\nset -e\ncp \"$1\" \"$SEEN.$(ls \"$SEEN\".* 2>/dev/null | wc -l)\"\nsed -i \"$EDIT\" \"$1\"\n")
        os.chmod(editor, 0o755)
        seen = str(self.p.folder / "seen")

        def edit(script, *words):
            env = {**self.p.env, "KUBE_EDITOR": editor, "EDIT": script, "SEEN": seen, "TMPDIR": str(self.p.folder)}
            for old in self.p.folder.glob("seen.*"):
                old.unlink()
            return subprocess.run([BINARY, "edit", *words], env=env, capture_output=True, text=True, timeout=30)

        answer = edit("s/a: first/a: second/", "configmap", "draft")
        self.assertEqual((answer.returncode, answer.stdout), (0, "configmap/draft edited\n"), answer.stderr)
        self.assertEqual(json.loads(self.ok("get", "configmap", "draft", "-o", "json"))["data"], {"a": "second"})
        self.assertNotIn("managedFields", (self.p.folder / "seen.0").read_text())
        self.assertEqual(edit("s/nothing//", "configmap/draft").stdout, "Edit cancelled, no changes made.\n")
        self.assertEqual(edit("d", "configmap", "draft").stdout, "Edit cancelled, saved file was empty.\n")
        # A refusal opens the editor again with the reason; saved as it was, the draft is kept.
        answer = edit("s/port: [0-9]*/port: 70000/", "brokerlistener", "plant")
        self.assertEqual(answer.returncode, 1)
        self.assertIn("must be less than or equal to 65535", (self.p.folder / "seen.1").read_text())
        kept = re.search(r'A copy of your changes has been stored to "(.*)"', answer.stderr).group(1)
        self.assertIn("port: 70000", open(kept).read())
        os.unlink(kept)
        self.assertEqual(list(self.p.folder.glob("penstock-edit-*")), [])
        # A status that a controller writes while the editor is open is nobody's change; another person's is not written over.
        status = [BINARY, "patch", "brokerlistener", "plant", "--subresource=status", "--type=merge", "-p"]
        meanwhile = self.p.write("meanwhile", "#!/bin/sh\nset -e\nsed -i \"$EDIT\" \"$1\"\neval \"$MEANWHILE\" >/dev/null\n")
        os.chmod(meanwhile, 0o755)

        def edit_while(script, written):
            env = {**self.p.env, "KUBE_EDITOR": meanwhile, "EDIT": script, "MEANWHILE": shlex.join(written), "TMPDIR": str(self.p.folder)}
            return subprocess.run([BINARY, "edit", "brokerlistener", "plant"], env=env, capture_output=True, text=True, timeout=30)

        answer = edit_while("s/^metadata:/metadata:\\n  labels:\\n    edited: once/", [*status, '{"status": {"seen": "1"}}'])
        self.assertEqual((answer.returncode, answer.stdout), (0, "brokerlistener.mqttbroker.iotoperations.azure.com/plant edited\n"), answer.stderr)
        self.assertEqual(json.loads(self.ok("get", "brokerlistener", "plant", "-o", "json"))["metadata"]["labels"], {"edited": "once"})
        answer = edit_while("s/edited: once/edited: twice/", [BINARY, "annotate", "brokerlistener", "plant", "plant.example/by=another"])
        self.assertEqual(answer.returncode, 0, answer.stderr)
        answer = edit_while("s/edited: twice/edited: thrice/", [BINARY, "label", "brokerlistener", "plant", "edited=other", "--overwrite"])
        self.assertEqual(answer.returncode, 1)
        self.assertIn("the object has been modified", answer.stderr)
        os.unlink(re.search(r'A copy of your changes has been stored to "(.*)"', answer.stderr).group(1))
        plant = json.loads(self.ok("get", "brokerlistener", "plant", "-o", "json"))["metadata"]
        self.assertEqual((plant["labels"], plant["annotations"]["plant.example/by"]), ({"edited": "other"}, "another"))
        self.ok("label", "brokerlistener", "plant", "edited-")
        self.ok("annotate", "brokerlistener", "plant", "plant.example/by-")
        answer = subprocess.run([BINARY, "edit", "configmap", "draft"], env={**self.p.env, "KUBE_EDITOR": "false"}, capture_output=True, text=True, timeout=30)
        self.assertEqual(answer.returncode, 1)
        self.assertIn('there was a problem with the editor "false"', answer.stderr)

    def test_completion_knows_what_is_below_a_command(self):
        script = self.ok("completion", "bash")

        def complete(*words):
            asked = f"{script}\nCOMP_WORDS=({' '.join(map(repr, words))}); COMP_CWORD={len(words) - 1}; _penstock; printf '%s\\n' \"${{COMPREPLY[@]}}\""
            return subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True, env={**self.p.env, "PATH": os.path.dirname(BINARY) + ":" + os.environ["PATH"]}).stdout.split()

        self.assertIn("version", complete("penstock", "ver"))
        self.assertEqual(complete("penstock", "auth", "can"), ["can-i"])
        self.assertEqual(complete("penstock", "pki", "veri"), ["verify"])
        self.assertEqual(complete("penstock", "create", ""), ["configmap", "namespace", "secret", "serviceaccount", "token"])
        self.assertEqual(complete("penstock", "create", "secret", ""), ["generic", "tls"])
        self.assertEqual(complete("penstock", "create", "secret", "tls", "--ce"), ["--cert"])
        self.assertEqual(complete("penstock", "logs", "--prev"), ["--previous"])
        self.assertEqual(complete("penstock", "auth", "can-i", "--att"), ["--attribute"])
        self.assertEqual(complete("penstock", "get", "brokerl"), ["brokerlistener"])
        self.assertEqual(complete("penstock", "get", "brokerlistener", ""), ["plant"])
        self.assertEqual(complete("penstock", "completion", "f"), ["fish"])
        # Behind the flags that may lead, and behind those that have a value; a shell cuts words at = (COMP_WORDBREAKS).
        for leading in (("-n", "azure-iot-operations"), ("--namespace", "=", "azure-iot-operations"), ("--namespace=azure-iot-operations",),
                        ("--kubeconfig", self.p.env["KUBECONFIG"], "-n", "azure-iot-operations")):
            self.assertEqual(complete("penstock", *leading, "ge"), ["get"], leading)
            self.assertEqual(complete("penstock", *leading, "get", "brokerl"), ["brokerlistener"], leading)
            self.assertEqual(complete("penstock", *leading, "get", "brokerlistener", ""), ["plant"], leading)
            self.assertEqual(complete("penstock", "get", *leading, "brokerlistener", "pl"), ["plant"], leading)
        self.assertEqual(complete("penstock", "-n", "default", "get", "brokerlistener", "pl"), [])
        self.assertEqual(complete("penstock", "get", "-o", "json", "brokerl"), ["brokerlistener"])
        self.assertEqual(complete("penstock", "get", "-A", "brokerl"), ["brokerlistener"])
        self.assertEqual(complete("penstock", "create", "secret", "--from-literal", "=", "a", "=", "b", "gen"), ["generic"])
        self.assertEqual(complete("penstock", "-n", "azure-iot"), ["azure-iot-operations"])
        self.assertEqual(complete("penstock", "get", "--namespace", "=", "azure-iot"), ["azure-iot-operations"])
        self.assertIn("azure-iot-operations", complete("penstock", "get", "--namespace", "="))
        fish = self.ok("completion", "fish")
        self.assertIn("'__fish_seen_subcommand_from create; and __fish_seen_subcommand_from secret; and __fish_seen_subcommand_from tls' -l cert -d", fish)
        self.assertIn("complete -c penstock -n '__fish_seen_subcommand_from auth; and not __fish_seen_subcommand_from can-i who-can explain clients dry-run' -a can-i -d 'May a client do this?", fish)
        self.assertIn("completion is there for bash, zsh and fish", self.refused("completion", "tcsh"))

    def test_create_as_the_cures_say(self):
        p = self.p
        (p.folder / "more").mkdir()
        p.write("more/one.txt", "1\n")
        (p.folder / "more" / "link.txt").symlink_to(p.folder / "more" / "one.txt")
        (p.folder / "more" / "inner").mkdir()
        os.mkfifo(p.folder / "more" / "pipe")
        (p.folder / "raw").write_bytes(b"\xff\x00")
        path = lambda name: str(p.folder / name)
        self.assertEqual(self.ok("create", "serviceaccount", "line-7"), "serviceaccount/line-7 created\n")
        self.assertEqual(self.refused("create", "sa", "line-7"), 'Error from server (AlreadyExists): serviceaccounts "line-7" already exists\n')
        self.assertEqual(self.ok("create", "namespace", "later"), "namespace/later created\n")
        # An empty variable in a script takes no other flag's word for its value.
        for words in (("create", "secret", "generic", "no", "--from-literal="), ("apply", "-f", "absent.yaml", "--namespace=")):
            self.assertEqual(self.refused(*words, "--dry-run=client"), f"error: {words[-1]} has no value: write one behind it, or leave {words[-1][:-1]} out\n")
        self.assertEqual(self.ok("create", "configmap", "mixed", "-n", "later", "--from-literal=a=b=c", "--from-literal", "empty=", f"--from-file=client_ca.pem={path('more/one.txt')}",
                                 "--from-file", path("raw"), f"--from-file={path('more')}"), "configmap/mixed created\n")
        made = json.loads(self.ok("get", "configmap", "mixed", "-n", "later", "-o", "json"))
        self.assertEqual(made["data"], {"a": "b=c", "empty": "", "client_ca.pem": "1\n", "one.txt": "1\n"})
        self.assertEqual(made["binaryData"], {"raw": "/wA="})
        self.assertEqual(self.ok("create", "secret", "generic", "people", "-o", "name"), "secret/people\n")
        self.assertEqual(self.ok("create", "secret", "generic", "typed", "--type=plant.example/t", "--from-literal=k=v", "--dry-run"), "secret/typed created (dry run)\n")
        self.assertEqual(self.ok("create", "secret", "generic", "typed", "--type=plant.example/t", "--from-literal=k=v", "--dry-run=server"), "secret/typed created (server dry run)\n")
        self.assertIsNone(p.get("secret", "typed"))
        typed = json.loads(self.ok("create", "secret", "generic", "typed", "--type=plant.example/t", "--from-literal=k=v", "-o", "json"))
        self.assertEqual((typed["type"], typed["data"], typed["metadata"]["namespace"]), ("plant.example/t", {"k": "dg=="}, "azure-iot-operations"))
        # What a cure says: made as YAML, and applied, once and again.
        self.ok("pki", "root", "ca", "--out", path("ca"))
        for name in ("mine", "yours"):
            self.ok("pki", "server", name, "--ca", path("ca.crt"), "--ca-key", path("ca.key"), "--host", "localhost", "--out", path(name))
        sent = self.ok("create", "secret", "tls", "mine", "-n", "azure-iot-operations", f"--cert={path('mine.crt')}", f"--key={path('mine.key')}", "--dry-run=client", "-o", "yaml",
                       "--kubeconfig", "/nowhere")
        self.assertTrue(sent.startswith("apiVersion: v1\ndata:\n  tls.crt: "), sent)
        self.assertTrue(sent.endswith("kind: Secret\nmetadata:\n  name: mine\n  namespace: azure-iot-operations\ntype: kubernetes.io/tls\n"), sent)
        self.assertEqual(self.ok("apply", "-f", "-", stdin=sent), "secret/mine created\n")
        self.assertEqual(self.ok("apply", "-f", "-", stdin=sent), "secret/mine unchanged\n")
        tls = ("create", "secret", "tls", "pair", f"--cert={path('mine.crt')}")
        self.assertEqual(self.ok(*tls, f"--key={path('mine.key')}"), "secret/pair created\n")
        self.assertEqual(self.refused(*tls, f"--key={path('mine.key')}"), 'Error from server (AlreadyExists): secrets "pair" already exists\n')
        for words, why in (((*tls, f"--key={path('yours.key')}"), f"--key: {path('yours.key')}: it is not the private key"),
                           ((*tls, "--key=/nowhere.key"), "--key: /nowhere.key: "), (tls, "--key is required"),
                           (("create", "secret", "tls", "x", f"--cert={path('mine.key')}", f"--key={path('mine.key')}"), f"--cert: {path('mine.key')}: "),
                           (("create", "cm", "x", "--from-literal=a"), '--from-literal: "a": expected KEY=VALUE'), (("create", "cm", "x", "--from-literal==a"), "--from-literal: "),
                           (("create", "cm", "x", "--from-literal=a b=c"), '--from-literal: "a b" is not a valid key name for a ConfigMap'),
                           (("create", "cm", "x", "--from-literal=a=b", "--from-literal=a=c"), 'cannot add key "a", another key by that name already exists'),
                           (("create", "cm", "x", "--from-file=/nowhere"), "--from-file: /nowhere: "), (("create", "cm", "x", "--from-file=k="), "the file is missing"),
                           (("create", "cm", "x", f"--from-file=k={path('more')}"), "a folder has a key for each of its files"),
                           (("create", "cm", "x", "--dry-run=maybe"), "--dry-run"), (("create", "cm"), "name is required"),
                           (("create", "cm", ""), "a name is empty"), (("create", "secret", "tls", "", f"--cert={path('mine.crt')}", f"--key={path('mine.key')}"), "a name is empty"),
                           (("create", "token", ""), "a name is empty"), (("create", "cm", "x", "--from-file", ""), '--from-file: the name of a file is empty'),
                           (("create", "cm", "x", f"--from-file={path('raw')},"), '--from-file: the name of a file is empty'), (("create", "cm", "x", "--from-literal", ""), '--from-literal: "": expected KEY=VALUE'),
                           (("create", "secret", "tsl"), "Did you mean this?\n\ttls\n"), (("create", "secrte"), "Did you mean this?\n\tsecret\n"),
                           (("create", "configmap", "x", "--from-litral=a=b"), "Did you mean this?\n\t--from-literal\n"), (("create", "cm", "x", "--from-litral=a=b"), "Did you mean this?\n\t--from-literal\n")):
            self.assertIn(why, self.refused(*words), words)
        self.assertIn("Usage: penstock create secret tls [OPTIONS] name", self.ok("help", "create", "secret", "tls"))
        self.assertIn("Usage: penstock create configmap [OPTIONS] name", self.ok("help", "create", "cm"))
        self.assertIn("generic", self.ok("create", "secret"))

    def test_entries_of_a_file_of_lines_as_kubectl_reads_it(self):
        p = self.p
        path = lambda name: str(p.folder / name)
        (p.folder / "lines").write_bytes(b"\xef\xbb\xbfFIRST=a b \r\n\n  # staff\n#x=y\n\t_under.score-d=c=d\nempty=\nPENSTOCK_TEST_GIVEN\nPENSTOCK_TEST_ABSENT\nlast=\xc3\xa9")
        p.env["PENSTOCK_TEST_GIVEN"] = "from outside"
        wanted = {"FIRST": "a b ", "_under.score-d": "c=d", "empty": "", "PENSTOCK_TEST_GIVEN": "from outside", "PENSTOCK_TEST_ABSENT": "", "last": "\u00e9"}
        made = lambda *words: json.loads(self.ok("create", *words, "--dry-run=client", "-o", "json"))["data"]
        self.assertEqual(made("configmap", "x", f"--from-env-file={path('lines')}"), wanted)
        self.assertEqual({k: base64.b64decode(v).decode() for k, v in made("secret", "generic", "x", "--from-env-file", path("lines")).items()}, wanted)
        p.write("more-lines", "k=v\n")
        self.assertEqual(made("cm", "x", f"--from-env-file={path('lines')}", f"--from-env-file={path('more-lines')}"), {**wanted, "k": "v"})
        for text, why in (("a=b\n\n4711=c\n", 'line 3: "4711" is not a valid key'), ("a b=c\n", 'line 1: "a b" is not a valid key'), ("=c\n", 'line 1: "" is not a valid key'), ("a =c\n", 'line 1: "a " is not'),
                          ("..a=c", 'line 1: "..a" is not'), ("a=b\na=c\n", 'line 2: cannot add key "a", another key by that name already exists'), ("a:$7$x\n", 'line 1: "a:$7$x" is not')):
            self.assertIn(f"--from-env-file: {p.write('wrong', text)}: {why}", self.refused("create", "cm", "x", f"--from-env-file={path('wrong')}", "--dry-run=client"))
        (p.folder / "wrong").write_bytes(b"a=b\nc=\xff\n")
        self.assertIn("line 2: it is no UTF-8", self.refused("create", "cm", "x", f"--from-env-file={path('wrong')}"))
        for other in ("--from-literal=a=b", f"--from-file={path('lines')}"):
            self.assertIn(f"--from-env-file stands alone: {other.split('=')[0]} cannot be beside it", self.refused("create", "secret", "generic", "x", f"--from-env-file={path('lines')}", other))
        self.assertIn("--from-env-file: /nowhere: ", self.refused("create", "cm", "x", "--from-env-file=/nowhere"))
        self.assertIn("it is a folder", self.refused("create", "cm", "x", f"--from-env-file={p.folder}"))

    def test_a_password_file_is_taken_as_a_whole_or_not_at_all(self):
        p = self.p
        path = lambda name: str(p.folder / name)
        hashed = self.ok("passwd", "any", "any", "--print", stdin="right\n").strip()
        p.write("people", f"# staff\nann:{hashed}\r\n\n4711:{hashed}\n")
        self.assertEqual(self.ok("passwd", "crowd", "--import", path("people")), "2 users set in Secret azure-iot-operations/crowd\n")
        self.assertEqual({k: base64.b64decode(v).decode() for k, v in p.get("secret", "crowd")["data"].items()}, {"ann": hashed, "4711": hashed})
        self.ok("passwd", "crowd", "bob", stdin="other\n")
        self.assertEqual(self.ok("passwd", "crowd", "--import", "/dev/stdin", stdin=f"ann:{hashed}\n"), "1 user set in Secret azure-iot-operations/crowd\n")
        self.assertEqual(sorted(p.get("secret", "crowd")["data"]), ["4711", "ann", "bob"])
        before = p.get("secret", "crowd")["data"]
        for text, why in (("", "there is no user in it"), (f"new:{hashed}\nnobody\n", "line 2: expected USER:HASH"), (f"new:{hashed}\nold:$6$c2FsdHNhbHQ=$aGFzaA==\n", 'line 2: user "old": '),
                          (f"new:{hashed}\nnew:{hashed}\n", 'line 2: user "new" stands there twice'), (f"new:{hashed}\na b:{hashed}\n", "line 2: the user's name cannot be an entry")):
            self.assertIn(f"--import: {p.write('wrong', text)}: {why}", self.refused("passwd", "crowd", "--import", path("wrong")))
        self.assertEqual(p.get("secret", "crowd")["data"], before)
        self.assertIn("--import", self.refused("passwd", "crowd", "ann", "--import", path("people")))
        self.assertIn("user is required", self.refused("passwd", "crowd"))

    def test_a_wrong_port_or_transport_is_answered_with_what_would_be_right(self):
        def serves(answer):
            """A port that answers what comes, and then ends the connection."""
            server = socket.create_server(("127.0.0.1", 0))
            self.addCleanup(server.close)

            def serve():
                while True:
                    try:
                        with server.accept()[0] as one:
                            one.recv(4096)
                            one.sendall(answer)
                    except OSError:
                        return
            threading.Thread(target=serve, daemon=True).start()
            return server.getsockname()[1]

        nothing, api, plain = free_port(), self.p.api_port, self.port
        alert, http, silent = serves(b"\x15\x03\x01\x00\x02\x02\x46"), serves(b"HTTP/1.1 400 Bad Request\r\n\r\n"), serves(b"")
        uses_tls, shows = "for TLS use --cafile FILE with the CA of its certificate", "`penstock get brokerlisteners -o yaml` shows which of spec.ports have tls or protocol WebSockets\n"
        for words in (("pub", "-t", "x", "-m", "y"), ("sub", "-t", "x"), ("state", "get", "k")):
            def refused(port, *more):
                return self.refused(*words, "-p", str(port), *more)
            self.assertIn(f"127.0.0.1:{nothing}: Connection refused; nothing listens there: `penstock get brokerlisteners` shows the ports (-p PORT)", refused(nothing))
            for port in (api, silent):
                for part in ("perhaps the port speaks TLS or WebSocket: " + uses_tls, ", for WebSocket --ws; " + shows):
                    self.assertIn(part, refused(port))
            self.assertIn("the port speaks TLS: " + uses_tls, refused(alert))
            self.assertIn("the port speaks HTTP: for MQTT over WebSocket use --ws; " + shows, refused(http))
            for flag in (("--tls",), ("--cafile", str(self.p.data / "pki" / "api-ca.crt"))):
                self.assertIn("perhaps the port speaks no TLS: leave --tls, --cafile, --cert and --key out; " + shows, refused(plain, *flag))
                self.assertIn("as it seems, the port speaks no TLS: leave --tls", refused(http, *flag))
            self.assertIn("perhaps the port is none for WebSocket: leave --ws out; or it speaks TLS: " + uses_tls, refused(plain, "--ws"))
            # What is TLS and wrong has its own words.
            self.assertNotIn("the port", refused(api, "--tls"))
        self.assertIn("; name the broker's machine with -h HOST and its port with -p PORT\n", self.refused("sub", "-h", "nowhere.invalid", "-t", "x"))
        self.assertIn("nothing listens there", self.p.run("bench", "connect", "-p", str(nothing)).stderr)

    def test_what_has_no_end_is_refused_by_its_bound(self):
        p, name = self.p, lambda text: f'"$0" {text}'

        def shell(line, status):
            answer = subprocess.run(["bash", "-c", line, BINARY], env=p.env, capture_output=True, text=True, timeout=120)
            self.assertEqual(answer.returncode, status, f"{line}: {answer.stdout[-300:]} {answer.stderr[-300:]}")
            return answer.stderr if status else answer.stdout

        bound = lambda file, size: f"{file}: is larger than {size} bytes, or has no end; no more is taken here: name a smaller file\n"
        pub = name(f"pub -p {self.port} -t plant/endless")
        for line, why in ((name("create configmap x --from-file=x=/dev/zero"), "error: --from-file: " + bound("/dev/zero", 3145728)),
                          (name("create secret tls x --cert /dev/zero --key /dev/zero"), "error: --cert: " + bound("/dev/zero", 3145728)),
                          (name("pki inspect /dev/zero"), "error: " + bound("/dev/zero", 16777216)),
                          (name("passwd x y --print --password-file /dev/zero"), "error: " + bound("/dev/zero", 65537)),
                          (name("passwd x y --print < /dev/zero"), "error: standard input line 1: is longer than 65537 bytes"),
                          (f"{pub} -f /dev/zero", "Error: " + bound("/dev/zero", 268435455)),
                          (f"{pub} -s < /dev/zero", "Error: " + bound("standard input", 268435455)),
                          (f"(echo first; cat /dev/zero) | {pub} -l", "Error: standard input line 2: is longer than 268435455 bytes; no more is taken here"),
                          (name(f"sub -p {self.port} -t x --cafile /dev/zero"), "Error: " + bound("/dev/zero", 16777216))):
            self.assertIn(why, shell(line, 1), line)
        # A message of exactly that size has no room beside its topic; a password, none in a CONNECT.
        self.assertIn("Error: the message of 268435455 bytes, with its topic and properties, makes a packet larger than MQTT has", shell(f"head -c 268435455 /dev/zero | {pub} -s", 1))
        self.assertIn("error: the password has 65536 bytes; at most 65535 fit in a CONNECT", shell(f"head -c 65536 /dev/zero | {name('passwd x y --print')}", 1))
        # Files that are small one by one make one object.
        for part in ("one", "two"):
            p.write(f"halves/{part}", "x" * 1_600_000)
        self.assertIn("halves/two: with it the files have 3200000 bytes, and the resource API takes no object larger than 3145728; make a second ConfigMap", shell(name(f"create configmap x --from-file={p.folder}/halves"), 1))
        # Pipes are read as before: what a shell puts in place of a file, a named one, and standard input by its name.
        made = "create configmap x --dry-run=client -o name --from-file=x="
        pipe = str(p.folder / "named-pipe")
        os.mkfifo(pipe)
        for line in (name(made) + "<(echo a)", f"echo a | {name(made)}/dev/stdin", f"(echo a > {pipe}) & {name(made)}{pipe}"):
            self.assertEqual(shell(line, 0), "configmap/x\n", line)
        for line in (f"{pub} -r -f <(printf 'a\\nb')", f"printf 'a\\nb' | {pub} -r -s", f"printf 'a\\nb' | {pub} -r -f /dev/stdin"):
            shell(line, 0)
            self.assertEqual(self.ok("sub", "-p", str(self.port), "-t", "plant/endless", "-C", "1", "-W", "10"), "a\nb\n", line)
            shell(f"{pub} -r -n", 0)
        shell(f"printf 'first\\nlast' | {pub} -r -l", 0)
        self.assertEqual(self.ok("sub", "-p", str(self.port), "-t", "plant/endless", "-C", "1", "-W", "10"), "last\n")
        shell(f"{pub} -r -n", 0)

    def test_what_needs_containers_is_answered_as_the_api_answers(self):
        line = self.refused("apply", "-f", self.p.write("d.yaml", "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: x}\n"))
        line = line[line.index("no Deployment"):]
        self.assertRegex(line, r"\Ano Deployment here: Penstock runs its own roles on this machine and no containers, .*K3s.*\n\Z")
        why = line.removeprefix("no Deployment here: ")
        for word, kind in (("deployment", "Deployment"), ("deploy", "Deployment"), ("job", "Job"), ("cronjob", "CronJob"), ("ingress", "Ingress"), ("quota", "ResourceQuota"),
                           ("poddisruptionbudget", "PodDisruptionBudget"), ("pdb", "PodDisruptionBudget"), ("priorityclass", "PriorityClass"), ("hpa", "HorizontalPodAutoscaler"),
                           ("Deployments", "Deployment"), ("pod", "Pod")):
            self.assertEqual(self.refused("create", word, "x", "--image=y"), f"error: no {kind} here: {why}", word)
        self.assertEqual(self.refused("help", "create", "deployment"), f"error: no Deployment here: {why}")
        for word in ("scale", "rollout", "autoscale", "set", "expose"):
            self.assertEqual(self.refused(word, "deployment", "x"), f"error: no {word} here: {why}", word)
        self.assertEqual(self.refused("run", "web", "--image=nginx"), f"error: no Pod here: {why}")
        self.assertEqual(self.refused("run", "web", "--image", "nginx", "--restart=Never"), f"error: no Pod here: {why}")
        for word in ("exec", "attach", "cp", "debug"):
            self.assertIn(f"error: no {word} here: the Pods are roles of the penstock process on this machine and no containers; `penstock logs POD` shows", self.refused(word, "-it", "aio-broker-frontend-0", "--", "sh"))
        # What is served and has a manifest alone: how it is made.
        for word, kind in (("role", "Role"), ("clusterrolebinding", "ClusterRoleBinding"), ("service", "Service"), ("brokerlistener", "BrokerListener"), ("crd", "CustomResourceDefinition")):
            self.assertEqual(self.refused("create", word, "x"), f"error: {kind} is made from a manifest: penstock apply -f FILE (penstock explain {kind.lower()} shows its fields)\n", word)
        self.assertIn("error: penstock create secret generic NAME --type=kubernetes.io/dockerconfigjson --from-file=.dockerconfigjson=FILE", self.refused("create", "secret", "docker-registry", "x"))
        self.assertEqual(self.refused("create", "node", "x"), "error: Node is written by Penstock alone\n")
        self.assertIn("unknown command \"tokenreview\"", self.refused("create", "tokenreview"))
        self.assertIn("Did you mean this?\n\tconfigmap\n", self.refused("create", "configmaps", "x"))

    def test_auth_explain_names_who_was_refused_and_why(self):
        p, port = self.p, free_port()
        for gone in (("brokerauthorization", "few"), ("brokerauthentication", "staff"), ("secret", "staff"), ("brokerlistener", "shut")):   # the last is the first to go
            self.addCleanup(self.ok, "delete", *gone)
        self.assertEqual(p.run("passwd", "staff", "ann", stdin="right\n").returncode, 0)
        self.ok("apply", "-f", "-", stdin=f"""apiVersion: mqttbroker.iotoperations.azure.com/v1
kind: BrokerAuthentication
metadata: {{name: staff, namespace: azure-iot-operations}}
spec: {{authenticationMethods: [{{method: Password, passwordSettings: {{secretRef: staff}}}}]}}
---
apiVersion: mqttbroker.iotoperations.azure.com/v1
kind: BrokerAuthorization
metadata: {{name: few, namespace: azure-iot-operations}}
spec: {{authorizationPolicies: {{rules: [{{principals: {{usernames: [ann]}}, brokerResources: [{{method: Connect}}, {{method: Publish, topics: [plant/a]}}]}}]}}}}
---
""" + listener("shut", [f"port: {port}\n      authenticationRef: staff\n      authorizationRef: few"], "LoadBalancer"))
        p.wait_running("shut")
        explain = lambda *words: self.ok("auth", "explain", *words)
        client = lambda name, password, topic: p.run("pub", "-p", str(port), "-i", name, "-u", "ann", "-P", password, "-t", topic, "-m", "x", "-q", "1")
        self.assertIn('Nothing of client "press-1" was refused lately.', explain("press-1"))
        wait_until(lambda: client("press-1", "right", "plant/a").returncode == 0, "the user is known")
        self.assertEqual(explain("press-1"), 'Nothing of client "press-1" was refused lately.\n', "who is let in is no decision to explain")
        self.assertNotEqual(client("press-1", "wrong", "plant/a").returncode, 0)
        head, row = explain("press-1").splitlines()
        self.assertEqual(head.split(), ["TIME", "CLIENT", "USER", "PEER", "LISTENER", "ACTION", "TARGET", "CODE", "WHY"])
        self.assertRegex(row, r"\A20\S+Z +press-1 +ann +127\.0\.0\.1:[0-9]+ +azure-iot-operations/shut +Authenticate +\S+ +0x86 +\S")
        self.assertNotEqual(client("press-2", "right", "plant/b").returncode, 0)
        self.assertRegex(explain("press-2").splitlines()[1], r" press-2 +ann +127\.0\.0\.1:[0-9]+ +azure-iot-operations/shut +Publish +plant/b +0x87 +\S")
        # By user and by address too, and no older than asked.
        for words in (("ann",), ("127.0.0.1",), ("ann", "--since", "1h"), ()):
            told = explain(*words)
            self.assertTrue("press-1" in told and "press-2" in told, told)
        found = json.loads(explain("ann", "--json"))
        self.assertEqual([(one["client"], one["user"], one["code"]) for one in found if one["client"].startswith("press-")], [("press-1", "ann", 0x86), ("press-2", "ann", 0x87)])
        self.assertIn("--since: ", self.refused("auth", "explain", "--since", "soon"))
        # What AIO's pages look at says so as well.
        for pod in ("aio-broker-frontend-0", "aio-broker-authentication-0"):
            self.assertRegex(self.ok("logs", pod), r'(?m)auth: connection ended client="press-1" peer=127\.0\.0\.1:[0-9]+ listener=azure-iot-operations/shut reason=\S.* \(0x86\)')

    def test_auth_names_the_ports_that_ask_no_policy(self):
        """`plant` has no authorizationRef: everybody may there, whatever policies there are."""
        everybody = f"everybody at port {self.port} of listener plant: it has no authorizationRef\n"
        self.assertEqual(self.ok("auth", "who-can", "publish", "plant/a", "--listener", "plant"), everybody)
        self.assertIn(everybody, self.ok("auth", "who-can", "publish", "plant/a"))
        self.ok("apply", "-f", "-", stdin="""apiVersion: mqttbroker.iotoperations.azure.com/v1
kind: BrokerAuthorization
metadata: {name: narrow}
spec: {authorizationPolicies: {rules: [{principals: {clientIds: [one]}, brokerResources: [{method: Connect}, {method: Publish, topics: [plant/a]}]}]}}
""")
        try:
            asked = self.p.run("auth", "can-i", "publish", "plant/b", "--client", "one")
            self.assertEqual(asked.returncode, 1, asked.stderr)
            self.assertIn('no: the rules of BrokerAuthorization narrow about this client (rule 0) do not allow Publish "plant/b"\n', asked.stdout)
            self.assertIn(f"yes at port {self.port} of listener plant: it has no authorizationRef, so nothing is restricted\n", asked.stdout)
            told = self.ok("auth", "who-can", "publish", "plant/a")
            self.assertRegex(told, r"(?m)^narrow +0 +one ")
            self.assertIn(everybody, told)
            alone = self.p.run("auth", "who-can", "publish", "plant/b", "--policy", "narrow")
            self.assertEqual((alone.returncode, alone.stdout), (1, "nobody: no rule allows it\n"))
        finally:
            self.ok("delete", "brokerauthorization", "narrow")

    @unittest.skipUnless(os.geteuid() == 0, "root alone becomes another user")
    def test_a_kubeconfig_of_another_user_is_told_as_that(self):
        def become():
            os.setgid(65534)
            os.setuid(65534)
        # A program in a folder that this user may not enter could not be started.
        file = os.open(BINARY, os.O_RDONLY)
        try:
            tried = subprocess.run([f"/proc/self/fd/{file}", "get", "broker"], env=self.p.env, capture_output=True, text=True, timeout=30, preexec_fn=become, pass_fds=(file,))
        finally:
            os.close(file)
        self.assertEqual(tried.returncode, 1)
        self.assertIn("cannot be read: Permission denied; it is the administrator's alone: use sudo", tried.stderr)
        self.assertNotIn("is penstock running", tried.stderr)

    def test_files_become_entries_as_kubectl_makes_them(self):
        p = self.p
        path = lambda name: str(p.folder / name)
        p.write("words/good.txt", "1\n")
        p.write("words/two words.txt", "has no key\n")
        p.write("a,b.txt", "comma\n")
        p.write('a"b', "quote\n")
        (p.folder / "nul").write_bytes(b"a\x00b")
        (p.folder / "high").write_bytes(b"a\xff")
        # A file that cannot have a key is told: without a word it would be missing where it is needed.
        for kind in (("cm",), ("secret", "generic")):
            self.assertIn('--from-file: "two words.txt" is not a valid key name', self.refused("create", *kind, "x", f"--from-file={path('words')}", "--dry-run=client"))
        made = lambda *words: json.loads(self.ok("create", *words, "--dry-run=client", "-o", "json"))
        # A list by comma, and quotes round what has a comma itself; a literal is one whatever is in it.
        several = made("cm", "x", f"--from-file={path('nul')},k={path('high')}", f"--from-file=\"comma={path('a,b.txt')}\"", "--from-literal=l=a,b=c")
        self.assertEqual((several["data"], several["binaryData"]), ({"nul": "a\x00b", "comma": "comma\n", "l": "a,b=c"}, {"k": "Yf8="}))
        self.assertEqual(made("cm", "x", f"--from-file=\"quote={path('a')}\"\"b\",{path('nul')}")["data"], {"quote": "quote\n", "nul": "a\x00b"})
        self.assertIn("--from-file: a \" at the end of", self.refused("create", "cm", "x", f'--from-file="{path("nul")}'))
        self.assertIn("--from-file: a \" stands within a name", self.refused("create", "cm", "x", f"--from-file={path('a')}\"b"))
        self.assertIn("--from-file: behind a closing \" stands", self.refused("create", "cm", "x", f'--from-file="{path("nul")}"x'))
        # Text with NUL is text: the API takes it, and gives it back.
        self.ok("create", "cm", "nul", f"--from-file={path('nul')}")
        self.assertEqual(p.get("cm", "nul")["data"], {"nul": "a\x00b"})
        # Why a file is not read.
        for name, why in (("none", "No such file or directory"), ("nul/x", "Not a directory")):
            self.assertEqual(self.refused("create", "cm", "x", f"--from-file={path(name)}"), f"error: --from-file: {path(name)}: cannot be read: {why}\n")
        self.assertIn("--cert: /nowhere: cannot be read: No such file or directory", self.refused("create", "secret", "tls", "x", "--cert=/nowhere", "--key=/nowhere"))
        # What is given twice: the last wins, as for kubectl.
        twice = made("cm", "x", "-n", "one", "-o", "yaml", "-n", "two", "--dry-run=none", "--namespace=three")
        self.assertEqual(twice["metadata"]["namespace"], "three")
        self.assertEqual(self.ok("get", "ns", "-o", "json", "default", "-o", "name"), "namespace/default\n")
        self.assertEqual(made("secret", "generic", "x", "--type=a/b", "--type=c/d", "--from-literal=a=b", "--from-literal=c=d")["data"], {"a": "Yg==", "c": "ZA=="})

    def test_a_name_that_is_none_is_not_all_names(self):
        """An empty variable in a script (delete secret "$name") takes nothing away, and nothing else is met in its place."""
        self.ok("create", "cm", "stays")
        for words in (("delete", "cm", ""), ("delete", "cm/"), ("delete", "cm", "no", ""), ("get", "cm", ""), ("get", "cm/"), ("describe", "cm", ""), ("describe", "cm/"), ("edit", "cm", ""),
                      ("patch", "cm", "", "-p", "{}"), ("wait", "cm/", "--for=create"), ("logs", ""), ("logs", "pod/"), ("create", "token", ""), ("pki", "renew", ""), ("passwd", "", "ada")):
            self.assertEqual(self.refused(*words), "error: a name is empty: write one behind the kind\n", words)
        for name in ("a/b", "a%2Fb", ".", ".."):
            self.assertIn("is no name of an object", self.refused("delete", "cm", name), name)
        for name in ("?labelSelector=a", "#", "a b"):
            self.assertEqual(self.refused("delete", "cm", name), f'Error from server (NotFound): configmaps "{name}" not found\n')
        for text in ("metadata: {generateName: stays}", "metadata: {}"):
            self.assertIn("metadata.name: Required value", self.refused("delete", "-f", self.p.write("nameless.yaml", "apiVersion: v1\nkind: ConfigMap\n" + text + "\n")), text)
        # What a file says is judged as what is typed, and so is a namespace.
        for kind, metadata in (("Namespace", "{name: azure-iot-operations/configmaps}"), ("Namespace", "{name: azure-iot-operations/configmaps/stays}"),
                               ("ConfigMap", "{name: stays/}"), ("ConfigMap", "{name: stays, namespace: azure-iot-operations/}"), ("ConfigMap", "{name: ..}")):
            file = self.p.write("other.yaml", f"apiVersion: v1\nkind: {kind}\nmetadata: {metadata}\n")
            for words in (("delete",), ("apply",), ("apply", "--server-side")):
                self.assertIn("is no name of an object", self.refused(*words, "-f", file), (words, metadata))
        self.assertIn("namespace: \"a/b\" is no name of an object", self.refused("delete", "cm", "--all", "-n", "a/b"))
        self.assertIn("metadata.namespace: Invalid value: 5: must be of type string", self.refused("delete", "-f", self.p.write("five.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: stays, namespace: 5}\n")))
        self.assertIsNotNone(self.p.get("cm", "stays"))
        empty = self.p.write("empty.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: of-default, namespace: ''}\n")
        self.assertEqual(self.ok("apply", "-f", empty), "configmap/of-default created\n")
        self.assertIsNotNone(self.p.get("cm", "of-default"))
        self.assertEqual(self.ok("delete", "-f", empty), "configmap/of-default deleted\n")
        self.assertEqual(self.ok("get", "clusterrole", "system:discovery", "-o", "name"), "clusterrole.rbac.authorization.k8s.io/system:discovery\n")

    def test_what_is_too_large_is_told_so(self):
        big = self.p.folder / "big"
        big.write_bytes(bytes(3_000_000))   # within what is read of files; each byte takes six in JSON
        self.assertEqual(self.refused("create", "configmap", "big", f"--from-file={big}"),
                         "Error from server (RequestEntityTooLarge): Request entity too large: limit is 3145728\n")

    def test_a_list_without_items_is_no_object(self):
        for items in ("items: null", "items: []"):
            self.assertEqual(self.refused("apply", "-f", self.p.write("list.yaml", f"apiVersion: v1\nkind: List\n{items}\n")), "error: no resource objects in the files\n")
        self.assertIn("a List needs items, a list of resource objects", self.refused("apply", "-f", self.p.write("list.yaml", "apiVersion: v1\nkind: List\n")))

    def test_pki_says_what_stands_in_its_files(self):
        path = lambda name: str(self.p.folder / name)
        self.assertEqual(self.ok("pki", "root", "r", "--out", path("r")), f"{path('r.crt')}\n{path('r.key')}\n")
        signed = ("--ca", path("r.crt"), "--ca-key", path("r.key"))
        self.assertEqual(self.ok("pki", "client", "of-root", *signed, "--out", path("of-root")), f"{path('of-root.crt')}\n{path('of-root.key')}\n")
        self.ok("pki", "intermediate", "i", *signed, "--out", path("i"))
        between = ("--ca", path("i.crt"), "--ca-key", path("i.key"))
        self.assertEqual(self.ok("pki", "client", "of-i", *between, "--out", path("of-i")), f"{path('of-i.crt')} (with the intermediates behind it)\n{path('of-i.key')}\n")

    def test_bench_has_units_apart(self):
        report = self.ok("bench", "latency", "-p", str(self.port), "--pairs", "1", "--rate", "50", "--seconds", "0.2", "--warm-up", "0.1", "--no-progress")
        for line in report.splitlines():
            self.assertRegex(line, r"\A.{24} *[a-z0-9.-]+( [^ ]+)?\Z")
        self.assertRegex(report, r"(?m)^p50 +[0-9.]+ µs$")
        self.assertRegex(report, r"(?m)^delivered +[0-9]+ messages$")

    def test_pki_list_fits_a_terminal(self):
        listed = wait_until(lambda: self.ok("pki", "list") if "azure-iot-operations-aio-ca-certificate" in self.ok("pki", "list") else None, "the certificates")
        self.assertLessEqual(max(map(len, listed.splitlines())), 80, listed)
        self.assertIn("WHEN IT ENDS", self.ok("pki", "list", "-o", "wide").splitlines()[0])

    def test_head_and_gzip(self):
        def ask(connection, method, path, **headers):
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer, answer.read()

        page = http.client.HTTPConnection("127.0.0.1", self.metrics, timeout=10)
        for path in ("/metrics", "/healthz", "/readyz"):
            head, body = ask(page, "HEAD", path)
            self.assertEqual((head.status, body), (200, b""), path)
            self.assertGreater(int(head.headers["Content-Length"]), 0)
            self.assertEqual(head.headers["Content-Type"].split(";")[0], "text/plain")
        packed, body = ask(page, "GET", "/metrics", **{"Accept-Encoding": "gzip"})
        self.assertEqual(packed.headers["Content-Encoding"], "gzip")
        self.assertIn(b"aio_broker_", gzip.decompress(body))
        plain, body = ask(page, "GET", "/metrics")
        self.assertIsNone(plain.headers["Content-Encoding"])
        self.assertIn(b"aio_broker_", body)
        self.assertEqual(ask(page, "POST", "/metrics")[0].status, 405)
        pki = self.p.data / "pki"
        trust = ssl.create_default_context(cafile=str(pki / "api-ca.crt"))
        trust.load_cert_chain(str(pki / "admin.crt"), str(pki / "admin.key"))
        api = http.client.HTTPSConnection("127.0.0.1", self.p.api_port, context=trust, timeout=10)
        for path in ("/metrics", "/healthz", "/readyz", "/version", "/apis/mqttbroker.iotoperations.azure.com/v1/brokers", "/api/v1/pods?watch=true"):
            head, body = ask(api, "HEAD", path)
            self.assertEqual((head.status, body), (200, b""), path)
        packed, body = ask(api, "GET", "/apis/mqttbroker.iotoperations.azure.com/v1/brokers", **{"Accept-Encoding": "gzip"})
        self.assertEqual((packed.headers["Content-Encoding"], packed.headers["Vary"]), ("gzip", "Accept-Encoding"))
        self.assertEqual(json.loads(gzip.decompress(body))["kind"], "BrokerList")

    def test_hangup_reads_again_and_hints_work_elsewhere(self):
        hint = wait_until(lambda: re.search(r"resources   penstock (get broker,brokerlistener -A --kubeconfig (\S+))", self.p.logs()), "the hint")
        env = {key: value for key, value in os.environ.items() if key not in ("KUBECONFIG", "PENSTOCK_DATA")}
        elsewhere = subprocess.run([BINARY, *hint.group(1).split()], env=env, capture_output=True, text=True, timeout=30)
        self.assertEqual(elsewhere.returncode, 0, elsewhere.stderr)
        self.assertIn(f"kubectl     export KUBECONFIG={hint.group(2)}\n", self.p.logs())
        self.assertNotIn("<6>", self.p.logs())
        self.assertRegex(self.ok("logs", "aio-broker-operator-0"), r"(?m)^<[0-9]>20")
        self.ok("delete", "brokerlistener", "plant")
        self.p.process.send_signal(signal.SIGHUP)
        self.p.wait_running("plant")
        self.assertIn("SIGHUP: files, certificates and keys are read again", self.p.logs())
        self.assertIsNone(self.p.process.poll())

    def test_hints_that_name_commands_find_the_platform(self):
        bare = {key: value for key, value in os.environ.items() if key not in ("KUBECONFIG", "PENSTOCK_DATA")}
        typed = lambda line: subprocess.run(["sh", "-c", line], env={**bare, "PATH": os.path.dirname(os.path.abspath(BINARY)) + ":" + os.environ["PATH"]}, capture_output=True, text=True, timeout=60)
        done = self.ok("backup", str(self.p.folder / "a backup"))
        restore = re.search(r"is complete; (penstock restore .*) puts it in place\n", done)[1]
        self.assertIn(f"{self.p.data}: penstock runs on it; stop it first", typed(restore).stderr)
        # Two listeners of one service type: each document is right in itself, the API refuses the second.
        p = Penstock(BINARY)
        p.files = [p.write("m.yaml", broker("{diagnostics: {metrics: {prometheusPort: 0}}}") + "---\n" + listener("one", [f"port: {free_port()}"]) + "---\n" + listener("two", [f"port: {free_port()}"]))]
        with p:
            hint = wait_until(lambda: re.search(r"with: (penstock apply --server-side --dry-run -f \S+ --kubeconfig [^;\s]+)", p.logs()), "the hint")[1]
            tried = typed(hint)
            self.assertIn("listener one has this type already", tried.stdout + tried.stderr)
            p.stop()
            os.truncate(p.data / "registry.sqlite", 0)
            refused = subprocess.run([BINARY, "run", "--data-dir", str(p.data), "--api-port", "0"], env=bare, capture_output=True, text=True, timeout=60)
            self.assertEqual(refused.returncode, 1)
            restore = re.search(r"\((penstock restore FOLDER --data-dir \S+)\)", refused.stdout + refused.stderr)[1].replace("FOLDER", f"'{self.p.folder}/a backup'")
            restored = typed(restore)
            self.assertEqual(restored.returncode, 0, restored.stderr)
            p.start()
            self.assertIsNotNone(p.get("brokerlistener", "plant"), "of the backup")

    def test_the_journal_gets_priorities_and_a_terminal_none(self):
        folder = self.p.folder / "other"

        def first_lines(journal):
            read, write = os.pipe()
            about = os.fstat(write)
            env = {**self.p.env, **({"JOURNAL_STREAM": f"{about.st_dev}:{about.st_ino}"} if journal else {})}
            process = subprocess.Popen([BINARY, "api", "--data-dir", str(folder), "--api-port", "0"], stdout=subprocess.DEVNULL, stderr=write, env=env)
            os.close(write)
            text = ""
            try:
                while "has started" not in text:
                    self.assertTrue(select.select([read], [], [], 20)[0], text)
                    text += os.read(read, 65536).decode()
            finally:
                process.terminate()
                process.wait(timeout=20)
                os.close(read)
            return text

        self.assertRegex(first_lines(True), r"(?m)\A<[0-9]>20")
        self.assertRegex(first_lines(False), r"(?m)\A20")


if __name__ == "__main__":
    unittest.main(verbosity=1)
