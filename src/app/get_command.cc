// get: resources as a table, as JSON or YAML, by a JSONPath or columns of one's own; once, or followed.
#include <algorithm>
#include <iostream>

#include <fmt/format.h>

#include "app/command_list.h"
#include "app/jsonpath.h"
#include "app/terminal.h"
#include "base/text.h"
#include "client/apply.h"
#include "client/manifest_files.h"
#include "client/names.h"

namespace penstock::app {
namespace {

using resources::at_path;
using resources::Json;
using resources::text_at;

constexpr const char* table_accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";

std::string name_label(const resources::Kind& kind, const std::string& name) {
    return fmt::format("{}{}{}/{}", kind.singular, kind.group.empty() ? "" : ".", kind.group, name);
}

/// Prints rows under upper-case headings, columns three spaces apart, as kubectl does.
void print_table(const Json& table, bool wide, bool with_namespace, bool headers,
                 std::vector<std::size_t>& widths, const std::string& kind_prefix = {}) {
    static Json columns;
    if (table.contains("columnDefinitions") && table["columnDefinitions"].is_array())
        columns = table["columnDefinitions"];
    std::vector<std::vector<std::string>> lines;
    auto visible = [&](std::size_t i) { return wide || columns[i].value("priority", 0) == 0; };
    if (headers) {
        auto& line = lines.emplace_back();
        if (with_namespace) line.emplace_back("NAMESPACE");
        for (std::size_t i = 0; i < columns.size(); ++i) {
            if (!visible(i)) continue;
            auto name = text_at(columns[i], "name");
            std::ranges::transform(name, name.begin(),
                                   [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
            line.push_back(std::move(name));
        }
    }
    for (const auto& row : table["rows"]) {
        auto& line = lines.emplace_back();
        if (with_namespace) line.push_back(text_at(row, "object.metadata.namespace"));
        for (std::size_t i = 0; i < columns.size() && i < row["cells"].size(); ++i) {
            if (!visible(i)) continue;
            const auto& cell = row["cells"][i];
            const auto text = cell.is_string() ? cell.get<std::string>()
                              : cell.is_null() ? std::string()
                                               : cell.dump();
            line.push_back(printable((i == 0 ? kind_prefix : std::string()) + text));
        }
    }
    for (const auto& line : lines) {
        widths.resize(std::max(widths.size(), line.size()));
        for (std::size_t i = 0; i < line.size(); ++i) widths[i] = std::max(widths[i], line[i].size());
    }
    for (const auto& line : lines) {
        std::string text;
        for (std::size_t i = 0; i < line.size(); ++i) {
            // Padding is counted without the colour's own bytes.
            text += coloured(line[i]);
            if (i + 1 < line.size()) text += std::string(widths[i] - line[i].size() + 3, ' ');
        }
        while (text.ends_with(' ')) text.pop_back();
        std::cout << text << "\n";
    }
    std::cout << std::flush;
}

/// Orders rows by a JSONPath of their objects; numbers by value.
void sort_rows(Json& rows, std::string path) {
    if (!path.starts_with('{')) path = "{" + path + "}";
    std::vector<std::pair<std::string, Json>> keyed;
    for (auto& row : rows) keyed.emplace_back(evaluate_jsonpath(path, row["object"]).value_or(""), row);
    std::ranges::sort(keyed, [](const auto& a, const auto& b) {
        const auto x = parse_number<std::int64_t>(a.first), y = parse_number<std::int64_t>(b.first);
        return x && y ? *x < *y : a.first < b.first;
    });
    rows = Json::array();
    for (auto& [key, row] : keyed) rows.push_back(std::move(row));
}

void add_labels(Json& table) {
    if (table["columnDefinitions"].is_array())
        table["columnDefinitions"].push_back({{"name", "Labels"}, {"type", "string"}, {"priority", 0}});
    for (auto& row : table["rows"]) {
        std::string text;
        if (const auto& labels = at_path(row, "object.metadata.labels"); labels.is_object())
            for (const auto& [key, value] : labels.items())
                text += fmt::format("{}{}={}", text.empty() ? "" : ",", key, value.get<std::string>());
        row["cells"].push_back(text.empty() ? "<none>" : text);
    }
}

/// The columns of `-o custom-columns=NAME:.path,NAME:.path`, or of a file whose first line has the names and
/// whose second line has the paths.
struct CustomColumn {
    std::string head, path;
};

constexpr std::string_view columns_word = "custom-columns=", columns_file_word = "custom-columns-file=";

Result<std::vector<CustomColumn>> custom_columns_of(const std::string& output) {
    std::vector<CustomColumn> out;
    auto path_of_text = [](std::string_view text) {
        if (text.starts_with('{') && text.ends_with('}')) text = text.substr(1, text.size() - 2);
        return (text.starts_with('.') || text.starts_with('[') ? "" : ".") + std::string(text);
    };
    if (output.starts_with(columns_file_word)) {
        const auto text = client::read_manifest_text(output.substr(columns_file_word.size()));
        if (!text) return std::unexpected(text.error());
        auto words = [](std::string_view line) {
            std::vector<std::string> list;
            for (const auto word : split(line, ' '))
                if (!trim(word).empty()) list.emplace_back(trim(word));
            return list;
        };
        const auto lines = split(*text, '\n');
        const auto heads = words(lines[0]), paths = words(lines.size() > 1 ? lines[1] : "");
        if (heads.empty() || heads.size() != paths.size())
            return fail(
                fmt::format("{}: the first line has the names of the columns, the second one path for each",
                            output.substr(columns_file_word.size())));
        for (std::size_t i = 0; i < heads.size(); ++i) out.push_back({heads[i], path_of_text(paths[i])});
        return out;
    }
    // A comma within brackets or quotes belongs to the path.
    std::vector<std::string> parts{""};
    int depth = 0;
    char quote = 0;
    for (const char c : output.substr(columns_word.size())) {
        if (quote != 0)
            quote = c == quote ? 0 : quote;
        else if (c == '"' || c == '\'')
            quote = c;
        else if (c == '[' || c == '(')
            ++depth;
        else if (c == ']' || c == ')')
            --depth;
        if (c == ',' && depth <= 0 && quote == 0)
            parts.emplace_back();
        else
            parts.back() += c;
    }
    for (const auto& part : parts) {
        const auto colon = part.find(':');
        if (colon == std::string::npos || colon == 0 || colon + 1 == part.size())
            return fail(fmt::format("unexpected custom-columns spec: {}, expected <header>:<json-path-expr>",
                                    part.empty() ? "<nothing>" : part));
        out.push_back({part.substr(0, colon), path_of_text(part.substr(colon + 1))});
    }
    return out;
}

int print_custom_columns(const ResourceOptions& options, const std::vector<Json>& objects,
                         const std::vector<CustomColumn>& columns) {
    std::vector<std::vector<std::string>> rows;
    for (const auto& object : objects) {
        auto& row = rows.emplace_back();
        for (const auto& column : columns) {
            const auto found = values_at(column.path, object);
            if (!found) return problem(found.error().message);
            std::string text;
            for (const auto& value : *found)
                text += (text.empty() ? "" : ",") + (value.is_string() ? value.get<std::string>()
                                                     : value.is_null() ? "<nil>"
                                                                       : value.dump());
            row.push_back(found->empty() ? "<none>" : text);
        }
    }
    std::vector<std::string> heads;
    for (const auto& column : columns) heads.push_back(column.head);
    print_rows(options.no_headers ? std::vector<std::string>(heads.size()) : heads, std::move(rows));
    return 0;
}

int print_objects(const ResourceOptions& options, std::vector<Json> objects, bool as_list) {
    if (options.output.starts_with("custom-columns")) {
        const auto columns = custom_columns_of(options.output);
        return columns ? print_custom_columns(options, objects, *columns) : problem(columns.error().message);
    }
    // Who owns which field is for programs: kubectl leaves it out, too.
    if (!options.show_managed_fields && (options.output == "json" || options.output == "yaml"))
        for (auto& object : objects)
            if (object.contains("metadata") && object["metadata"].is_object())
                object["metadata"].erase("managedFields");
    if (options.output == "name") {
        for (const auto& object : objects)
            if (const auto* kind =
                    resources::find_kind(text_at(object, "apiVersion"), text_at(object, "kind")))
                std::cout << name_label(*kind, text_at(object, "metadata.name")) << "\n";
        return 0;
    }
    const Json whole = !as_list && objects.size() == 1 ? objects[0]
                                                       : Json{{"apiVersion", "v1"},
                                                              {"kind", "List"},
                                                              {"metadata", {{"resourceVersion", ""}}},
                                                              {"items", objects}};
    if (options.output == "json") std::cout << whole.dump(4) << "\n";
    else if (options.output == "yaml") std::cout << resources::to_yaml(whole);
    else {
        const auto text = evaluate_jsonpath(options.output.substr(std::string("jsonpath=").size()), whole);
        if (!text) return problem(text.error().message);
        std::cout << *text;
    }
    return 0;
}

/// `-o` names something that can be printed.
Result<void> check_output(const std::string& output) {
    if (output.starts_with(columns_word) || output.starts_with(columns_file_word)) {
        const auto columns = custom_columns_of(output);
        return columns ? Result<void>() : std::unexpected(columns.error());
    }
    for (const char* known : {"", "wide", "json", "yaml", "name"})
        if (output == known) return {};
    if (output.starts_with("jsonpath=")) return {};
    return fail(fmt::format(
        "unable to match a printer suitable for the output format \"{}\", allowed formats are: "
        "custom-columns=NAME:.path,..., custom-columns-file=FILE, json, jsonpath=TEMPLATE, name, wide, "
        "yaml",
        output));
}

/// One call of `penstock get`, with what it has printed and gathered so far.
class Getting {
  public:
    Getting(client::Client& api, const ResourceOptions& options, const std::vector<Wanted>& wanted)
        : api_(api), options_(options), wanted_(wanted),
          is_table_(options.output.empty() || options.output == "wide"),
          space_(options.all_namespaces ? std::string() : api.access().name_space) {}

    /// The exit code.
    int get() {
        for (const auto& one : wanted_) {
            read(one);
            if (options_.watch) return watch(one);
        }
        if (!is_table_) return status_ != 0 ? status_ : print_objects(options_, objects_, as_list_);
        if (any_ || status_ != 0) return status_;
        const bool scoped = !options_.all_namespaces &&
                            std::ranges::any_of(wanted_, [](const Wanted& w) { return w.kind->namespaced; });
        const auto& space = api_.access().name_space;
        std::cerr << (!scoped ? "No resources found\n"
                              : fmt::format("No resources found in {} namespace.\n", space));
        return status_;
    }

  private:
    /// What is to be asked for one of the kinds: the list, or each name.
    [[nodiscard]] std::vector<std::string> targets_of(const Wanted& one) const {
        std::vector<std::string> out;
        for (const auto& name : one.names) out.push_back(client::path_of(*one.kind, space_, name));
        if (!out.empty()) return out;
        std::string query = "?includeObject=" + std::string(options_.sort_by.empty() ? "Metadata" : "Object");
        if (!options_.selector.empty()) query += "&labelSelector=" + client::query_escaped(options_.selector);
        if (!options_.field_selector.empty())
            query += "&fieldSelector=" + client::query_escaped(options_.field_selector);
        return {client::path_of(*one.kind, space_) + query};
    }
    /// Tables are printed as they come, objects gathered.
    void read(const Wanted& one) {
        if (one.names.size() != 1 || wanted_.size() > 1) as_list_ = true;
        if (wanted_.size() > 1) widths_.clear();
        bool first = true;
        seen_.clear();
        for (const auto& target : targets_of(one)) {
            const auto answer =
                api_.request("GET", target, {}, {}, is_table_ ? table_accept : "application/json");
            if (!answer || !answer->ok()) {
                if (answer && answer->status == 404 && options_.ignore_not_found) continue;
                status_ = refused(answer);
                continue;
            }
            seen_ = text_at(answer->body, "metadata.resourceVersion");
            if (is_table_) print_rows_of(one, answer->body, first);
            else if (!one.names.empty()) objects_.push_back(answer->body);
            else
                for (const auto& item : answer->body["items"]) objects_.push_back(item);
        }
    }
    /// `first`: of this kind, which has the headings.
    void print_rows_of(const Wanted& one, Json rows, bool& first) {
        if (!options_.sort_by.empty()) sort_rows(rows["rows"], options_.sort_by);
        if (options_.show_labels) add_labels(rows);
        if (rows["rows"].empty()) return;
        if (any_ && first && wanted_.size() > 1) std::cout << "\n";
        any_ = true;
        print_table(rows, options_.output == "wide", options_.all_namespaces, first && !options_.no_headers,
                    widths_, wanted_.size() > 1 ? name_label(*one.kind, "") : std::string());
        first = false;
    }
    /// From what was read on, until the watch ends.
    int watch(const Wanted& one) {
        if (!is_table_) status_ = print_objects(options_, objects_, false);
        auto target = client::path_of(*one.kind, space_) + "?watch=true&resourceVersion=" + seen_;
        if (one.names.size() == 1) target += "&fieldSelector=metadata.name%3D" + one.names[0];
        const auto done = api_.watch(target, is_table_ ? table_accept : "application/json",
                                     [&](const Json& event) { return take_event(event); });
        if (!done) return problem(done.error().message);
        if (*done != 200)
            return problem(fmt::format("watching {} was refused with status {}", one.kind->plural, *done));
        return status_;
    }
    /// False: nothing more is wanted.
    bool take_event(const Json& event) {
        if (text_at(event, "type") == "BOOKMARK") return true;
        if (text_at(event, "type") == "ERROR") {
            status_ = problem(text_at(event, "object.message"));
            return false;
        }
        if (is_table_) {
            print_table(event["object"], options_.output == "wide", options_.all_namespaces,
                        !any_ && !options_.no_headers, widths_);
            any_ = true;
            return true;
        }
        if (options_.output == "yaml") std::cout << "---\n";
        status_ = print_objects(options_, {event["object"]}, false);
        std::cout << std::flush;
        return true;
    }

    client::Client& api_;
    const ResourceOptions& options_;
    const std::vector<Wanted>& wanted_;
    const bool is_table_;
    const std::string space_;
    std::vector<Json> objects_;          ///< what is not shown as a table
    std::vector<std::size_t> widths_;    ///< of the table's columns so far
    std::string seen_;                   ///< resourceVersion of the last answer
    bool any_ = false;                   ///< a row was printed
    bool as_list_ = false;               ///< objects are shown as a List, although there is one
    int status_ = 0;
};

int get(const ResourceOptions& options) {
    if (auto good = check_output(options.output); !good) return problem(good.error().message);
    auto connected = connect(options);
    if (!connected) return problem(connected.error().message);
    client::Kinds kinds(*connected);
    const auto wanted = wanted_of(kinds, options.words);
    if (!wanted) return problem(wanted.error().message);
    if (options.watch && wanted->size() != 1)
        return problem("you may only specify a single resource type with -w");
    return Getting(*connected, options, *wanted).get();
}

}  // namespace

void add_get(Commands& commands) {
    auto& resource = commands.keep<ResourceOptions>();
    auto command = commands.add("get", "Show resources: penstock get KIND [NAME], KIND/NAME, KIND,KIND");
    add_api_options(command, resource);
    command.option("words", resource.words, "KIND [NAME...]");
    command.option("-o,--output", resource.output,
                   "wide, yaml, json, name, jsonpath=TEMPLATE, custom-columns=NAME:.path,... or "
                   "custom-columns-file=FILE");
    command.option("-l,--selector", resource.selector, "Label selector");
    command.option("--field-selector", resource.field_selector,
                   "Field selector, for example metadata.name=x");
    command.option("--sort-by", resource.sort_by,
                   "Order by a JSONPath, for example .metadata.creationTimestamp");
    command.flag("--show-managed-fields", resource.show_managed_fields,
                 "Who owns which field, in JSON and YAML");
    command.flag("--show-labels", resource.show_labels, "Labels as the last column");
    command.flag("-A,--all-namespaces", resource.all_namespaces, "All namespaces");
    command.flag("-w,--watch", resource.watch, "Follow changes");
    command.flag("--no-headers", resource.no_headers, "No column headings");
    command.flag("--ignore-not-found", resource.ignore_not_found, "No error when absent");
    command.runs([&] { return get(resource); });
}

}  // namespace penstock::app
