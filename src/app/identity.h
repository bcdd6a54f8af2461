#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "api/own_pki.h"
#include "base/file.h"
#include "base/result.h"

namespace penstock::app {

/// As read_whole_file; what a person names on a command line may be a stream.
Result<std::string> read_file(const std::filesystem::path& path, Streams streams = Streams::refused,
                              std::size_t bytes_max = file_bytes_max);
/// Written beside, synced and renamed, mode 0600: keys are never readable by others, not even for a moment. A file that has this
/// content is left as it is. What is there stays there when it fails.
Result<void> write_private(const std::filesystem::path& path, const std::string& content);

using Identity = api::OwnPki;

/// What the folder `pki` holds of the API at `now_ms` (Unix time), after what is missing was made and what is
/// due was renewed (api::renew) and written. `current`: what is in force while it runs; what the folder lost,
/// or what was damaged in it, is put back from there, and never over what somebody else put there. A CA of
/// which both files alone are gone, while the rest is there, was taken away on purpose: it gets its successor.
/// `done` gets what was made and why. A leaf that cannot be written is used all the same.
Result<Identity> open_identity(const std::filesystem::path& folder, std::int64_t now_ms,
                               const Identity* current = nullptr, std::vector<std::string>* done = nullptr);

struct TokenKeys {
    struct File {
        std::string name, text;          ///< in the folder; PEM
        std::int64_t made_ms = 0;        ///< Unix time: the file's, which is the key's age
    };
    /// PEM; the first one signs, all verify. A successor is made after 90 days and verifies for a while
    /// before it signs, so that whoever reads the keys now and then knows it by the first token.
    std::vector<std::string> keys;
    std::string signing_file;            ///< name in the folder of the first one
    std::int64_t renewal_ms = 0;         ///< Unix time from which on there is a successor
    std::string fault;   ///< why the successor that is due is not there; empty: nothing is due
    std::vector<File> files;             ///< in the order of `keys`
};
/// Keys that sign service-account tokens. The first call makes one. `current`: what is in force while it runs;
/// where no key is left in the folder all are put back from there, and so is one that was damaged. One that was
/// removed beside others ends. `done` gets what was put back.
Result<TokenKeys> open_token_keys(const std::filesystem::path& folder, std::int64_t now_ms,
                                  const TokenKeys* current = nullptr, std::vector<std::string>* done = nullptr);
/// Names of the files that hold what is in force and are missing or empty in the folder. Reads nothing.
std::vector<std::string> lost_files(const std::filesystem::path& folder, const TokenKeys& keys);
/// In K3s' form, for the administrator's certificate.
std::string kubeconfig_text(const Identity& identity, const std::string& address, int port);

}  // namespace penstock::app
