"""tools/measure_house: what it takes for a function, a line, a comment, an assertion, and how its list may
change."""

import json
import pathlib
import unittest

from support import TreeTest, load

house = load("measure_house")


def measured(text, name="a.cc"):
    return house.File(pathlib.Path("src") / name, text)


def functions(text):
    return [(f.name, f.line, f.lines, f.parameters) for f in measured(text).functions]


class Functions(unittest.TestCase):
    def test_free_functions_members_and_their_places(self):
        self.assertEqual(
            functions("""namespace a::b {
int one(int x) { return x; }

void Core::on_publish(Connection& c, std::map<int, std::string> m,
                      std::function<void(int, int)> f) const noexcept {
    one(1);
}
Core::~Core() {}
Core::operator bool() const { return true; }
bool operator==(const Core& a, const Core& b) { return true; }
bool operator<(A a, B b) { return a.x < b.x; }
void Core::operator()(int a) {
}
}   // namespace
"""),
            [
                ("one", 2, 1, 1),
                ("Core::on_publish", 4, 4, 3),
                ("Core::~Core", 8, 1, 0),
                ("Core::operator bool", 9, 1, 0),
                ("operator==", 10, 1, 2),
                ("operator<", 11, 1, 2),
                ("Core::operator()", 12, 2, 1),
            ],
        )

    def test_classes_in_classes_and_declarations_without_a_body(self):
        self.assertEqual(
            functions("""class Outer final : public Base<int>, private X {
public:
    Outer();
    virtual void pure(int) = 0;
    void here() override { a(); }
    enum class Kind : int { one, two };
    struct Inner {
        int x{0}, y = 1;
        std::vector<int> list = {1, 2};
        static constexpr int table[] = {1, 2, 3};
        Inner() = default;
        int get(int = 3) const { return x; }
    };
private:
    union { int a; float b; } u_{};
    int z_ : 3;
};
struct alignas(64) Ring { void push() {} };
class Outer::Work : public Base { void run() {} };
EXPORTED struct Seen { enum Kind kind() { return {}; } };
struct stat state_of(enum Kind kind) { return {}; }
"""),
            [
                ("Outer::here", 5, 1, 0),
                ("Outer::Inner::get", 12, 1, 1),
                ("Ring::push", 18, 1, 0),
                ("Outer::Work::run", 19, 1, 0),
                ("Seen::kind", 20, 1, 0),
                ("state_of", 21, 1, 1),
            ],
        )

    def test_constructors_with_initialisers_of_both_forms(self):
        self.assertEqual(
            functions("""Worker::Worker(Options o, int n)
    : Base<Options>{o}, count_(n), names_{"a{", "}"}, inner_{[&] { return 1; }},
      last_{n} {
    go();
}
struct S {
    explicit S(int a) : a_{a} {}
    S(S&& other) noexcept(true) : a_(other.a_) { other.a_ = 0; }
    int a_;
};
"""),
            [("Worker::Worker", 1, 5, 2), ("S::S", 7, 1, 1), ("S::S", 8, 1, 1)],
        )

    def test_templates_and_constraints(self):
        self.assertEqual(
            functions("""template <class T, std::size_t N = (4 > 3 ? 1 : 2)>
    requires std::integral<T>
auto sum(const std::array<T, N>& values, std::pair<int, std::map<int, int>> more = {}) -> std::pair<T, T> {
    return {};
}
template <class F> requires requires(F f) { f(); }
void call(F&& f) { f(); }
template <> int value<3>(int a, int b) { return 3; }
template <class T> concept Small = requires(T t) { t.x; };
template <class T> struct Box<T*> { T* get() { return p; } };
"""),
            [("sum", 3, 3, 2), ("call", 7, 1, 1), ("value", 8, 1, 2), ("Box::get", 10, 1, 0)],
        )

    def test_lambdas_and_local_classes_are_part_of_their_function(self):
        self.assertEqual(
            functions("""void run() {
    auto f = [&](int a, int b, int c, int d, int e, int g, int h) { if (a) { b(); } };
    struct Local { void x() {} };
    each([] {
        y();
    });
}
const auto named = [](int a, auto b) {
    return a;
};
constexpr auto table = make({{1, [] { return 2; }}});
"""),
            [("run", 1, 7, 0), ("named", 8, 3, 2)],
        )

    def test_braces_in_texts_comments_and_directives_are_none(self):
        self.assertEqual(
            functions("""const char* a = "}{\\"{"; // {
/* } { ' " */
const char b = '{', c = '\\'', d = '"';
const auto raw = R"x({ )" } "{)x";
const int big = 1'000'000;
#define BODY {{{ \\
    {
#if 0
void never() {
#else
void always(char x = '}') {
#endif
    // }
    f("a" /* } */, u8"}", LR"(})", 0xFF'FFu);
}
#ifdef A
void first() {
#elif defined(B)
void second() {
#else
void third() {
#endif
}
extern "C" {
int c_function(void) { return 1; }
}
extern "C" int other(const char* s) { return 1; }
"""),
            [("always", 11, 5, 1), ("first", 17, 7, 0), ("c_function", 25, 1, 0), ("other", 27, 1, 1)],
        )

    def test_parameters_are_counted_by_commas_of_their_own(self):
        self.assertEqual(
            functions("""void none() {}
void seven(int, std::map<int, std::vector<int>> b, void (*c)(int, int), int d[3], A e = {1, 2}, B f = g(1, 2),
           bool h = false) {}
int compared(bool a = 1 < 2, int b = 3) { return 1; }
"""),
            [("none", 1, 1, 0), ("seven", 2, 2, 7), ("compared", 4, 1, 2)],
        )


class Measures(unittest.TestCase):
    def test_comments_alone_and_behind_code(self):
        file = measured("""// one
int a;   // behind
/* two

   three */
int b; /* begins
ends */ int c;
const char* d = "// none";

""")
        self.assertEqual((file.comment_only, file.with_comment, file.written, len(file.widths)), (3, 6, 7, 9))

    def test_assertions_that_run_and_those_that_do_not(self):
        file = measured("""#define PENSTOCK_ASSERT(x) check(x)
void f() {
    PENSTOCK_ASSERT(a);   // PENSTOCK_ASSERT(b)
    PENSTOCK_DEBUG_ASSERT(a, "assert(x)");
    assert(a);
    static_assert(sizeof(int) == 4);
    insert(a);
}
""")
        self.assertEqual((file.assertions, file.static_assertions), (3, 1))

    def test_ranks_and_shares(self):
        self.assertEqual([house.rank(range(1, 11), s) for s in (0.5, 0.9, 0.99)], [5, 9, 10])
        self.assertEqual(house.rank([], 0.5), 0)
        long_function = "void longest(int a) {\n" + "    x();\n" * 99 + "}\n"
        m = house.measures(
            [
                measured(long_function + "int b() { return 1; }\n" * 3),
                measured("/// A header.\n" + "int x;".ljust(161) + "\n", "a.h"),
            ]
        )
        self.assertEqual(
            m["functions_over"], {"70": {"count": 1, "percent": 25.0}, "100": {"count": 1, "percent": 25.0}}
        )
        self.assertEqual(
            m["over_70"], [{"name": "longest", "file": "src/a.cc", "line": 1, "lines": 101, "parameters": 1}]
        )
        self.assertEqual(
            (m["line_width"]["over_110"], m["line_width"]["over_160"], m["line_width"]["longest"]),
            (1, 1, 161),
        )
        self.assertEqual((m["h"]["comment_only_percent"], m["cc"]["comment_only_percent"]), (50.0, 0.0))
        self.assertIn("101  longest  src/a.cc:1", house.table(m))


class Ratchet(TreeTest):
    def body(self, lines, name="f"):
        return f"void {name}() {{\n" + "    x();\n" * (lines - 2) + "}\n"

    def limits(self):
        return [
            line
            for line in (self.tree / "tools/house_limits").read_text().splitlines()
            if not line.startswith("#")
        ]

    def test_what_is_listed_may_shrink_and_nothing_may_come(self):
        self.put("src/a/a.cc", self.body(80) + "int w;".ljust(111) + "\n")
        self.put(
            "src/a/b.h", "void p(int a, int b, int c, int d, int e, int f, int g) {}\n" + "int x;\n" * 800
        )
        self.assertEqual(self.tool("measure_house", "--write")[0], 0)
        listed = [
            "function src/a/a.cc f 80",
            "file src/a/b.h 801",
            "parameters src/a/b.h p 7",
            "lines src/a/a.cc 1",
        ]
        self.assertEqual(self.limits(), listed)
        self.assertEqual(self.tool("measure_house", "--check"), (0, "house: ok\n"))

        self.put("src/a/a.cc", self.body(81))
        code, out = self.tool("measure_house", "--check")
        self.assertEqual(code, 1)
        self.assertIn("src/a/a.cc: f has 81 lines; tools/house_limits lets it have 80", out)
        self.assertEqual(self.tool("measure_house", "--write")[0], 1)
        self.assertEqual(self.limits(), listed)

        self.put("src/a/a.cc", self.body(79) + self.body(71, "g"))
        code, out = self.tool("measure_house", "--check")
        self.assertIn("src/a/a.cc: g has 71 lines; at most 70", out)
        self.assertEqual((code, self.tool("measure_house", "--write")[0]), (1, 1))

        self.put("src/a/a.cc", self.body(79))
        code, out = self.tool("measure_house", "--check")
        self.assertEqual(code, 1)
        self.assertIn("src/a/a.cc: f has 79 lines; tools/house_limits still lets it have 80", out)
        self.assertEqual(self.tool("measure_house", "--write")[0], 0)
        self.assertEqual(
            self.limits(), ["function src/a/a.cc f 79", "file src/a/b.h 801", "parameters src/a/b.h p 7"]
        )
        self.assertEqual(self.tool("measure_house", "--check")[0], 0)

    def test_functions_of_one_name_share_an_entry_by_size(self):
        self.put("src/a.cc", self.body(75) + self.body(90))
        self.tool("measure_house", "--write")
        self.assertEqual(self.limits(), ["function src/a.cc f 90", "function src/a.cc f 75"])
        self.put("src/a.cc", self.body(90) + self.body(76))
        self.assertEqual(self.tool("measure_house", "--check")[0], 1)

    def test_what_moves_is_listed_anew_when_nothing_grew(self):
        self.put("src/a.cc", self.body(90))
        self.tool("measure_house", "--write")
        (self.tree / "src/a.cc").unlink()
        self.put("src/b.cc", self.body(90, "named_anew"))
        self.assertEqual(self.tool("measure_house", "--check")[0], 1)
        self.assertEqual(self.tool("measure_house", "--write")[0], 0)
        self.assertEqual(self.limits(), ["function src/b.cc named_anew 90"])

    def test_what_one_function_lost_another_may_not_have(self):
        self.put("src/a.cc", self.body(90) + self.body(80, "g"))
        self.tool("measure_house", "--write")
        self.put("src/a.cc", self.body(75) + self.body(85, "g"))
        code, out = self.tool("measure_house", "--write")
        self.assertEqual(code, 1)
        self.assertIn("g has 85 lines; tools/house_limits lets it have 80", out)

    def test_a_list_that_cannot_be_read_is_told_with_its_line(self):
        self.put("src/a.cc", "int x;\n")
        self.put("tools/house_limits", "# why\nfunction src/a.cc f many\n")
        code, out = self.tool("measure_house", "--check")
        self.assertEqual(code, 1)
        self.assertIn('tools/house_limits:2: not "KIND FILE [NAME] SIZE"', out)

    def test_json_has_the_table(self):
        self.put("src/a.cc", self.body(71))
        code, out = self.tool("measure_house", "--json")
        self.assertEqual((code, json.loads(out)["function_lines"]["longest"]), (0, 71))


if __name__ == "__main__":
    unittest.main()
