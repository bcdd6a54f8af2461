#include <yaml.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <new>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "base/text.h"
#include "base/utf8.h"
#include "resources/json_text.h"
#include "resources/text_rules.h"
#include "resources/yaml_words.h"

// Manifests as kubectl reads them: the text is cut at its document markers; what begins with `{` and is JSON
// is read as JSON, all else by the grammar of YAML 1.1. Where kubectl loses what was written, without a word,
// this reader does not: a key that is given twice is refused, what follows `...` is a document of its own.
namespace penstock::resources {
namespace {

constexpr int depth_max = sent_depth_max;
constexpr int documents_max = 10'000;
constexpr std::size_t texts_bytes_max = 64 * 1024 * 1024;   // keys and texts of one file, aliases counted as for values
constexpr std::size_t events_max = 1'500'000;
constexpr int values_max = 500'000;      // of one file; aliases count each time they are used, or ten lines could fill the memory
constexpr int tag_directives_max = 100;  // the parser compares each with all before it

/// What one file may still hold.
struct Budget {
    int values = values_max, documents = documents_max;
    std::size_t bytes = texts_bytes_max, events = events_max;
    bool take(std::string_view text) {
        if (text.size() > bytes) return false;
        bytes -= text.size();
        return true;
    }
};

auto at_line(std::size_t line, std::string_view what) { return fail(fmt::format("line {}: {}", line, what)); }
auto too_many_values(std::size_t line) { return at_line(line, fmt::format("more than {} values, aliases included", values_max)); }
auto too_many_bytes(std::size_t line) { return at_line(line, fmt::format("more than {} bytes of text, aliases included", texts_bytes_max)); }
auto too_deep(std::size_t line) { return at_line(line, fmt::format("nested deeper than {} levels", depth_max)); }
auto given_twice(std::size_t line, std::string_view key) {
    return at_line(line, fmt::format("the key \"{}\" is given twice", shortened(printable(key))));
}
auto too_many_documents(std::size_t line) { return at_line(line, fmt::format("more than {} documents", documents_max)); }

// ---- Lines and encodings

/// The number of the line, from 1, as an editor counts: `\n`, `\r\n` or `\r` end one. Goes forward only.
class Lines {
  public:
    Lines(std::string_view text, std::size_t first) : text_(text), line_(first) {}
    std::size_t at_byte(std::size_t byte) {
        for (; byte_ < std::min(byte, text_.size()); ++byte_) step();
        return line_;
    }
    /// By number of characters, as libyaml counts.
    std::size_t at_character(std::size_t character) {
        while (byte_ < text_.size() && (character_ < character || is_continuation(text_[byte_]))) {
            if (!is_continuation(text_[byte_])) ++character_;
            step();
            ++byte_;
        }
        return line_;
    }
    std::size_t byte() const { return byte_; }

  private:
    static bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }
    void step() {
        const char c = text_[byte_];
        if (c == '\n' || (c == '\r' && (byte_ + 1 == text_.size() || text_[byte_ + 1] != '\n'))) ++line_;
    }
    std::string_view text_;
    std::size_t line_, byte_ = 0, character_ = 0;
};

void append_utf8(std::string& out, std::uint32_t c) {
    auto put = [&](std::uint32_t byte) { out += static_cast<char>(byte); };
    if (c < 0x80) return put(c);
    if (c < 0x800) put(0xC0 | c >> 6);
    else if (c < 0x10000) put(0xE0 | c >> 12), put(0x80 | (c >> 6 & 0x3F));
    else put(0xF0 | c >> 18), put(0x80 | (c >> 12 & 0x3F)), put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
}

Result<std::string> from_utf16(std::string_view bytes, bool little) {
    auto unit = [&](std::size_t i) {
        const std::uint32_t first = static_cast<unsigned char>(bytes[i]), second = static_cast<unsigned char>(bytes[i + 1]);
        return little ? second << 8 | first : first << 8 | second;
    };
    std::string out;
    out.reserve(bytes.size() / 2);
    for (std::size_t i = 0; i < bytes.size(); i += 2) {
        if (i + 2 > bytes.size()) return fail("half a character at the end of a text in UTF-16");
        auto c = unit(i);
        if (c >= 0xD800 && c < 0xE000) {
            const auto low = i + 4 <= bytes.size() ? unit(i + 2) : 0;
            if (c >= 0xDC00 || low < 0xDC00 || low >= 0xE000)
                return fail(fmt::format("line {}: half a character in a text in UTF-16", Lines(out, 1).at_byte(out.size())));
            c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
            i += 2;
        }
        append_utf8(out, c);
    }
    return out;
}

constexpr std::string_view utf8_mark = "\xEF\xBB\xBF";

/// The text in UTF-8 without a mark before it.
Result<std::string> decoded(std::string_view bytes) {
    constexpr std::string_view little_32("\xFF\xFE\0\0", 4), big_32("\0\0\xFE\xFF", 4);
    if (bytes.starts_with(little_32) || bytes.starts_with(big_32)) return fail("the text is in UTF-32; UTF-8 and UTF-16 are read");
    if (bytes.starts_with("\xFF\xFE")) return from_utf16(bytes.substr(2), true);
    if (bytes.starts_with("\xFE\xFF")) return from_utf16(bytes.substr(2), false);
    return std::string(bytes.starts_with(utf8_mark) ? bytes.substr(utf8_mark.size()) : bytes);
}

// ---- Parts of a file

/// What stands between two markers. Its own marker `---` belongs to it, and so does `...`.
struct Part {
    std::string_view text;
    std::size_t line = 1;                ///< its first
};

bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\n'; }

bool is_marker(std::string_view line, std::string_view marker) {
    if (!line.starts_with(marker)) return false;
    return line.size() == marker.size() || is_blank(line[marker.size()]);
}

/// Takes the first line away, with what ends it.
std::string_view take_line(std::string_view& text) {
    auto end = text.find_first_of("\r\n");
    end = end == std::string_view::npos ? text.size() : text[end] == '\r' && end + 1 < text.size() && text[end + 1] == '\n' ? end + 2 : end + 1;
    const auto line = text.substr(0, end);
    text.remove_prefix(end);
    return line;
}

std::vector<Part> parts_of(std::string_view text) {
    std::vector<Part> out;
    std::size_t begin = 0, at = 0, line_number = 1, first_line = 1;
    bool content = false;                // comments and directives belong to the document that follows
    auto cut = [&](std::size_t end, std::size_t next_line) {
        if (end > begin) out.push_back({text.substr(begin, end - begin), first_line});
        begin = end;
        first_line = next_line;
        content = false;
    };
    for (auto rest = text; !rest.empty(); ++line_number) {
        const auto whole = take_line(rest);
        auto line = whole;
        // Files that were put together with cat have marks within.
        if (line.starts_with(utf8_mark) && is_marker(line.substr(utf8_mark.size()), "---")) {
            if (content) cut(at, line_number);
            begin = at + utf8_mark.size();
            first_line = line_number;
            line.remove_prefix(utf8_mark.size());
        }
        const auto words = trim(line);
        if (!content && is_marker(line, "...")) {
            // The end of nothing.
            at += whole.size();
            begin = at;
            first_line = line_number + 1;
            continue;
        }
        if (is_marker(line, "---")) {
            if (content) cut(at, line_number);
            content = true;
        } else if (!words.empty() && words[0] != '#' && line[0] != '%') {
            content = true;
        }
        at += whole.size();
        if (is_marker(line, "...")) cut(at, line_number + 1);
    }
    cut(at, line_number);
    return out;
}

// ---- JSON

/// Counts what the JSON parser has read, so that a fault has a line and several values may follow one
/// another.
struct Cursor {
    using iterator_category = std::input_iterator_tag;
    using value_type = char;
    using difference_type = std::ptrdiff_t;
    using pointer = const char*;
    using reference = const char&;
    const char* at = nullptr;
    std::size_t* read = nullptr;
    reference operator*() const { return *at; }
    Cursor& operator++() {
        ++at;
        ++*read;
        return *this;
    }
    Cursor operator++(int) {
        auto before = *this;
        ++*this;
        return before;
    }
    bool operator==(const Cursor& other) const { return at == other.at; }
    bool operator!=(const Cursor& other) const { return at != other.at; }
};

/// Builds a value from what the JSON parser says, within a budget.
class JsonBuilder final : public nlohmann::json_sax<Json> {
  public:
    JsonBuilder(Budget& budget, Lines lines, const std::size_t& read) : budget_(budget), lines_(lines), read_(read) {}
    Json& root() { return root_; }
    /// Where the items of a `List` begin.
    std::vector<std::size_t>& item_lines() { return item_lines_; }
    /// Why it is refused, although it is JSON; empty when it is none, or good.
    const std::string& fault() const { return fault_; }

    bool null() override { return add(nullptr); }
    bool boolean(bool value) override { return add(value); }
    bool number_integer(number_integer_t value) override { return add(value); }
    bool number_unsigned(number_unsigned_t value) override { return add(value); }
    bool number_float(number_float_t value, const string_t&) override { return add(whole_or_real(value)); }
    bool string(string_t& value) override {
        if (!budget_.take(value)) return stop(too_many_bytes(line()));
        return add(std::move(value));
    }
    bool binary(binary_t&) override { return false; }
    bool start_object(std::size_t) override { return open(Json::object()); }
    bool start_array(std::size_t) override { return open(Json::array()); }
    bool end_object() override { return close(); }
    bool end_array() override { return close(); }
    bool key(string_t& value) override {
        if (!budget_.take(value)) return stop(too_many_bytes(line()));
        auto& object = *levels_.back();
        if (object.contains(value)) return stop(given_twice(line(), value));
        if (levels_.size() == 1) in_items_ = value == "items";
        next_ = &object[value];
        return true;
    }
    bool parse_error(std::size_t, const std::string&, const Json::exception& error) override {
        // A number beyond any double's range is no fault of form: no other reader would take it for something
        // else.
        if (error.id >= 400) fault_ = at_line(line(), "a number is beyond the range of numbers").error().message;
        return false;
    }

  private:
    std::size_t line() { return lines_.at_byte(read_); }
    bool stop(const std::unexpected<Error>& error) {
        fault_ = error.error().message;
        return false;
    }
    bool add(Json value) { return place(std::move(value)) != nullptr; }
    bool open(Json value) {
        if (levels_.size() > static_cast<std::size_t>(depth_max)) return stop(too_deep(line()));
        auto* placed = place(std::move(value));
        if (placed == nullptr) return false;
        levels_.push_back(placed);
        return true;
    }
    bool close() {
        levels_.pop_back();
        return true;
    }
    Json* place(Json value) {
        if (--budget_.values < 0) {
            stop(too_many_values(line()));
            return nullptr;
        }
        if (levels_.empty()) return &(root_ = std::move(value));
        if (in_items_ && levels_.size() == 2 && levels_.back()->is_array()) item_lines_.push_back(line());
        if (levels_.back()->is_array()) return &levels_.back()->emplace_back(std::move(value));
        return &(*next_ = std::move(value));
    }
    Budget& budget_;
    Lines lines_;
    const std::size_t& read_;
    Json root_;
    std::vector<Json*> levels_;
    Json* next_ = nullptr;
    bool in_items_ = false;              ///< the last key of the outermost object was `items`
    std::vector<std::size_t> item_lines_;
    std::string fault_;
};

/// Where JSON would begin in a part: behind comments, directives and the marker.
std::size_t content_of(std::string_view part) {
    std::size_t at = 0;
    for (auto rest = part; !rest.empty();) {
        const auto line = take_line(rest);
        const auto words = trim(line);
        const std::size_t marker = is_marker(line, "---") ? 3 : 0;
        const auto content = trim(words.substr(marker));
        if (!content.empty() && content[0] != '#' && line[0] != '%') return at + line.find_first_not_of(" \t", marker);
        at += line.size();
    }
    return part.size();
}

struct Read {
    Json object;
    std::size_t line = 0;
    std::vector<std::size_t> item_lines; ///< of a `List`: where each of its items begins
};

/// All JSON objects of a part; nothing when the part is no JSON.
Result<std::optional<std::vector<Read>>> read_json(const Part& part, Budget& budget) {
    std::optional<std::vector<Read>> none, out(std::in_place);
    const auto begin = content_of(part.text);
    if (begin == part.text.size() || part.text[begin] != '{') return none;
    std::string mended;
    auto text = part.text;
    if (auto other = surrogates_mended(text)) text = mended = std::move(*other);
    auto left = budget;
    std::size_t at = begin;
    Lines starts(part.text, part.line);
    while (at < text.size() && !is_marker(text.substr(at), "...")) {
        if (text[at] != '{') return none;
        const auto line = starts.at_byte(at);
        std::size_t read = at;
        JsonBuilder builder(left, Lines(part.text, part.line), read);
        const auto* end = text.data() + text.size();
        const bool good = Json::sax_parse(Cursor{text.data() + at, &read}, Cursor{end, &read}, &builder, Json::input_format_t::json, false);
        if (!builder.fault().empty()) return fail(builder.fault());
        if (!good) return none;
        if (--left.documents < 0) return too_many_documents(line);
        out->push_back({std::move(builder.root()), line, std::move(builder.item_lines())});
        at = read;
        while (at < text.size() && is_blank(text[at])) ++at;
    }
    budget = left;
    return out;
}

// ---- YAML

/// libyaml's parser over a text, which outlives it.
class Parser {
  public:
    explicit Parser(std::string_view text) {
        if (yaml_parser_initialize(&parser_) == 0) throw std::bad_alloc();
        yaml_parser_set_encoding(&parser_, YAML_UTF8_ENCODING);
        yaml_parser_set_input_string(&parser_, static_cast<const unsigned char*>(static_cast<const void*>(text.data())), text.size());
    }
    ~Parser() {
        yaml_event_delete(&event_);
        yaml_parser_delete(&parser_);
    }
    Parser(const Parser&) = delete;
    Parser& operator=(const Parser&) = delete;
    /// Null when the text is broken.
    const yaml_event_t* next() {
        yaml_event_delete(&event_);
        if (yaml_parser_parse(&parser_, &event_) == 0) {
            if (parser_.error == YAML_MEMORY_ERROR) throw std::bad_alloc();
            return nullptr;
        }
        return &event_;
    }
    const yaml_parser_t& state() const { return parser_; }

  private:
    yaml_parser_t parser_{};
    yaml_event_t event_{};
};

enum class NodeType : std::uint8_t { scalar, list, map, end, alias };
struct Node {
    NodeType type = NodeType::end;
    bool unquoted = false;               ///< a scalar without quotes and without a tag
    bool open = false;                   ///< being converted: an alias to it would never end
    std::uint32_t line = 0, target = 0;  ///< target: what an alias stands for
    std::string text;
    std::string tag;
};

constexpr std::string_view tag_prefix = "tag:yaml.org,2002:";

const char* characters(const yaml_char_t* text) { return static_cast<const char*>(static_cast<const void*>(text)); }

class YamlReader {
  public:
    YamlReader(const Part& part, Budget& budget) : part_(part), budget_(budget), lines_(part.text, part.line), parser_(part.text) {}

    /// The next document that holds something; nothing at the end.
    Result<std::optional<Read>> next(int& index) {
        if (auto usable = check(); !usable) return std::unexpected(usable.error());
        while (true) {
            const auto* event = parser_.next();
            if (event == nullptr) return broken();
            if (event->type == YAML_STREAM_END_EVENT) return std::optional<Read>();
            if (event->type != YAML_DOCUMENT_START_EVENT) continue;
            ++index;
            const auto line = lines_.at_character(event->start_mark.index);
            if (--budget_.documents < 0) return too_many_documents(line);
            if (auto collected = collect(); !collected) return std::unexpected(collected.error());
            std::size_t at = 0;
            const auto first_line = nodes_.front().line;
            auto value = convert(at, 0);
            if (!value) return std::unexpected(value.error());
            if (!value->is_null()) return Read{std::move(*value), first_line, item_lines()};
        }
    }

  private:
    /// What the parser would not name by its line, or would take too long for.
    Result<void> check() {
        if (checked_) return {};
        checked_ = true;
        Lines lines(part_.text, part_.line);
        for (std::size_t at = 0; at < part_.text.size();) {
            const auto next = next_utf8(part_.text.substr(at));
            const auto c = next.character;
            if (c == '\t' || c == '\n' || c == '\r' || c == 0x85 || (c >= 0x20 && c < 0x7F) || (c >= 0xA0 && c <= 0xFFFD) || c >= 0x10000) {
                at += next.bytes;
                continue;
            }
            return at_line(lines.at_byte(at), fmt::format("the control character U+{:04X} stands in the text; in double quotes an "
                                                          "escape such as \"\\x1b\" can be written", c));
        }
        int directives = 0;
        for (auto rest = part_.text; !rest.empty();)
            if (take_line(rest).starts_with("%TAG") && ++directives > tag_directives_max)
                return fail(fmt::format("line {}: more than {} %TAG directives", part_.line, tag_directives_max));
        return {};
    }

    std::unexpected<Error> broken() const {
        const auto& state = parser_.state();
        auto line_of = [&](const yaml_mark_t& mark) { return Lines(part_.text, part_.line).at_character(mark.index); };
        std::string message = state.problem != nullptr ? state.problem : "no YAML";
        // Where the text ends, the parser stands behind the last line; what is wrong begins before.
        if (state.context != nullptr) message += fmt::format(" ({} that begins in line {})", state.context, line_of(state.context_mark));
        return fail(fmt::format("line {}, column {}: {}", line_of(state.problem_mark), state.problem_mark.column + 1, message));
    }

    /// Whether a `!` stands before a scalar that begins here, with or without an anchor before it.
    static bool has_lone_mark(std::string_view text) {
        if (text.starts_with('&')) text.remove_prefix(std::min(text.find_first_of(" \t\r\n"), text.size()));
        text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
        return text.starts_with('!');
    }

    /// The nodes of one document, in the order of the text. Values that are aliased are kept once.
    Result<void> collect() {
        nodes_.clear();
        anchors_.clear();
        std::size_t depth = 0;
        do {
            const auto* event = parser_.next();
            if (event == nullptr) return broken();
            Node node;
            node.line = static_cast<std::uint32_t>(lines_.at_character(event->start_mark.index));
            if (budget_.events == 0) return at_line(node.line, fmt::format("more than {} values", values_max));
            --budget_.events;
            const yaml_char_t* anchor = nullptr;
            switch (event->type) {
                case YAML_SCALAR_EVENT: {
                    const auto& scalar = event->data.scalar;
                    node.type = NodeType::scalar;
                    node.text.assign(characters(scalar.value), scalar.length);
                    if (scalar.tag != nullptr) node.tag = characters(scalar.tag);
                    // `! 12` is the text 12 to kubectl; the parser says nothing of a lone `!`.
                    node.unquoted = scalar.plain_implicit != 0 && !has_lone_mark(part_.text.substr(lines_.byte()));
                    anchor = scalar.anchor;
                    break;
                }
                case YAML_SEQUENCE_START_EVENT:
                    node.type = NodeType::list;
                    anchor = event->data.sequence_start.anchor;
                    ++depth;
                    break;
                case YAML_MAPPING_START_EVENT:
                    node.type = NodeType::map;
                    anchor = event->data.mapping_start.anchor;
                    ++depth;
                    break;
                case YAML_ALIAS_EVENT: {
                    const std::string name = characters(event->data.alias.anchor);
                    const auto found = anchors_.find(name);
                    if (found == anchors_.end())
                        return at_line(node.line, fmt::format("*{0}: no value before it has the anchor &{0}", shortened(name)));
                    node.type = NodeType::alias;
                    node.target = found->second;
                    break;
                }
                default: --depth; break;   // the end of a list or a map
            }
            if (depth > static_cast<std::size_t>(depth_max) + 1) return too_deep(node.line);
            if (anchor != nullptr) anchors_[characters(anchor)] = static_cast<std::uint32_t>(nodes_.size());
            nodes_.push_back(std::move(node));
        } while (depth > 0);
        // The end of the document: what is wrong behind a value is told before what is wrong with it.
        return parser_.next() == nullptr ? Result<void>(broken()) : Result<void>();
    }

    /// The value at `at`, which then is behind it.
    /// The node behind a value.
    [[nodiscard]] std::size_t behind(std::size_t at) const {
        std::size_t open = 0;
        do {
            const auto type = nodes_[at++].type;
            if (type == NodeType::list || type == NodeType::map) ++open;
            else if (type == NodeType::end) --open;
        } while (open > 0);
        return at;
    }
    /// Where each value of the outermost `items` begins. Of a document that could be converted.
    [[nodiscard]] std::vector<std::size_t> item_lines() const {
        std::vector<std::size_t> out;
        if (nodes_.front().type != NodeType::map) return out;
        for (std::size_t at = 1; nodes_[at].type != NodeType::end;) {
            const bool is_items = nodes_[at].type == NodeType::scalar && nodes_[at].text == "items";
            at = behind(at);
            if (is_items && nodes_[at].type == NodeType::list)
                for (auto item = at + 1; nodes_[item].type != NodeType::end; item = behind(item)) out.push_back(nodes_[item].line);
            at = behind(at);
        }
        return out;
    }

    Result<Json> convert(std::size_t& at, int depth) {
        auto& node = nodes_[at];
        if (--budget_.values < 0) return too_many_values(node.line);
        if (depth > depth_max) return too_deep(node.line);
        switch (node.type) {
            case NodeType::scalar:
                ++at;
                return scalar(node);
            case NodeType::alias: {
                ++at;
                std::size_t target = node.target;
                if (nodes_[target].open) return at_line(node.line, "the value of an anchor contains itself");
                ++budget_.values;
                return convert(target, depth);
            }
            case NodeType::list: {
                node.open = true;
                Json out = Json::array();
                for (++at; nodes_[at].type != NodeType::end;) {
                    auto value = convert(at, depth + 1);
                    if (!value) return value;
                    out.push_back(std::move(*value));
                }
                ++at;
                node.open = false;
                return out;
            }
            case NodeType::map: {
                node.open = true;
                auto out = map(at, depth);
                node.open = false;
                return out;
            }
            case NodeType::end: break;
        }
        return Json();
    }

    Result<Json> map(std::size_t& at, int depth) {
        Json out = Json::object();
        std::set<std::string> merged;    // keys that only a merge has set; what the map itself says may follow
        for (++at; nodes_[at].type != NodeType::end;) {
            const auto& key_node = nodes_[at];
            if (is_merge(key_node)) {
                ++at;
                auto taken = merge(at, depth, key_node.line);
                if (!taken) return std::unexpected(taken.error());
                // As kubectl has it: what is merged replaces what stands before it, and is replaced by what
                // stands behind it.
                for (auto& [key, value] : taken->items()) {
                    if (!out.contains(key)) merged.insert(key);
                    out[key] = std::move(value);
                }
                continue;
            }
            auto key = key_of(key_node);
            if (!key) return std::unexpected(key.error());
            ++at;
            if (out.contains(*key) && merged.erase(*key) == 0) return given_twice(key_node.line, *key);
            auto value = convert(at, depth + 1);
            if (!value) return value;
            out[*key] = std::move(*value);
        }
        ++at;
        return out;
    }

    static bool is_merge(const Node& key) {
        return key.type == NodeType::scalar && key.text == "<<" && (key.unquoted || key.tag == "tag:yaml.org,2002:merge");
    }

    /// What `<<` brings in: a map, or a list of maps of which the earlier ones count more.
    Result<Json> merge(std::size_t& at, int depth, std::size_t line) {
        auto is_map = [&](const Node& node) { return (node.type == NodeType::alias ? nodes_[node.target] : node).type == NodeType::map; };
        auto wrong = [&] { return at_line(line, "<< takes a map or a list of maps"); };
        if (is_map(nodes_[at])) return convert(at, depth + 1);
        if (nodes_[at].type != NodeType::list) return wrong();
        Json out = Json::object();
        for (++at; nodes_[at].type != NodeType::end;) {
            if (!is_map(nodes_[at])) return wrong();
            auto value = convert(at, depth + 1);
            if (!value) return value;
            for (auto& [key, item] : value->items())
                if (!out.contains(key)) out[key] = std::move(item);
        }
        ++at;
        return out;
    }

    Result<std::string> key_of(const Node& given) {
        const auto& node = given.type == NodeType::alias ? nodes_[given.target] : given;
        if (node.type != NodeType::scalar) return at_line(given.line, "a key must be plain text");
        auto value = scalar(node, true);
        if (!value) return std::unexpected(value.error());
        if (value->is_null()) return at_line(given.line, "a key is empty or null; in quotes it is a text");
        if (value->is_string()) return value->get<std::string>();
        return value->is_number_float() ? real_key(value->get<double>()) : value->dump();
    }

    static bool is_typed(std::string_view name) {
        return name == "int" || name == "float" || name == "bool" || name == "null" || name == "timestamp";
    }
    static bool fits(std::string_view name, WordType type) {
        switch (type) {
            case WordType::integer: return name == "int" || name == "float";
            case WordType::real: return name == "float";
            case WordType::boolean: return name == "bool";
            case WordType::nothing: return name == "null";
            case WordType::timestamp: return name == "timestamp";
            case WordType::text: case WordType::merge: break;
        }
        return false;
    }

    Result<Json> scalar(const Node& node, bool key = false) {
        if (!budget_.take(node.text)) return too_many_bytes(node.line);
        const auto name = std::string_view(node.tag).starts_with(tag_prefix) ? std::string_view(node.tag).substr(tag_prefix.size()) : std::string_view();
        if (name == "binary") {
            auto bytes = base64_decode(node.text);
            if (!bytes) return at_line(node.line, "!!binary needs base64");
            if (utf8_fault(*bytes) != std::string::npos)
                return at_line(node.line, "!!binary holds bytes that are no text; data of a Secret and binaryData take base64 as it is");
            return *bytes;
        }
        if (!node.unquoted && !is_typed(name)) return node.text;
        auto word = word_of(node.text);
        if (!node.unquoted && !fits(name, word.type))
            return at_line(node.line, fmt::format("\"{}\" is no !!{}", shortened(printable(node.text)), name));
        switch (word.type) {
            case WordType::text: case WordType::timestamp: case WordType::merge: return node.text;
            case WordType::real: {
                const auto value = word.value.get<double>();
                if (key) return word.value;
                if (!std::isfinite(value))
                    return at_line(node.line, fmt::format("{} is no number that a resource can hold; in quotes it is a text", node.text));
                return whole_or_real(value);
            }
            default: return std::move(word.value);
        }
    }

    const Part& part_;
    Budget& budget_;
    Lines lines_;
    Parser parser_;
    bool checked_ = false;
    std::vector<Node> nodes_;
    std::map<std::string, std::uint32_t> anchors_;
};

// ---- Files

/// `kind: List`, and `kind: ConfigMapList` whose items need not say what they are. `items: null` is a list without any, as for kubectl.
/// `lines`: where its items begin, as far as that is known; an item's line is then its own.
void unfold(Document document, const std::vector<std::size_t>& lines, std::vector<Document>& out) {
    const auto kind = text_at(document.object, "kind");
    if (kind.ends_with("List") && document.object.contains("items") && document.object["items"].is_null()) return;
    if (!kind.ends_with("List") || !at_path(document.object, "items").is_array()) {
        out.push_back(std::move(document));
        return;
    }
    const auto of = kind.substr(0, kind.size() - 4), version = text_at(document.object, "apiVersion");
    std::size_t number = 0;
    for (auto& item : document.object["items"]) {
        const auto line = number < lines.size() ? static_cast<int>(lines[number]) : document.line;
        ++number;
        if (item.is_object() && !of.empty() && text_at(item, "kind").empty() && text_at(item, "apiVersion").empty()) {
            item["kind"] = of;
            item["apiVersion"] = version;
        }
        unfold({.object = std::move(item), .file = document.file, .index = document.index, .line = line}, {}, out);
    }
}

}  // namespace

Result<std::vector<Document>> parse_documents(std::string_view bytes, const std::string& file) {
    auto in_file = [&](const Error& error) { return fail(fmt::format("{}: {}", file, error.message)); };
    if (bytes.size() > manifest_bytes_max) return fail(fmt::format("{}: larger than {} bytes", file, manifest_bytes_max));
    const auto text = decoded(bytes);
    if (!text) return in_file(text.error());
    if (const auto fault = utf8_fault(*text); fault != std::string::npos) {
        const auto* const what = (*text)[fault] == '\0' ? "the control character U+0000 stands in the text" : "a text is not well-formed UTF-8";
        return fail(fmt::format("{}: line {}: {}", file, Lines(*text, 1).at_byte(fault), what));
    }
    std::vector<Document> out;
    Budget budget;
    int index = 0;
    auto add = [&](Read read) -> Result<void> {
        const auto line = static_cast<int>(read.line);
        if (!read.object.is_object())
            return fail(fmt::format("{}: document {} (line {}): a resource object is needed, with apiVersion, kind and metadata", file, index, line));
        // No kind of a resource has that name; of others that end so there may be a definition.
        if (text_at(read.object, "kind") == "List" && !(read.object.contains("items") && (read.object["items"].is_array() || read.object["items"].is_null())))
            return fail(fmt::format("{}: document {} (line {}): a List needs items, a list of resource objects (items: [] where there are none)", file, index, line));
        unfold({.object = std::move(read.object), .file = file, .index = index, .line = line}, read.item_lines, out);
        return {};
    };
    for (const auto& part : parts_of(*text)) {
        auto json = read_json(part, budget);
        if (!json) return in_file(json.error());
        if (*json) {
            for (auto& read : **json) {
                ++index;
                if (auto added = add(std::move(read)); !added) return std::unexpected(added.error());
            }
            continue;
        }
        YamlReader reader(part, budget);
        while (true) {
            auto read = reader.next(index);
            if (!read) return in_file(read.error());
            if (!*read) break;
            if (auto added = add(std::move(**read)); !added) return std::unexpected(added.error());
        }
    }
    return out;
}

}  // namespace penstock::resources
