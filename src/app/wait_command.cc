// wait: until an object is as wanted, by its conditions or a JSONPath, there, or gone.
#include "app/wait_command.h"

#include <algorithm>
#include <iostream>

#include <fmt/format.h>

#include "app/command_list.h"
#include "app/jsonpath.h"
#include "base/clock.h"
#include "base/text.h"
#include "client/names.h"
#include "client/reflector.h"
#include "io/poller.h"

namespace penstock::app {
namespace {

using resources::at_path;
using resources::Json;
using resources::text_at;

/// What `--for` asks of an object.
struct Wish {
    enum class Of : std::uint8_t { condition, jsonpath, gone, made };
    Of of = Of::condition;
    std::string path, value; ///< a condition's name, or a JSONPath; what it is to be, empty: anything
};

Result<Wish> wish_of(const std::string& text) {
    if (text == "delete") return Wish{.of = Wish::Of::gone, .path = {}, .value = {}};
    if (text == "create") return Wish{.of = Wish::Of::made, .path = {}, .value = {}};
    if (text.starts_with("condition=")) {
        const auto rest = text.substr(10);
        const auto equal = rest.find('=');
        return Wish{.of = Wish::Of::condition,
                    .path = rest.substr(0, equal),
                    .value = equal == std::string::npos ? "True" : rest.substr(equal + 1)};
    }
    if (text.starts_with("jsonpath=")) {
        const auto end = text.find('}');
        if (end == std::string::npos)
            return fail("--for=jsonpath needs a path in braces, for example "
                        "jsonpath='{.status.runtimeStatus.status}'=Running");
        return Wish{.of = Wish::Of::jsonpath,
                    .path = text.substr(9, end - 8),
                    .value = end + 2 <= text.size() ? text.substr(end + 2) : ""};
    }
    return fail(fmt::format(
        "--for=\"{}\" is not known; use condition=NAME, jsonpath='{{PATH}}'=VALUE, delete or create", text));
}

/// Of an object that is there.
bool holds(const Wish& wish, const Json& object) {
    if (wish.of == Wish::Of::gone) return false;
    if (wish.of == Wish::Of::made) return true;
    if (wish.of == Wish::Of::condition) {
        const auto& conditions = at_path(object, "status.conditions");
        return conditions.is_array() && std::ranges::any_of(conditions, [&](const Json& c) {
                   return equal_no_case(text_at(c, "type"), wish.path) &&
                          equal_no_case(text_at(c, "status"), wish.value);
               });
    }
    const auto text = evaluate_jsonpath(wish.path, object);
    return text && (wish.value.empty() ? !text->empty() : *text == wish.value);
}

/// One object and what is wanted of it.
class Waiting {
  public:
    Waiting(client::Client& api, const resources::Kind& kind, std::string name, const Wish& wish)
        : api_(api), kind_(kind), name_(std::move(name)), wish_(wish) {}

    /// `deadline`: monotonic, ms. The exit code; an error was told.
    int wait_until(std::int64_t deadline) {
        auto answer = look();
        if (!answer) return problem(answer.error().message);
        if (!answer->ok() && answer->status != 404) return refused(answer);
        if (answer->status == 404 && wish_.of != Wish::Of::gone && wish_.of != Wish::Of::made)
            return refused(answer);
        bool done = is_gone(answer) || (answer->ok() && holds(wish_, answer->body));
        // From what was just read on: an object that goes away before the watch begins is told of all the
        // same.
        auto from = answer->ok() ? text_at(answer->body, "metadata.resourceVersion") : std::string("0");
        while (!done) {
            const auto began = monotonic_ms();
            const auto left = (deadline - began) / 1000;
            if (left <= 0)
                return problem(
                    fmt::format("timed out waiting for the condition on {}/{}", kind_.singular, name_));
            if (const int code = watch(from, std::max<std::int64_t>(1, left), done); code != 0) return code;
            // Whoever ends watches at once is not asked again at once.
            if (!done && monotonic_ms() - began < client::Reflector::short_watch_ms)
                io::Poller().wait(client::Reflector::short_watch_ms);
            from = done || wish_.of != Wish::Of::gone ? "0" : look_again(from, done);
        }
        std::cout << fmt::format("{}/{} {}\n", kind_.singular, name_,
                                 wish_.of == Wish::Of::gone ? "deleted" : "condition met");
        return 0;
    }

  private:
    Result<client::Response> look() {
        return api_.request("GET", client::path_of(kind_, api_.access().name_space, name_));
    }
    [[nodiscard]] bool is_gone(const Result<client::Response>& answer) const {
        return wish_.of == Wish::Of::gone && answer && answer->status == 404;
    }
    /// What was deleted between two watches is no event of either. Answers from where the next one is to
    /// begin.
    std::string look_again(std::string from, bool& done) {
        const auto answer = look();
        done = is_gone(answer);
        return answer && answer->ok() ? text_at(answer->body, "metadata.resourceVersion") : from;
    }
    /// From a version on, for so many seconds or until it is as wanted. 0, or the exit code of what was told.
    int watch(const std::string& from, std::int64_t seconds, bool& done) {
        const auto target =
            fmt::format("{}?watch=true&resourceVersion={}&fieldSelector=metadata.name%3D{}&timeoutSeconds={}",
                        client::path_of(kind_, api_.access().name_space), from, name_, seconds);
        const auto ended = api_.watch(target, "application/json", [&](const Json& event) {
            const auto type = text_at(event, "type");
            done = wish_.of == Wish::Of::gone
                       ? type == "DELETED"
                       : (type == "ADDED" || type == "MODIFIED") && holds(wish_, event["object"]);
            return !done;
        });
        if (!ended) return problem(ended.error().message);
        if (*ended == 200) return 0;
        return problem(fmt::format("watching {} was refused with status {}", kind_.plural, *ended));
    }

    client::Client& api_;
    const resources::Kind& kind_;
    std::string name_;
    const Wish& wish_;
};

}  // namespace

int wait(const ResourceOptions& options, const WaitOptions& wanted) {
    const auto timeout = parse_duration(wanted.timeout);
    if (!timeout) return problem("--timeout: " + timeout.error().message);
    const auto wish = wish_of(wanted.condition);
    if (!wish) return problem(wish.error().message);
    auto connected = connect(options);
    if (!connected) return problem(connected.error().message);
    client::Kinds kinds(*connected);
    const auto one = one_of(kinds, options.words,
                            "what to wait for, for example: penstock wait brokerlistener/default "
                            "--for=jsonpath='{.status.runtimeStatus.status}'=Running");
    if (!one) return problem(one.error().message);
    if (one->names.empty()) return problem("a name is needed: KIND/NAME");
    const auto deadline = monotonic_ms() + *timeout;
    for (const auto& name : one->names)
        if (const int code = Waiting(*connected, *one->kind, name, *wish).wait_until(deadline); code != 0)
            return code;
    return 0;
}

void add_wait(Commands& commands) {
    auto& resource = commands.keep<ResourceOptions>();
    auto& how = commands.keep<WaitOptions>();
    auto command =
        commands.add("wait", "Wait until a resource is as wanted: penstock wait KIND/NAME --for=...");
    add_api_options(command, resource);
    command.option("words", resource.words, "KIND/NAME or KIND NAME...");
    command
        .option("--for", how.condition, "condition=NAME[=VALUE], jsonpath='{PATH}'=VALUE, delete or create")
        .required();
    command.option("--timeout", how.timeout, "How long, for example 30s").shows_default();
    command.runs([&] { return wait(resource, how); });
}

}  // namespace penstock::app
