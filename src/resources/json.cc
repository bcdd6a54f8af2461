#include "resources/json.h"

#include <set>

#include <yaml-cpp/depthguard.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <climits>
#include <sstream>

#include <fmt/format.h>

#include "base/text.h"
#include "base/utf8.h"
#include "resources/text_rules.h"

namespace penstock::resources {
namespace {

constexpr int depth_max = sent_depth_max;
constexpr int documents_max = 10'000;
constexpr std::size_t texts_bytes_max = 64 * 1024 * 1024;   // keys and texts of one file, aliases counted as for values
constexpr std::size_t duplicates_max = 100;
constexpr int events_max = 1'000'000;
constexpr int values_max = 500'000;   // of one file; aliases count each time they are used, or ten lines could fill the memory

/// Counts what the parser says and ends it at a bound: on some broken texts yaml-cpp 0.7 makes documents without end.
class EventBound final : public YAML::EventHandler {
  public:
    void OnDocumentStart(const YAML::Mark& mark) override {
        if (--documents_left_ < 0) throw YAML::ParserException(mark, fmt::format("more than {} documents", documents_max));
        count(mark);
    }
    void OnDocumentEnd() override {}
    void OnNull(const YAML::Mark& mark, YAML::anchor_t) override { count(mark); }
    void OnAlias(const YAML::Mark& mark, YAML::anchor_t) override { count(mark); }
    void OnScalar(const YAML::Mark& mark, const std::string&, YAML::anchor_t, const std::string&) override { count(mark); }
    void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override { count(mark); }
    void OnSequenceEnd() override {}
    void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t, YAML::EmitterStyle::value) override { count(mark); }
    void OnMapEnd() override {}

  private:
    void count(const YAML::Mark& mark) {
        if (--left_ < 0) throw YAML::ParserException(mark, "too many values, or a text that has no end");
    }
    int left_ = events_max, documents_left_ = documents_max;
};

/// YAML 1.2 core schema plus the booleans of 1.1 that kubectl's parser (YAML 1.1 with JSON booleans) takes.
Json scalar(const YAML::Node& node) {
    const auto& text = node.Scalar();
    if (node.Tag() == "!" || node.Tag() == "tag:yaml.org,2002:str") return text;
    if (text.empty() || text == "~" || text == "null" || text == "Null" || text == "NULL") return nullptr;
    if (text == "true" || text == "True" || text == "TRUE") return true;
    if (text == "false" || text == "False" || text == "FALSE") return false;
    if (const auto number = parse_number<std::int64_t>(text[0] == '+' ? std::string_view(text).substr(1) : std::string_view(text))) return *number;
    if (text.starts_with("0x") && text.size() > 2) {
        std::int64_t value = 0;
        const auto [end, error] = std::from_chars(text.data() + 2, text.data() + text.size(), value, 16);
        if (error == std::errc{} && end == text.data() + text.size()) return value;
    }
    const bool numeric = text.find_first_not_of("0123456789+-.eE") == std::string::npos && text.find_first_of("0123456789") != std::string::npos;
    if (numeric)
        if (const auto number = parse_number<double>(text)) return *number;
    return text;
}

/// What one file may still hold.
struct Budget {
    int values = values_max;
    std::size_t bytes = texts_bytes_max;
    bool take(const std::string& text) {
        if (text.size() > bytes) return false;
        bytes -= text.size();
        return true;
    }
};

Result<Json> convert(const YAML::Node& node, int depth, Budget& budget) {
    auto too_much = [&] { return fail(fmt::format("line {}: more than {} bytes of text, aliases included", node.Mark().line + 1, texts_bytes_max)); };
    if (--budget.values < 0) return fail(fmt::format("line {}: more than {} values, aliases included", node.Mark().line + 1, values_max));
    if (depth > depth_max) return fail(fmt::format("line {}: nested deeper than {} levels", node.Mark().line + 1, depth_max));
    switch (node.Type()) {
        case YAML::NodeType::Scalar:
            if (!budget.take(node.Scalar())) return too_much();
            // Bytes, and escapes such as "\ud800", that are no text in any encoding a resource may have.
            if (utf8_fault(node.Scalar()) != std::string::npos) return fail(fmt::format("line {}: a text is not well-formed UTF-8", node.Mark().line + 1));
            return scalar(node);
        case YAML::NodeType::Sequence: {
            Json out = Json::array();
            for (const auto& item : node) {
                auto value = convert(item, depth + 1, budget);
                if (!value) return value;
                out.push_back(std::move(*value));
            }
            return out;
        }
        case YAML::NodeType::Map: {
            Json out = Json::object();
            for (const auto& entry : node) {
                if (!entry.first.IsScalar()) return fail(fmt::format("line {}: a key must be plain text", entry.first.Mark().line + 1));
                const auto key = entry.first.Scalar();
                if (!budget.take(key)) return too_much();
                if (utf8_fault(key) != std::string::npos) return fail(fmt::format("line {}: a key is not well-formed UTF-8", entry.first.Mark().line + 1));
                if (out.contains(key)) return fail(fmt::format("line {}: the key \"{}\" is given twice", entry.first.Mark().line + 1, shortened(key)));
                auto value = convert(entry.second, depth + 1, budget);
                if (!value) return value;
                out[key] = std::move(*value);
            }
            return out;
        }
        default: return Json(nullptr);
    }
}

bool needs_quotes(const std::string& text) {
    if (text.empty() || text.front() == ' ' || text.back() == ' ') return true;
    if (std::string_view("-?:,[]{}#&*!|>'\"%@`~").find(text.front()) != std::string_view::npos &&
        !(text.front() == '-' && text.size() > 1 && text[1] != ' ' && text.find_first_not_of("0123456789.-") != std::string::npos))
        return true;
    if (text.find(": ") != std::string::npos || text.find(" #") != std::string::npos || text.back() == ':') return true;
    for (const char c : text)
        if (static_cast<unsigned char>(c) < 0x20) return true;
    YAML::Node probe(text);
    const auto value = scalar(probe);
    if (!value.is_string()) return true;
    const auto lower = to_lower(text);
    if (lower == "yes" || lower == "no" || lower == "on" || lower == "off" || lower == "y" || lower == "n") return true;
    // Times and the like: quoted so that no reader takes them for another type.
    return text.find_first_not_of("0123456789-:.TZ+ ") == std::string::npos;
}

void emit_scalar(const Json& value, std::string& out) {
    if (!value.is_string()) {
        out += value.dump();
        return;
    }
    const auto& text = value.get_ref<const std::string&>();
    out += needs_quotes(text) ? Json(text).dump(-1, ' ', false, Json::error_handler_t::replace) : text;
}

void emit(const Json& value, int indent, std::string& out) {
    const std::string pad(static_cast<std::size_t>(indent), ' ');
    if (value.is_object()) {
        bool first = true;
        for (const auto& [key, item] : value.items()) {
            if (!first) out += pad;
            first = false;
            out += needs_quotes(key) ? Json(key).dump() : key;
            out += ':';
            if ((item.is_object() || item.is_array()) && !item.empty()) {
                const bool list = item.is_array();
                out += '\n';
                out += list ? pad : pad + "  ";
                emit(item, list ? indent : indent + 2, out);
            } else if (item.is_string() && item.get_ref<const std::string&>().find('\n') != std::string::npos &&
                       item.get_ref<const std::string&>().find('\r') == std::string::npos && item.get_ref<const std::string&>().front() != ' ') {
                const auto& text = item.get_ref<const std::string&>();
                out += text.back() == '\n' ? " |\n" : " |-\n";
                for (const auto line : split(text.back() == '\n' ? std::string_view(text).substr(0, text.size() - 1) : std::string_view(text), '\n'))
                    out += line.empty() ? "\n" : pad + "  " + std::string(line) + "\n";
            } else {
                out += ' ';
                if (item.is_object()) out += "{}";
                else if (item.is_array()) out += "[]";
                else emit_scalar(item, out);
                out += '\n';
            }
        }
    } else if (value.is_array()) {
        bool first = true;
        for (const auto& item : value) {
            if (!first) out += pad;
            first = false;
            out += "- ";
            if ((item.is_object() || item.is_array()) && !item.empty()) {
                emit(item, indent + 2, out);
            } else {
                if (item.is_object()) out += "{}";
                else if (item.is_array()) out += "[]";
                else emit_scalar(item, out);
                out += '\n';
            }
        }
    } else {
        emit_scalar(value, out);
        out += '\n';
    }
}

const Json null_json;

/// The scanner keeps a token for each bracket that is open until it has seen its end: hundreds of bytes for each byte of a text. So
/// many are in no document that could be taken, wherever they stand.
Result<void> check_brackets(std::string_view text) {
    constexpr std::size_t open_max = 20'000;
    std::size_t open = 0, line = 1;
    for (const char c : text) {
        if (c == '\n') ++line;
        else if (c == '[' || c == '{') ++open;
        else if ((c == ']' || c == '}') && open > 0) --open;
        if (open > open_max) return fail(fmt::format("line {}: nested deeper than {} levels: {} brackets are open", line, depth_max, open));
    }
    return {};
}

}  // namespace

Result<std::vector<Document>> parse_documents(std::string_view text, const std::string& file) {
    std::vector<Document> out;
    if (text.size() > manifest_bytes_max) return fail(fmt::format("{}: larger than {} bytes", file, manifest_bytes_max));
    if (auto bounded = check_brackets(text); !bounded) return fail(fmt::format("{}: {}", file, bounded.error().message));
    try {
        int index = 0;
        Budget budget;
        std::istringstream stream{std::string(text)};
        YAML::Parser parser(stream);
        EventBound bound;
        while (parser.HandleNextDocument(bound)) {
        }
        for (const auto& node : YAML::LoadAll(std::string(text))) {
            ++index;
            if (!node.IsDefined() || node.IsNull()) continue;
            auto value = convert(node, 0, budget);
            if (!value) return fail(fmt::format("{}: {}", file, value.error().message));
            Document document{.object = std::move(*value), .file = file, .index = index, .line = node.Mark().line + 1};
            if (!document.object.is_object())
                return fail(fmt::format("{}: document {} (line {}): a resource object is needed, with apiVersion, kind and metadata", file, index, document.line));
            if (text_at(document.object, "kind") == "List" && at_path(document.object, "items").is_array()) {
                for (auto& item : document.object["items"]) out.push_back({.object = item, .file = file, .index = index, .line = document.line});
            } else {
                out.push_back(std::move(document));
            }
        }
    } catch (const YAML::DeepRecursion& error) {
        return fail(fmt::format("{}: line {}: nested deeper than {} levels", file, error.mark.line + 1, depth_max));
    } catch (const YAML::Exception& error) {
        return fail(fmt::format("{}: line {}, column {}: {}", file, error.mark.line + 1, error.mark.column + 1, shortened(error.msg)));   // it quotes names of anchors and tags
    }
    return out;
}

Result<Json> parse_json(std::string_view text, int depth_max) {
    auto depth_ok = true;
    const auto out = Json::parse(
        text,
        [&](int depth, Json::parse_event_t, Json&) {
            if (depth > depth_max) depth_ok = false;
            return depth_ok;
        },
        false);
    if (!depth_ok) return fail(fmt::format("nested deeper than {} levels", depth_max));
    if (out.is_discarded()) {
        try {
            [[maybe_unused]] const auto again = Json::parse(text);
        } catch (const Json::exception& error) {
            return fail(shortened(error.what()));   // the parser quotes what it read last, which may be all of it
        }
        return fail("not JSON");
    }
    return out;
}

std::vector<std::string> duplicate_fields(std::string_view json) {
    struct Level {
        std::set<std::string> keys;
        std::string key;
        bool array = false;
        std::size_t index = 0;
    };
    std::vector<Level> levels;
    std::vector<std::string> out;
    auto path = [&] {
        std::string text;
        for (const auto& level : levels) text += level.array ? fmt::format("[{}]", level.index) : (text.empty() ? "" : ".") + shortened(level.key);
        return text;
    };
    auto next_item = [&] {
        if (!levels.empty() && levels.back().array) ++levels.back().index;
    };
    using Event = Json::parse_event_t;
    [[maybe_unused]] const auto parsed = Json::parse(
        json,
        [&](int, Event event, Json& value) {
            switch (event) {
                case Event::object_start:
                case Event::array_start:
                    levels.push_back({.keys = {}, .key = {}, .array = event == Event::array_start});
                    break;
                case Event::object_end:
                case Event::array_end:
                    levels.pop_back();
                    next_item();
                    break;
                case Event::key:
                    levels.back().key = value.get<std::string>();
                    if (!levels.back().keys.insert(levels.back().key).second && out.size() < duplicates_max) out.push_back(path());
                    break;
                case Event::value: next_item(); break;
            }
            return levels.size() <= depth_max;
        },
        false);
    return parsed.is_discarded() ? std::vector<std::string>() : out;
}

Json printable_texts(Json value) {
    if (value.is_string()) return penstock::printable(value.get_ref<const std::string&>());
    if (value.is_structured())
        for (auto& item : value) item = printable_texts(std::move(item));
    return value;
}

std::string to_yaml(const Json& value) {
    std::string out;
    if ((value.is_object() || value.is_array()) && value.empty()) return value.is_object() ? "{}\n" : "[]\n";
    emit(value, 0, out);
    return out;
}

const Json& at_path(const Json& object, std::string_view path) {
    const auto* at = &object;
    while (!path.empty()) {
        const auto dot = path.find('.');
        const auto key = path.substr(0, dot);
        path = dot == std::string_view::npos ? std::string_view{} : path.substr(dot + 1);
        if (!at->is_object()) return null_json;
        const auto found = at->find(key);
        if (found == at->end()) return null_json;
        at = &*found;
    }
    return *at;
}

std::vector<std::string> texts_of(const Json& list) {
    std::vector<std::string> out;
    if (list.is_array())
        for (const auto& item : list)
            if (item.is_string()) out.push_back(item.get<std::string>());
    return out;
}

int integer_of(const Json& object, std::string_view key, int fallback) {
    if (!object.is_object()) return fallback;
    const auto found = object.find(key);
    if (found == object.end() || !found->is_number_integer()) return fallback;
    const bool beyond = found->is_number_unsigned() ? found->get<std::uint64_t>() > INT_MAX : found->get<std::int64_t>() > INT_MAX || found->get<std::int64_t>() < INT_MIN;
    return beyond ? fallback : found->get<int>();
}

bool flag_of(const Json& object, std::string_view key, bool fallback) {
    if (!object.is_object()) return fallback;
    const auto found = object.find(key);
    return found != object.end() && found->is_boolean() ? found->get<bool>() : fallback;
}

std::string text_at(const Json& object, std::string_view path, std::string fallback) {
    const auto& value = at_path(object, path);
    return value.is_string() ? value.get<std::string>() : fallback;
}

}  // namespace penstock::resources
