#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "broker/connection.h"
#include "mqtt/message.h"
#include "topics/subscription_index.h"

namespace penstock::broker {

/// What workers tell each other. Core: crossing (mailbox). See docs/internals/message-order.md for the order guaranteed.
struct Mail {
    enum class Kind : std::uint8_t {
        none,
        publish,            ///< message: match it against your own subscriptions
        shared_publish,     ///< message, filter, group, session: your member was picked
        filter_added,       ///< filter: the sender has subscribers now
        filter_removed,
        member_added,       ///< filter, group, member
        member_removed,     ///< filter, group, session
        member_connected,   ///< filter, group, session, flag
        retained,           ///< message, sequence: newest wins
        retained_cleared,   ///< message (its topic), sequence
        sequence_mark,      ///< sequence: what the sender still says of retained messages has a higher one
        released,           ///< publisher, packet_id: the QoS 2 message is done; flag: all of the publisher's are
        state_request,      ///< message, publisher; flag: authorized. For worker 0, which owns the state store
        state_gone,         ///< publisher: the client disconnected
        direct,             ///< message, publisher: for this client alone
        connection,         ///< connection: its client id lives on your worker
    };
    /// The parts that only rare mails need.
    struct Body {
        std::string filter;
        std::string group;
        topics::Member member;
        std::unique_ptr<Connection> connection;
        std::string publisher{};                  ///< of a QoS 2 message, where it must not be taken twice
        std::uint16_t packet_id = 0;
        Counted counted{};                        ///< in the message pool while it is on its way

        void count() noexcept { counted.set(sizeof(Body) + filter.size() + group.size() + publisher.size()); }
    };

    Kind kind = Kind::none;
    bool flag = false;                            ///< publish with a body: DUP
    std::uint32_t from = 0;
    std::uint64_t number = 0;                     ///< session or sequence
    mqtt::MessageRef message{};
    std::unique_ptr<Body> body{};
};

}  // namespace penstock::broker
