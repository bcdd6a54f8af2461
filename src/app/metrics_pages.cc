#include "app/metrics_pages.h"

#include "base/clock.h"

namespace penstock::app {
namespace {

/// The metrics are answered without the broker's part when its workers take longer than this.
constexpr int figures_patience_ms = 5000;

}  // namespace

control::AskedAside figures_of(control::BrokerController& controller) {
    return control::AskedAside(
        [&controller] {
            return controller.view().metrics_page() +
                   control::reconcile_metrics(controller.engine_counts(), true);
        },
        "# the broker's workers do not answer; /readyz says which\n", figures_patience_ms);
}

std::function<std::string()> metrics_of(control::AskedAside* figures, const control::HealthBoard& board,
                                        const control::Housekeeper* housekeeper,
                                        std::function<std::string()> more_metrics) {
    return [figures, &board, housekeeper, more_metrics = std::move(more_metrics)] {
        auto text = figures != nullptr ? figures->text() : std::string();
        // The broker's controllers stand first: families are told in one piece.
        const bool has_head = text.find("# TYPE penstock_reconciles_total ") != std::string::npos;
        if (housekeeper != nullptr)
            text += control::reconcile_metrics(housekeeper->engine().counts(), !has_head);
        text += control::health_metrics(board.all(monotonic_ms()));
        if (more_metrics) text += more_metrics();
        return text + control::log_metrics();
    };
}

api::PageServer::Page pages_of(const control::HealthBoard& board, std::function<std::string()> metrics) {
    return [&board, metrics = std::move(metrics)](const std::string& target) -> api::Reply {
        const auto path = target.substr(0, target.find('?'));
        if (path == "/metrics") return {.content_type = "text/plain; version=0.0.4", .body = metrics()};
        if (path == "/healthz" || path == "/livez") return {.content_type = "text/plain", .body = "ok\n"};
        if (path == "/readyz") {
            auto found = control::readiness(board.all(monotonic_ms()),
                                            target.find("verbose", path.size()) != std::string::npos);
            if (!found.text.ends_with('\n')) found.text += '\n';
            return {.status = found.is_ready ? 200 : 503,
                    .content_type = "text/plain",
                    .body = std::move(found.text)};
        }
        return {
            .status = 404, .content_type = "text/plain", .body = "here are /metrics, /healthz and /readyz\n"};
    };
}

void serve_metrics_port(control::BrokerController& controller, api::PageServer& pages) {
    controller.on_metrics_port([&pages](int wanted) {
        const auto listening = pages.listen(static_cast<std::uint16_t>(wanted));
        return listening ? std::string() : listening.error().message;
    });
}

}  // namespace penstock::app
