#pragma once
// The pages for whoever watches a process: /metrics, /healthz, /readyz.
#include <functional>
#include <string>

#include "api/server.h"
#include "control/asked_aside.h"
#include "control/broker_controller.h"
#include "control/health.h"
#include "control/housekeeper.h"

namespace penstock::app {

/// The broker's part of the metrics. It waits for each worker's turn, for a while.
control::AskedAside figures_of(control::BrokerController& controller);
/// `/metrics` of a process. `figures`: null without a broker. `housekeeper`: null without the API's part.
/// `more_metrics`: of the API's part; empty where it has none.
std::function<std::string()> metrics_of(control::AskedAside* figures, const control::HealthBoard& board,
                                        const control::Housekeeper* housekeeper,
                                        std::function<std::string()> more_metrics);
/// What is answered to a path.
api::PageServer::Page pages_of(const control::HealthBoard& board, std::function<std::string()> metrics);
/// Has the controller open and move these pages' port, as the Broker says.
void serve_metrics_port(control::BrokerController& controller, api::PageServer& pages);

}  // namespace penstock::app
