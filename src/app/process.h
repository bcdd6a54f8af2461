#pragma once
// What every process does that stays: `penstock run`, `api`, `broker`.
#include <signal.h>

#include <functional>
#include <memory>
#include <string>

#include "base/held_folder.h"
#include "base/result.h"
#include "control/broker_controller.h"

namespace penstock::app {

/// Before any thread is made: all inherit the mask, and only wait_for_end() takes the signals, which it is
/// given.
sigset_t prepare_process();
/// Waits for an order to stop. SIGHUP has things read again; that of a terminal that went away is an order to
/// stop: nobody is left who could give another.
void wait_for_end(const sigset_t& signals, const std::function<void()>& on_hangup);
/// `penstock: WHY` on standard error; 1.
int give_up(const std::string& why);
/// What is wrong with the levels of `--log-level`; empty: they are in force. Names of modules that there are
/// not are logged.
std::string take_levels(const std::string& levels);
/// Makes the folder where it is missing. The error says what to do.
Result<std::shared_ptr<HeldFolder>> open_data_folder(const std::string& folder);
/// Where the broker's state, its keys and its overflow stand; null: nowhere. A key ring among the credentials
/// that systemd hands in goes before our own.
control::StatePlace place_in(const std::shared_ptr<HeldFolder>& held);

/// How soon a thread that waits sees that SIGHUP has come.
constexpr int hangup_look_ms = 500;

}  // namespace penstock::app
