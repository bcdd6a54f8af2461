#include "app/command_line.h"

#include <CLI/CLI.hpp>

#include <optional>

#include <fmt/format.h>

#include "base/text.h"

namespace penstock::app {
namespace {

using Words = std::vector<std::string>;

/// One of the flags of all commands that ask the resource API, at the beginning of a word.
struct GlobalFlag {
    std::string name;                    ///< `--namespace`, also of `-n`
    std::string shown;                   ///< as it was typed, without the value
    std::optional<std::string> value;    ///< none: it is the next word
};

std::optional<GlobalFlag> global_flag(const std::string& word) {
    if (word.starts_with("-n")) {
        if (word.size() == 2) return GlobalFlag{"--namespace", "-n", {}};
        return GlobalFlag{"--namespace", "-n", word.substr(word[2] == '=' ? 3 : 2)};
    }
    for (const char* name : {"--namespace", "--kubeconfig"}) {
        if (word == name) return GlobalFlag{name, name, {}};
        const auto begin = std::string(name) + "=";
        if (word.starts_with(begin)) return GlobalFlag{name, name, word.substr(begin.size())};
    }
    return std::nullopt;
}

Error no_value(const std::string& flag) {
    const auto shown = printable(clipped(flag, 100));
    return {fmt::format("{}= has no value: write one behind it, or leave {} out", shown, shown)};
}

bool is_group(const CLI::App& command) {
    return !command.get_subcommands([](const CLI::App*) { return true; }).empty();
}

const CLI::App* below(const CLI::App& group, const std::string& word) {
    const auto found =
        group.get_subcommands([&](const CLI::App* one) { return one->check_name(word); });
    return found.empty() ? nullptr : found.front();
}

/// A word of short flags (`-wA=true`) as CLI11 reads it; `takes_next`: the next word is the last one's value.
Result<Words> short_flags(const CLI::App& command, const std::string& word, bool& takes_next) {
    for (std::size_t i = 1; i < word.size(); ++i) {
        const auto flag = std::string("-") + word[i];
        const auto* option = command.get_option_no_throw(flag);
        if (option == nullptr) break;   // CLI11 says so
        const auto rest = word.substr(i + 1);
        const bool has_equal = rest.starts_with('=');
        if (has_equal && rest.size() == 1) return std::unexpected(no_value(flag));
        if (option->get_items_expected_min() > 0) {
            takes_next = rest.empty();
            if (has_equal) return Words{word.substr(0, i + 1) + rest.substr(1)};
            break;
        }
        if (has_equal && !option->get_lnames().empty()) {
            Words out;
            if (i > 1) out.push_back(word.substr(0, i));
            out.push_back("--" + option->get_lnames().front() + rest);
            return out;
        }
    }
    return Words{word};
}

}  // namespace

Result<std::vector<std::string>> words_for_cli11(const CLI::App& root,
                                                 const std::vector<std::string>& words) {
    const auto* command = &root;
    Words out, globals;
    std::size_t at = 0;
    for (; at < words.size() && is_group(*command); ++at) {
        const auto& word = words[at];
        if (const auto flag = global_flag(word)) {
            if (flag->value && flag->value->empty()) return std::unexpected(no_value(flag->shown));
            if (!flag->value && at + 1 == words.size())
                return fail(fmt::format("flag needs an argument: {}", flag->shown));
            globals.push_back(flag->name);
            globals.push_back(flag->value ? *flag->value : words[++at]);
            continue;
        }
        const auto* inner = below(*command, word);
        if (inner == nullptr) break;
        command = inner;
        out.push_back(word);
    }
    // Where it leads to no command there is help, or an error about the word that is none.
    if (!is_group(*command) && command->get_name() != "help")
        out.insert(out.end(), globals.begin(), globals.end());
    for (; at < words.size() && words[at] != "--"; ++at) {
        const auto& word = words[at];
        bool takes_next = false;
        if (word.starts_with("--")) {
            const auto equal = word.find('=');
            if (equal != std::string::npos && equal + 1 == word.size())
                return std::unexpected(no_value(word.substr(0, equal)));
            const auto* option = equal == std::string::npos ? command->get_option_no_throw(word) : nullptr;
            takes_next = option != nullptr && option->get_items_expected_min() > 0;
            out.push_back(word);
        } else if (word.size() > 1 && word[0] == '-') {
            const auto flags = short_flags(*command, word, takes_next);
            if (!flags) return std::unexpected(flags.error());
            out.insert(out.end(), flags->begin(), flags->end());
        } else {
            out.push_back(word);
        }
        if (takes_next && at + 1 < words.size()) out.push_back(words[++at]);
    }
    out.insert(out.end(), words.begin() + static_cast<std::ptrdiff_t>(at), words.end());
    return out;
}

}  // namespace penstock::app
