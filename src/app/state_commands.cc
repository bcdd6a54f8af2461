// state: a client of the state store.
#include <optional>

#include "app/command_list.h"
#include "app/mqtt_options.h"
#include "tools/state_cli.h"

namespace penstock::app {
namespace {

void add_verb(Command& group, const std::string& verb, const char* doc, tools::StateOptions& o,
              MqttWords& words) {
    auto command = group.add(verb.c_str(), doc);
    add_mqtt_options(command, o, words);
    const bool by_pattern = verb == "scan" || verb == "export";
    command.option("key", o.key, by_pattern ? "Pattern with *, ? and [a-z]" : "Key").required();
    if (verb == "set") {
        command.option("value", o.value, "Value").required();
        command.option("--only", o.only, "new (only when absent) or new-or-same")
            .one_of(std::vector<std::string>{"new", "new-or-same"});
        command.option("--lives", o.lives_ms, "Milliseconds after which it expires");
    }
    std::optional<Option> if_value;
    if (verb == "del") if_value = command.option("--if-value", o.if_value, "Only when the value is this");
    command.option("--fence", o.fence, "Fencing token");
    command.flag("--show-version", o.show_version, "The key's version on standard error");
    command.runs([verb, if_value, &o, &words] {
        o.verb = verb;
        o.has_if_value = if_value && if_value->is_given();
        if (auto done = finish(o, words); !done) return mqtt_problem(done.error().message);
        return tools::run_state(o);
    });
}

}  // namespace

void add_state(Commands& commands) {
    auto& o = commands.keep<tools::StateOptions>();
    auto& words = commands.keep<MqttWords>();
    auto group = commands.add("state", "The state store: penstock state get|set|del|watch|scan|export KEY");
    take_properties(group, words);
    add_verb(group, "get", "Print a key's value", o, words);
    add_verb(group, "set", "Set a key", o, words);
    add_verb(group, "del", "Delete a key", o, words);
    add_verb(group, "watch", "Print what happens to a key", o, words);
    add_verb(group, "scan", "List keys by pattern", o, words);
    add_verb(group, "export", "Print keys by pattern with their values, a line of JSON each", o, words);
}

}  // namespace penstock::app
