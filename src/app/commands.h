#pragma once
#include <string>
#include <vector>

namespace penstock::app {

inline constexpr const char* version = "0.1.0";

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
    bool in_memory = false;
};
int run(const RunOptions& options);

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
};
int get(const ResourceOptions& options);
int apply(const ResourceOptions& options);
int remove(const ResourceOptions& options);
int validate(const ResourceOptions& options);
int api_resources();
/// Writes docs/resources/*.md from the declarations.
int write_reference(const std::string& folder);

}  // namespace penstock::app
