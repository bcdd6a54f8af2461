#include "app/parts.h"

#include <algorithm>
#include <span>

#include <fmt/format.h>

#include "base/log.h"
#include "base/log_modules.h"

namespace penstock::app {

Parts::Parts(std::vector<Part> list, std::function<void()> tell_to_stop)
    : list_(std::move(list)), tell_to_stop_(std::move(tell_to_stop)) {
    std::erase_if(list_, [](const Part& part) { return !part.is_wanted; });
}

Result<void> Parts::check(const Part& part) const {
    if (std::ranges::find(log::module_names, part.log_module) == log::module_names.end())
        return fail(fmt::format("\"{}\" logs under \"{}\", which base/log_modules.h does not have", part.name,
                                part.log_module));
    const auto started = std::span(list_).first(started_);
    for (const auto& name : part.needs)
        if (std::ranges::find(started, name, &Part::name) == started.end())
            return fail(fmt::format("\"{}\" needs \"{}\", which does not start before it", part.name, name));
    return {};
}

Result<void> Parts::start() {
    for (const auto& part : list_) {
        log::debug(part.log_module, "starting part=\"{}\"", part.name);
        auto done = check(part);
        if (done && part.start) done = part.start();
        if (!done) {
            stop();
            return done;
        }
        ++started_;
    }
    return {};
}

void Parts::stop() {
    if (started_ == 0) return;
    tell_to_stop_();
    while (started_ > 0) {
        const auto& part = list_[--started_];
        log::debug(part.log_module, "stopping part=\"{}\"", part.name);
        if (part.stop) part.stop();
    }
}

std::vector<control::Role> Parts::pods() const {
    std::vector<control::Role> out;
    for (const auto& part : list_)
        if (part.pods) std::ranges::move(part.pods(), std::back_inserter(out));
    return out;
}

}  // namespace penstock::app
