#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <ranges>

#include <fmt/format.h>

#include "app/commands.h"
#include "app/jsonpath.h"
#include "app/rehearsal.h"
#include "app/terminal.h"
#include "base/log.h"
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

}   // namespace

Result<std::vector<Wanted>> wanted_of(client::Kinds& kinds, const std::vector<std::string>& words) {
    std::vector<Wanted> out;
    if (words.empty()) return fail("a kind is needed, for example: penstock get brokerlistener");
    if (words[0].find('/') != std::string::npos) {
        for (const auto& word : words) {
            const auto slash = word.find('/');
            if (slash == std::string::npos) return fail(fmt::format("\"{}\": with KIND/NAME every argument has that form", word));
            const auto kind = kinds.by_word(std::string_view(word).substr(0, slash));
            if (!kind) return std::unexpected(kind.error());
            auto name = word.substr(slash + 1);
            if (auto good = client::check_name(name); !good) return std::unexpected(good.error());
            out.push_back({*kind, {std::move(name)}});
        }
        return out;
    }
    for (auto name = words.begin() + 1; name != words.end(); ++name)
        if (auto good = client::check_name(*name); !good) return std::unexpected(good.error());
    for (const auto word : split(words[0], ',')) {
        if (word == "all") {
            const auto served = kinds.all();
            if (!served) return std::unexpected(served.error());
            for (const auto& kind : **served)
                if (std::ranges::find(kind.categories, "all") != kind.categories.end()) out.push_back({&kind, {}});
            continue;
        }
        const auto kind = kinds.by_word(word);
        if (!kind) return std::unexpected(kind.error());
        out.push_back({*kind, {words.begin() + 1, words.end()}});
    }
    return out;
}

namespace {

std::string name_label(const resources::Kind& kind, const std::string& name) {
    return fmt::format("{}{}{}/{}", kind.singular, kind.group.empty() ? "" : ".", kind.group, name);
}

/// Prints rows under upper-case headings, columns three spaces apart, as kubectl does.
void print_table(const Json& table, bool wide, bool with_namespace, bool headers,
                 std::vector<std::size_t>& widths, const std::string& kind_prefix = {}) {
    static Json columns;
    if (table.contains("columnDefinitions") && table["columnDefinitions"].is_array()) columns = table["columnDefinitions"];
    std::vector<std::vector<std::string>> lines;
    auto visible = [&](std::size_t i) { return wide || columns[i].value("priority", 0) == 0; };
    if (headers) {
        auto& line = lines.emplace_back();
        if (with_namespace) line.emplace_back("NAMESPACE");
        for (std::size_t i = 0; i < columns.size(); ++i) {
            if (!visible(i)) continue;
            auto name = text_at(columns[i], "name");
            std::ranges::transform(name, name.begin(), [](unsigned char c) { return static_cast<char>(std::toupper(c)); });
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
    if (table["columnDefinitions"].is_array()) table["columnDefinitions"].push_back({{"name", "Labels"}, {"type", "string"}, {"priority", 0}});
    for (auto& row : table["rows"]) {
        std::string text;
        if (const auto& labels = at_path(row, "object.metadata.labels"); labels.is_object())
            for (const auto& [key, value] : labels.items()) text += fmt::format("{}{}={}", text.empty() ? "" : ",", key, value.get<std::string>());
        row["cells"].push_back(text.empty() ? "<none>" : text);
    }
}

/// The columns of `-o custom-columns=NAME:.path,NAME:.path`, or of a file whose first line has the names and whose
/// second line has the paths.
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
            if (const auto* kind = resources::find_kind(text_at(object, "apiVersion"), text_at(object, "kind"))) std::cout << name_label(*kind, text_at(object, "metadata.name")) << "\n";
        return 0;
    }
    Json whole = !as_list && objects.size() == 1 ? objects[0] : Json{{"apiVersion", "v1"}, {"kind", "List"}, {"metadata", {{"resourceVersion", ""}}}, {"items", objects}};
    if (options.output == "json") std::cout << whole.dump(4) << "\n";
    else if (options.output == "yaml") std::cout << resources::to_yaml(whole);
    else {
        const auto text = evaluate_jsonpath(options.output.substr(std::string("jsonpath=").size()), whole);
        if (!text) return problem(text.error().message);
        std::cout << *text;
    }
    return 0;
}

}   // namespace

int get(const ResourceOptions& options) {
    const bool table = options.output.empty() || options.output == "wide";
    const bool columns =
        options.output.starts_with(columns_word) || options.output.starts_with(columns_file_word);
    if (!table && !columns && options.output != "json" && options.output != "yaml" &&
        options.output != "name" && !options.output.starts_with("jsonpath="))
        return problem(fmt::format(
            "unable to match a printer suitable for the output format \"{}\", allowed formats are: "
            "custom-columns=NAME:.path,..., custom-columns-file=FILE, json, jsonpath=TEMPLATE, name, wide, "
            "yaml",
            options.output));
    if (columns)
        if (const auto spec = custom_columns_of(options.output); !spec) return problem(spec.error().message);
    auto connected = connect(options);
    if (!connected) return problem(connected.error().message);
    auto& api = *connected;
    client::Kinds kinds(api);
    const auto wanted = wanted_of(kinds, options.words);
    if (!wanted) return problem(wanted.error().message);
    const auto space = options.all_namespaces ? std::string() : api.access().name_space;
    if (options.watch && wanted->size() != 1) return problem("you may only specify a single resource type with -w");
    std::vector<Json> objects;
    bool any = false, as_list = false;
    int status = 0;
    std::vector<std::size_t> widths;
    for (const auto& w : *wanted) {
        std::vector<std::string> targets;
        std::string query = "?includeObject=" + std::string(options.sort_by.empty() ? "Metadata" : "Object");
        if (!options.selector.empty()) query += "&labelSelector=" + client::query_escaped(options.selector);
        if (!options.field_selector.empty()) query += "&fieldSelector=" + client::query_escaped(options.field_selector);
        if (w.names.empty()) targets.push_back(client::path_of(*w.kind, space) + query), as_list = true;
        if (w.names.size() > 1 || wanted->size() > 1) as_list = true;
        for (const auto& name : w.names) targets.push_back(client::path_of(*w.kind, space, name));
        bool first = true;
        if (wanted->size() > 1) widths.clear();
        std::string seen;
        for (const auto& target : targets) {
            const auto answer = api.request("GET", target, {}, {}, table ? table_accept : "application/json");
            if (!answer || !answer->ok()) {
                if (answer && answer->status == 404 && options.ignore_not_found) continue;
                status = refused(answer);
                continue;
            }
            if (table) {
                auto rows = answer->body;
                if (!options.sort_by.empty()) sort_rows(rows["rows"], options.sort_by);
                if (options.show_labels) add_labels(rows);
                seen = text_at(answer->body, "metadata.resourceVersion");
                if (answer->body["rows"].empty()) continue;
                if (any && first && wanted->size() > 1) std::cout << "\n";
                any = true;
                print_table(rows, options.output == "wide", options.all_namespaces,
                            first && !options.no_headers, widths,
                            wanted->size() > 1 ? name_label(*w.kind, "") : std::string());
                first = false;
            } else if (w.names.empty()) {
                seen = text_at(answer->body, "metadata.resourceVersion");
                for (const auto& item : answer->body["items"]) objects.push_back(item);
            } else {
                seen = text_at(answer->body, "metadata.resourceVersion");
                objects.push_back(answer->body);
            }
        }
        if (!table && !options.watch) continue;
        if (!options.watch) continue;
        if (!table) status = print_objects(options, objects, false);
        auto target = client::path_of(*w.kind, space) + "?watch=true&resourceVersion=" + seen;
        if (w.names.size() == 1) target += "&fieldSelector=metadata.name%3D" + w.names[0];
        const auto done = api.watch(target, table ? table_accept : "application/json", [&](const Json& event) {
            if (text_at(event, "type") == "BOOKMARK") return true;
            if (text_at(event, "type") == "ERROR") {
                status = problem(text_at(event, "object.message"));
                return false;
            }
            if (table) print_table(event["object"], options.output == "wide", options.all_namespaces, !any && !options.no_headers, widths), any = true;
            else if (options.output == "yaml")
                std::cout << "---\n", status = print_objects(options, {event["object"]}, false),
                                      std::cout << std::flush;
            else status = print_objects(options, {event["object"]}, false), std::cout << std::flush;
            return true;
        });
        if (!done) return problem(done.error().message);
        if (*done != 200)
            return problem(fmt::format("watching {} was refused with status {}", w.kind->plural, *done));
        return status;
    }
    if (!table) return status != 0 ? status : print_objects(options, objects, as_list);
    const bool scoped = !options.all_namespaces && std::ranges::any_of(*wanted, [](const Wanted& w) { return w.kind->namespaced; });
    if (!any && status == 0) std::cerr << (!scoped ? "No resources found\n" : fmt::format("No resources found in {} namespace.\n", api.access().name_space));
    return status;
}

namespace {

Result<std::vector<resources::Document>> read_all(const std::vector<std::string>& files) {
    if (files.empty()) return fail("-f names a file, a folder or - for standard input");
    std::vector<resources::Document> out;
    for (const auto& file : files) {
        auto some = client::read_manifests(file);
        if (!some) return some;
        std::ranges::move(*some, std::back_inserter(out));
    }
    if (out.empty()) return fail("no resource objects in the files");
    return out;
}

int report(const client::Applied& result) {
    for (const auto& warning : result.warnings) std::cerr << "Warning: " << printable(warning) << "\n";
    if (result.error.empty()) {
        std::cout << printable(result.what) << " " << result.outcome << "\n";
        return 0;
    }
    problem(fmt::format("{}: {}", result.what, result.error));
    return 1;
}

}  // namespace

int apply(const ResourceOptions& options) {
    const auto documents = read_all(options.files);
    if (!documents) return problem(documents.error().message);
    auto connected = connect(options);
    if (!connected) return problem(connected.error().message);
    client::Kinds kinds(*connected);
    client::ApplyOptions how{.name_space = connected->access().name_space, .dry_run = options.dry_run, .server_side = options.server_side, .force = options.force_conflicts};
    if (!options.field_manager.empty()) how.manager = options.field_manager;
    else if (how.server_side) how.manager = "penstock";
    int status = 0;
    for (const auto& document : *documents) {
        const auto result = client::apply_document(*connected, kinds, document, how);
        status |= report(result);
        if (result.refusal == client::Refusal::owned && how.server_side) std::cerr << "  --force-conflicts takes the fields over; leaving them out of the file gives them up\n";
    }
    return status;
}

int remove(const ResourceOptions& options) {
    auto connected = connect(options);
    if (!connected) return problem(connected.error().message);
    client::Kinds kinds(*connected);
    int status = 0;
    if (!options.files.empty()) {
        const auto documents = read_all(options.files);
        if (!documents) return problem(documents.error().message);
        // From the end: objects before the definitions and namespaces they need.
        for (const auto& document : *documents | std::views::reverse) status |= report(client::delete_document(*connected, kinds, document, connected->access().name_space));
        return status;
    }
    const auto wanted = wanted_of(kinds, options.words);
    if (!wanted) return problem(wanted.error().message);
    for (const auto& w : *wanted) {
        auto names = w.names;
        if (names.empty()) {
            if (!options.all && options.selector.empty()) return problem("name what is to be deleted: penstock delete KIND NAME, -l SELECTOR, --all, or -f FILE");
            const auto list = connected->request("GET", client::path_of(*w.kind, connected->access().name_space) + (options.selector.empty() ? "" : "?labelSelector=" + client::query_escaped(options.selector)));
            if (!list || !list->ok()) return refused(list);
            for (const auto& item : at_path(list->body, "items")) names.push_back(text_at(item, "metadata.name"));
            if (names.empty()) std::cout << "No resources found\n";
        }
        auto policy = options.cascade;
        policy[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(policy[0])));
        const auto how = Json{{"kind", "DeleteOptions"}, {"apiVersion", "v1"}, {"propagationPolicy", policy}}.dump();
        for (const auto& name : names) {
            const auto target = client::path_of(*w.kind, connected->access().name_space, name);
            const auto answer = connected->request("DELETE", target, how);
            if (!answer || !answer->ok()) {
                if (!(answer && answer->status == 404 && options.ignore_not_found)) status = refused(answer);
                continue;
            }
            // What finalizers hold lingers: gone means gone, as with kubectl.
            if (!options.no_wait && at_path(answer->body, "metadata.deletionTimestamp").is_string()) {
                auto waiting = options;
                waiting.words = {w.kind->qualified_plural() + "/" + name};
                if (const int code = wait(waiting, {.condition = "delete", .timeout = "60s"}); code != 0) status = code;
                continue;
            }
            std::cout << fmt::format("{} \"{}\" deleted\n", w.kind->singular + (w.kind->group.empty() ? "" : "." + w.kind->group), name);
        }
    }
    return status;
}

int validate(const ResourceOptions& options) {
    // What `run` would not begin with: a file that is not there or is no file, more than it holds.
    std::size_t bytes = 0;
    for (const auto& source : client::DiskFiles(options.files).look()) {
        if (!source.fault.empty()) return problem(source.fault);
        for (const auto& file : source.files) bytes += file.size;
    }
    if (bytes > client::manifests_bytes_max)
        return problem(
            fmt::format("the files are larger than {} bytes together", client::manifests_bytes_max));
    const auto documents = read_all(options.files);
    if (!documents) return problem(documents.error().message);
    log::set_levels("off");   // what the parts say for the log is told below
    const auto found = rehearse(*documents);
    const auto& faults = found.faults;
    for (const auto& note : found.notes) std::cerr << "warning: " << printable(note) << "\n";
    for (const auto& fault : faults) std::cerr << printable(fault) << "\n";
    if (!faults.empty()) {
        std::cerr << fmt::format("{} fault{} in {} document{}\n", faults.size(), faults.size() == 1 ? "" : "s", documents->size(), documents->size() == 1 ? "" : "s");
        return 1;
    }
    std::cout << fmt::format("{} document{} valid\n", documents->size(), documents->size() == 1 ? "" : "s");
    return 0;
}

int crds() {
    for (const auto& kind : resources::all_kinds())
        if (kind.group == "mqttbroker.iotoperations.azure.com") std::cout << "---\n" << resources::to_yaml(resources::definition_of(kind));
    return 0;
}

int write_reference(const std::string& folder) {
    std::error_code error;
    std::filesystem::create_directories(folder, error);
    for (const auto& kind : resources::all_kinds()) {
        if (!kind.stored) continue;
        std::ofstream out(folder + "/" + to_lower(kind.kind) + ".md");
        out << resources::reference_page(kind);
        if (!out) return problem(fmt::format("{} cannot be written", folder));
    }
    return 0;
}

}  // namespace penstock::app
