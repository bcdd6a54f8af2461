#include "app/file_follower.h"

#include <sys/stat.h>

#include <algorithm>
#include <filesystem>

#include <fmt/format.h>

#include "base/log.h"
#include "base/text.h"

namespace penstock::app {

namespace fs = std::filesystem;
using resources::Json;
using resources::text_at;

namespace {

constexpr const char* source_annotation = "penstock.io/applied-from";
constexpr const char* files_manager = "penstock-files";

bool holds_nothing(const std::string& folder) {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error)) {
        const auto extension = entry.path().extension().string();
        if (entry.is_regular_file() && (extension == ".yaml" || extension == ".yml" || extension == ".json")) return false;
    }
    return true;
}

}  // namespace

FileFollower::FileFollower(client::Access access, std::vector<std::string> files, bool may_be_empty) : client_(std::move(access)), kinds_(client_), files_(std::move(files)), may_be_empty_(may_be_empty) {
    for (auto& file : files_)
        if (file != "-") file = fs::absolute(file).string();
}

bool FileFollower::sync() {
    std::vector<resources::Document> documents;
    for (const auto& file : files_) {
        if (may_be_empty_ && holds_nothing(file)) continue;
        auto some = client::read_manifests(file);
        if (!some) {
            log::error("app", "manifests kept as they were: {}", some.error().message);
            return false;
        }
        std::ranges::move(*some, std::back_inserter(documents));
    }
    const auto faults = client::validate_documents(documents, true);
    for (const auto& fault : faults) log::error("app", "manifest fault: {}", fault);
    if (!faults.empty()) {
        log::error("app", "{} fault{} in the manifests; the running configuration stays as it was", faults.size(), faults.size() == 1 ? "" : "s");
        return false;
    }
    // A Namespace before what is in it, a definition before its objects, a Broker before its listeners; else as in the files.
    auto rank = [](const resources::Document& d) {
        const auto kind = text_at(d.object, "kind");
        return kind == "Namespace" ? 0 : kind == "CustomResourceDefinition" ? 1 : kind == "Broker" ? 2 : 3;
    };
    std::vector<resources::Document> sorted;
    for (int wanted = 0; wanted <= 3; ++wanted)
        for (auto& document : documents)
            if (rank(document) == wanted) sorted.push_back(document);
    bool good = true;
    std::vector<std::string> present;
    // What left the files goes first: a port or service type may have moved to another listener.
    for (auto& document : sorted) {
        document.object["metadata"]["annotations"][source_annotation] = files_.front();
        present.push_back(key_of(document.object));
    }
    prune(present);
    for (const auto& document : sorted) {
        const auto result = client::apply_document(client_, kinds_, document, {.name_space = client_.access().name_space, .server_side = true, .manager = files_manager});
        if (result.is_conflict) {
            good = false;
            log::warn("app", "manifest not applied, others own its fields: {}; take them out of the file, or give them to the files with: penstock apply --server-side --force-conflicts --field-manager {} -f FILE", result.error, files_manager);
            if (on_conflict_) on_conflict_(document.object, result.error);
        } else if (!result.error.empty()) {
            good = false;
            log::error("app", "manifest refused: {}", result.error);
        } else if (result.outcome != "unchanged") {
            log::info("app", "{} {}", result.what, result.outcome);
        }
    }
    return good;
}

void FileFollower::follow(const std::atomic<bool>& stop, const std::function<void(int)>& pause) {
    auto before = fingerprint();
    while (!stop) {
        pause(500);
        const auto now = fingerprint();
        if (now == before) continue;
        before = now;
        sync();
    }
}

std::string FileFollower::key_of(const Json& object) const {
    return text_at(object, "kind") + "/" + text_at(object, "metadata.namespace", client_.access().name_space) + "/" + text_at(object, "metadata.name");
}

void FileFollower::prune(const std::vector<std::string>& present) {
    const auto served = client::discover(client_);   // anew each time: definitions come and go
    if (!served) return log::error("app", "what left the manifests is not deleted yet, the kinds could not be asked for: {}", served.error().message);
    for (const auto& kind : *served) {
        if (!kind.stored || kind.read_only) continue;
        const auto list = client_.request("GET", client::path_of(kind, ""));
        if (!list || !list->ok()) continue;
        for (const auto& item : resources::at_path(list->body, "items")) {
            const auto& annotations = resources::at_path(item, "metadata.annotations");
            if (!annotations.is_object() || annotations.value(source_annotation, "") != files_.front()) continue;
            auto object = item;
            object["kind"] = kind.kind;
            if (std::ranges::find(present, key_of(object)) != present.end()) continue;
            const auto removed = client_.request("DELETE", client::path_of(kind, text_at(item, "metadata.namespace"), text_at(item, "metadata.name")));
            if (removed && removed->ok()) log::info("app", "{}/{} deleted, it left the manifests", kind.singular, text_at(item, "metadata.name"));
        }
    }
}

std::string FileFollower::fingerprint() const {
    std::string out;
    std::error_code error;
    for (const auto& file : files_) {
        auto add = [&](const fs::path& path) {
            struct stat s {};
            if (stat(path.c_str(), &s) == 0) out += fmt::format("{}:{}:{}.{};", path.string(), s.st_size, s.st_mtim.tv_sec, s.st_mtim.tv_nsec);
        };
        if (!fs::is_directory(file, error)) add(file);
        else
            for (const auto& entry : fs::directory_iterator(file, error)) add(entry.path());
    }
    return out;
}

}  // namespace penstock::app
