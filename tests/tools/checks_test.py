"""tools/check_version and tools/check_documents: what they refuse and what they let pass."""

import unittest

from support import TreeTest


class Version(TreeTest):
    def setUp(self):
        super().setUp()
        self.put("CMakeLists.txt", "project(penstock VERSION 3.1.4 LANGUAGES CXX)\n")

    def check(self):
        return self.tool("check_version")

    def test_one_source_is_well(self):
        self.put(
            "src/app/version.cc",
            "const char* const version = PENSTOCK_VERSION;\nauto x = std::array{13.1.4, 3.1.41};\n",
        )
        self.put("src/control/custom_server.cc", 'constexpr const char* newest_version = "0.5.0";\n')
        self.put("CHANGELOG.md", "## 3.1.4\nPenstock 3.1.4\n")
        self.put("docs/a.md", "image tag 3.1.4 of another program\nPenstock on 10.3.1.4\n")
        self.assertEqual(self.check(), (0, "version: ok\n"))

    def test_the_same_number_again_is_refused(self):
        for path, text in (
            ("src/app/commands.h", 'inline constexpr const char* release = "3.1.4";\n'),
            ("dev", "# for v3.1.4\n"),
            ("README.md", "This is Penstock 3.1.4.\n"),
            ("docs/internals/x.md", "as of penstock v3.1.4\n"),
            ("CMakeLists.txt", "project(penstock VERSION 3.1.4 LANGUAGES CXX)\nset(v 3.1.4)\n"),
        ):
            with self.subTest(path):
                file = self.put(path, text)
                code, out = self.check()
                self.assertEqual(code, 1)
                self.assertIn(
                    f"{path}:{text.count(chr(10))}: the version 3.1.4 stands here a second time", out
                )
                if path != "CMakeLists.txt":
                    file.unlink()

    def test_another_number_that_is_called_a_version_is_refused(self):
        for text in (
            'constexpr const char* version = "0.1.0";',
            'const std::string app_version{"v2.0.0"};',
            'inline constexpr char version[] = "0.1.0";',
            'auto penstock_version = std::string("0.1.0");',
        ):
            with self.subTest(text):
                self.put("src/app/a.cc", "\n" + text + "\n")
                code, out = self.check()
                self.assertEqual(code, 1)
                self.assertIn("src/app/a.cc:2: ", out)
                self.assertIn("is a second version", out)

    def test_a_project_without_a_version_is_refused(self):
        self.put("CMakeLists.txt", "project(penstock LANGUAGES CXX)\n")
        self.assertEqual(
            self.check(), (1, "CMakeLists.txt: no project(NAME VERSION 1.2.3 ...)\nversion: 1 faults\n")
        )


class Documents(TreeTest):
    def setUp(self):
        super().setUp()
        for path in ("src/broker/core.h", "src/broker/core.cc", "examples/lab.yaml", "docs/inner/b.md"):
            self.put(path, "x\n")
        self.put("docs/a.md", "# A page, with `code`\n## Twice\n## Twice\n```\n# none\n```\n")

    def check(self, text, page="README.md"):
        self.put(page, text)
        code, out = self.tool("check_documents")
        self.assertEqual(code, 1 if out.count("\n") > 1 else 0)
        return out.splitlines()[:-1]

    def test_what_is_there_or_no_path_of_ours_is_well(self):
        self.assertEqual(
            self.check(
                """[a](docs/a.md) [c](docs/a.md#twice-1) [d](https://example.com/docs/none.md)
[e](#here) [f](docs)
# Here
`src/broker/core.{h,cc}` `broker/core.h` `src/broker/*.cc` `docs/inner/` `penstock apply -f examples/lab.yaml`
`src/NAME/NAME.h`
`plant/line1` `cert-manager.io/v1` `build/dev/penstock` `/var/lib/penstock/none.md` `a.cc`
`text/plain; version=1` `-D/x.h`
```
cat src/none.cc
```
"""
            ),
            [],
        )
        self.assertEqual(
            self.check(
                "[up](../../README.md) [b](b.md) `b.md` `src/broker/core.h`\n"
                "[page](../a.md#a-page-with-code)\n",
                "docs/inner/c.md",
            ),
            [],
        )

    def test_what_is_not_there_is_told_with_its_line(self):
        for text, path in (
            ("[a](docs/none.md)", "docs/none.md"),
            ("`src/broker/none.cc`", "src/broker/none.cc"),
            ("`broker/none.h`", "broker/none.h"),
            ("`src/broker/core.{h,inc}`", "src/broker/core.inc"),
            ("`src/api/*.cc`", "src/api/*.cc"),
            ("`examples/none`", "examples/none"),
            ("see `penstock apply -f examples/none.yaml`", "examples/none.yaml"),
        ):
            with self.subTest(text):
                self.assertEqual(self.check("\n" + text + "\n"), [f"README.md:2: {path} is not there"])

    def test_a_heading_that_is_not_there_is_told(self):
        self.assertEqual(
            self.check("[a](docs/a.md#none) [b](#gone)\n"),
            ["README.md:1: docs/a.md has no heading #none", "README.md:1: README.md has no heading #gone"],
        )

    def test_pages_of_docs_and_of_each_folder_are_read(self):
        for page in ("docs/c.md", "docs/decisions/d.md", "src/broker/README.md", "CONTRIBUTING.md"):
            with self.subTest(page):
                self.assertEqual(self.check("`src/none.h`\n", page), [f"{page}:1: src/none.h is not there"])
                (self.tree / page).unlink()


if __name__ == "__main__":
    unittest.main()
