// pub, sub: mosquitto's users find their options again.
#include "app/command_list.h"
#include "app/mqtt_options.h"

namespace penstock::app {

void add_pub(Commands& commands) {
    auto& o = commands.keep<tools::PubOptions>();
    auto& words = commands.keep<MqttWords>();
    auto& message = commands.keep<std::string>();
    auto command = commands.add("pub", "Publish messages; options as mosquitto_pub");
    add_mqtt_options(command, o, words);
    take_properties(command, words);
    command.option("-t,--topic", o.topic, "Topic").required();
    const auto has_message = command.option("-m,--message", message, "Payload");
    command.option("-f,--file", o.file, "Payload from a file");
    command.flag("-l,--stdin-line", o.lines, "One message per line of standard input");
    command.flag("-s,--stdin-file", o.whole_input, "Standard input as one message");
    command.flag("-n,--null-message", o.null_message, "Empty payload");
    command.option("-q,--qos", o.qos, "QoS").between(0, 2);
    command.flag("-r,--retain", o.retain, "Retain");
    command.option("--repeat", o.repeat, "How often").between(1, 1'000'000'000);
    command.option("--repeat-delay", o.repeat_delay, "Seconds in between");
    command.runs([&o, &words, &message, has_message] {
        if (auto done = finish(o, words); !done) return mqtt_problem(done.error().message);
        if (has_message.is_given()) o.message = message;
        return tools::run_pub(o);
    });
}

void add_sub(Commands& commands) {
    auto& o = commands.keep<tools::SubOptions>();
    auto& words = commands.keep<MqttWords>();
    auto command = commands.add("sub", "Subscribe and print messages; options as mosquitto_sub");
    add_mqtt_options(command, o, words);
    take_properties(command, words);
    command.option("-t,--topic", o.filters, "Topic filter; may be repeated").takes_one();
    command.option("-T,--filter-out", o.filter_out, "Topic filter not to print").takes_one();
    command.option("-U,--unsubscribe", o.unsubscribe, "Topic filter to unsubscribe").takes_one();
    command.option("-q,--qos", o.qos, "QoS").between(0, 2);
    command.flag("-v,--verbose", o.verbose, "Topic before the payload");
    command.option("-C,--count", o.count, "Exit after so many messages");
    command.option("-W,--timeout", o.wait_s, "Exit (27) after so many seconds");
    command.option("-F,--format", o.format,
                   "Output format: %t topic, %p payload, %x hex, %l length, %q QoS, %r retain, %P user "
                   "properties, ...");
    command.flag("-N,--no-newline", o.no_newline, "No end of line after the payload");
    command.flag("-R,--no-retained", o.no_retained, "No retained messages");
    command.flag("--retained-only", o.retained_only, "Exit at the first message that is not retained");
    command.flag("--remove-retained", o.remove_retained, "Clear retained messages that arrive");
    command.flag("--retain-as-published", o.retain_as_published,
                 "Keep the retain flag of the publisher (version 5)");
    command.flag("-E,--exit-after-subscribe", o.exit_after_subscribe, "Exit once subscribed");
    command.runs([&o, &words] {
        if (auto done = finish(o, words); !done) return mqtt_problem(done.error().message);
        return tools::run_sub(o);
    });
}

}  // namespace penstock::app
