// run, api: the process that has the resources (platform.h).
#include <sys/stat.h>

#include <cstdlib>
#include <memory>

#include "app/command_list.h"
#include "app/commands.h"
#include "app/environment.h"
#include "app/platform.h"
#include "app/process.h"
#include "base/log.h"
#include "base/log_output.h"

namespace penstock::app {
namespace {

int run(const RunOptions& options) {
    const auto signals = prepare_process();
    auto output = std::make_unique<log::BackgroundOutput>();
    std::unique_ptr<log::RunFiles> run_files;   // after all that logs has ended
    if (const auto why = take_levels(options.log_level); !why.empty()) return give_up("--log-level: " + why);
    // Keys live in the data folder: nothing below is readable by others, not even for a moment.
    umask(0077);
    StartWatch watch;
    auto ground = open_ground(options, watch, run_files);
    if (!ground) return give_up(ground.error().message);
    Platform platform(options, std::move(*ground), *run_files, watch);
    if (auto started = platform.start(); !started) return give_up(started.error().message);
    wait_for_end(signals, [&] { platform.read_again(); });
    log::info("app", "stopping");
    platform.stop();
    const auto why = platform.never_in_force();
    const int code = why.empty() ? 0 : give_up("ended without ever having run what -f names: " + why);
    if (!platform.is_held_up()) return code;
    // A thread that is held up cannot be waited for, and uses what would go away here. All else has ended and
    // is on the disk.
    log::warn("app", "ends while a file is being read that does not answer");
    run_files.reset();
    output.reset();
    std::_Exit(code);
}

void add_options(Command& command, RunOptions& o) {
    o.data_folder = default_data_folder();
    command.option("-f,--filename", o.files, "Manifests to apply and follow: files or folders");
    command.option("--data-dir", o.data_folder, "Where state is kept").shows_default();
    command.option("--api-address", o.api_address, "Address of the resource API").shows_default();
    command.option("--api-port", o.api_port, "Port of the resource API; 0 picks one")
        .shows_default()
        .between(0, 65'535);
    command.option("--log-level", o.log_level, "Log level until the Broker resource is read").shows_default();
    command.runs([&o] { return run(o); });
}

}  // namespace

void add_run(Commands& commands) {
    auto& options = commands.keep<RunOptions>();
    auto command = commands.add("run", "Run broker, resource API and controllers in one process");
    add_options(command, options);
}

void add_api(Commands& commands) {
    auto& options = commands.keep<RunOptions>();
    options.with_broker = false;
    auto command = commands.add("api", "Run the resource API and its controllers without a broker");
    add_options(command, options);
}

}  // namespace penstock::app
