#include "client/apply.h"

#include <algorithm>
#include <filesystem>
#include <iterator>

#include <fmt/format.h>

#include "base/own_command.h"
#include "base/shell.h"
#include "base/text.h"
#include "client/manifest_files.h"
#include "client/names.h"
#include "resources/text_rules.h"
#include "resources/versions.h"

namespace penstock::client {

using resources::at_path;
using resources::Json;
using resources::text_at;

Json three_way_patch(const Json& last, const Json& wanted, const Json& live) {
    Json out = Json::object();
    for (const auto& [key, value] : wanted.items()) {
        const auto there = live.find(key);
        if (there == live.end()) {
            if (!value.is_null()) out[key] = value;
        } else if (value.is_object() && there->is_object()) {
            const auto before = last.is_object() && last.contains(key) ? last[key] : Json();
            auto inner = three_way_patch(before, value, *there);
            if (!inner.empty()) out[key] = std::move(inner);
        } else if (*there != value) {
            out[key] = value;
        }
    }
    // What was applied before and is not wanted any more goes away.
    if (last.is_object())
        for (const auto& [key, value] : last.items())
            if (!wanted.contains(key) && live.contains(key)) out[key] = nullptr;
    return out;
}

Result<std::vector<resources::Document>> read_manifests(const std::string& path) {
    namespace fs = std::filesystem;
    auto read = [](const std::string& file) -> Result<std::vector<resources::Document>> {
        const auto text = read_manifest_text(file);
        if (!text) return std::unexpected(text.error());
        return resources::parse_documents(*text, file == "-" ? "standard input" : file);
    };
    std::error_code error;
    if (!fs::is_directory(path, error)) return read(path);
    std::vector<std::string> files;
    for (const auto& entry : fs::directory_iterator(path, error))
        if (entry.is_regular_file() && is_manifest_name(entry.path().filename().string())) files.push_back(entry.path().string());
    if (error) return fail(fmt::format("{}: {}", path, error.message()));
    if (files.empty()) return fail(fmt::format("{}: no .yaml, .yml or .json file in it", path));
    std::ranges::sort(files);
    std::vector<resources::Document> out;
    for (const auto& file : files) {
        auto some = read(file);
        if (!some) return some;
        std::ranges::move(*some, std::back_inserter(out));
    }
    return out;
}

std::string place_of(const resources::Document& d) {
    return fmt::format("{}: document {} (line {})", d.file, d.index, d.line);
}

Refusal refusal_of(const Response& response) {
    const auto message = response.message();
    const auto reason = text_at(response.body, "reason");
    switch (response.status) {
        case 403: return Refusal::forbidden;
        case 404: return text_at(response.body, "details.kind") == "namespaces" ? Refusal::no_namespace : Refusal::unknown_kind;
        case 409: return message.starts_with("Apply failed") ? Refusal::owned : Refusal::raced;
        case 413: return Refusal::too_large;
        case 507: return message.starts_with("the registry is full") ? Refusal::full : Refusal::no_space;
        default: break;
    }
    return response.status == 408 || response.status == 429 || response.status >= 500 ? Refusal::busy : Refusal::faulty;
}

std::string cure_of(Refusal refusal, const std::string& file, const std::string& name_space, const std::string& manager, const std::string& reread) {
    constexpr const char* by_itself = "it is tried again by itself";
    const bool is_stream = file == "-" || file == "standard input";
    const auto name = is_stream ? std::string("-") : typed_path(file);
    const auto where = is_stream ? std::string("in what is piped in (standard input is read once, so it is piped in anew at the next start)") : fmt::format("in {}", name);
    const auto at_once = fmt::format(", and at once when the file changes{}", reread.empty() ? "" : " or with: " + reread);
    const auto then = fmt::format("; {} within a minute{}", by_itself, is_stream ? "" : at_once);
    switch (refusal) {
        case Refusal::none: return {};
        case Refusal::faulty: return fmt::format("correct it {}; the API says what it would take with: {}{}", where, own_command("apply --server-side --dry-run -f " + name), then);
        case Refusal::unknown_kind: return fmt::format("correct apiVersion and kind {}, or have its definition among the files; what is served is shown with: {}{}", where, own_command("api-resources"), then);
        case Refusal::owned: return fmt::format("take the fields out {}, or give them to the files with: {}", where, own_command(fmt::format("apply --server-side --force-conflicts --field-manager {} -f {}", manager, name)));
        case Refusal::raced: return fmt::format("somebody else wrote it at the same moment; {}", by_itself);
        case Refusal::no_namespace:
            if (!resources::is_dns_label(name_space))
                return fmt::format("no namespace can have that name (at most 63 of a-z, 0-9 and '-', a letter or digit at "
                                   "each end): correct metadata.namespace {}{}", where, then);
            return fmt::format("make its namespace with: kubectl create namespace {}; {}", shell_quoted(name_space), by_itself);
        case Refusal::forbidden: return fmt::format("see whether its namespace goes away with: kubectl get namespace {}; {}", shell_quoted(name_space), by_itself);
        case Refusal::too_large: return fmt::format("make it smaller {}{}", where, then);
        case Refusal::full: return fmt::format("delete what is not needed any more (see what there is with: kubectl get configmap,secret -A); {}", by_itself);
        case Refusal::no_space: return fmt::format("make room on the disk of the data folder (df -h); {}", by_itself);
        case Refusal::busy: return fmt::format("{}; see how the API is with: kubectl get --raw /readyz", by_itself);
    }
    return {};
}

int rank_of(const resources::Document& document) {
    const auto kind = text_at(document.object, "kind");
    return kind == "Namespace" ? 0 : kind == "CustomResourceDefinition" ? 1 : kind == "Broker" ? 2 : 3;
}

std::string warning_text(std::string_view header) {
    const auto from = header.find('"');
    if (from == std::string_view::npos) return std::string(header);
    std::string out;
    for (auto at = from + 1; at < header.size() && header[at] != '"'; ++at) {
        if (header[at] == '\\' && at + 1 < header.size()) ++at;
        out += header[at];
    }
    return out;
}

namespace {

/// A file's own path may hold bytes that are no text; they are replaced rather than thrown over.
std::string body_of(const Json& value) { return value.dump(-1, ' ', false, Json::error_handler_t::replace); }

constexpr std::size_t name_max = 253;

Result<const resources::Kind*> kind_of(const Json& object) {
    const auto api_version = text_at(object, "apiVersion"), name = text_at(object, "kind");
    if (api_version.empty()) return fail("apiVersion: Required value: for example mqttbroker.iotoperations.azure.com/v1");
    if (name.empty()) return fail("kind: Required value: for example BrokerListener");
    const auto* kind = resources::find_kind(api_version, name);
    if (kind != nullptr) return kind;
    std::string known;
    std::vector<std::string> names;
    for (const auto& k : resources::all_kinds()) {
        known += fmt::format("{}{} {}", known.empty() ? "" : ", ", k.api_version(), k.kind);
        names.push_back(k.kind);
        if (k.kind == name) return fail(fmt::format("apiVersion: \"{}\" does not have kind {}; it is served as {}", resources::shortened(api_version), name, k.api_version()));
    }
    const auto near = nearest(name, names);
    return fail(fmt::format("kind: \"{}\" of {} is not served{}; served are: {}", resources::shortened(name), resources::shortened(api_version), near.empty() ? "" : fmt::format(" (did you mean {}?)", near), known));
}

std::string label_of(const resources::Kind& kind, const std::string& name) {
    return fmt::format("{}{}{}/{}", kind.singular, kind.group.empty() ? "" : ".", kind.group, name.size() > name_max ? resources::shortened(name) : name);
}

/// An object without what every write changes, and without what controllers write.
Json written_by_users(const Json& object, bool with_status) {
    auto out = object;
    if (!with_status) out.erase("status");
    if (const auto metadata = out.find("metadata"); metadata != out.end() && metadata->is_object()) {
        metadata->erase("resourceVersion");
        metadata->erase("managedFields");
    }
    return out;
}

/// Whether two states are the same in all that `sent` names.
bool is_same_where(const Json& sent, const Json& before, const Json& after) {
    if (!sent.is_object() || !before.is_object() || !after.is_object()) return before == after;
    for (const auto& [key, value] : sent.items()) {
        // A directive of a strategic merge patch is about the whole.
        if (key.starts_with('$')) return before == after;
        const auto was = before.find(key), is = after.find(key);
        const bool was_there = was != before.end(), is_there = is != after.end();
        if (was_there != is_there) return false;
        if (was_there && !is_same_where(value, *was, *is)) return false;
    }
    return true;
}

/// What a field manager applied: its fields, or null.
Json applied_by(const Json& object, const std::string& manager) {
    const auto& managers = at_path(object, "metadata.managedFields");
    if (managers.is_array())
        for (const auto& entry : managers)
            if (text_at(entry, "manager") == manager && text_at(entry, "operation") == "Apply" &&
                text_at(entry, "subresource").empty())
                return at_path(entry, "fieldsV1");
    return {};
}

std::string outcome_of(bool is_same) { return is_same ? "unchanged" : "configured"; }

}  // namespace

bool is_unchanged(const Json& sent, const Json& before, const Json& after, bool with_status) {
    return is_same_where(sent, written_by_users(before, with_status), written_by_users(after, with_status));
}

std::vector<std::string> validate_documents(const std::vector<resources::Document>& documents, bool others_too) {
    std::vector<std::string> out;
    for (const auto& document : documents) {
        const auto kind = kind_of(document.object);
        if (!kind) {
            // A kind of a definition is known to the server alone; what has no apiVersion or kind is a fault anywhere.
            if (!others_too || text_at(document.object, "apiVersion").find('/') == std::string::npos || text_at(document.object, "kind").empty()) out.push_back(fmt::format("{}: {}", place_of(document), kind.error().message));
            continue;
        }
        auto object = document.object;
        std::vector<std::string> old_spellings;
        if (auto converted = resources::convert(**kind, object, old_spellings); !converted) out.push_back(fmt::format("{}: {}", place_of(document), converted.error().message));
        const auto& kept = resources::kept_kind(**kind);
        auto faults = resources::prune_unknown(kept, object);
        if (!resources::apply_defaults(kept, object)) faults.push_back({"", "FieldValueTooLong", fmt::format("Too long: with its defaults it would take more than {} bytes", resources::defaults_bytes_max)});
        std::ranges::move(resources::validate(kept, object), std::back_inserter(faults));
        for (const auto& fault : faults) out.push_back(fmt::format("{}: {}: {}", place_of(document), fault.path, fault.message));
    }
    return out;
}

Applied apply_document(Transport& client, Kinds& kinds, const resources::Document& document, const ApplyOptions& options) {
    const auto kind = kinds.of_object(document.object);
    if (!kind) return {.what = place_of(document), .error = kind.error().message, .refusal = Refusal::unknown_kind};
    const auto& k = **kind;
    auto wanted = document.object;
    const auto name = text_at(wanted, "metadata.name");
    Applied out{.what = name.empty() ? place_of(document) : label_of(k, name)};
    if (auto good = check_names(wanted, k.namespaced, options.name_space); !good) {
        const auto& why = good.error().message;
        out.error = name.empty() ? why : fmt::format("{}: {}", place_of(document), why);
        out.refusal = Refusal::faulty;
        return out;
    }
    const auto space = k.namespaced ? namespace_of(wanted, options.name_space) : std::string();
    if (k.namespaced) wanted["metadata"]["namespace"] = space;
    const std::string query = fmt::format("?fieldManager={}&fieldValidation=Strict{}", options.manager, options.dry_run ? "&dryRun=All" : "");
    auto refuse = [&](const Result<Response>& r) {
        out.error = fmt::format("{}: {}", place_of(document), r ? r->message() : r.error().message);
        out.refusal = r ? refusal_of(*r) : Refusal::busy;
        return out;
    };
    auto take = [&](const Response& answer) {
        out.object = answer.body;
        for (const auto& warning : answer.warnings) out.warnings.push_back(warning_text(warning));
    };
    const auto target = path_of(k, space, name);
    const auto live = client.request("GET", target);
    if (!live) return refuse(live);
    if (!live->ok() && live->status != 404) return refuse(live);
    if (options.server_side) {
        const auto done = client.request("PATCH", target + query + (options.force ? "&force=true" : ""), body_of(wanted), "application/apply-patch+yaml");
        if (!done || !done->ok()) return refuse(done);
        take(*done);
        // What is not applied any more goes, or stays for another: it is his no longer.
        out.outcome = done->status == 201
                          ? "created"
                          : outcome_of(is_unchanged(wanted, live->body, done->body, !k.has_status) &&
                                       applied_by(live->body, options.manager) ==
                                           applied_by(done->body, options.manager));
        return out;
    }
    if (at_path(wanted, "metadata.annotations").is_object()) wanted["metadata"]["annotations"].erase(last_applied_key);
    const auto record = body_of(wanted) + "\n";
    wanted["metadata"]["annotations"][last_applied_key] = record;
    if (live->status == 404) {
        const auto made = client.request("POST", path_of(k, space) + query, body_of(wanted));
        if (!made || !made->ok()) return refuse(made);
        take(*made);
        out.outcome = "created";
        return out;
    }
    const auto& annotations = at_path(live->body, "metadata.annotations");
    const auto last = annotations.is_object() && annotations.contains(last_applied_key) ? resources::parse_json(annotations[last_applied_key].get<std::string>()) : Result<Json>(Json());
    const auto patch = three_way_patch(last.value_or(Json()), wanted, live->body);
    if (patch.empty()) {
        out.object = live->body;
        out.outcome = "unchanged";
        return out;
    }
    const auto done = client.request("PATCH", target + query, body_of(patch), "application/merge-patch+json");
    if (!done || !done->ok()) return refuse(done);
    take(*done);
    out.outcome = outcome_of(is_unchanged(patch, live->body, done->body, !k.has_status));
    return out;
}

Applied delete_document(Transport& client, Kinds& kinds, const resources::Document& document, const std::string& default_namespace) {
    const auto kind = kinds.of_object(document.object);
    if (!kind) return {.what = place_of(document), .error = kind.error().message};
    const auto name = text_at(document.object, "metadata.name");
    // The path without a name is that of all objects of the kind, and one of another form is another's.
    if (auto good = check_names(document.object, (*kind)->namespaced, default_namespace); !good)
        return {.what = place_of(document), .error = good.error().message, .refusal = Refusal::faulty};
    Applied out{.what = label_of(**kind, name)};
    const auto space = (*kind)->namespaced ? namespace_of(document.object, default_namespace) : std::string();
    const auto done = client.request("DELETE", path_of(**kind, space, name));
    if (!done || !done->ok()) out.error = done ? done->message() : done.error().message;
    else out.outcome = "deleted";
    return out;
}

}  // namespace penstock::client
