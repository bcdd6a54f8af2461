#pragma once
#include <optional>
#include <string>
#include <string_view>

#include "store/engine.h"

/// How the broker's state is written, format 1: see docs/internals/formats.md. Every record begins with its version; numbers are
/// big-endian; texts have their length in front. `shift` is the store's clock minus the monotonic one, ms.
/// Decoding refuses what it does not understand and never reads beyond the bytes it was given.
namespace penstock::store {

std::string encode_message(const mqtt::MessageView& view, std::int64_t shift);
/// Null when the bytes are no message.
mqtt::MessageRef decode_message(std::string_view bytes, std::int64_t shift);

/// `body` 0: the message stands in the record.
std::string encode_queued(const Queued& item, std::uint16_t packet_id, std::uint64_t body, std::int64_t shift);
/// The message stays empty when it stands elsewhere (`body`).
bool decode_queued(std::string_view bytes, Queued& item, std::uint16_t& packet_id, std::uint64_t& body, std::int64_t shift);

std::string encode_delivery(std::uint16_t packet_id, Step step);
bool decode_delivery(std::string_view bytes, std::uint16_t& packet_id, Step& step);

std::string encode_session(const SessionRecord& record, std::int64_t shift);
std::optional<SessionRecord> decode_session(std::string_view bytes, std::int64_t shift);

std::string encode_leaving(const LeavingRecord& record, std::int64_t shift);
std::optional<LeavingRecord> decode_leaving(std::string_view bytes, std::int64_t shift);

std::string encode_state(const statestore::Entry& entry, std::int64_t shift);
std::optional<statestore::Entry> decode_state(std::string_view bytes, std::int64_t shift);

/// `share` 0: no shared subscription.
std::string encode_options(const topics::Options& options, std::uint32_t share = 0);
std::optional<topics::Options> decode_options(std::string_view bytes, std::uint32_t& share);

std::string encode_shares(const std::vector<Share>& shares);
std::optional<std::vector<Share>> decode_shares(std::string_view bytes);

}  // namespace penstock::store
