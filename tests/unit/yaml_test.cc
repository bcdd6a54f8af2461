#include <gtest/gtest.h>

#include <fmt/format.h>

#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "resources/json.h"

namespace penstock::resources {
namespace {

Json read(std::string_view text) {
    const auto documents = parse_documents(text, "f.yaml");
    if (!documents) return documents.error().message;
    Json out = Json::array();
    for (const auto& document : *documents) out.push_back(document.object);
    return out.size() == 1 ? out[0] : out;
}
Json value_of(std::string_view word) { return read(fmt::format("a: {}\n", word))["a"]; }
bool refuses(std::string_view text, std::string_view why) { return !parse_documents(text, "f.yaml") && read(text).get<std::string>().find(why) != std::string::npos; }

// What kubectl 1.20 to 1.35 make of unquoted words, taken from them.
TEST(Yaml, words_mean_what_kubectl_takes_them_for) {
    const std::vector<std::pair<const char*, Json>> table = {
        {"y", true}, {"Yes", true}, {"YES", true}, {"on", true}, {"TRUE", true}, {"n", false}, {"No", false}, {"OFF", false}, {"False", false},
        {"yEs", "yEs"}, {"tRUE", "tRUE"}, {"~", nullptr}, {"", nullptr}, {"NULL", nullptr}, {"nULL", "nULL"},
        {"017", 15}, {"0o17", 15}, {"-0o17", -15}, {"08", 8}, {"0x1F", 31}, {"-0x10", -16}, {"0b101", 5}, {"0b-1", -1}, {"1_000", 1000}, {"+12", 12}, {"0_8", 8}, {"_1", "_1"},
        {"0x", "0x"}, {"0xg", "0xg"}, {"0b2", "0b2"}, {"+", "+"}, {".", "."}, {"1f", "1f"}, {"0x1p4", "0x1p4"},
        {"1e3", 1000}, {"1883.0", 1883}, {"1.5", 1.5}, {".5", 0.5}, {"5.", 5}, {"-.5e1", -5}, {"1e-1", 0.1}, {"1e999", "1e999"}, {"-0.0", 0}, {"1e21", 1e21}, {"9.223372036854775e18", 9223372036854775000}, {".5_0", 0.5}, {"._5", "._5"},
        {"9223372036854775807", std::numeric_limits<std::int64_t>::max()}, {"18446744073709551615", std::numeric_limits<std::uint64_t>::max()},
        {"-9223372036854775808", std::numeric_limits<std::int64_t>::min()}, {"18446744073709551616", 18446744073709551616.0},
        {"2001-01-01", "2001-01-01"}, {"2001-12-14T21:59:43Z", "2001-12-14T21:59:43Z"}, {"1:30", "1:30"}, {"10.0.0.1", "10.0.0.1"}, {"=", "="}, {"<<", "<<"},
        {"'1'", "1"}, {"\"yes\"", "yes"}, {"!!str 12", "12"}, {"!!int \"12\"", 12}, {"!!float 1", 1}, {"!!bool \"yes\"", true}, {"!!null ''", nullptr}, {"!!binary aGk=", "hi"}, {"!own 12", "12"}, {"! 12", "12"}, {"&x ! yes", "yes"}, {"! &x '1'", "1"}, {"&x yes", true}};
    for (const auto& [word, wanted] : table) EXPECT_EQ(value_of(word), wanted) << word;
    EXPECT_TRUE(value_of("1883.0").is_number_integer());
    for (const char* word : {".inf", "-.Inf", "+.INF", ".nan", ".NaN"}) EXPECT_TRUE(refuses(fmt::format("b: 1\na: {}\n", word), "f.yaml: line 2: ")) << word;
    for (const char* word : {"!!int x", "!!bool 1", "!!null x", "!!float yes", "!!timestamp x", "!!binary '*'"}) EXPECT_TRUE(refuses(fmt::format("b: 1\na: {}\n", word), "f.yaml: line 2: ")) << word;
}

TEST(Yaml, keys_become_texts_as_kubectl_makes_them) {
    const std::vector<std::pair<const char*, const char*>> table = {{"1", "1"}, {"0x10", "16"}, {"yes", "true"}, {"off", "false"}, {"1.5", "1.5"}, {"1e3", "1000"}, {"1e6", "1e+06"}, {"1e-7", "1e-07"},
                                                                    {"0.1", "0.1"}, {".inf", ".inf"}, {"2001-01-01", "2001-01-01"}, {"'1'", "1"}, {"=", "="}, {"\"<<\"", "<<"}};
    for (const auto& [key, wanted] : table) EXPECT_EQ(read(fmt::format("{}: v\n", key)), (Json{{wanted, "v"}})) << key;
    for (const char* key : {"null", "~", "!!null ''", "[a]", "{a: b}"}) EXPECT_TRUE(refuses(fmt::format("a: 1\n{}: 2\n", key), "f.yaml: line 2: ")) << key << " " << read(fmt::format("a: 1\n{}: 2\n", key));
    EXPECT_TRUE(refuses("yes: 1\nb: 2\ntrue: 3\n", "f.yaml: line 3: the key \"true\" is given twice"));
    EXPECT_TRUE(refuses("{\"a\": 1,\n\"a\": 2}\n", "f.yaml: line 2: the key \"a\" is given twice"));
}

TEST(Yaml, merge_keys) {
    EXPECT_EQ(read("x: &x {a: 1, b: 1}\nm:\n  <<: *x\n  b: 2\n")["m"], (Json{{"a", 1}, {"b", 2}}));
    EXPECT_EQ(read("x: &x {a: 1, b: 1}\nz: &z {b: 3, c: 3}\nm:\n  <<: [*x, *z, {d: 4}]\n")["m"], (Json{{"a", 1}, {"b", 1}, {"c", 3}, {"d", 4}}));
    // As kubectl has it, and against the letter of YAML 1.1: what is merged behind a key replaces it.
    EXPECT_EQ(read("m:\n  a: one\n  <<: {a: two, b: two}\n")["m"], (Json{{"a", "two"}, {"b", "two"}}));
    EXPECT_EQ(read("m:\n  \"<<\": {a: 1}\n")["m"], (Json{{"<<", {{"a", 1}}}}));
    EXPECT_EQ(read("a: &a {x: 1}\nb: &b {<<: *a, z: 2}\nc: {<<: *b}\n")["c"], (Json{{"x", 1}, {"z", 2}}));
    for (const char* text : {"a: 1\n<<: 1\n", "a: &a [1]\n<<: *a\n", "a: 1\n<<: [1]\n", "a: 1\n<<: *b\n"}) EXPECT_TRUE(refuses(text, "f.yaml: line 2: ")) << text;
    EXPECT_TRUE(refuses("<<: {a: 1}\na: 2\na: 3\n", "f.yaml: line 3: the key \"a\" is given twice"));
}

TEST(Yaml, anchors) {
    EXPECT_EQ(read("a: &x 1\nb: &x two\nc: *x\n*x : d\n"), (Json{{"a", 1}, {"b", "two"}, {"c", "two"}, {"two", "d"}}));
    EXPECT_TRUE(refuses("a: &x 1\n---\nb: *x\n", "f.yaml: line 3: *x")) << "an anchor ends with its document";
    EXPECT_TRUE(refuses("b: &x 1\na: &x\n  - b: *x\n", "contains itself"));
}

TEST(Yaml, documents_marks_and_encodings) {
    const Json two = {{{"a", 1}}, {{"b", 2}}};
    for (const std::string text : {"a: 1\n---\nb: 2\n", "%YAML 1.1\n---\na: 1\n...\n%YAML 1.2\n--- # comment\nb: 2", "# c\n---\na: 1\n...\n...\n---\n---\n...\nb: 2\n", "a: 1\r\n---\r\nb: 2\r\n", "a: 1\r---\rb: 2\r",
                                   "--- {a: 1}\n--- {b: 2}\n", "{\"a\":1}{\"b\":2}", "{\"a\":1}\n---\nb: 2\n", "---\n{\"a\": 1}\n...\n# c\n\n{b: 2}\n", "\xEF\xBB\xBF{\"a\":1}\n\xEF\xBB\xBF---\nb: 2\n",
                                   "{\"a\":\t1}\n--- # c\n{\n\t\"b\": 2\n}\n", "kind: List\nitems: [{a: 1}, {b: 2}]\n", "--- !!map\na: 1\n--- !!map {b: 2}\n"})
        EXPECT_EQ(read(text), two) << text;
    for (const bool little : {true, false}) {
        std::string text;
        for (const unsigned unit : {0xFEFFu, unsigned{'a'}, unsigned{':'}, unsigned{' '}, 0xD83Du, 0xDE00u, 0xE4u, unsigned{'\n'}})
            for (const unsigned byte : {little ? unit & 0xFF : unit >> 8, little ? unit >> 8 : unit & 0xFF}) text += static_cast<char>(byte);
        EXPECT_EQ(read(text), (Json{{"a", "\xF0\x9F\x98\x80\xC3\xA4"}}));
        EXPECT_TRUE(refuses(text + "x", "half a character"));
    }
    EXPECT_TRUE(refuses(std::string("\xFF\xFE\0\0a\0\0\0", 8), "UTF-32"));
    EXPECT_EQ(parse_documents("# c\n\n---\n\na: 1\n---\r\n# c\r\nb: 2\n", "f")->at(1).line, 8);
    EXPECT_EQ(parse_documents("{\"a\": [\n]}\n\n{\"b\": 1}\n", "f")->at(1).line, 4);
    const auto list = read("apiVersion: v1\nkind: ConfigMapList\nitems: [{metadata: {name: a}}]\n");
    EXPECT_EQ(list, (Json{{"apiVersion", "v1"}, {"kind", "ConfigMap"}, {"metadata", {{"name", "a"}}}}));
}

TEST(Yaml, a_list_without_items_is_empty_or_says_what_it_needs) {
    for (const char* kind : {"List", "ConfigMapList"})
        for (const char* items : {"items: []", "items: null", "items:", "items: ~"}) {
            const auto documents = parse_documents(fmt::format("apiVersion: v1\nkind: {}\n{}\n", kind, items), "f.yaml");
            ASSERT_TRUE(documents) << documents.error().message;
            EXPECT_TRUE(documents->empty()) << kind << " " << items;
        }
    EXPECT_TRUE(parse_documents(R"({"apiVersion": "v1", "kind": "List", "items": null})", "f.json").value().empty());
    const auto nested = parse_documents("kind: List\nitems: [{kind: List, items: null}, {kind: List, items: [{a: 1}]}]\n", "f.yaml");
    ASSERT_TRUE(nested);
    EXPECT_EQ(nested->size(), 1u);
    for (const char* wrong : {"kind: List\n", "kind: List\nitems: {a: 1}\n", "kind: List\nitems: a\n"})
        EXPECT_TRUE(refuses(wrong, "f.yaml: document 1 (line 1): a List needs items, a list of resource objects (items: [] where there are none)")) << wrong;
    EXPECT_EQ(parse_documents("apiVersion: plant/v1\nkind: ShoppingList\nspec: {}\n", "f.yaml")->size(), 1u) << "a kind of a definition";
}

TEST(Yaml, json_is_read_as_json) {
    EXPECT_EQ(read(R"({"a": "\ud83d\ude00 \ud800 \udc00x \\ud800", "b": 1883.0, "c": 9007199254740993, "d": "yes", "e": 1e3, "f/": "\/"})"),
              (Json{{"a", "\xF0\x9F\x98\x80 \xEF\xBF\xBD \xEF\xBF\xBDx \\ud800"}, {"b", 1883}, {"c", 9007199254740993}, {"d", "yes"}, {"e", 1000}, {"f/", "/"}}));
    EXPECT_EQ(parse_json(R"(["\ud83d\ude00", "\ud83d", 2.0])").value(), (Json{"\xF0\x9F\x98\x80", "\xEF\xBF\xBD", 2}));
    EXPECT_TRUE(parse_json("[2.0]").value()[0].is_number_integer());
    EXPECT_TRUE(refuses("{\"a\": 1,\n \"b\": 1e999}", "f.yaml: line 2: "));
    EXPECT_EQ(read("{\"a\": 1, b: [c,], }"), (Json{{"a", 1}, {"b", {"c"}}})) << "what is no JSON is YAML";
    std::string deep = "{\"a\":";
    for (int i = 0; i < 120; ++i) deep += "\n[";
    EXPECT_TRUE(refuses(deep + std::string(120, ']') + "}", "f.yaml: line 102: nested deeper than 100 levels")) << read(deep + std::string(120, ']') + "}");
}

TEST(Yaml, faults_have_their_line) {
    for (const auto* const breaks : {"\n", "\r\n", "\r"})
        for (const auto* const text : {"a: 1|b: 2|c: [1, }|", "a: 1|b: 2|\tc: 3|", "a: 1|b: 2|c: d: e|", "a: 1|b: '|c: 3", "a: 1|b: 2|c: \x01|", "a: 1|b: 2|a: 3|", "a: 1|---|c: \"\\q\"|", "{\"a\": 1,|\"b\": 2,|\"b\": 3}"}) {
            std::string lines;
            for (const char c : std::string(text)) lines += c == '|' ? breaks : std::string(1, c);
            EXPECT_TRUE(refuses(lines, "f.yaml: line 3")) << text << ": " << read(lines);
        }
    // A line that only YAML ends is none for an editor.
    EXPECT_TRUE(refuses("a: \"x\xE2\x80\xA8y\"\nb: .nan\n", "f.yaml: line 2: "));
    EXPECT_TRUE(refuses(std::string("a: 1\nb: \0\n", 10), "f.yaml: line 2: "));
    std::string directives;
    for (int i = 0; i < 200; ++i) directives += fmt::format("%TAG !a{}! b\n", i);
    EXPECT_TRUE(refuses(directives + "---\na: 1\n", "%TAG"));
}

const std::vector<std::string>& difficult_texts() {
    static const std::vector<std::string> texts = {
        "", " ", "\n", "\n\n", "a\n", "a\n\n", "a\n\n\n", "\na", "\n a", " a", "a ", " a\nb", "a\n b", "a \nb", "a\n\nb", "a\n \nb", "a\n\t\nb", "\ta", "a\t", "a\tb", "\ta\nb", "a\n\tb", "a\r\nb", "a\rb", "\r", "\t",
        "\x01", "\x1b[31m", "\x7f", "\xC2\x80", "\xC2\x85", "a\xC2\x85""b\nc", "\xC2\xA0", "\xE2\x80\xA8", "a\xE2\x80\xA9""b\n", "\xEF\xBB\xBF", "\xEF\xBB\xBFx\ny", "\xEF\xBF\xBD", "\xEF\xBF\xBE", "\xF0\x9F\x98\x80", "a\n\xF0\x9F\x98\x80\n",
        "\xC3\xA4\xE6\xBC\xA2", "\xE2\x80\xAE", std::string("a\0b", 3), "true", "True", "yes", "No", "on", "OFF", "y", "N", "null", "NULL", "~", "~a", "<<", "=", "!", "!!str", "&a", "*a", "%a", "@a", "`a", "|", ">", "|-\na", "-", "- a", "-a", "--", "---", "--- a", "...",
        "...x", "?", "? a", "?a", ":", ": a", "a:", "a: b", "a:b", "a #b", "#a", "a#b", "a\n#b", ",", "[", "]", "{", "}", "{}", "[]", "[a", "a, b", "'", "\"", "'a'", "\"a\"", "it's", "a\\b", "\\", "\\n",
        "1", "-1", "+1", "012", "0o17", "0x1F", "0b11", "1_000", "1.5", ".5", "5.", "1e3", "1e+3", ".", "-.", ".inf", "-.INF", ".nan", "1:30", "1:30:15.5", "2001-01-01", "2001-1-1", "2001-12-14T21:59:43Z", "2001-12-14 21:59:43.10 -5", "9223372036854775808", "1e999", "0x", "08",
        "10.0.0.1", "1.2.3", "1883/tcp", "500m", "10Gi", "v1", "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n", "#!/bin/sh\nexit 0\n", "key: value\nlist:\n- a\n", "%YAML 1.1", "a\n---\nb", "a\n...\nb\n"};
    return texts;
}

void round_trip(const Json& object) {
    const auto text = to_yaml(object);
    const auto again = parse_documents(text, "f");
    ASSERT_TRUE(again) << again.error().message << "\n" << text;
    ASSERT_EQ(again->size(), 1u) << text;
    EXPECT_EQ(again->front().object, object) << text;
}

TEST(Yaml, every_text_reads_back_wherever_it_stands) {
    Json all = Json::object();
    for (auto text : difficult_texts()) {
        round_trip({{"a", text}, {"b", 1}});
        round_trip({{"a", Json::array({text, Json::array({text, 1}), {{"b", text}, {"c", Json::array({text})}}})}, {"z", 1}});
        round_trip({{text, text}, {"~~", {{text, Json::array({1, {{text, 2}}})}}}});
        all[text] = text;
        for (const auto& other : difficult_texts()) all[text + other] = other + text;
    }
    round_trip(all);
    for (const std::size_t size : {std::size_t{127}, std::size_t{129}, std::size_t{1025}, std::size_t{100'000}}) {
        const std::string key(size, 'k');
        round_trip({{key, key}, {key + "\n", Json::array({1, 2})}, {key + "a", {{key, Json::array()}}}, {key + "b", "a\nb\n"}, {"z", std::string(size, ' ') + key + " " + key}});
    }
}

TEST(Yaml, every_number_reads_back_as_its_kind) {
    for (const Json& number : {Json(0), Json(-1), Json(std::numeric_limits<std::int64_t>::min()), Json(std::numeric_limits<std::uint64_t>::max()), Json(1.5), Json(-0.1), Json(1e21), Json(1e300), Json(1e-7), Json(1.5e-9), Json(5e-324),
                               Json(1.7976931348623157e308), Json(18446744073709551616.0)}) {
        round_trip({{"a", number}});
        EXPECT_EQ(value_of(to_yaml(number)).is_number_float(), number.is_number_float()) << number;
    }
    EXPECT_EQ(to_yaml(Json(1e21)), "1.0e+21\n") << "without a point it is a text to YAML 1.1";
}

TEST(Yaml, generated_values_read_back) {
    std::uint64_t state = 20'261'128;
    const auto pick = [&](std::size_t count) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        return static_cast<std::size_t>(state >> 33) % count;
    };
    const std::vector<std::string> atoms = {"a", "b", "1", "0", "e", "x", " ", "  ", "\n", "\n\n", "\t", "\r", ":", "#", "-", "--", "?", "!", "&", "*", "|", ">", "'", "\"", "\\", "%", "@", "`", "{", "}", "[", "]", ",", ".", "_", "+", "=", "<<", "~", "y", "no", "null", "\xC3\xA4",
                                            "\xC2\x85", "\xC2\xA0", "\xE2\x80\xA8", "\xEF\xBB\xBF", "\xF0\x9F\x98\x80", "\x01", "\x7f", "---", "..."};
    const auto text = [&] {
        std::string out;
        for (auto left = pick(8); left > 0; --left) out += atoms[pick(atoms.size())];
        return out;
    };
    const std::function<Json(int)> make = [&](int depth) -> Json {
        switch (pick(depth > 3 ? 6 : 9)) {
            case 0: return nullptr;
            case 1: return pick(2) == 0;
            case 2: return static_cast<std::int64_t>(pick(1'000'000)) - 500'000;
            case 3: return (static_cast<double>(pick(2'000'000)) + 0.5) / 1024 * std::pow(10.0, static_cast<double>(pick(40)) - 20);
            case 6: case 7: {
                Json out = Json::object();
                for (auto left = pick(4); left > 0; --left) out[text()] = make(depth + 1);
                return out;
            }
            case 8: {
                Json out = Json::array();
                for (auto left = pick(4); left > 0; --left) out.push_back(make(depth + 1));
                return out;
            }
            default: return text();
        }
    };
    for (int i = 0; i < 4000 && !HasFailure(); ++i) {
        Json object = Json::object();
        for (int k = 0; k < 4; ++k) object[text()] = make(0);
        round_trip(object);
    }
}

TEST(Yaml, what_is_written_looks_as_kubectl_writes_it) {
    const Json object = {{"address", "10.0.0.1"}, {"args", {"--flag=1", "-v"}}, {"empty", {{"list", Json::array()}, {"map", Json::object()}, {"text", ""}}}, {"image", "a/b:1.2"}, {"ports", {{{"name", "mqtt"}, {"port", 1883}}}},
                         {"quoted", {"yes", "12", "a: b", "<<", "2001-01-01"}}, {"text", "one\ntwo\n"}, {"tail", "one\n\n"}, {"none", nullptr}, {"face", "\xF0\x9F\x98\x80"}};
    EXPECT_EQ(to_yaml(object), "address: 10.0.0.1\nargs:\n- --flag=1\n- -v\nempty:\n  list: []\n  map: {}\n  text: \"\"\nface: \"\\U0001F600\"\nimage: a/b:1.2\nnone: null\nports:\n- name: mqtt\n  port: 1883\nquoted:\n- \"yes\"\n- \"12\"\n- \"a: b\"\n- \"<<\"\n"
                               "- \"2001-01-01\"\ntail: |+\n  one\n\ntext: |\n  one\n  two\n");
    EXPECT_EQ(to_yaml(Json::object()), "{}\n");
    EXPECT_EQ(to_yaml(Json("a\nb")), "\"a\\nb\"\n");
    EXPECT_EQ(to_yaml(Json{{"a", "x\xff"}, {"\xff", 1}}), "a: \"x\\ufffd\"\n\"\\ufffd\": 1\n") << "bytes that are no text are not thrown over";
}

}  // namespace
}  // namespace penstock::resources
