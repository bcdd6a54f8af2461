#pragma once
#include <string>
#include <vector>

#include "broker/config.h"
#include "control/cures.h"
#include "resources/schema.h"

namespace penstock::control {

/// One port of one listener as the resources want it.
struct PlannedPort {
    std::string name_space;
    std::string listener;
    std::string service_type;            ///< canonical
    int port = 0;                        ///< as in spec.ports[].port
    std::string path;                    ///< of the port in its listener, `spec.ports[0]`
    broker::ListenerConfig config;       ///< what to bind
    std::string blocked;                 ///< not empty: must not open; why
    bool is_being_issued = false;        ///< blocked by nothing but a certificate that may come
    std::string refused;                 ///< not empty: open, and each client that verifies refuses the certificate; why
    std::string nobody;                  ///< not empty: open, and no newcomer can get in; why
    std::string rules_fault;             ///< what keeps all clients out, of its BrokerAuthentication
    std::vector<Warning> rules_warnings;
    bool is_leaving = false;             ///< its listener was deleted; connections stay a moment, in case it is replaced
    resources::Json spec;                ///< the port as the listener has it
    resources::Json security;            ///< for the status: how clients are known, with which certificate
    Warning everybody;                   ///< not empty: open to the network without authentication
    std::string authentication_waits;    ///< not empty: what authenticationRef names does not act on the port; why
    std::string authorization_waits;     ///< the same of authorizationRef
    std::vector<Warning> warnings;       ///< for the status

    /// What is bound where that is another one than `port`; 0: it is not.
    [[nodiscard]] int node_port() const noexcept { return service_type == "NodePort" && config.port != port ? config.port : 0; }
};

/// What the data plane has to do, derived from a Broker and its listeners. Pure data.
struct Plan {
    broker::BrokerConfig config;
    std::uint32_t workers = 1;
    std::vector<PlannedPort> ports;
    std::string log_level = "info";
    std::string debug_clients;
    int prometheus_port = 9600;
    bool is_persistent = false;          ///< spec.persistence is there
    std::int64_t persistence_bytes = 0;
    std::string keep_it;                 ///< see keeping_of()
    bool seals = false;                  ///< encryption at rest
    std::string key_rotation;            ///< name of the key that is wanted
    int sync_interval_ms = 0;            ///< 0: before every acknowledgement
    bool self_check = true;
    int self_check_interval = 30;        ///< seconds
    int self_check_timeout = 15;         ///< seconds
    std::size_t trace_bytes = 0;         ///< of spans that are kept; 0: nothing is traced
    int self_tracing_interval = 0;       ///< seconds between two probes that are traced; 0: none is
    int backend_partitions = 1, backend_workers = 1, redundancy_factor = 1, frontend_replicas = 1, frontend_workers = 1;
    std::vector<resources::Fault> notes; ///< fields that are set and have no effect here
};

/// Bytes of one packet and of all messages for a memory profile (fact sheet 2.4).
struct ProfileBounds {
    std::uint32_t packet_bytes = 0;
    std::int64_t pool_bytes = 0;
};
ProfileBounds bounds_of(const std::string& memory_profile);

/// `spec: {persistence: {retain: {mode: All}}}` with each policy that is left out;
/// empty: none is.
std::string keeping_of(const resources::Json& broker);
/// `cores` is how many the machine has.
Plan plan_broker(const resources::Json& broker, const std::vector<resources::Json>& listeners, unsigned cores);

}  // namespace penstock::control
