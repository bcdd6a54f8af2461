#include <algorithm>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "base/text.h"
#include "base/utf8.h"
#include "resources/json.h"
#include "resources/yaml_words.h"

// What is written is read as the same by kubectl, by YAML 1.1 and 1.2 readers, and by Penstock: in plain form
// only what no reader takes for anything else, in a block only what no reader folds or trims, all else in
// double quotes on one line.
namespace penstock::resources {
namespace {

constexpr std::size_t key_bytes_max = 128;   // longer ones get a `?`: readers look for the colon within 1,024 characters

/// How a character is written in double quotes; empty: as it is.
std::string escape_of(const Utf8Character& next, std::string_view bytes) {
    const auto c = next.character;
    if (next.bytes == 0) return c == 0 && bytes[0] == '\0' ? "\\u0000" : "\\ufffd";
    switch (c) {
        case '"': return "\\\"";
        case '\\': return "\\\\";
        case '\n': return "\\n";
        case '\r': return "\\r";
        case '\t': return "\\t";
        default: break;
    }
    if (c >= 0x20 && c < 0x7F) return {};
    // Beyond the first plane not each reader takes the character itself; what nobody sees is better seen.
    if (c > 0xFFFF) return fmt::format("\\U{:08X}", c);
    if (c <= 0xA0 || printable(bytes) != bytes) return fmt::format("\\u{:04x}", c);
    return {};
}

std::string in_quotes(std::string_view text) {
    std::string out = "\"";
    while (!text.empty()) {
        const auto next = next_utf8(text);
        const auto bytes = text.substr(0, std::max<std::size_t>(next.bytes, 1));
        const auto escape = escape_of(next, bytes);
        if (escape.empty()) out += bytes;
        else out += escape;
        text.remove_prefix(bytes.size());
    }
    return out + '"';
}

/// Nothing in it, but for line ends and tabs, that only double quotes can hold.
bool is_readable(std::string_view text) {
    while (!text.empty()) {
        const auto next = next_utf8(text);
        const auto bytes = text.substr(0, std::max<std::size_t>(next.bytes, 1));
        if (bytes != "\"" && bytes != "\\" && bytes != "\n" && bytes != "\t" && !escape_of(next, bytes).empty()) return false;
        text.remove_prefix(bytes.size());
    }
    return true;
}

bool is_plain(std::string_view text) {
    if (text.empty() || may_be_typed(text)) return false;
    if (text.front() == ' ' || text.back() == ' ' || text.back() == ':' || text.starts_with("---") || text.starts_with("...")) return false;
    const bool dash = text.size() > 1 && text[0] == '-' && text[1] != ' ';
    if (!dash && std::string_view("-?:,[]{}#&*!|>'\"%@`~").find(text[0]) != std::string_view::npos) return false;
    if (text.find(": ") != std::string_view::npos || text.find(" #") != std::string_view::npos || text.find_first_of("\n\t") != std::string_view::npos) return false;
    return is_readable(text);
}

/// Lines as they are in a block: none ends in a blank, the first begins with none, so that no reader guesses.
bool is_block(std::string_view text) {
    if (text.find('\n') == std::string_view::npos || std::string_view(" \t\n").find(text[0]) != std::string_view::npos) return false;
    for (std::size_t i = 0; i < text.size(); ++i)
        if ((text[i] == ' ' || text[i] == '\t') && (i + 1 == text.size() || text[i + 1] == '\n')) return false;
    return is_readable(text);
}

std::string real_text(double value) {
    auto out = Json(value).dump();
    // YAML 1.1 takes 1e+21 for a text: a real number has a point.
    if (const auto exponent = out.find('e'); exponent != std::string::npos && out.find('.') == std::string::npos) out.insert(exponent, ".0");
    return out;
}

class Writer {
  public:
    /// A value whose place is the rest of a line; what needs more lines begins at `indent`.
    void value(const Json& value, std::size_t indent) {
        if (value.is_object() && !value.empty()) map(value, indent);
        else if (value.is_array() && !value.empty()) list(value, indent);
        else if (value.is_string()) text(value.get_ref<const std::string&>(), indent);
        else if (value.is_number_float()) line(real_text(value.get<double>()));
        else line(value.dump());
    }
    std::string take() { return std::move(out_); }

  private:
    void line(std::string_view text) { out_.append(text) += '\n'; }
    void pad(std::size_t indent) { out_.append(indent, ' '); }

    void text(std::string_view text, std::size_t indent) {
        if (is_plain(text)) return line(text);
        if (indent == 0 || !is_block(text)) return line(in_quotes(text));
        const bool ends = text.back() == '\n';
        const bool empty_lines = text.ends_with("\n\n");
        line(!ends ? "|-" : empty_lines ? "|+" : "|");
        if (ends) text.remove_suffix(1);
        for (const auto part : split(text, '\n')) {
            if (!part.empty()) pad(indent);
            line(part);
        }
    }

    void map(const Json& map, std::size_t indent) {
        bool first = true;
        for (const auto& [key, item] : map.items()) {
            if (!first) pad(indent);
            first = false;
            const auto written = is_plain(key) ? key : in_quotes(key);
            const bool long_key = written.size() > key_bytes_max;
            if (long_key) {
                out_ += "? ";
                line(written);
                pad(indent);
                out_ += ':';
            } else {
                out_ += written;
                out_ += ':';
            }
            if (item.is_structured() && !item.empty()) {
                // A list stands where its key stands, as kubectl writes it; behind a `?` it is set in, for
                // readers that count.
                const auto inner = item.is_array() && !long_key ? indent : indent + 2;
                out_ += '\n';
                pad(inner);
                value(item, inner);
            } else {
                out_ += ' ';
                value(item, indent + 2);
            }
        }
    }

    void list(const Json& list, std::size_t indent) {
        bool first = true;
        for (const auto& item : list) {
            if (!first) pad(indent);
            first = false;
            out_ += "- ";
            value(item, indent + 2);
        }
    }

    std::string out_;
};

}  // namespace

std::string to_yaml(const Json& value) {
    Writer writer;
    writer.value(value, 0);
    return writer.take();
}

}  // namespace penstock::resources
