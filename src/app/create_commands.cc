// create: what the runbook and the cures have made without a manifest, in kubectl's words.
#include <algorithm>
#include <filesystem>
#include <iostream>

#include <fmt/format.h>

#include "app/command_list.h"
#include "app/environment.h"
#include "app/terminal.h"
#include "base/file.h"
#include "base/shell.h"
#include "base/text.h"
#include "base/utf8.h"
#include "client/apply.h"
#include "client/names.h"
#include "crypto/x509.h"

namespace penstock::app {
namespace {

namespace fs = std::filesystem;
using resources::Json;

struct CreateOptions {
    std::string name;
    std::vector<std::string> literals;   ///< KEY=VALUE
    std::vector<std::string> files;      ///< FILE, FOLDER or KEY=FILE
    std::vector<std::string> env_files;  ///< lines of KEY=VALUE
    std::string type;                    ///< of a generic Secret
    std::string certificate, key;        ///< files of a Secret for TLS, PEM
    std::string dry_run = "none";        ///< none, client or server
};

struct TokenOptions {
    std::string name, duration;
    std::vector<std::string> audiences;
};

constexpr std::size_t key_max = 253;
/// Of all files of an object: the resource API takes no larger one.
constexpr std::size_t files_bytes_max = std::size_t{3} * 1024 * 1024;

bool is_data_key(std::string_view key) {
    return !key.empty() && key.size() <= key_max && key != "." && !key.starts_with("..") &&
           std::ranges::all_of(key, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '_' || c == '.'; });
}

/// As kubectl takes it: NUL is a character of a text.
bool is_text(std::string_view bytes) {
    while (!bytes.empty()) {
        const auto next = next_utf8(bytes);
        if (next.bytes == 0) return false;
        bytes.remove_prefix(next.bytes);
    }
    return true;
}

/// What `--from-file` names, a list by comma as kubectl reads it (RFC 4180): `"a,b"` is one name, and `""` in
/// quotes a quote.
Result<std::vector<std::string>> listed_sources(const std::string& text) {
    constexpr const char* flag = "--from-file";
    std::vector<std::string> out{{}};
    const auto shown = printable(clipped(text, 100));
    for (std::size_t at = 0; at < text.size();) {
        auto& name = out.back();
        if (name.empty() && text[at] == '"') {
            for (++at;; ++at) {
                if (at >= text.size())
                    return fail(fmt::format("{}: a \" at the end of a name in quotes is missing: {}", flag, shown));
                if (text[at] != '"') name += text[at];
                else if (++at < text.size() && text[at] == '"') name += '"';
                else break;
            }
            if (at < text.size() && text[at] != ',')
                return fail(fmt::format("{}: behind a closing \" stands neither a comma nor the end: {}", flag, shown));
        } else if (text[at] == '"') {
            return fail(fmt::format("{}: a \" stands within a name; put the whole in quotes and write this one twice: {}",
                                    flag, shown));
        } else if (text[at] != ',') {
            name += text[at++];
            continue;
        }
        if (at < text.size()) out.emplace_back(), ++at;
    }
    if (std::ranges::any_of(out, &std::string::empty))
        return fail(fmt::format("{}: the name of a file is empty: \"{}\"", flag, shown));
    return out;
}

/// The `data` of a ConfigMap or Secret, as it is filled.
class Data {
  public:
    explicit Data(const std::string& kind) : kind_(kind) {}

    /// `flag`: which one gave it.
    Result<void> add(const char* flag, const std::string& key, const std::string& value) {
        if (!is_data_key(key))
            return fail(fmt::format("{}: \"{}\" is not a valid key name for a {}: at most {} letters, digits, '-', '_' and '.', not \".\" and not beginning with \"..\"",
                                    flag, printable(clipped(key, 100)), kind_, key_max));
        if (has(key)) return fail(fmt::format("{}: cannot add key \"{}\", another key by that name already exists", flag, key));
        if (kind_ == "Secret") data_[key] = base64_encode(value);
        else if (is_text(value)) data_[key] = value;
        else binary_[key] = base64_encode(value);
        return {};
    }
    Result<void> add_file(const char* flag, const std::string& key, const std::string& path) {
        const auto text = read_whole_file(path, Streams::taken, files_bytes_max);
        if (!text) return fail(fmt::format("{}: {}", flag, text.error().message));
        file_bytes_ += text->size();
        if (file_bytes_ > files_bytes_max)
            return fail(fmt::format("{}: {}: with it the files have {} bytes, and the resource API takes no object "
                                    "larger than {}; make a second {} for it",
                                    flag, path, file_bytes_, files_bytes_max, kind_));
        return add(flag, key, *text);
    }
    void put_into(Json& object) const {
        if (!data_.empty()) object["data"] = data_;
        if (!binary_.empty()) object["binaryData"] = binary_;
    }

  private:
    [[nodiscard]] bool has(const std::string& key) const { return data_.contains(key) || binary_.contains(key); }
    std::string kind_;
    std::size_t file_bytes_ = 0;
    Json data_ = Json::object(), binary_ = Json::object();
};

Result<void> add_source(Data& data, const std::string& source) {
    const char* flag = "--from-file";
    const auto shown = printable(clipped(source, 100));
    const auto equal = source.find('=');
    if (equal != source.rfind('=')) return fail(fmt::format("{}: \"{}\": key names or file paths cannot contain '='", flag, shown));
    if (equal == 0) return fail(fmt::format("{}: \"{}\": the key is missing, expected KEY=FILE", flag, shown));
    if (equal == source.size() - 1) return fail(fmt::format("{}: \"{}\": the file is missing, expected KEY=FILE", flag, shown));
    const auto path = equal == std::string::npos ? source : source.substr(equal + 1);
    std::error_code error;
    if (!fs::is_directory(path, error)) return data.add_file(flag, equal == std::string::npos ? fs::path(path).filename().string() : source.substr(0, equal), path);
    if (equal != std::string::npos) return fail(fmt::format("{}: \"{}\": a folder has a key for each of its files, and is given none", flag, shown));
    std::vector<fs::path> files;
    for (fs::directory_iterator at(path, error); !error && at != fs::directory_iterator(); at.increment(error))
        // As for kubectl: folders, links and pipes are left out.
        if (at->symlink_status().type() == fs::file_type::regular) files.push_back(at->path());
    if (error) return fail(fmt::format("{}: {}: {}", flag, path, error.message()));
    std::ranges::sort(files);
    for (const auto& file : files) {
        const auto key = file.filename().string();
        const auto added = data.add_file(flag, key, file.string());
        if (!added && is_data_key(key)) return added;
        if (!added)
            return fail(fmt::format("{}; name the files one by one, this one with a key: --from-file=KEY={}",
                                    added.error().message, shell_quoted(file.string())));
    }
    return {};
}

/// As for kubectl, a name of a variable: what a key may have, without a digit in front.
bool is_variable(std::string_view name) {
    return is_data_key(name) && std::isdigit(static_cast<unsigned char>(name.front())) == 0;
}

/// Lines of KEY=VALUE as kubectl reads them: white space before a line is left out and none behind the `=`; a
/// KEY alone takes the value that the environment has, or an empty one.
Result<void> add_env_file(Data& data, const std::string& path) {
    const char* flag = "--from-env-file";
    const auto shown = printable(clipped(path, 100));
    std::error_code error;
    if (fs::is_directory(path, error))
        return fail(
            fmt::format("{}: {}: it is a folder, and lines of KEY=VALUE stand in a file", flag, shown));
    const auto text = read_whole_file(path, Streams::taken, files_bytes_max);
    if (!text) return fail(fmt::format("{}: {}", flag, text.error().message));
    std::string_view rest = *text;
    if (rest.starts_with("\xEF\xBB\xBF")) rest.remove_prefix(3);
    std::size_t number = 0;
    for (auto line : split(rest, '\n')) {
        const auto at = fmt::format("{}: {}: line {}", flag, shown, ++number);
        if (line.ends_with('\r')) line.remove_suffix(1);
        if (!is_text(line)) return fail(at + ": it is no UTF-8");
        while (!line.empty() && std::isspace(static_cast<unsigned char>(line.front())) != 0)
            line.remove_prefix(1);
        if (line.empty() || line.starts_with('#')) continue;
        const auto equal = line.find('=');
        const std::string key(line.substr(0, equal));
        if (!is_variable(key))
            return fail(fmt::format("{}: \"{}\" is not a valid key: expected KEY=VALUE with a key of "
                                    "letters, digits, '-', '_' and '.', not beginning with a digit or \"..\"",
                                    at, printable(clipped(key, 100))));
        const auto value =
            equal == std::string_view::npos ? environment(key.c_str()) : std::string(line.substr(equal + 1));
        if (auto added = data.add(at.c_str(), key, value); !added) return added;
    }
    return {};
}

Result<void> add_sources(Data& data, const CreateOptions& create) {
    if (!create.env_files.empty() && (!create.files.empty() || !create.literals.empty()))
        return fail(fmt::format("--from-env-file stands alone: {} cannot be beside it",
                                create.files.empty() ? "--from-literal" : "--from-file"));
    for (const auto& path : create.env_files)
        if (auto added = add_env_file(data, path); !added) return added;
    for (const auto& list : create.files) {
        const auto sources = listed_sources(list);
        if (!sources) return std::unexpected(sources.error());
        for (const auto& source : *sources)
            if (auto added = add_source(data, source); !added) return added;
    }
    for (const auto& literal : create.literals) {
        const auto equal = literal.find('=');
        if (equal == std::string::npos || equal == 0)
            return fail(fmt::format("--from-literal: \"{}\": expected KEY=VALUE", printable(clipped(literal, 100))));
        if (auto added = data.add("--from-literal", literal.substr(0, equal), literal.substr(equal + 1)); !added) return added;
    }
    return {};
}

/// A pair that no listener could use is refused here, where the files have names.
Result<void> add_pair(Data& data, const CreateOptions& create) {
    const auto certificate = read_whole_file(create.certificate, Streams::taken, files_bytes_max),
               key = read_whole_file(create.key, Streams::taken, files_bytes_max);
    if (!certificate) return fail("--cert: " + certificate.error().message);
    if (!key) return fail("--key: " + key.error().message);
    const auto chain = crypto::read_certificates(*certificate);
    if (!chain) return fail(fmt::format("--cert: {}: {}", create.certificate, chain.error().message));
    if (chain->empty()) return fail(fmt::format("--cert: {}: there is no certificate in PEM in it", create.certificate));
    if (!chain->front().matches_key(*key))
        return fail(fmt::format("--key: {}: it is not the private key, in PEM, of the first certificate in {}", create.key, create.certificate));
    if (auto added = data.add("--cert", "tls.crt", *certificate); !added) return added;
    return data.add("--key", "tls.key", *key);
}

/// `penstock create WHAT NAME`: `what` is a ServiceAccount, ConfigMap, Namespace, `secret generic` or `secret
/// tls`.
int create(const std::string& what, const ResourceOptions& options, const CreateOptions& create) {
    if (create.name.empty()) return problem("a name is empty: write one behind create " + what);
    const bool is_secret = what.starts_with("secret ");
    const auto& kind = *resources::find_kind("v1", what == "serviceaccount" ? "ServiceAccount" : what == "configmap" ? "ConfigMap" : what == "namespace" ? "Namespace" : "Secret");
    Json object = {{"apiVersion", "v1"}, {"kind", kind.kind}, {"metadata", {{"name", create.name}}}};
    if (kind.namespaced && !options.name_space.empty()) object["metadata"]["namespace"] = options.name_space;
    Data data(kind.kind);
    auto filled = what == "secret tls" ? add_pair(data, create) : add_sources(data, create);
    if (!filled) return problem(filled.error().message);
    data.put_into(object);
    if (what == "secret tls") object["type"] = "kubernetes.io/tls";
    else if (is_secret && !create.type.empty()) object["type"] = create.type;

    if (create.dry_run != "client") {
        auto connected = connect(options);
        if (!connected) return problem(connected.error().message);
        const auto target = client::path_of(kind, connected->access().name_space) + (create.dry_run == "server" ? "?dryRun=All" : "");
        const auto answer = connected->request("POST", target, object.dump());
        if (!answer || !answer->ok()) return refused(answer);
        object = answer->body;
        object["metadata"].erase("managedFields");
    }
    const auto label = fmt::format("{}/{}", kind.singular, printable(create.name));
    if (options.output == "json") std::cout << object.dump(4) << "\n";
    else if (options.output == "yaml") std::cout << resources::to_yaml(object);
    else if (options.output == "name") std::cout << label << "\n";
    else std::cout << fmt::format("{} created{}\n", label, create.dry_run == "client" ? " (dry run)" : create.dry_run == "server" ? " (server dry run)" : "");
    return 0;
}

int create_token(const ResourceOptions& options, const TokenOptions& token) {
    if (auto good = client::check_name(token.name); !good) return problem(good.error().message);
    auto connected = connect(options);
    if (!connected) return problem(connected.error().message);
    Json request = {{"apiVersion", "authentication.k8s.io/v1"},
                    {"kind", "TokenRequest"},
                    {"spec", {{"audiences", token.audiences}}}};
    if (!token.duration.empty()) {
        const auto duration = parse_duration(token.duration);
        if (!duration) return problem("--duration: " + duration.error().message);
        request["spec"]["expirationSeconds"] = *duration / 1000;
    }
    const auto account = client::path_of(*resources::find_kind("v1", "ServiceAccount"),
                                         connected->access().name_space, token.name);
    const auto answer = connected->request("POST", account + "/token", request.dump());
    if (!answer || !answer->ok()) return refused(answer);
    std::cout << resources::text_at(answer->body, "status.token") << "\n";
    return 0;
}

/// The commands of `create`, and what their options are read into.
struct Creators {
    ResourceOptions& resource;
    CreateOptions& options;

    /// `what`: see create().
    Command add(Command& group, const std::string& what, const char* doc) {
        auto command = group.add(what.substr(what.rfind(' ') + 1).c_str(), doc);
        add_api_options(command, resource);
        command.option("name", options.name, "Name").required();
        // As for kubectl: `--dry-run` alone means the client's, and a value stands behind `=`.
        command
            .flag("--dry-run{client}", options.dry_run,
                  "client: show what would be sent; server: have it checked; none")
            .one_of({"none", "client", "server"});
        command.option("-o,--output", resource.output, "json, yaml or name").one_of({"json", "yaml", "name"});
        command.runs([what, &from = resource, &how = options] {
            return create(what, from, how);
        });
        return command;
    }
    /// The same, with the flags of what is made of literals and files.
    Command add_of_sources(Command& group, const std::string& what, const char* doc) {
        auto command = add(group, what, doc);
        command.option("--from-literal", options.literals, "KEY=VALUE; may be repeated").takes_one();
        command.option("--from-file", options.files, "FILE, KEY=FILE or FOLDER; may be repeated").takes_one();
        command.option("--from-env-file", options.env_files, "File of lines KEY=VALUE; may be repeated")
            .takes_one();
        return command;
    }
};

}  // namespace

void add_create(Commands& commands) {
    Creators creators{commands.keep<ResourceOptions>(), commands.keep<CreateOptions>()};
    auto& options = creators.options;
    auto group =
        commands.add("create", "Create: penstock create secret tls NAME --cert=CHAIN.crt --key=KEY.key");
    creators.add_of_sources(group, "configmap", "ConfigMap of literals and files").alias("cm");
    creators.add(group, "namespace", "Namespace").alias("ns");
    auto secret = group.add("secret", "Secret: penstock create secret generic|tls NAME");
    creators.add_of_sources(secret, "secret generic", "Secret of literals and files")
        .option("--type", options.type, "Type of the Secret; Opaque when absent");
    auto tls = creators.add(secret, "secret tls", "Secret of a certificate and its key");
    tls.option("--cert", options.certificate, "Certificate with its intermediates, PEM").required();
    tls.option("--key", options.key, "Its private key, PEM").required();
    creators.add(group, "serviceaccount", "ServiceAccount").alias("sa");
    auto& resource = creators.resource;
    auto& token = commands.keep<TokenOptions>();
    auto command = group.add("token", "Token of a service account");
    add_api_options(command, resource);
    command.option("name", token.name, "Service account").required();
    command.option("--audience", token.audiences, "Who accepts it; may be repeated").takes_one();
    command.option("--duration", token.duration, "How long it lives, at least 10m");
    command.runs([&resource, &token] { return create_token(resource, token); });
}

}  // namespace penstock::app
