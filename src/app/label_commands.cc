// annotate and label: kubectl's words for two maps of metadata, sent as merge patches.
#include <algorithm>
#include <iostream>
#include <map>
#include <optional>
#include <set>

#include <fmt/format.h>

#include "app/command_list.h"
#include "app/terminal.h"
#include "base/text.h"
#include "client/apply.h"
#include "client/names.h"

namespace penstock::app {
namespace {

using resources::at_path;
using resources::Json;
using resources::text_at;

struct MarkOptions {
    bool overwrite = false;    ///< a key that has another value gets this one
};

/// What the two commands differ in.
struct Map {
    const char* one;      ///< "annotation"
    const char* field;    ///< below metadata
    const char* command;
    const char* done;     ///< "annotated"
};
constexpr Map annotations{"annotation", "annotations", "annotate", "annotated"};
constexpr Map labels{"label", "labels", "label", "labeled"};

std::string shown(std::string_view word) { return printable(clipped(word, 100)); }

/// KEY=VALUE and KEY- of the words; the words before the first one name objects.
struct Changes {
    std::vector<std::string> objects;
    std::map<std::string, std::optional<std::string>> values;    ///< none: the key is taken away
};

Result<Changes> changes_of(const Map& map, const std::vector<std::string>& words) {
    Changes out;
    std::set<std::string> removed;
    for (const auto& word : words) {
        const auto equal = word.find('=');
        const bool is_removal = equal == std::string::npos && word.size() > 1 && word.ends_with('-');
        if (equal == std::string::npos && !is_removal) {
            if (!out.values.empty() || !removed.empty())
                return fail(fmt::format("all resources must be specified before {} changes: {}", map.one,
                                        shown(word)));
            out.objects.push_back(word);
        } else if (equal == 0) {
            return fail(fmt::format("invalid {} format: {}; write KEY=VALUE, or KEY- to take one away",
                                    map.one, shown(word)));
        } else if (is_removal) {
            removed.insert(word.substr(0, word.size() - 1));
        } else {
            out.values[word.substr(0, equal)] = word.substr(equal + 1);
        }
    }
    for (const auto& key : removed)
        if (!out.values.emplace(key, std::nullopt).second)
            return fail(fmt::format("can not both modify and remove {} {} in the same command",
                                    map.one[0] == 'a' ? "an" : "a", map.one));
    if (out.values.empty()) return fail(fmt::format("at least one {} update is required", map.one));
    return out;
}

/// Values that are there and would be others; empty: there are none.
std::string overwritten(const Map& map, const Json& there, const Changes& changes) {
    const bool is_label = &map == &labels;
    std::vector<std::string> found;
    for (const auto& [key, value] : changes.values) {
        const auto old = there.is_object() ? there.find(key) : there.end();
        if (!value || old == there.end() || *old == *value) continue;
        found.push_back(fmt::format("'{}' already has a value ({}){}", shown(key),
                                    shown(old->is_string() ? old->get<std::string>() : old->dump()),
                                    is_label ? ", and --overwrite is false" : ""));
    }
    if (found.empty() || is_label) return fmt::format("{}", fmt::join(found, "; "));
    return fmt::format("--overwrite is false but found the following declared {}(s): {}", map.one,
                       fmt::join(found, "; "));
}

struct Target {
    std::string path, label;             ///< of the API; `pod/NAME` for people
};

class Marker {
  public:
    Marker(const Map& map, client::Client& api, const ResourceOptions& options, const MarkOptions& how,
           Changes changes)
        : map_(map), api_(api), options_(options), how_(how), changes_(std::move(changes)) {}

    int mark(const Target& target) {
        const auto before = api_.request("GET", target.path);
        if (!before || !before->ok()) return refused(before);
        const auto& there = at_path(before->body, std::string("metadata.") + map_.field);
        if (!how_.overwrite)
            if (const auto why = overwritten(map_, there, changes_); !why.empty()) return problem(why);
        Json patch;
        auto& wanted = patch["metadata"][map_.field];
        for (const auto& [key, value] : changes_.values) {
            wanted[key] = value ? Json(*value) : Json();
            if (!value && (!there.is_object() || !there.contains(key)))
                std::cout << fmt::format("{} \"{}\" not found.\n", map_.one, shown(key));
        }
        const auto done = api_.request(
            "PATCH",
            fmt::format("{}?fieldManager=penstock-{}{}", target.path, map_.command,
                        options_.dry_run ? "&dryRun=All" : ""),
            patch.dump(-1, ' ', false, Json::error_handler_t::replace), "application/merge-patch+json");
        if (!done || !done->ok()) return refused(done);
        for (const auto& warning : done->warnings)
            std::cerr << "Warning: " << printable(client::warning_text(warning)) << "\n";
        print(target, client::is_unchanged(patch, before->body, done->body), done->body);
        return 0;
    }

  private:
    void print(const Target& target, bool is_same, Json object) const {
        object["metadata"].erase("managedFields");
        if (options_.output == "json") std::cout << object.dump(4) << "\n";
        else if (options_.output == "yaml") std::cout << resources::to_yaml(object);
        else if (options_.output == "name") std::cout << target.label << "\n";
        else
            std::cout << fmt::format("{} {}{}\n", target.label, what_was_done(is_same),
                                     options_.dry_run ? " (server dry run)" : "");
    }
    /// As kubectl: of labels it tells a change from none, and a mere removal.
    [[nodiscard]] std::string what_was_done(bool is_same) const {
        if (&map_ == &annotations) return map_.done;
        if (is_same) return "not labeled";
        const bool removes_only =
            std::ranges::none_of(changes_.values, [](const auto& one) { return one.second.has_value(); });
        return removes_only ? "unlabeled" : map_.done;
    }

    const Map& map_;
    client::Client& api_;
    const ResourceOptions& options_;
    const MarkOptions& how_;
    Changes changes_;
};

Target target_of(const resources::Kind& kind, const std::string& space, const std::string& name) {
    return {client::path_of(kind, space, name),
            fmt::format("{}{}{}/{}", kind.singular, kind.group.empty() ? "" : ".", kind.group,
                        printable(name))};
}

/// Those of the files.
Result<std::vector<Target>> of_files(client::Client& api, client::Kinds& kinds,
                                     const std::vector<std::string>& files) {
    std::vector<Target> out;
    for (const auto& file : files) {
        const auto documents = client::read_manifests(file);
        if (!documents) return std::unexpected(documents.error());
        for (const auto& document : *documents) {
            const auto kind = kinds.of_object(document.object);
            if (!kind) return std::unexpected(kind.error());
            const auto& usual = api.access().name_space;
            if (auto good = client::check_names(document.object, (*kind)->namespaced, usual); !good)
                return std::unexpected(good.error());
            out.push_back(target_of(**kind, client::namespace_of(document.object, usual),
                                    text_at(document.object, "metadata.name")));
        }
    }
    if (out.empty()) return fail("no resource objects in the files");
    return out;
}

/// Those that words name, `--all` or `-l` choose.
Result<std::vector<Target>> of_words(client::Client& api, client::Kinds& kinds, const Map& map,
                                     const ResourceOptions& options, const std::vector<std::string>& words) {
    const auto wanted = wanted_of(kinds, words);
    if (!wanted) return std::unexpected(wanted.error());
    const auto& space = api.access().name_space;
    std::vector<Target> out;
    for (const auto& one : *wanted) {
        auto names = one.names;
        if (names.empty()) {
            if (!options.all && options.selector.empty())
                return fail(fmt::format("name what is to be {}: penstock {} KIND NAME KEY=VALUE, "
                                        "-l SELECTOR, --all, or -f FILE",
                                        map.done, map.command));
            auto path = client::path_of(*one.kind, space);
            if (!options.selector.empty())
                path += "?labelSelector=" + client::query_escaped(options.selector);
            const auto list = fetch(api, path);
            if (!list) return std::unexpected(list.error());
            for (const auto& item : at_path(*list, "items")) names.push_back(text_at(item, "metadata.name"));
        }
        for (const auto& name : names) out.push_back(target_of(*one.kind, space, name));
    }
    if (out.empty()) return fail("no resources found");
    return out;
}

int mark(const Map& map, const ResourceOptions& options, const MarkOptions& how) {
    auto changes = changes_of(map, options.words);
    if (!changes) return problem(changes.error().message);
    if (!options.files.empty() && !changes->objects.empty())
        return problem("there is no need to specify a resource type and a name when -f names them");
    auto connected = connect(options);
    if (!connected) return problem(connected.error().message);
    client::Kinds kinds(*connected);
    const auto targets = options.files.empty() ? of_words(*connected, kinds, map, options, changes->objects)
                                               : of_files(*connected, kinds, options.files);
    if (!targets) return problem(targets.error().message);
    Marker marker(map, *connected, options, how, std::move(*changes));
    int status = 0;
    for (const auto& target : *targets) status |= marker.mark(target);
    return status;
}

void add_mark(Commands& commands, const Map& map, const char* doc) {
    auto& resource = commands.keep<ResourceOptions>();
    auto& how = commands.keep<MarkOptions>();
    auto command = commands.add(map.command, doc);
    add_api_options(command, resource);
    command.option("words", resource.words, "KIND NAME... KEY=VALUE... KEY-...");
    command.option("-f,--filename", resource.files, "Those of a file, folder or -").takes_one();
    command.option("-l,--selector", resource.selector, "Those with these labels");
    command.flag("--all", resource.all, "All of the kind in the namespace");
    command.flag("--overwrite", how.overwrite, "A key that has another value gets this one");
    command.option("-o,--output", resource.output, "json, yaml or name").one_of({"json", "yaml", "name"});
    command.flag("--dry-run", resource.dry_run, "Check only");
    command.runs([&map, &resource, &how] { return mark(map, resource, how); });
}

}  // namespace

void add_annotate(Commands& commands) {
    add_mark(commands, annotations, "Set annotations: penstock annotate KIND NAME K=V K-");
}

void add_label(Commands& commands) {
    add_mark(commands, labels, "Set labels: penstock label KIND NAME K=V K-");
}

}  // namespace penstock::app
