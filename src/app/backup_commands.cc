// backup, restore: all of a machine's state in one folder; backup-registry and backup-broker: its halves.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>

#include <fmt/format.h>

#include "app/command_list.h"
#include "app/environment.h"
#include "app/terminal.h"
#include "base/clock.h"
#include "base/shell.h"
#include "base/text.h"
#include "control/state_keys.h"
#include "registry/registry.h"

namespace penstock::app {
namespace {

namespace fs = std::filesystem;
using resources::text_at;

struct RestoreOptions {
    std::string folder, data_folder = default_data_folder();
};

constexpr const char* registry_name = "registry.sqlite";
constexpr const char* broker_name = "broker";
constexpr const char* broker_mark = "broker.mark";   // of the state that was there; what is restored begins its own
constexpr const char* keys_folder = "pki";

/// Whether a running penstock has the file: both engines hold record locks, RocksDB on LOCK, SQLite on its database.
bool is_in_use(const fs::path& path) {
    const int file = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
    if (file < 0) return false;
    struct flock lock = {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    const bool held = ::fcntl(file, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
    ::close(file);
    return held;
}

/// The file's or folder's bytes are on the disk.
Result<void> sync(const fs::path& path) {
    const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    const bool ok = file >= 0 && ::fsync(file) == 0;
    const int error = errno;
    if (file >= 0) ::close(file);
    if (!ok) return fail(fmt::format("{}: {}", path.string(), std::strerror(error)));
    return {};
}
Result<void> sync_all(const fs::path& folder) {
    for (const auto& entry : fs::recursive_directory_iterator(folder))
        if (auto done = sync(entry.path()); !done) return done;
    return sync(folder);
}

/// The flag with which restore finds the data folder of the platform that was asked, where its kubeconfig lies in it: another than restore's own.
std::string data_folder_flag(const ResourceOptions& options) {
    std::error_code error;
    const auto whole = [&](const fs::path& path) { return fs::absolute(path, error).lexically_normal(); };
    const auto folder = whole(options.kubeconfig.empty() ? default_kubeconfig() : options.kubeconfig).parent_path();
    if (folder == whole(default_data_folder()) || !fs::is_regular_file(folder / registry_name, error)) return {};
    return " --data-dir " + shell_quoted(folder.string());
}

/// A consistent copy of the broker's state into a new folder, made by the broker while it runs.
int backup_broker(const ResourceOptions& options, const std::string& folder) {
    auto connected = connect(options);
    if (!connected) return problem(connected.error().message);
    const auto path = fs::absolute(folder).string();
    const auto answer =
        connected->request("POST", "/penstock/broker-copy?folder=" + client::query_escaped(path));
    if (!answer || !answer->ok()) return refused(answer);
    std::cout << path << "\n";
    return 0;
}

/// A copy of the registry's file, taken while it runs.
int backup_registry(const ResourceOptions& options, const std::string& file) {
    auto connected = connect(options);
    if (!connected) return problem(connected.error().message);
    std::ofstream out(file, std::ios::binary | std::ios::trunc);
    if (!out) return problem(fmt::format("{}: cannot be written", file));
    std::string refusal;
    const auto done = connected->stream("/penstock/registry", "*/*", [&](int code, std::string_view text) {
        if (code == 200) out << text;
        else refusal += text;
        return true;
    });
    out.close();
    if (!done) return problem(done.error().message);
    if (*done != 200) {
        const auto body = resources::parse_json(refusal);
        return problem(body ? text_at(*body, "message", refusal) : refusal);
    }
    if (!out) return problem(fmt::format("{}: could not be written to the end", file));
    std::cout << fmt::format(
        "{} holds the registry; it is put in place as registry.sqlite in the data folder "
        "while penstock is stopped\n",
        file);
    return 0;
}

/// Both copies in one new folder.
int backup(const ResourceOptions& options, const std::string& folder) {
    auto connected = connect(options);
    if (!connected) return problem(connected.error().message);
    const auto path = fs::absolute(folder);
    std::error_code error;
    if (!fs::create_directory(path, error)) return problem(fmt::format("{}: {}", path.string(), error ? error.message() : "is there already; a backup goes into a new folder"));
    fs::permissions(path, fs::perms::owner_all, error);
    if (const int status = backup_registry(options, (path / registry_name).string()); status != 0) return status;
    const auto answer = connected->request("POST", "/penstock/broker-copy?folder=" + client::query_escaped((path / broker_name).string()));
    if (!answer) return problem(answer.error().message);
    if (answer->status == 404) std::cout << text_at(answer->body, "message") << "; the backup has the resources alone\n";
    else if (!answer->ok()) return refused(answer);
    std::cout << fmt::format("{} is complete; penstock restore {}{} puts it in place\n", path.string(), shell_quoted(path.string()), data_folder_flag(options));
    return 0;
}

/// Puts a backup in place while nothing runs on the data folder; what was there is set aside.
int restore(const RestoreOptions& options) try {
    const fs::path from = options.folder, data = options.data_folder;
    const bool has_registry = fs::is_regular_file(from / registry_name), has_broker = fs::is_regular_file(from / broker_name / "CURRENT");
    if (!has_registry && !has_broker) return problem(fmt::format("{}: is no backup, it has neither {} nor {}/CURRENT", from.string(), registry_name, broker_name));
    fs::create_directories(data);
    if (is_in_use(data / broker_name / "LOCK") || is_in_use(data / registry_name)) return problem(fmt::format("{}: penstock runs on it; stop it first", data.string()));
    // What a restore that was interrupted left behind: never in use, and all of it stands in its backup.
    for (const auto& entry : fs::directory_iterator(data))
        if (entry.is_directory() && entry.path().filename().string().starts_with("restore-")) fs::remove_all(entry.path());
    const auto now = wall_ms();
    const auto staged = data / fmt::format("restore-{}", now), aside = data / fmt::format("before-restore-{}", now);
    fs::create_directory(staged);
    fs::permissions(staged, fs::perms::owner_all);
    if (has_registry) fs::copy_file(from / registry_name, staged / registry_name);
    if (has_broker) fs::copy(from / broker_name, staged / broker_name, fs::copy_options::recursive);
    // A folder that was copied by hand may hold what was begun of another one; what is restored is what stands in the backup itself.
    for (const char* name : {"anew", "former"}) fs::remove_all(staged / broker_name / name);
    if (has_registry) {
        if (const auto read = registry::Registry::open((staged / registry_name).string()); !read) {
            fs::remove_all(staged);
            return problem(fmt::format("{}: {}; nothing was changed", (from / registry_name).string(), read.error().message));
        }
    }
    // Keys travel inside the copy of what they seal.
    const bool has_keys = fs::is_regular_file(staged / broker_name / control::state_keys_name);
    if (has_keys) {
        fs::create_directory(staged / keys_folder);
        fs::rename(staged / broker_name / control::state_keys_name, staged / keys_folder / control::state_keys_name);
    }
    if (auto done = sync_all(staged); !done) return problem(done.error().message);
    fs::create_directory(aside);
    fs::permissions(aside, fs::perms::owner_all);
    for (const auto& entry : fs::directory_iterator(data)) {
        const auto name = entry.path().filename().string();
        if ((has_registry && name.starts_with(registry_name)) || (has_broker && (name == broker_name || name == broker_mark))) fs::rename(entry.path(), aside / name);
    }
    if (has_keys) {
        fs::create_directories(data / keys_folder);
        fs::permissions(data / keys_folder, fs::perms::owner_all);
        if (const auto old = data / keys_folder / control::state_keys_name; fs::exists(old)) fs::rename(old, aside / control::state_keys_name);
        fs::rename(staged / keys_folder / control::state_keys_name, data / keys_folder / control::state_keys_name);
        fs::remove(staged / keys_folder);
        if (auto done = sync(data / keys_folder); !done) return problem(done.error().message);
    }
    for (const auto& entry : fs::directory_iterator(staged)) fs::rename(entry.path(), data / entry.path().filename());
    fs::remove_all(staged);
    if (auto done = sync(data); !done) return problem(done.error().message);
    std::cout << fmt::format("restored into {}; what was there is in {}\n", data.string(), aside.string());
    return 0;
} catch (const fs::filesystem_error& error) {
    return problem(error.what());
}

}  // namespace

void add_backup_registry(Commands& commands) {
    auto& resource = commands.keep<ResourceOptions>();
    auto& file = commands.keep<std::string>();
    auto command = commands.add("backup-registry", "Copy all resources into a file while Penstock runs");
    add_api_options(command, resource);
    command.option("file", file, "File to write").required();
    command.runs([&] { return backup_registry(resource, file); });
}

void add_backup_broker(Commands& commands) {
    auto& resource = commands.keep<ResourceOptions>();
    auto& folder = commands.keep<std::string>();
    auto command = commands.add("backup-broker",
                                "Copy the broker's state (sessions, queues, retained messages) "
                                "into a new folder while it runs");
    add_api_options(command, resource);
    command.option("folder", folder, "Folder to make, on the broker's machine").required();
    command.runs([&] { return backup_broker(resource, folder); });
}

void add_backup(Commands& commands) {
    auto& resource = commands.keep<ResourceOptions>();
    auto& folder = commands.keep<std::string>();
    auto command = commands.add(
        "backup", "Copy resources and the broker's state into a new folder while Penstock runs");
    add_api_options(command, resource);
    command.option("folder", folder, "Folder to make, on the broker's machine").required();
    command.runs([&] { return backup(resource, folder); });
}

void add_restore(Commands& commands) {
    auto& options = commands.keep<RestoreOptions>();
    auto command = commands.add(
        "restore", "Put a backup in place, while Penstock is stopped; what was there is set aside");
    command.option("folder", options.folder, "Folder that penstock backup made").required();
    command.option("--data-dir", options.data_folder, "Where state is kept").shows_default();
    command.runs([&] { return restore(options); });
}

}  // namespace penstock::app
