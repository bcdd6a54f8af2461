#pragma once
#include <string>
#include <vector>

namespace penstock::app {

/// Of this program, three numbers with dots. Only CMake knows it: `project(VERSION)` in CMakeLists.txt.
extern const char* const version;

/// `/var/lib/penstock` for root, else below the user's home; `PENSTOCK_DATA` wins.
std::string default_data_folder();
/// `--kubeconfig`, `KUBECONFIG`, else the one that `penstock run` wrote.
std::string default_kubeconfig();

struct RunOptions {
    std::string data_folder;
    std::vector<std::string> files;
    std::string api_address = "127.0.0.1";
    int api_port = 6443;
    std::string log_level = "info";
    bool with_broker = true;             ///< false: the API and its controllers alone
};
int run(const RunOptions& options);

struct BrokerRoleOptions {
    std::string kubeconfig;              ///< empty: the pod's account, else KUBECONFIG
    std::string name_space = "azure-iot-operations";
    std::string log_level = "info";
    std::string data_folder;             ///< where a Broker with persistence keeps its state; empty: nowhere
};
/// The broker and its controller over a resource API elsewhere: `penstock api` or a kube-apiserver.
int run_broker(const BrokerRoleOptions& options);

struct ResourceOptions {
    std::string kubeconfig;
    std::string name_space;
    std::vector<std::string> words;               ///< KIND [NAME ...] or KIND/NAME
    std::vector<std::string> files;
    std::string output;
    std::string selector;
    bool all_namespaces = false;
    bool watch = false;
    bool dry_run = false;
    bool no_headers = false;
    bool ignore_not_found = false;
    bool server_side = false;
    bool force_conflicts = false;
    std::string field_manager;
    std::string field_selector;
    std::string sort_by;                 ///< JSONPath
    std::string cascade = "background";
    bool show_labels = false;
    bool show_managed_fields = false;    ///< in JSON and YAML
    bool all = false;                    ///< delete: all of the kind
    bool no_wait = false;                ///< delete: do not wait until it is gone
};
int get(const ResourceOptions& options);
int apply(const ResourceOptions& options);
int remove(const ResourceOptions& options);
int validate(const ResourceOptions& options);
int api_resources(const ResourceOptions& options);
int describe(const ResourceOptions& options);
int explain(const ResourceOptions& options);

struct WaitOptions {
    std::string condition;               ///< `condition=X[=V]`, `jsonpath={PATH}=V`, `delete`, `create`
    std::string timeout = "30s";
};
int wait(const ResourceOptions& options, const WaitOptions& wait);

struct LogOptions {
    std::string container, since;
    int tail = -1;
    bool follow = false, timestamps = false, all_containers = false, previous = false;
};
int logs(const ResourceOptions& options, const LogOptions& log);

struct CreateOptions {
    std::string name;
    std::vector<std::string> literals;   ///< KEY=VALUE
    std::vector<std::string> files;      ///< FILE, FOLDER or KEY=FILE
    std::vector<std::string> env_files;  ///< lines of KEY=VALUE
    std::string type;                    ///< of a generic Secret
    std::string certificate, key;        ///< files of a Secret for TLS, PEM
    std::string dry_run = "none";        ///< none, client or server
};
/// `penstock create WHAT NAME`: `what` is a ServiceAccount, ConfigMap, Namespace, `secret generic` or `secret tls`.
int create(const std::string& what, const ResourceOptions& options, const CreateOptions& create);

/// What is said to a word of kubectl that is no command below `group` ("penstock", "penstock create", ...): a kind that is not
/// made, or not by `create`, and a command for containers. One line; empty: nothing is known of the word.
std::string why_no_command(std::string_view group, std::string_view word);

struct TokenOptions {
    std::string name, duration;
    std::vector<std::string> audiences;
};
int create_token(const ResourceOptions& options, const TokenOptions& token);
struct AccessOptions {
    std::string action, target;          ///< connect, publish, subscribe; topic or filter
    std::string client, user, policy, listener;
    std::vector<std::string> attributes; ///< NAME=VALUE
    std::string since;
    bool json = false;
};
/// `penstock auth can-i`: 0 yes, 1 no.
int auth_can_i(const ResourceOptions& options, const AccessOptions& access);
/// `penstock auth who-can`: the rules that allow it.
int auth_who_can(const ResourceOptions& options, const AccessOptions& access);
/// `penstock auth explain`: what was refused lately, and why.
int auth_explain(const ResourceOptions& options, const AccessOptions& access);
/// `penstock auth clients`: who is connected.
int auth_clients(const ResourceOptions& options, const AccessOptions& access);
/// `penstock auth dry-run`: who would lose what by another policy.
int auth_dry_run(const ResourceOptions& options, const AccessOptions& access);

struct TraceOptions {
    std::string trace;                   ///< empty: a list
    int limit = 20;
    bool otlp = false, failed = false;
};
/// `penstock traces`: what took how long.
int traces(const ResourceOptions& options, const TraceOptions& trace);

struct PasswordOptions {
    std::string secret, user, file;
    std::string import_file;             ///< of Mosquitto: all its users
    bool remove = false, print = false;
};
/// `penstock passwd`: sets a user's password in a Secret, or those of all users of a password file.
int passwd(const ResourceOptions& options, const PasswordOptions& password);

struct PkiOptions {
    std::string name;                    ///< common name, or what to look at
    std::string ca, ca_key, out, key_algorithm = "Ec256", purpose, host;
    std::vector<std::string> hosts, subject;
    std::string duration;
    int path_length = -1;
    bool force = false;
};
int pki_create(const std::string& what, const PkiOptions& options);
int pki_inspect(const PkiOptions& options);
int pki_verify(const PkiOptions& options);
int pki_list(const ResourceOptions& options);
int pki_renew(const ResourceOptions& options, const PkiOptions& pki);

/// A copy of the registry's file, taken while it runs.
int backup_registry(const ResourceOptions& options, const std::string& file);
/// A consistent copy of the broker's state into a new folder, made by the broker while it runs.
int backup_broker(const ResourceOptions& options, const std::string& folder);
struct RestoreOptions {
    std::string folder, data_folder;
};
/// Both copies in one new folder.
int backup(const ResourceOptions& options, const std::string& folder);
/// Puts a backup in place while nothing runs on the data folder; what was there is set aside.
int restore(const RestoreOptions& options);
/// A command or group of commands, for completion.
struct CommandWords {
    std::string name, doc;
    std::vector<std::pair<std::string, std::string>> flags;   ///< `--output` and what it does
    std::vector<std::string> valued;   ///< `--output` and `-o`: the next word is their value
    std::vector<CommandWords> commands;
};
/// `shell`: bash, zsh or fish.
int completion(const std::string& shell, const std::vector<CommandWords>& commands);

struct VersionOptions {
    bool client_only = false;
    std::string output;   ///< empty, json or yaml
};
int show_version(const ResourceOptions& options, const VersionOptions& how);

struct PatchOptions {
    std::string patch, file;   ///< one of them; JSON or YAML
    std::string type;          ///< json, merge, strategic; empty: strategic where the kind takes it
    std::string subresource;   ///< empty or status
};
int patch(const ResourceOptions& options, const PatchOptions& how);
struct MarkOptions {
    bool overwrite = false;    ///< a key that has another value gets this one
};
/// `penstock annotate` and `penstock label`: KIND NAME KEY=VALUE KEY-, as merge patches.
int annotate(const ResourceOptions& options, const MarkOptions& how);
int label(const ResourceOptions& options, const MarkOptions& how);
/// Opens an editor on resources and sends what was changed; on a refusal the editor opens again, with why.
int edit(const ResourceOptions& options);
/// A variable of the environment; empty when it is not set.
std::string environment(const char* name);
/// Writes docs/resources/*.md from the declarations.
/// The definitions of the kinds that a cluster does not have, as YAML.
int crds();
int write_reference(const std::string& folder);

}  // namespace penstock::app
