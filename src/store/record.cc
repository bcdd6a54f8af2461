#include "store/record.h"

namespace penstock::store {
namespace {

constexpr char version = 1;

class Writer {
  public:
    Writer() : out_(1, version) {}
    Writer& number(std::uint64_t value, int bytes) {
        for (int shift = (bytes - 1) * 8; shift >= 0; shift -= 8) out_ += static_cast<char>(value >> shift);
        return *this;
    }
    Writer& time(std::int64_t value, std::int64_t shift) { return number(static_cast<std::uint64_t>(value == 0 ? 0 : value + shift), 8); }
    Writer& text(std::string_view value) {
        number(value.size(), 4);
        out_ += value;
        return *this;
    }
    std::string take() { return std::move(out_); }

  private:
    std::string out_;
};

class Reader {
  public:
    explicit Reader(std::string_view bytes) : rest_(bytes) { good_ = number(1) == static_cast<unsigned char>(version); }
    std::uint64_t number(std::size_t bytes) {
        if (rest_.size() < bytes) {
            good_ = false;
            rest_ = {};
            return 0;
        }
        std::uint64_t out = 0;
        for (const char c : rest_.substr(0, bytes)) out = out << 8 | static_cast<unsigned char>(c);
        rest_.remove_prefix(bytes);
        return out;
    }
    std::int64_t time(std::int64_t shift) {
        const auto wall = static_cast<std::int64_t>(number(8));
        if (wall == 0) return 0;
        std::int64_t out = 0;
        if (__builtin_sub_overflow(wall, shift, &out)) {   // of a damaged record: no clock has it
            good_ = false;
            return 0;
        }
        return out == 0 ? 1 : out;   // never 0 by accident: that means "none"
    }
    std::string_view text() {
        const auto size = number(4);
        if (rest_.size() < size) {
            good_ = false;
            return {};
        }
        const auto out = rest_.substr(0, size);
        rest_.remove_prefix(size);
        return out;
    }
    [[nodiscard]] bool at_end() const { return good_ && rest_.empty(); }
    [[nodiscard]] bool good() const { return good_; }

  private:
    std::string_view rest_;
    bool good_ = true;
};

void write_message(Writer& out, const mqtt::MessageView& view, std::int64_t shift) {
    const auto partition_at = view.has_partition && !view.partition.empty() && view.partition.data() >= view.properties.data() ? static_cast<std::uint64_t>(view.partition.data() - view.properties.data()) : 0;
    out.number(static_cast<std::uint64_t>(view.qos) | (view.retain ? 4u : 0u) | (view.has_partition ? 8u : 0u), 1).time(view.expires_at, shift).text(view.topic).text(view.properties).text(view.payload);
    if (view.has_partition) out.number(partition_at, 4).number(view.partition.size(), 2);
}

mqtt::MessageRef read_message(Reader& in, std::int64_t shift) {
    const auto flags = in.number(1);
    mqtt::MessageView view{.has_partition = (flags & 8) != 0, .retain = (flags & 4) != 0, .qos = static_cast<mqtt::Qos>(flags & 3)};
    view.expires_at = in.time(shift);
    view.topic = in.text();
    view.properties = in.text();
    view.payload = in.text();
    if (view.has_partition) {
        const auto at = in.number(4), size = in.number(2);
        if (at + size > view.properties.size()) return {};
        view.partition = view.properties.substr(at, size);
    }
    if (!in.at_end() || flags > 15 || (flags & 3) == 3 || view.topic.empty() || view.topic.size() > 65'535) return {};
    return mqtt::MessageRef(mqtt::Message::make(view));
}

}  // namespace

std::string encode_message(const mqtt::MessageView& view, std::int64_t shift) {
    Writer out;
    write_message(out, view, shift);
    return out.take();
}

mqtt::MessageRef decode_message(std::string_view bytes, std::int64_t shift) {
    Reader in(bytes);
    return in.good() ? read_message(in, shift) : mqtt::MessageRef();
}

std::string encode_queued(const Queued& item, std::uint16_t packet_id, std::uint64_t body, std::int64_t shift) {
    Writer out;
    out.number(static_cast<std::uint64_t>(item.qos) | (item.retain ? 4u : 0u) | (body != 0 ? 8u : 0u) | (item.share != 0 ? 16u : 0u), 1).number(packet_id, 2).number(item.subscription_ids.size(), 2);
    for (const auto id : item.subscription_ids) out.number(id, 4);
    if (item.share != 0) out.number(item.share, 4);
    if (body != 0) out.number(body, 8);
    else write_message(out, item.message->view(), shift);
    return out.take();
}

bool decode_queued(std::string_view bytes, Queued& item, std::uint16_t& packet_id, std::uint64_t& body, std::int64_t shift) {
    Reader in(bytes);
    const auto flags = in.number(1);
    packet_id = static_cast<std::uint16_t>(in.number(2));
    const auto ids = in.number(2);
    for (std::uint64_t i = 0; i < ids && in.good(); ++i) item.subscription_ids.push_back(static_cast<std::uint32_t>(in.number(4)));
    if ((flags & 16) != 0) {
        item.share = static_cast<std::uint32_t>(in.number(4));
        if (item.share == 0) return false;
    }
    if (!in.good() || flags > 31 || (flags & 3) == 0 || (flags & 3) == 3) return false;
    item.qos = static_cast<mqtt::Qos>(flags & 3);
    item.retain = (flags & 4) != 0;
    if ((flags & 8) != 0) {
        body = in.number(8);
        return in.at_end() && body != 0;
    }
    body = 0;
    item.message = read_message(in, shift);
    return static_cast<bool>(item.message);
}

std::string encode_delivery(std::uint16_t packet_id, Step step) { return Writer().number(packet_id, 2).number(static_cast<std::uint64_t>(step), 1).take(); }

bool decode_delivery(std::string_view bytes, std::uint16_t& packet_id, Step& step) {
    Reader in(bytes);
    packet_id = static_cast<std::uint16_t>(in.number(2));
    const auto number = in.number(1);
    step = static_cast<Step>(number);
    return in.at_end() && packet_id != 0 && number <= static_cast<std::uint64_t>(Step::wait_pubcomp);
}

std::string encode_session(const SessionRecord& record, std::int64_t shift) {
    Writer out;
    out.text(record.owner).number(record.expiry_interval, 4).time(record.ends_at, shift).number((record.keeps_queue ? 1u : 0u) | (record.will ? 2u : 0u) | (record.holder ? 4u : 0u), 1);
    if (record.will) {
        const auto& will = *record.will;
        out.text(will.topic).text(will.properties).text(will.payload).number(static_cast<std::uint64_t>(will.qos) | (will.retain ? 4u : 0u) | (will.has_expiry ? 8u : 0u), 1);
        out.number(will.delay_interval, 4).number(will.message_expiry, 4).time(will.publish_at, shift);
    }
    if (record.holder) {
        const auto& holder = *record.holder;
        out.text(holder.listener).number(holder.port, 2).text(holder.method).text(holder.user_name).text(holder.evidence).number(holder.attributes.size(), 4);
        for (const auto& [name, value] : holder.attributes) out.text(name).text(value);
    }
    return out.take();
}

std::optional<SessionRecord> decode_session(std::string_view bytes, std::int64_t shift) {
    Reader in(bytes);
    SessionRecord out;
    out.owner = in.text();
    out.expiry_interval = static_cast<std::uint32_t>(in.number(4));
    out.ends_at = in.time(shift);
    const auto flags = in.number(1);
    out.keeps_queue = (flags & 1) != 0;
    if ((flags & 2) != 0) {
        auto& will = out.will.emplace();
        will.topic = in.text();
        will.properties = in.text();
        will.payload = in.text();
        const auto will_flags = in.number(1);
        will.qos = static_cast<mqtt::Qos>(will_flags & 3);
        will.retain = (will_flags & 4) != 0;
        will.has_expiry = (will_flags & 8) != 0;
        will.delay_interval = static_cast<std::uint32_t>(in.number(4));
        will.message_expiry = static_cast<std::uint32_t>(in.number(4));
        will.publish_at = in.time(shift);
        if (will_flags > 15 || (will_flags & 3) == 3 || will.topic.empty()) return std::nullopt;
    }
    if ((flags & 4) != 0) {
        auto& holder = out.holder.emplace();
        holder.listener = in.text();
        holder.port = static_cast<std::uint16_t>(in.number(2));
        holder.method = in.text();
        holder.user_name = in.text();
        holder.evidence = in.text();
        for (auto count = in.number(4); count > 0 && in.good(); --count) {
            const auto name = in.text();
            holder.attributes.emplace(name, in.text());
        }
    }
    if (!in.at_end() || flags > 7) return std::nullopt;
    return out;
}

std::string encode_leaving(const LeavingRecord& record, std::int64_t shift) {
    Writer out;
    out.text(record.client_id).number(record.sequence, 8).text(record.filter).text(record.group);
    write_message(out, record.message->view(), shift);
    return out.take();
}

std::optional<LeavingRecord> decode_leaving(std::string_view bytes, std::int64_t shift) {
    Reader in(bytes);
    LeavingRecord out;
    out.client_id = in.text();
    out.sequence = in.number(8);
    out.filter = in.text();
    out.group = in.text();
    if (in.good()) out.message = read_message(in, shift);
    if (!out.message || out.filter.empty() != out.group.empty()) return std::nullopt;
    return out;
}

std::string encode_state(const statestore::Entry& entry, std::int64_t shift) {
    return Writer().text(entry.value).text(entry.version.text()).text(entry.fence ? entry.fence->text() : "").time(entry.expires_at, shift).take();
}

std::optional<statestore::Entry> decode_state(std::string_view bytes, std::int64_t shift) {
    Reader in(bytes);
    statestore::Entry out;
    out.value = in.text();
    const auto stamp = statestore::Timestamp::parse(in.text());
    const auto fence = in.text();
    out.expires_at = in.time(shift);
    if (!in.at_end() || !stamp) return std::nullopt;
    out.version = *stamp;
    if (!fence.empty()) {
        out.fence = statestore::Timestamp::parse(fence);
        if (!out.fence) return std::nullopt;
    }
    out.is_kept = true;
    return out;
}

std::string encode_options(const topics::Options& options, std::uint32_t share) {
    Writer out;
    out.number(options.qos | (options.no_local ? 4u : 0u) | (options.retain_as_published ? 8u : 0u) | (share != 0 ? 16u : 0u), 1).number(options.id, 4);
    if (share != 0) out.number(share, 4);
    return out.take();
}

std::optional<topics::Options> decode_options(std::string_view bytes, std::uint32_t& share) {
    Reader in(bytes);
    const auto flags = in.number(1);
    topics::Options out{.qos = static_cast<std::uint8_t>(flags & 3), .no_local = (flags & 4) != 0, .retain_as_published = (flags & 8) != 0, .id = static_cast<std::uint32_t>(in.number(4))};
    share = (flags & 16) != 0 ? static_cast<std::uint32_t>(in.number(4)) : 0;
    if (!in.at_end() || flags > 31 || out.qos > 2 || ((flags & 16) != 0 && share == 0)) return std::nullopt;
    return out;
}

std::string encode_shares(const std::vector<Share>& shares) {
    Writer out;
    out.number(shares.size(), 4);
    for (const auto& share : shares) out.number(share.number, 4).text(share.filter).text(share.group);
    return out.take();
}

std::optional<std::vector<Share>> decode_shares(std::string_view bytes) {
    Reader in(bytes);
    std::vector<Share> out;
    for (auto count = in.number(4); count > 0 && in.good(); --count) {
        Share share{.number = static_cast<std::uint32_t>(in.number(4)), .filter = {}, .group = {}};
        share.filter = in.text();
        share.group = in.text();
        if (in.good() && (share.number == 0 || share.filter.empty() || share.group.empty())) return std::nullopt;
        out.push_back(std::move(share));
    }
    if (!in.at_end()) return std::nullopt;
    return out;
}

}  // namespace penstock::store
