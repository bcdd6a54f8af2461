#include "app/commands.h"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <iostream>

#include <fmt/format.h>

#include "app/command_line.h"
#include "app/command_list.h"
#include "app/kubectl_words.h"
#include "app/terminal.h"
#include "app/version.h"
#include "base/text.h"

namespace penstock::app {
namespace {

using Words = std::vector<std::string>;

std::vector<CLI::App*> below(CLI::App& group) {
    return group.get_subcommands([](const CLI::App*) { return true; });
}

std::vector<const CLI::App*> below(const CLI::App& group) {
    return group.get_subcommands([](const CLI::App*) { return true; });
}

/// `penstock get` of a command below the root.
std::string path_of(const CLI::App& command) {
    const auto* above = command.get_parent();
    return above == nullptr ? command.get_name() : path_of(*above) + " " + command.get_name();
}

Words names_of(const CLI::App& group) {
    Words out;
    for (const auto* command : below(group)) out.push_back(command->get_name());
    return out;
}

/// The command that words lead to, as far as they do; `at` is the first word that is none.
CLI::App* command_at(CLI::App& root, const Words& words, std::size_t& at) {
    auto* here = &root;
    for (at = 0; at < words.size(); ++at) {
        const auto found =
            here->get_subcommands([&](const CLI::App* one) { return one->check_name(words[at]); });
        if (found.empty()) break;
        here = found.front();
    }
    return here;
}

/// The innermost command of the line that was parsed.
const CLI::App* parsed_command(const CLI::App& root) {
    const auto* here = &root;
    while (!here->get_subcommands().empty()) here = here->get_subcommands().front();
    return here;
}

int print_help(const CLI::App& asked) {
    const auto* above = asked.get_parent();
    std::cout << asked.help(above == nullptr ? "" : path_of(*above));
    return 0;
}

int unknown_command(const CLI::App& group, const std::string& word) {
    const auto near = nearest(word, names_of(group));
    const bool is_slip = !near.empty() && to_lower(word).starts_with(near);   // `create configmaps`
    if (const auto why = is_slip ? "" : why_no_command(path_of(group), word); !why.empty()) {
        std::cerr << fmt::format("error: {}\n", why);
        return 1;
    }
    std::cerr << fmt::format("error: unknown command \"{}\" for \"{}\"\n", printable(clipped(word, 100)),
                             path_of(group));
    if (!near.empty())
        std::cerr << fmt::format("\nDid you mean this?\n\t{}\n", near);
    std::cerr << fmt::format("\nSee '{} --help' for usage.\n", path_of(group));
    return 1;
}

/// What is wrong with a command line, in kubectl's words: the nearest command or flag is named. 1.
int explain_words(CLI::App& root, const Words& words, const CLI::ParseError& error) {
    std::size_t at = 0;
    const auto& command = *command_at(root, words, at);
    const bool is_group = !names_of(command).empty();
    std::string why = error.what();
    if (is_group && at < words.size() && !words[at].starts_with('-'))
        return unknown_command(command, words[at]);
    if (dynamic_cast<const CLI::ExtrasError*>(&error) != nullptr)
        for (; at < words.size() && words[at] != "--"; ++at) {
            const auto& word = words[at];
            if (word.size() < 2 || word[0] != '-' || (word[1] >= '0' && word[1] <= '9')) continue;
            if (!word.starts_with("--")) {
                // Short flags may stand together (-Aw); the value of one may follow it at once.
                if (command.get_option_no_throw(word.substr(0, 2)) != nullptr) continue;
                why = fmt::format("unknown shorthand flag: '{}' in {}", printable(word.substr(1, 1)),
                                  printable(clipped(word, 100)));
                break;
            }
            const auto name = word.substr(0, word.find('='));
            if (const auto kubectls = name == "--image" ? why_no_command(path_of(command), "") : "";
                !kubectls.empty()) {
                std::cerr << fmt::format("error: {}\n", kubectls);
                return 1;
            }
            if (command.get_option_no_throw(name) != nullptr) continue;
            Words known;
            for (const auto* option : command.get_options())
                for (const auto& long_name : option->get_lnames()) known.push_back("--" + long_name);
            const auto near = nearest(name, known);
            why = fmt::format("unknown flag: {}{}", printable(clipped(name, 100)),
                              near.empty() ? "" : fmt::format("\n\nDid you mean this?\n\t{}\n", near));
            break;
        }
    std::cerr << fmt::format("error: {}\nSee '{} --help' for usage.\n", why, path_of(command));
    return 1;
}

CommandWords words_of(const CLI::App& command) {
    CommandWords out{.name = command.get_name(), .doc = command.get_description()};
    for (const auto* option : command.get_options())
        for (const auto& name : option->get_lnames())
            out.flags.emplace_back("--" + name, option->get_description());
    for (const auto* option : command.get_options()) {
        if (option->get_items_expected_min() == 0) continue;
        for (const auto& name : option->get_lnames()) out.valued.push_back("--" + name);
        for (const auto& name : option->get_snames()) out.valued.push_back("-" + name);
    }
    for (const auto* inner : below(command)) out.commands.push_back(words_of(*inner));
    return out;
}

/// What has one value and is given twice has the last one, as for kubectl, mosquitto_pub and units that
/// systemd puts together.
void let_the_last_win(CLI::App& command) {
    for (auto* option : command.get_options())
        if (!option->get_positional() && option->get_expected_max() == 1 &&
            option->get_multi_option_policy() == CLI::MultiOptionPolicy::Throw)
            option->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    for (auto* inner : below(command)) let_the_last_win(*inner);
}

}  // namespace

Option& Option::required() {
    option_->required();
    return *this;
}

Option& Option::between(int least, int most) {
    option_->check(CLI::Range(least, most));
    return *this;
}

Option& Option::positive() {
    option_->check(CLI::PositiveNumber);
    return *this;
}

Option& Option::not_negative() {
    option_->check(CLI::NonNegativeNumber);
    return *this;
}

Option& Option::one_of(const std::vector<std::string>& words) {
    option_->check(CLI::IsMember(words));
    return *this;
}

Option& Option::one_of(const std::vector<int>& numbers) {
    option_->check(CLI::IsMember(numbers));
    return *this;
}

Option& Option::shows_default() {
    option_->capture_default_str();
    return *this;
}

Option& Option::takes_one() {
    option_->allow_extra_args(false);
    return *this;
}

Option& Option::excludes(const Option& other) {
    option_->excludes(other.option_);
    return *this;
}

bool Option::is_given() const { return option_->count() > 0; }

Command Command::add(const char* name, const std::string& doc) {
    command_->require_subcommand(1);
    return {*all_, *command_->add_subcommand(name, doc)};
}

Command& Command::alias(const char* name) {
    command_->alias(name);
    return *this;
}

template <class Value>
Option Command::option(const char* names, Value& value, const std::string& doc) {
    return Option(*command_->add_option(names, value, doc));
}

template Option Command::option(const char*, std::string&, const std::string&);
template Option Command::option(const char*, std::vector<std::string>&, const std::string&);
template Option Command::option(const char*, int&, const std::string&);
template Option Command::option(const char*, std::uint32_t&, const std::string&);
template Option Command::option(const char*, std::int64_t&, const std::string&);
template Option Command::option(const char*, double&, const std::string&);

Option Command::flag(const char* names, bool& value, const std::string& doc) {
    return Option(*command_->add_flag(names, value, doc));
}

Option Command::flag(const char* names, std::string& value, const std::string& doc) {
    return Option(*command_->add_flag(names, value, doc));
}

Command& Command::frees_short_help() {
    command_->set_help_flag("--help", "Print this help");
    return *this;
}

Command& Command::footer(const std::string& text) {
    command_->footer(text);
    return *this;
}

Command& Command::takes_out(std::function<void(Words& words)> take) {
    all_->takers_.emplace_back(command_, std::move(take));
    return *this;
}

void Command::runs(std::function<int()> action) { all_->actions_.emplace_back(command_, std::move(action)); }

Commands::Commands()
    : root_(std::make_unique<CLI::App>(
          "Penstock: an industrial MQTT broker configured by Kubernetes-style resources")) {
    root_->name("penstock");
    root_->require_subcommand(1);
    root_->footer("\nUse \"penstock help COMMAND\" for more information about a command.");
    root_->set_version_flag("--version", version);
}

Commands::~Commands() = default;

Command Commands::add(const char* name, const std::string& doc) {
    return {*this, *root_->add_subcommand(name, doc)};
}

std::vector<CommandWords> Commands::words() const { return words_of(*root_).commands; }

int Commands::help(const Words& words) {
    std::size_t at = 0;
    const auto* asked = command_at(*root_, words, at);
    if (at < words.size()) return unknown_command(*asked, words[at]);
    root_->clear();   // its own help, not that of `help`
    return print_help(*asked);
}

int Commands::run(Words words) {
    for (const auto& [command, take] : takers_)
        if (!words.empty() && words[0] == command->get_name()) take(words);
    let_the_last_win(*root_);
    if (auto read = words_for_cli11(*root_, words); read) words = std::move(*read);
    else return problem(read.error().message);
    // A group without a command of its own is a question.
    std::size_t known = 0;
    if (const auto* asked = command_at(*root_, words, known);
        known == words.size() && !names_of(*asked).empty())
        return print_help(*asked);
    const auto as_typed = words;
    try {
        std::ranges::reverse(words);
        root_->parse(words);
    } catch (const CLI::ParseError& error) {
        return error.get_exit_code() == 0 ? root_->exit(error) : explain_words(*root_, as_typed, error);
    }
    const auto* parsed = parsed_command(*root_);
    const auto action = std::ranges::find(actions_, parsed, [](const auto& one) { return one.first; });
    // A command without an action is a mistake of the program.
    return action != actions_.end() ? action->second() : problem(path_of(*parsed) + " does nothing");
}

void add_help(Commands& commands) {
    auto& words = commands.keep<Words>();
    auto command = commands.add("help", "Help about a command: penstock help auth can-i");
    command.option("command", words, "COMMAND...");
    command.runs([&commands, &words] { return commands.help(words); });
}

}  // namespace penstock::app
