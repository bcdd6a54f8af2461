// patch, edit, version.
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>

#include <fmt/format.h>

#include "app/build_info.h"
#include "app/command_list.h"
#include "app/environment.h"
#include "app/identity.h"
#include "app/terminal.h"
#include "base/text.h"
#include "client/apply.h"
#include "client/manifest_files.h"

extern char** environ;   // NOLINT: POSIX names it so

namespace penstock::app {
namespace {

using resources::at_path;
using resources::Json;
using resources::text_at;

struct VersionOptions {
    bool client_only = false;
    std::string output;        ///< empty, json or yaml
};

struct PatchOptions {
    std::string patch, file;   ///< one of them; JSON or YAML
    std::string type;          ///< json, merge, strategic; empty: strategic where the kind takes it
    std::string subresource;   ///< empty or status
};

std::string label_of(const resources::Kind& kind, const std::string& name) {
    return fmt::format("{}{}{}/{}", kind.singular, kind.group.empty() ? "" : ".", kind.group,
                       printable(name));
}

/// The object without what only the server writes, as a person wants to see it.
Json for_people(Json object) {
    if (object.contains("metadata") && object["metadata"].is_object())
        object["metadata"].erase("managedFields");
    return object;
}

/// A file of its own that goes with its scope, unless it is kept.
class DraftFile {
  public:
    DraftFile() {
        const auto folder = environment("TMPDIR");
        path_ = (folder.empty() ? std::string("/tmp") : folder) + "/penstock-edit-XXXXXX.yaml";
        const int file = mkostemps(path_.data(), 5, O_CLOEXEC);   // 0600: it may be a Secret
        if (file < 0)
            path_.clear();
        else
            close(file);
    }
    DraftFile(const DraftFile&) = delete;
    DraftFile& operator=(const DraftFile&) = delete;
    ~DraftFile() {
        std::error_code ignored;
        if (!is_kept_ && !path_.empty()) std::filesystem::remove(path_, ignored);
    }
    bool write(const std::string& text) const {
        std::ofstream out(path_, std::ios::binary | std::ios::trunc);
        out << text;
        return static_cast<bool>(out.flush());
    }
    const std::string& keep() {
        is_kept_ = true;
        return path_;
    }
    [[nodiscard]] const std::string& path() const noexcept { return path_; }

  private:
    std::string path_;
    bool is_kept_ = false;
};

/// Runs the editor on a file and waits for it; the error says what was tried.
Result<void> run_editor(const std::string& path) {
    std::string editor;
    for (const char* name : {"KUBE_EDITOR", "EDITOR"})
        if (editor.empty()) editor = environment(name);
    if (editor.empty()) editor = "vi";
    // An editor may be a command with arguments, as for kubectl and git.
    std::string script = editor + " \"$1\"", shell = "sh", flag = "-c", zero = "penstock-edit", file = path;
    char* words[] = {shell.data(), flag.data(), script.data(), zero.data(), file.data(), nullptr};
    pid_t child = 0;
    if (const int error = posix_spawnp(&child, "sh", nullptr, nullptr, words, environ); error != 0)
        return fail(fmt::format("the editor \"{}\" cannot be started: {}", editor, std::strerror(error)));
    int status = 0;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return fail(
            fmt::format("there was a problem with the editor \"{}\" (set KUBE_EDITOR or EDITOR)", editor));
    return {};
}

constexpr const char* edit_head =
    "# Please edit the object below. Lines beginning with a '#' will be ignored,\n"
    "# and an empty file will abort the edit. If an error occurs while saving this file will be\n"
    "# reopened with the relevant failures.\n#\n";

std::string as_comment(const std::string& text) {
    std::string out;
    for (const auto line : split(text, '\n')) out += fmt::format("# {}\n", printable(line));
    return out;
}

/// The text without the lines that are remarks.
std::string without_head(const std::string& text) {
    std::string out;
    for (const auto line : split(text, '\n'))
        if (!line.starts_with('#')) out += std::string(line) + "\n";
    return std::string(trim(out));
}

constexpr int conflicts_max = 20;   // one after the other, each with a write of somebody else

/// Sends what was changed of an object that was seen as `seen`. Who wrote other fields of it meanwhile, as a
/// controller does its status at any time, is no matter; what somebody did to the same ones stays: 409.
Result<client::Response> send_changes(client::Client& api, const std::string& target, Json changes,
                                      Json seen) {
    for (int conflicts = 0;; ++conflicts) {
        changes["metadata"]["resourceVersion"] = text_at(seen, "metadata.resourceVersion");
        auto done = api.request("PATCH", target + "?fieldManager=penstock-edit&fieldValidation=Strict",
                                changes.dump(-1, ' ', false, Json::error_handler_t::replace),
                                "application/merge-patch+json");
        if (!done || done->status != 409 || conflicts == conflicts_max) return done;
        auto now = api.request("GET", target);
        if (!now || !now->ok() || text_at(now->body, "metadata.uid") != text_at(seen, "metadata.uid") ||
            !client::is_unchanged(changes, seen, now->body))
            return done;
        seen = std::move(now->body);
    }
}

/// Edits one object until it is taken, unchanged or given up.
int edit_one(client::Client& api, const resources::Kind& kind, const std::string& target,
             const std::string& label) {
    const auto there = api.request("GET", target);
    if (!there || !there->ok()) return refused(there);
    const auto before = for_people(there->body);
    DraftFile draft;
    if (draft.path().empty())
        return problem("a temporary file cannot be made; set TMPDIR to a folder that can be written");
    auto text = edit_head + resources::to_yaml(before);
    std::string last = without_head(text), why;
    while (true) {
        if (!draft.write(why.empty() ? text : edit_head + as_comment(why) + "#\n" + last + "\n"))
            return problem(fmt::format("{}: cannot be written", draft.path()));
        if (auto done = run_editor(draft.path()); !done) return problem(done.error().message);
        const auto edited = client::read_manifest_text(draft.path());
        if (!edited) return problem(edited.error().message);
        auto now = without_head(*edited);
        if (now.empty()) {
            std::cout << "Edit cancelled, saved file was empty.\n";
            return 0;
        }
        if (now == last) {
            if (why.empty()) {
                std::cout << "Edit cancelled, no changes made.\n";
                return 0;
            }
            std::cerr << fmt::format("A copy of your changes has been stored to \"{}\"\n", draft.keep());
            return problem("Edit cancelled, no valid changes were saved.");
        }
        last = std::move(now);
        const auto documents = resources::parse_documents(last + "\n", label);
        if (!documents || documents->size() != 1) {
            why = documents ? std::string("one object is needed") : documents.error().message;
            continue;
        }
        const auto& wanted = documents->front().object;
        if (text_at(wanted, "metadata.name") != text_at(before, "metadata.name") ||
            text_at(wanted, "kind") != kind.kind) {
            why = "the name and the kind of the object may not be changed";
            continue;
        }
        const auto changes = client::three_way_patch(before, wanted, before);
        if (changes.empty()) {
            std::cout << "Edit cancelled, no changes made.\n";
            return 0;
        }
        const auto done = send_changes(api, target, changes, before);
        if (done && done->ok()) {
            for (const auto& warning : done->warnings)
                std::cerr << "Warning: " << printable(client::warning_text(warning)) << "\n";
            std::cout << label << " edited\n";
            return 0;
        }
        why = fmt::format("{} was not taken:\n{}", label, done ? done->message() : done.error().message);
        std::cerr << "error: ";
        for (const auto line : split(why, '\n')) std::cerr << printable(line) << "\n";
        // Saved again it would meet the same: what somebody else changed has to be seen first.
        if (!done || done->status == 409) {
            std::cerr << fmt::format("A copy of your changes has been stored to \"{}\"\n", draft.keep());
            return 1;
        }
    }
}

/// Opens an editor on resources and sends what was changed; on a refusal the editor opens again, with why.
int edit(const ResourceOptions& options) {
    auto connected = connect(options);
    if (!connected) return problem(connected.error().message);
    client::Kinds kinds(*connected);
    const auto wanted = wanted_of(kinds, options.words);
    if (!wanted) return problem(wanted.error().message);
    int status = 0;
    for (const auto& one : *wanted) {
        if (one.names.empty()) return problem("name what is to be edited: penstock edit KIND NAME");
        for (const auto& name : one.names)
            status |= edit_one(*connected, *one.kind,
                               client::path_of(*one.kind, connected->access().name_space, name),
                               label_of(*one.kind, name));
    }
    return status;
}

int patch(const ResourceOptions& options, const PatchOptions& how) {
    if (how.patch.empty() == how.file.empty())
        return problem("must specify --patch or --patch-file containing the contents of the patch");
    auto text = how.patch;
    if (text.empty()) {
        auto read = client::read_manifest_text(how.file);
        if (!read) return problem(read.error().message);
        text = std::move(*read);
    }
    auto body = resources::parse_json(text);
    if (!body) {
        const auto documents = resources::parse_documents(text, how.file.empty() ? "--patch" : how.file);
        if (!documents || documents->size() != 1)
            return problem(fmt::format("unable to parse the patch: {}",
                                       documents ? "one document is needed" : documents.error().message));
        body = documents->front().object;
    }
    auto connected = connect(options);
    if (!connected) return problem(connected.error().message);
    client::Kinds kinds(*connected);
    const auto wanted = wanted_of(kinds, options.words);
    if (!wanted) return problem(wanted.error().message);
    int status = 0;
    for (const auto& one : *wanted) {
        if (one.names.empty())
            return problem("name what is to be patched: penstock patch KIND NAME -p PATCH");
        // Kinds that are not Kubernetes' own take no strategic patch; kubectl's default for them is refused by every server.
        const auto type = !how.type.empty()    ? how.type
                          : body->is_array()   ? "json"
                          : one.kind->built_in ? "strategic"
                                               : "merge";
        const auto media = type == "json"    ? "application/json-patch+json"
                           : type == "merge" ? "application/merge-patch+json"
                                             : "application/strategic-merge-patch+json";
        for (const auto& name : one.names) {
            const auto target = client::path_of(*one.kind, connected->access().name_space, name);
            const auto before = connected->request("GET", target);
            if (!before || !before->ok()) {
                status = refused(before);
                continue;
            }
            const auto done =
                connected->request("PATCH",
                                   fmt::format("{}{}?fieldManager=penstock-patch{}", target,
                                               how.subresource.empty() ? "" : "/" + how.subresource,
                                               options.dry_run ? "&dryRun=All" : ""),
                                   body->dump(-1, ' ', false, Json::error_handler_t::replace), media);
            if (!done || !done->ok()) {
                status = refused(done);
                continue;
            }
            for (const auto& warning : done->warnings)
                std::cerr << "Warning: " << printable(client::warning_text(warning)) << "\n";
            const bool with_status = !how.subresource.empty() || !one.kind->has_status;
            const bool same = !options.dry_run &&
                              client::is_unchanged(*body, before->body, done->body, with_status);
            if (options.output == "json")
                std::cout << for_people(done->body).dump(4) << "\n";
            else if (options.output == "yaml")
                std::cout << resources::to_yaml(for_people(done->body));
            else
                std::cout << label_of(*one.kind, name) << " patched"
                          << (same              ? " (no change)"
                              : options.dry_run ? " (server dry run)"
                                                : "")
                          << "\n";
        }
    }
    return status;
}

int show_version(const ResourceOptions& options, const VersionOptions& how) {
    if (!how.output.empty() && how.output != "json" && how.output != "yaml")
        return problem(fmt::format("--output must be 'yaml' or 'json', not \"{}\"", how.output));
    Json all = {{"clientVersion", build_info()}};
    std::string fault;
    if (!how.client_only) {
        auto connected = connect(options);
        const auto served = connected ? connected->request("GET", "/version")
                                      : Result<client::Response>(std::unexpected(connected.error()));
        if (!served)
            fault = served.error().message;
        else if (!served->ok())
            fault = served->message();
        else
            all["serverVersion"] = served->body;
    }
    if (how.output == "json")
        std::cout << all.dump(2) << "\n";
    else if (how.output == "yaml")
        std::cout << resources::to_yaml(all);
    else {
        const auto& own = all["clientVersion"];
        auto build = [](const Json& of) {
            const auto commit = text_at(of, "gitCommit");
            return fmt::format("commit {}, {}, {}", clipped(commit, 12), text_at(of, "buildDate", "unknown"),
                               text_at(of, "platform", "unknown"));
        };
        std::cout << fmt::format("Client Version: {} ({})\n", text_at(own, "gitVersion"), build(own));
        if (all.contains("serverVersion")) {
            const auto& server = all["serverVersion"];
            const auto penstock = text_at(server, "penstockVersion");
            std::cout << printable(fmt::format(
                             "Server Version: {} ({}{})", text_at(server, "gitVersion"),
                             penstock.empty() ? "" : fmt::format("penstock v{}, ", penstock), build(server)))
                      << "\n";
        }
    }
    return fault.empty() ? 0 : problem(fault);
}

}  // namespace

void add_patch(Commands& commands) {
    auto& resource = commands.keep<ResourceOptions>();
    auto& how = commands.keep<PatchOptions>();
    auto command = commands.add("patch", "Change fields of a resource: penstock patch KIND NAME -p PATCH");
    add_api_options(command, resource);
    command.option("words", resource.words, "KIND NAME...");
    command.option("-p,--patch", how.patch, "The patch, JSON or YAML");
    command.option("--patch-file", how.file, "File with the patch, or -");
    command.option("--type", how.type, "json, merge or strategic; as the kind takes it when absent")
        .one_of({"json", "merge", "strategic"});
    command.option("--subresource", how.subresource, "status").one_of(std::vector<std::string>{"status"});
    command.option("-o,--output", resource.output, "json, yaml or name").one_of({"json", "yaml", "name"});
    command.flag("--dry-run", resource.dry_run, "Check only");
    command.runs([&] { return patch(resource, how); });
}

void add_edit(Commands& commands) {
    auto& resource = commands.keep<ResourceOptions>();
    auto command = commands.add(
        "edit", "Change a resource in an editor (KUBE_EDITOR, EDITOR, vi): penstock edit KIND NAME");
    add_api_options(command, resource);
    command.option("words", resource.words, "KIND NAME...");
    command.runs([&] { return edit(resource); });
}

void add_version(Commands& commands) {
    auto& resource = commands.keep<ResourceOptions>();
    auto& how = commands.keep<VersionOptions>();
    auto command = commands.add("version", "Versions of this program and of the server");
    add_api_options(command, resource);
    command.flag("--client", how.client_only, "This program alone, no server is asked");
    command.option("-o,--output", how.output, "json or yaml");
    command.runs([&] { return show_version(resource, how); });
}

}  // namespace penstock::app
