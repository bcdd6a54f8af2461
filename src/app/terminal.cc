#include "app/terminal.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <iostream>
#include <set>

#include <fmt/format.h>

#include "app/environment.h"
#include "base/text.h"
#include "client/names.h"

namespace penstock::app {

using resources::Json;
using resources::text_at;

int problem(const std::string& text) {
    std::cerr << "error: " << printable(text) << "\n";
    return 1;
}

int refused(const Result<client::Response>& answer) {
    if (!answer) return problem(answer.error().message);
    std::cerr << fmt::format("Error from server ({}): {}\n", printable(text_at(answer->body, "reason", std::to_string(answer->status))), printable(answer->message()));
    return 1;
}

void add_api_options(Command& command, ResourceOptions& options) {
    command.option("--kubeconfig", options.kubeconfig,
                   "Kubeconfig file; KUBECONFIG or the one that `penstock run` wrote when absent");
    command.option("-n,--namespace", options.name_space, "Namespace (azure-iot-operations)");
}

Result<client::Client> connect(const ResourceOptions& options) {
    const auto path = options.kubeconfig.empty() ? default_kubeconfig() : options.kubeconfig;
    if (::access(path.c_str(), R_OK) != 0 && errno == EACCES)
        return fail(fmt::format("{}: cannot be read: Permission denied; it is the administrator's alone: "
                                "use sudo, or have it copied for this user and name the copy with "
                                "--kubeconfig or KUBECONFIG",
                                path));
    auto access = client::read_kubeconfig(path);
    if (!access) return std::unexpected(access.error());
    if (!options.name_space.empty()) access->name_space = options.name_space;
    const auto& space = access->name_space;
    if (auto good = space.empty() ? Result<void>() : client::check_name(space); !good)
        return fail(fmt::format("namespace: {}", good.error().message));
    return client::Client(std::move(*access));
}

Result<std::vector<Wanted>> wanted_of(client::Kinds& kinds, const std::vector<std::string>& words) {
    std::vector<Wanted> out;
    if (words.empty()) return fail("a kind is needed, for example: penstock get brokerlistener");
    if (words[0].find('/') != std::string::npos) {
        for (const auto& word : words) {
            const auto slash = word.find('/');
            if (slash == std::string::npos)
                return fail(fmt::format("\"{}\": with KIND/NAME every argument has that form", word));
            const auto kind = kinds.by_word(std::string_view(word).substr(0, slash));
            if (!kind) return std::unexpected(kind.error());
            auto name = word.substr(slash + 1);
            if (auto good = client::check_name(name); !good) return std::unexpected(good.error());
            out.push_back({*kind, {std::move(name)}});
        }
        return out;
    }
    for (auto name = words.begin() + 1; name != words.end(); ++name)
        if (auto good = client::check_name(*name); !good) return std::unexpected(good.error());
    for (const auto word : split(words[0], ',')) {
        if (word == "all") {
            const auto served = kinds.all();
            if (!served) return std::unexpected(served.error());
            for (const auto& kind : **served)
                if (std::ranges::find(kind.categories, "all") != kind.categories.end())
                    out.push_back({&kind, {}});
            continue;
        }
        const auto kind = kinds.by_word(word);
        if (!kind) return std::unexpected(kind.error());
        out.push_back({*kind, {words.begin() + 1, words.end()}});
    }
    return out;
}

Result<Wanted> one_of(client::Kinds& kinds, const std::vector<std::string>& words, const char* usage) {
    if (words.empty()) return fail(usage);
    Wanted out;
    const auto slash = words[0].find('/');
    const auto kind = kinds.by_word(std::string_view(words[0]).substr(0, slash));
    if (!kind) return std::unexpected(kind.error());
    out.kind = *kind;
    if (slash != std::string::npos) out.names.push_back(words[0].substr(slash + 1));
    for (std::size_t i = 1; i < words.size(); ++i) out.names.push_back(words[i]);
    for (const auto& name : out.names)
        if (auto good = client::check_name(name); !good) return std::unexpected(good.error());
    return out;
}

Result<Json> fetch(client::Client& api, const std::string& path) {
    const auto answer = api.request("GET", path);
    if (!answer) return std::unexpected(answer.error());
    if (!answer->ok()) return fail(answer->message());
    return answer->body;
}

Result<Json> broker_view(client::Client& api, const std::string& what) {
    const auto& kind = *resources::find_kind("mqttbroker.iotoperations.azure.com/v1", "Broker");
    const auto brokers = fetch(api, client::path_of(kind, api.access().name_space));
    if (!brokers) return brokers;
    if ((*brokers)["items"].empty()) return fail(fmt::format("there is no Broker in namespace {}", api.access().name_space));
    return fetch(api, client::path_of(kind, api.access().name_space, text_at((*brokers)["items"][0], "metadata.name")) + "/" + what);
}

void print_rows(const std::vector<std::string>& heads, std::vector<std::vector<std::string>> rows) {
    for (auto& row : rows)
        for (auto& cell : row) cell = printable(cell);
    std::vector<std::size_t> widths;
    for (std::size_t i = 0; i < heads.size(); ++i) {
        widths.push_back(heads[i].size());
        for (const auto& row : rows) widths[i] = std::max(widths[i], row[i].size());
    }
    auto print = [&](const std::vector<std::string>& row) {
        for (std::size_t i = 0; i < row.size(); ++i) std::cout << (i + 1 == row.size() ? row[i] : fmt::format("{:<{}}", row[i], widths[i] + 3));
        std::cout << "\n";
    };
    if (std::ranges::any_of(heads, [](const auto& head) { return !head.empty(); })) print(heads);
    for (const auto& row : rows) print(row);
}

std::string coloured(const std::string& word) {
    static const bool terminal = isatty(STDOUT_FILENO) == 1;
    if (!terminal) return word;
    static const std::set<std::string, std::less<>> good{"Running", "Ready", "Available", "Active", "True", "Succeeded", "Normal"}, bad{"Failed", "NotReady", "Unavailable", "Error", "False"},
        wary{"Recovering", "Waiting", "Degraded", "Terminating", "Pending", "Warning", "<pending>", "Unknown"};
    const char* colour = good.contains(word) ? "32" : bad.contains(word) ? "31" : wary.contains(word) ? "33" : nullptr;
    return colour == nullptr ? word : fmt::format("\x1b[{}m{}\x1b[0m", colour, word);
}

Result<std::int64_t> parse_duration(const std::string& text) {
    std::int64_t total = 0;
    std::string digits;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (std::isdigit(static_cast<unsigned char>(text[i])) != 0) {
            digits += text[i];
            continue;
        }
        const auto number = parse_number<std::int64_t>(digits);
        const bool milli = text[i] == 'm' && i + 1 < text.size() && text[i + 1] == 's';
        const std::int64_t unit = milli ? 1 : text[i] == 's' ? 1000 : text[i] == 'm' ? 60'000 : text[i] == 'h' ? 3'600'000 : 0;
        if (!number || unit == 0) return fail(fmt::format("\"{}\" is no duration; write 90s, 5m or 1h30m", text));
        total += *number * unit;
        digits.clear();
        if (milli) ++i;
    }
    // A bare number is seconds.
    if (const auto rest = parse_number<std::int64_t>(digits)) total += *rest * 1000;
    else if (!digits.empty() || text.empty()) return fail(fmt::format("\"{}\" is no duration; write 90s, 5m or 1h30m", text));
    return total;
}

}  // namespace penstock::app
