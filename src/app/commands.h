#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace CLI {
class App;
class Option;
}

namespace penstock::app {

class Commands;

/// An option, a flag or a word of a command: a handle, good as long as its Commands.
class Option {
  public:
    explicit Option(CLI::Option& option) : option_(&option) {}
    Option& required();
    /// A whole number, both ends allowed.
    Option& between(int least, int most);
    Option& positive();
    Option& not_negative();
    Option& one_of(const std::vector<std::string>& words);
    Option& one_of(const std::vector<int>& numbers);
    /// The help shows the value that its variable has now.
    Option& shows_default();
    /// Each time it is given it takes one value, and not all words up to the next option.
    Option& takes_one();
    /// It may not stand beside that one.
    Option& excludes(const Option& other);
    /// It stands in the line that was parsed.
    [[nodiscard]] bool is_given() const;

  private:
    CLI::Option* option_;
};

/// A command, or a group of commands: a handle, good as long as its Commands. Values that options are read
/// into live as long, too (Commands::keep).
class Command {
  public:
    Command(Commands& all, CLI::App& command) : all_(&all), command_(&command) {}
    /// A command below this one, which becomes a group: it needs one of them.
    Command add(const char* name, const std::string& doc);
    Command& alias(const char* name);
    /// `names`: `-o,--output`, or `name` of a word without a flag. `Value`: std::string or a vector of it,
    /// int, std::uint32_t, std::int64_t, double.
    template <class Value>
    Option option(const char* names, Value& value, const std::string& doc);
    Option flag(const char* names, bool& value, const std::string& doc);
    /// `--dry-run{client}`: alone it means what stands in braces; another value stands behind `=`.
    Option flag(const char* names, std::string& value, const std::string& doc);
    /// `-h` is free for another option (mosquitto's clients: the host); `--help` stays.
    Command& frees_short_help();
    /// Below the options of its help.
    Command& footer(const std::string& text);
    /// Gets all words of the line before they are parsed, when the first one names this command, and takes
    /// out what the parser has no option for.
    Command& takes_out(std::function<void(std::vector<std::string>& words)> take);
    /// What it does, once its options are read: the exit code.
    void runs(std::function<int()> action);

  private:
    Commands* all_;
    CLI::App* command_;
};

/// A command or group of commands, for completion.
struct CommandWords {
    std::string name, doc;
    std::vector<std::pair<std::string, std::string>> flags;   ///< `--output` and what it does
    std::vector<std::string> valued;   ///< `--output` and `-o`: the next word is their value
    std::vector<CommandWords> commands;
};

/// The commands of `penstock`, each added beside its code (app/command_list.h); help, completion and errors
/// about words follow from them. CLI11 is not seen outside. Core: the main thread.
class Commands {
  public:
    Commands();
    ~Commands();
    Commands(const Commands&) = delete;
    Commands& operator=(const Commands&) = delete;
    /// A command of its own; help lists them as they were added.
    Command add(const char* name, const std::string& doc);
    /// A value that lives as long as the commands: what options are read into.
    template <class Value>
    Value& keep() {
        auto value = std::make_shared<Value>();
        kept_.push_back(value);
        return *value;
    }
    [[nodiscard]] std::vector<CommandWords> words() const;
    /// `penstock help WORDS`: prints the help of a command. The exit code.
    int help(const std::vector<std::string>& words);
    /// Reads a command line, without the program's name, and does what it says: the exit code. What is wrong
    /// with it is told on standard error, in kubectl's words.
    int run(std::vector<std::string> words);

  private:
    friend Command;
    std::unique_ptr<CLI::App> root_;
    std::vector<std::shared_ptr<void>> kept_;
    std::vector<std::pair<const CLI::App*, std::function<int()>>> actions_;
    std::vector<std::pair<const CLI::App*, std::function<void(std::vector<std::string>&)>>> takers_;
};

}  // namespace penstock::app
