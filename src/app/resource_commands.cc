// apply, delete, validate; crds and write-reference, which print what the declarations say.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <ranges>

#include <fmt/format.h>

#include "app/command_list.h"
#include "app/rehearsal.h"
#include "app/terminal.h"
#include "app/wait_command.h"
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

/// The definitions of the kinds that a cluster does not have, as YAML.
int crds() {
    for (const auto& kind : resources::all_kinds())
        if (kind.group == "mqttbroker.iotoperations.azure.com") std::cout << "---\n" << resources::to_yaml(resources::definition_of(kind));
    return 0;
}

/// Writes docs/resources/*.md from the declarations.
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

}  // namespace

void add_apply(Commands& commands) {
    auto& resource = commands.keep<ResourceOptions>();
    auto command = commands.add("apply", "Create or change resources from files");
    add_api_options(command, resource);
    command.option("-f,--filename", resource.files, "File, folder or -").required();
    command.flag("--dry-run", resource.dry_run, "Check only");
    command.flag("--server-side", resource.server_side,
                 "Server-side apply: fields are owned, conflicts are told");
    command.flag("--force-conflicts", resource.force_conflicts,
                 "Server-side: take conflicting fields over");
    command.option("--field-manager", resource.field_manager, "Name under which fields are owned");
    command.runs([&] { return apply(resource); });
}

void add_delete(Commands& commands) {
    auto& resource = commands.keep<ResourceOptions>();
    auto command = commands.add("delete", "Delete resources: by file, or KIND NAME");
    add_api_options(command, resource);
    command.option("words", resource.words, "KIND NAME...");
    command.option("-f,--filename", resource.files, "File, folder or -");
    command.option("-l,--selector", resource.selector, "Those with these labels");
    command.flag("--all", resource.all, "All of the kind in the namespace");
    command.option("--cascade", resource.cascade, "background, foreground or orphan")
        .one_of({"background", "foreground", "orphan"})
        .shows_default();
    command.flag("--no-wait", resource.no_wait, "Do not wait until finalizers are done");
    command.flag("--ignore-not-found", resource.ignore_not_found, "No error when absent");
    command.runs([&] { return remove(resource); });
}

void add_validate(Commands& commands) {
    auto& resource = commands.keep<ResourceOptions>();
    auto command = commands.add("validate", "Check manifests without a running Penstock");
    command.option("-f,--filename", resource.files, "File, folder or -").required();
    command.runs([&] { return validate(resource); });
}

void add_crds(Commands& commands) {
    commands
        .add("crds", "Print the definitions of the kinds for a cluster: "
                     "penstock crds | kubectl apply --server-side -f -")
        .runs(crds);
}

void add_write_reference(Commands& commands) {
    auto& folder = commands.keep<std::string>();
    auto command = commands.add("write-reference", "Write the reference pages of all kinds");
    command.option("folder", folder, "Folder").required();
    command.runs([&] { return write_reference(folder); });
}

}  // namespace penstock::app
