#pragma once
// What the resource commands share.
#include <string>
#include <vector>

#include "app/commands.h"
#include "client/kinds.h"

namespace penstock::app {

/// What the commands are told that ask the resource API; each reads some of it.
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
/// `--kubeconfig` and `--namespace`, which every command has that asks the resource API.
void add_api_options(Command& command, ResourceOptions& options);

/// `error: TEXT` on standard error; 1.
int problem(const std::string& text);
/// The server's refusal in kubectl's words; 1.
int refused(const Result<client::Response>& answer);
/// `brokers`, `broker/default`, `broker,brokerlistener`, `all`, or KIND NAME...
struct Wanted {
    const resources::Kind* kind = nullptr;
    std::vector<std::string> names;
};
/// Every name in it has passed client::check_name().
Result<std::vector<Wanted>> wanted_of(client::Kinds& kinds, const std::vector<std::string>& words);
/// KIND NAME... or KIND/NAME of one kind. The error is `usage` where there is no word; names are checked as
/// above.
Result<Wanted> one_of(client::Kinds& kinds, const std::vector<std::string>& words, const char* usage);
Result<client::Client> connect(const ResourceOptions& options);
/// What is there, or the server's words for why not.
Result<resources::Json> fetch(client::Client& api, const std::string& path);
/// One of the views of a broker (`decisions`, `clients`, `traces`), which is the namespace's only one.
Result<resources::Json> broker_view(client::Client& api, const std::string& what);
/// A table: heads above (none when all are empty), columns as wide as they must be, control characters made visible.
void print_rows(const std::vector<std::string>& heads, std::vector<std::vector<std::string>> rows);
/// Words that say how something is, in green, yellow or red; everything else, and everything that does not go to a terminal,
/// as it is.
std::string coloured(const std::string& word);
/// `90s`, `5m`, `1h30m`, in milliseconds.
Result<std::int64_t> parse_duration(const std::string& text);

}  // namespace penstock::app
