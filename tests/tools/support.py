"""What the tests of tools/ share: a tool as a module, a tree of files."""

import importlib.machinery
import importlib.util
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

SOURCE = pathlib.Path(__file__).resolve().parents[2]
sys.dont_write_bytecode = True


def load(name):
    """tools/NAME, which has no ending, as a module."""
    loader = importlib.machinery.SourceFileLoader(name, str(SOURCE / "tools" / name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


class TreeTest(unittest.TestCase):
    """A test with a folder in which a tool finds a tree of its own."""

    def setUp(self):
        self.tree = pathlib.Path(tempfile.mkdtemp(prefix="penstock-tools-"))
        self.addCleanup(shutil.rmtree, self.tree, ignore_errors=True)

    def put(self, path, text):
        file = self.tree / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def tool(self, name, *words):
        """Runs a copy of tools/NAME over the tree."""
        copy = self.tree / "tools" / name
        copy.parent.mkdir(exist_ok=True)
        shutil.copy(SOURCE / "tools" / name, copy)
        done = subprocess.run(
            [sys.executable, str(copy), *map(str, words)], capture_output=True, text=True, timeout=120
        )
        return done.returncode, done.stdout + done.stderr
