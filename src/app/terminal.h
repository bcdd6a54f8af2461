#pragma once
// What the resource commands share.
#include <string>

#include "app/commands.h"
#include "client/kinds.h"

namespace penstock::app {

/// `error: TEXT` on standard error; 1.
int problem(const std::string& text);
/// The server's refusal in kubectl's words; 1.
int refused(const Result<client::Response>& answer);
Result<client::Client> connect(const ResourceOptions& options);
/// Words that say how something is, in green, yellow or red; everything else, and everything that does not go to a terminal,
/// as it is.
std::string coloured(const std::string& word);
/// `90s`, `5m`, `1h30m`, in milliseconds.
Result<std::int64_t> parse_duration(const std::string& text);

}  // namespace penstock::app
