"""What `./dev` says and does on machines that lack something: no rights, little memory, an impatient person. Programs it
calls (dpkg, sudo, cmake) are small scripts in a folder of the test, so nothing is installed or built."""
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

from support import wait_until

SOURCE = pathlib.Path(__file__).resolve().parents[2]
INSTALLED = "#!/bin/sh\necho 'Status: install ok installed'\n"
USED = "awk bash cat chmod cut date dirname env expand find getconf grep head id kill ls mkdir mktemp nproc python3 rm sed sh sleep sort tail tee tr uname".split()


def running(group):
    """Whether a process of this group is left."""
    try:
        os.killpg(group, 0)
        return True
    except ProcessLookupError:
        return False


class Dev(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="penstock-dev-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.programs = self.folder / "bin"
        self.programs.mkdir()
        for name in USED:
            if shutil.which(name):
                (self.programs / name).symlink_to(shutil.which(name))
        (self.folder / "clone").mkdir()
        shutil.copy(SOURCE / "dev", self.folder / "clone" / "dev")

    def program(self, name, text):
        path = self.programs / name
        path.unlink(missing_ok=True)
        path.write_text(text)
        path.chmod(0o755)

    def start(self, *words, **env):
        return subprocess.Popen([str(self.folder / "clone" / "dev"), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                start_new_session=True, env={"PATH": str(self.programs), "TMPDIR": str(self.folder), "HOME": str(self.folder), **env})

    def dev(self, *words, **env):
        process = self.start(*words, **env)
        out, errors = process.communicate(timeout=60)
        return process.returncode, out, errors

    def test_without_rights_the_line_for_root_is_printed(self):
        self.program("dpkg", "#!/bin/sh\n[ $2 = curl ] || [ $2 = mosquitto-clients ] || echo 'Status: install ok installed'\n")
        self.program("id", "#!/bin/sh\necho 1000\n")
        code, out, errors = self.dev("run")
        self.assertEqual(code, 1, out + errors)
        self.assertIn("\n  apt-get update && apt-get install -y --no-install-recommends mosquitto-clients curl\n", errors)

    def test_what_a_command_lacks_is_asked_for_at_once(self):
        self.program("dpkg", "#!/bin/sh\n")
        self.program("id", "#!/bin/sh\necho 1000\n")
        code, _, errors = self.dev("test")
        self.assertEqual(code, 1)
        for package in ("libgtest-dev", "nodejs npm", "kubernetes-client", "python3"):
            self.assertIn(package, errors)

    def test_boost_is_asked_for_by_the_name_that_this_system_has(self):
        # Packages that apt's lists name, with versions as Ubuntu 24.04 and Debian 12 have them; `show` finds names too
        # that others only conflict with. Only when `lists` is there does apt know anything.
        has = self.folder / "lists"
        installed = self.folder / "installed"
        self.program("dpkg", "#!/bin/sh\n[ $1 != --compare-versions ] || exec /usr/bin/dpkg \"$@\"\n"
                             f"case $2 in libboost1.81-dev) exit 1 ;; libboost-dev) cat {installed} ;;\n"
                             "*) echo 'Status: install ok installed' ;; esac\n")
        self.program("apt-cache", f"#!/bin/sh\n[ $1 = madison ] || exit 0\ngrep \"^$2 \" {has} || true\n")
        self.program("id", "#!/bin/sh\necho 1000\n")
        ubuntu, debian = "libboost-dev | 1.83.0.1ubuntu2\n", "libboost1.81-dev | 1.81.0-5\nlibboost-dev | 1.74.0.3\n"
        for lists, wanted in ((ubuntu, "libboost-dev"), (debian, "libboost1.81-dev"), ("", "libboost1.81-dev")):
            has.write_text(lists)
            _, _, errors = self.dev("build")
            self.assertIn(f"--no-install-recommends {wanted}\n", errors)
        # One that is new enough will do, whatever apt's lists say; an older one will not.
        self.program("cmake", "#!/bin/sh\n")
        for version, code in (("1.83.0.1ubuntu2", 0), ("1.74.0.3", 1)):
            installed.write_text(f"Status: install ok installed\nVersion: {version}\n")
            self.assertEqual(self.dev("build")[0], code, version)
        # Where apt has no lists yet, what is right shows after its update.
        installed.write_text("")
        has.write_text("")
        asked = self.folder / "asked"
        self.program("sudo", "#!/bin/sh\nshift 2\n"
                             "text=$(printf %s \"$1\" | sed \"s,/usr/sbin/policy-rc.d,$HOME/policy,\")\n"
                             "shift; exec sh -c \"$text\" \"$@\"\n")
        for lists, wanted in ((ubuntu, "libboost-dev"), (debian, "libboost1.81-dev")):
            self.program("apt-get", f"#!/bin/sh\nif [ $1 = update ]; then echo '{lists}' >{has}; else echo \"$@\" >{asked}; fi\n")
            has.write_text("")
            code, out, errors = self.dev("build")
            self.assertEqual(code, 0, out + errors)
            self.assertTrue(asked.read_text().endswith(f" {wanted}\n"), asked.read_text())

    def test_without_files_run_takes_those_of_the_tour(self):
        self.program("dpkg", INSTALLED)
        release = self.folder / "clone" / "build" / "release"
        release.mkdir(parents=True)
        self.program("cmake", "#!/bin/sh\n")
        (release / "penstock").write_text("#!/bin/sh\nshift; printf '<%s>' \"$@\"\n")
        (release / "penstock").chmod(0o755)

        def given(*words):
            code, out, errors = self.dev("run", *words)
            self.assertEqual(code, 0, out + errors)
            return re.findall("<(.*?)>", out)

        tour = ["-f", "examples/quickstart.yaml"]
        self.assertEqual(given(), tour)
        self.assertEqual(given("--log-level", "debug"), ["--log-level", "debug", *tour])
        for words in (["-f", "x.yaml"], ["-fx.yaml"], ["-f=x.yaml"], ["--filename", "x.yaml"], ["--filename=x.yaml"],
                      ["--api-port", "1", "-f", "x.yaml"]):
            self.assertEqual(given(*words), words)

    def test_interop_says_at_its_end_what_it_left_out(self):
        self.program("cmake", "#!/bin/sh\n")
        self.program("dpkg", "#!/bin/sh\n[ $2 = python3-yaml ] || echo 'Status: install ok installed'\n")
        self.program("id", "#!/bin/sh\necho 1000\n")
        code, _, errors = self.dev("interop")
        self.assertEqual(code, 1)
        self.assertIn("--no-install-recommends python3-yaml\n", errors)
        self.program("dpkg", INSTALLED)
        for suite, status in (("none", 0), ("helm", 1)):
            self.program("python3", f"#!/bin/sh\necho \"ran $1\"; echo 'SKIPPED: no kubectl'; case $1 in */yaml_texts.py) echo 'SKIPPED: no PyYAML' ;; */{suite}.py) exit 3 ;; esac\n")
            code, out, errors = self.dev("interop")
            self.assertEqual(code, status, out + errors)
            self.assertIn("ran tests/interop/cluster.py", out, "the others run all the same")
            self.assertIn("dev: not everything ran:\nSKIPPED: no PyYAML\nSKIPPED: no kubectl\n", errors)
        self.assertIn("an interop suite failed", errors)

    def test_ctrl_c_ends_the_build_with_130_and_says_so(self):
        self.program("dpkg", INSTALLED)
        started = self.folder / "started"
        self.program("cmake", f"#!/bin/sh\n[ \"$1\" = --build ] || exit 0\necho '[1/9] one'; : >{started}; exec sleep 600\n")
        process = self.start("build")
        wait_until(started.exists, "the start of the build")
        os.killpg(process.pid, signal.SIGINT)
        out, errors = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, out + errors)
        log = re.search(r"output: (\S+)\)", out)[1]
        self.assertIn(f"dev: interrupted; what was done so far is kept, its output is in {log}", errors)
        self.assertEqual(pathlib.Path(log).read_text(), "[1/9] one\n")
        wait_until(lambda: not running(process.pid), "the end of all that it started")

    def test_a_failed_build_shows_the_error_and_keeps_the_output(self):
        self.program("dpkg", INSTALLED)
        self.program("cmake", "#!/bin/sh\n[ \"$1\" = --build ] || exit 0\necho '[1/9] one'; echo 'a.cc:7: error: no such thing'; exit 1\n")
        code, out, errors = self.dev("build")
        self.assertEqual(code, 1)
        self.assertIn("a.cc:7: error: no such thing", errors)
        self.assertIn("[1/9] one", pathlib.Path(re.search(r"the whole output is in (\S+)", errors)[1]).read_text())

    def test_as_many_compilers_as_memory_allows(self):
        self.program("dpkg", INSTALLED)
        self.program("nproc", "#!/bin/sh\necho 64\n")
        self.program("awk", "#!/bin/sh\necho 2500\n")
        self.program("cmake", "#!/bin/sh\necho \"$@\" >>cmake.log\n")
        code, out, errors = self.dev("build")
        self.assertEqual(code, 0, errors)
        self.assertRegex(errors, r"MiB of memory are free, so [12] of 64 processors compile \(PENSTOCK_JOBS=N says otherwise\)")
        self.assertEqual(self.dev("build", PENSTOCK_JOBS="7")[0], 0)
        self.assertIn("-j 7\n", (self.folder / "clone" / "cmake.log").read_text())
        code, _, errors = self.dev("build", PENSTOCK_JOBS="many")
        self.assertEqual((code, errors), (1, 'dev: PENSTOCK_JOBS is a number from 1 on, not "many"\n'))
        self.assertIn("PENSTOCK_JOBS=N", self.dev("help")[1])

    def test_the_tour_needs_nothing_that_run_does_not_install(self):
        text = (SOURCE / "dev").read_text()
        installed = set()
        for name in ("packages", "tour_packages"):
            installed |= set(re.search(rf"^{name}=\((.*?)\)", text, re.S | re.M)[1].split())
        self.assertIn('cmd_run() { # [arguments of `penstock run`]: build and start; without -f the example of the tour\n  need "${packages[@]}" "${tour_packages[@]}"', text)
        package = {"mosquitto_pub": "mosquitto-clients", "mosquitto_sub": "mosquitto-clients", "curl": "curl"}
        block = re.search(r"```sh tour\n(.*?)```", (SOURCE / "README.md").read_text(), re.S)[1]
        for line in block.splitlines():
            for stage in re.split(r"\|\|?", line.split("#")[0] if line.startswith("#") else line):
                words = stage.split()
                # Of every Debian: the shell's own words and the essential packages.
                if not words or words[0] in ("penstock", "export", "grep", "true"):
                    continue
                self.assertIn(package.get(words[0]), installed, f"the tour's `{line}` needs {words[0]}, which ./dev run does not install")


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1], verbosity=2)
