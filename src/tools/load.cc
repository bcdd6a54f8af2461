#include "tools/load.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <memory>
#include <utility>

#include <fmt/format.h>

#include "base/clock.h"
#include "base/random.h"
#include "io/poller.h"
#include "io/process.h"
#include "io/socket.h"
#include "mqtt/packets.h"
#include "tls/channel.h"
#include "tools/mqtt_cli.h"

namespace penstock::tools {
namespace {

using mqtt::PacketType;
using mqtt::Qos;
using mqtt::Version;

/// One client of the load, publishing or subscribing.
struct Peer {
    int fd = -1;
    std::unique_ptr<tls::Channel> tls;
    std::size_t index = 0;
    bool connected = false;
    bool subscribed = false;
    bool dirty = false;
    std::string in;
    std::string out;
    std::size_t out_sent = 0;
    std::uint16_t packet_id = 0;
    int under_way = 0;                            ///< published, not yet delivered (QoS 0) or acknowledged
    std::string topic;
    std::string filter;
};

class Load {
  public:
    explicit Load(const LoadOptions& options) : o_(options), version_(options.version == 5 ? Version::v5 : Version::v311) {
        payload_.assign(static_cast<std::size_t>(std::max(12, o_.payload)), 'x');
        prefix_ = "bench/" + random_text(6) + "/";
        scratch_ = std::make_unique<char[]>(scratch_size);
        cipher_ = std::make_unique<char[]>(scratch_size / 2);
    }
    ~Load() {
        for (auto& peer : peers_)
            if (peer->fd >= 0) io::close_now(peer->fd);
    }

    LoadReport run();

  private:
    static constexpr std::size_t scratch_size = 256 * 1024;

    void p2p();
    void fan_in();
    void fan_out();
    void shared();
    void idle();
    void connect_storm();
    void latency();
    void wildcard();
    void retained();
    void offline();

    Peer* add(const std::string& filter, const std::string& topic, const std::string& client_id = {}, bool clean = true, std::uint32_t expiry = 0);
    bool wait_until(const std::function<bool()>& done, double seconds);
    void turn(int timeout_ms);
    void read(Peer& peer);
    /// Bytes of the connection, decrypted where it has TLS; 0: nothing, -1: it ended.
    long receive(Peer& peer, char* into, std::size_t size);
    void handle(Peer& peer, const mqtt::Frame& frame);
    void flush(Peer& peer);
    void mark(Peer& peer) {
        if (!peer.dirty) peer.dirty = true, dirty_.push_back(&peer);
    }
    void publish(Peer& peer, std::string_view topic, std::string_view payload, bool retain = false);
    void keep_window(const std::vector<Peer*>& publishers, int window, std::uint64_t per_message, double seconds);
    bool ready();
    void measure_begin();
    void measure_end();
    void progress(const char* what, double done) {
        if (!o_.progress || monotonic_ms() < next_progress_) return;
        next_progress_ = monotonic_ms() + 500;
        std::cerr << fmt::format("\r{}: {:3.0f} %   ", what, done * 100) << std::flush;
    }

    LoadOptions o_;
    Version version_;
    LoadReport report_;
    io::Poller poller_;
    std::vector<std::unique_ptr<Peer>> peers_;
    std::vector<Peer*> dirty_;
    std::vector<Peer*> by_publisher_;             ///< index in the payload → publisher
    std::unique_ptr<char[]> scratch_, cipher_;
    std::string payload_, prefix_;
    std::function<void(Peer&, const mqtt::PublishView&)> on_message_;
    std::uint64_t delivered_ = 0, sent_ = 0;
    std::uint64_t acknowledged_ = 0, refused_ = 0;   ///< with a good or a bad reason; of these with a bad one
    std::size_t connected_ = 0, subscribed_ = 0, lost_ = 0;
    std::int64_t begin_ns_ = 0, next_progress_ = 0;
    io::ProcessUse broker_before_, own_before_;
    std::uint64_t delivered_before_ = 0, sent_before_ = 0;
    bool started_ = false;
};

Peer* Load::add(const std::string& filter, const std::string& topic, const std::string& client_id, bool clean, std::uint32_t expiry) {
    auto peer = std::make_unique<Peer>();
    peer->index = peers_.size();
    peer->filter = filter;
    peer->topic = topic;
    auto fd = io::connect_tcp(o_.host, o_.port, 5000);
    if (!fd) {
        if (report_.error.empty()) report_.error = nobody_there(fd.error().message);
        return nullptr;
    }
    peer->fd = *fd;
    if (o_.persistent && expiry == 0) clean = false, expiry = 3600;
    mqtt::ConnectOptions connect{.version = version_, .client_id = client_id.empty() ? fmt::format("bench-{}-{}", prefix_.substr(6, 6), peer->index) : client_id, .clean_start = clean, .keep_alive = 0};
    if (version_ == Version::v5 && expiry > 0) connect.properties.push_back({.id = mqtt::PropertyId::session_expiry_interval, .number = expiry});
    if (!o_.user_name.empty()) connect.user_name = o_.user_name;
    if (!o_.password.empty()) connect.password = o_.password;
    mqtt::encode_connect(peer->out, connect);
    if (o_.tls != nullptr) {
        peer->tls = std::make_unique<tls::Channel>(o_.tls, false, o_.host);
        peer->tls->advance();
    }
    auto* out = peer.get();
    peers_.push_back(std::move(peer));
    poller_.add(out->fd, std::bit_cast<std::uint64_t>(out), true, false);
    mark(*out);
    return out;
}

long Load::receive(Peer& peer, char* into, std::size_t size) {
    if (peer.tls == nullptr) return io::read_some(peer.fd, into, size);
    // What is decrypted is never longer than what came, and one record that was incomplete before.
    const auto got = io::read_some(peer.fd, cipher_.get(), std::min(scratch_size / 2, size) - 32 * 1024);
    if (got <= 0) return got;
    const bool was_open = peer.tls->is_open();
    peer.tls->set_input({cipher_.get(), static_cast<std::size_t>(got)});
    std::size_t done = 0;
    long step = 0;
    while ((step = peer.tls->read(into + done, size - done)) > 0) done += static_cast<std::size_t>(step);
    if (!peer.tls->output().empty() || (!was_open && peer.tls->is_open())) mark(peer);
    if (step < 0 && done == 0) {
        if (!peer.tls->fault().empty() && report_.error.empty()) report_.error = "TLS: " + peer.tls->fault();
        return -1;
    }
    return static_cast<long>(done);
}

void Load::flush(Peer& peer) {
    if (peer.tls != nullptr) {
        // What is encrypted waits in the channel; it is bounded by the window of what is under way.
        if (peer.tls->is_open() && !peer.out.empty()) {
            peer.tls->write(peer.out);
            peer.out.clear();
        }
        auto& cipher = peer.tls->output();
        while (!cipher.empty()) {
            const std::string_view piece = cipher;
            const auto sent = io::write_some(peer.fd, &piece, 1);
            if (sent < 0) return void(++lost_);
            cipher.erase(0, static_cast<std::size_t>(sent));
            if (sent == 0) return poller_.change(peer.fd, std::bit_cast<std::uint64_t>(&peer), true, true);
        }
        return;
    }
    while (peer.out_sent < peer.out.size()) {
        const std::string_view piece = std::string_view(peer.out).substr(peer.out_sent);
        const auto sent = io::write_some(peer.fd, &piece, 1);
        if (sent < 0) {
            ++lost_;
            return;
        }
        if (sent == 0) {
            poller_.change(peer.fd, std::bit_cast<std::uint64_t>(&peer), true, true);
            return;
        }
        peer.out_sent += static_cast<std::size_t>(sent);
    }
    peer.out.clear();
    peer.out_sent = 0;
}

void Load::read(Peer& peer) {
    std::size_t kept = peer.in.size();
    if (kept > scratch_size / 2) {
        const auto got = receive(peer, scratch_.get(), scratch_size);
        if (got < 0) return void(++lost_), poller_.remove(peer.fd);
        peer.in.append(scratch_.get(), static_cast<std::size_t>(got));
        std::string_view rest = peer.in;
        mqtt::Frame frame;
        while (mqtt::cut_frame(rest, 0xFFFF'FFFF, frame) == mqtt::FrameState::complete) handle(peer, frame), rest.remove_prefix(frame.size);
        peer.in.erase(0, peer.in.size() - rest.size());
        return;
    }
    std::memcpy(scratch_.get(), peer.in.data(), kept);
    peer.in.clear();
    const auto got = receive(peer, scratch_.get() + kept, scratch_size - kept);
    if (got < 0) {
        ++lost_;
        poller_.remove(peer.fd);
        return;
    }
    std::string_view rest(scratch_.get(), kept + static_cast<std::size_t>(got));
    mqtt::Frame frame;
    while (mqtt::cut_frame(rest, 0xFFFF'FFFF, frame) == mqtt::FrameState::complete) {
        handle(peer, frame);
        rest.remove_prefix(frame.size);
    }
    peer.in = rest;
}

void Load::handle(Peer& peer, const mqtt::Frame& frame) {
    auto ack = [&](PacketType type, std::uint16_t id) {
        mqtt::encode_ack(peer.out, type, version_, id, mqtt::ReasonCode::success);
        mark(peer);
    };
    auto id_of = [&] { return static_cast<std::uint16_t>(static_cast<unsigned char>(frame.body[0]) << 8 | static_cast<unsigned char>(frame.body[1])); };
    switch (frame.type) {
        case PacketType::connack:
            if (frame.body.size() < 2 || frame.body[1] != 0) {
                report_.error = fmt::format("the broker refused a connection (code {})", frame.body.size() < 2 ? -1 : static_cast<unsigned char>(frame.body[1]));
                break;
            }
            peer.connected = true;
            ++connected_;
            if (!peer.filter.empty()) {
                mqtt::encode_subscribe(peer.out, version_, 1, {{.filter = peer.filter, .qos = static_cast<Qos>(o_.qos)}});
                mark(peer);
            }
            break;
        case PacketType::suback:
            peer.subscribed = true;
            ++subscribed_;
            break;
        case PacketType::puback:
        case PacketType::pubrec: {
            const auto answer = mqtt::decode_ack(frame.type, frame.flags, frame.body, version_);
            if (answer && mqtt::is_error(answer->reason)) ++refused_, ++acknowledged_;
            else if (frame.type == PacketType::pubrec) ack(PacketType::pubrel, id_of());
            else ++acknowledged_;
            break;
        }
        case PacketType::pubcomp: ++acknowledged_; break;
        case PacketType::pubrel: ack(PacketType::pubcomp, id_of()); break;
        case PacketType::publish: {
            const auto message = mqtt::decode_publish(frame.flags, frame.body, version_, false);
            if (!message) {
                report_.error = "the broker sent a malformed message";
                break;
            }
            if (message->qos == Qos::at_least_once) ack(PacketType::puback, message->packet_id);
            if (message->qos == Qos::exactly_once) ack(PacketType::pubrec, message->packet_id);
            ++delivered_;
            on_message_(peer, *message);
            break;
        }
        case PacketType::disconnect: report_.error = "the broker sent DISCONNECT"; break;
        default: break;
    }
}

void Load::turn(int timeout_ms) {
    for (std::size_t i = 0; i < dirty_.size(); ++i) {
        dirty_[i]->dirty = false;
        flush(*dirty_[i]);
    }
    dirty_.clear();
    for (const auto& ready : poller_.wait(timeout_ms)) {
        auto& peer = *std::bit_cast<Peer*>(ready.tag);
        if (ready.writable && !peer.out.empty()) {
            poller_.change(peer.fd, ready.tag, true, false);
            flush(peer);
        }
        if (ready.readable) read(peer);
    }
}

bool Load::wait_until(const std::function<bool()>& done, double seconds) {
    const auto deadline = monotonic_ms() + static_cast<std::int64_t>(seconds * 1000);
    while (!done()) {
        if (!report_.error.empty()) return false;
        if (lost_ > 0) {
            report_.error = fmt::format("{} connections were lost", lost_);
            return false;
        }
        if (monotonic_ms() > deadline) return false;
        turn(10);
    }
    return true;
}

bool Load::ready() {
    std::size_t subscribers = 0;
    for (const auto& peer : peers_) subscribers += peer->filter.empty() ? 0 : 1;
    if (wait_until([&] { return connected_ == peers_.size() && subscribed_ == subscribers; }, 60)) return true;
    if (report_.error.empty()) report_.error = fmt::format("only {} of {} clients connected and {} of {} subscribed within 60 s", connected_, peers_.size(), subscribed_, subscribers);
    return false;
}

void Load::measure_begin() {
    started_ = true;
    if (o_.broker_pid > 0) broker_before_ = io::process_use(o_.broker_pid);
    own_before_ = io::process_use(0);
    begin_ns_ = monotonic_ns();
    delivered_before_ = delivered_;
    sent_before_ = sent_;
}

void Load::measure_end() {
    report_.seconds = static_cast<double>(monotonic_ns() - begin_ns_) / 1e9;
    report_.delivered = delivered_ - delivered_before_;
    report_.sent = sent_ - sent_before_;
    const auto count = static_cast<double>(std::max<std::uint64_t>(1, report_.delivered));
    if (o_.broker_pid > 0) report_.broker_cpu_us_per_message = (io::process_use(o_.broker_pid).cpu_seconds - broker_before_.cpu_seconds) * 1e6 / count;
    report_.own_cpu_us_per_message = (io::process_use(0).cpu_seconds - own_before_.cpu_seconds) * 1e6 / count;
}

void Load::publish(Peer& peer, std::string_view topic, std::string_view payload, bool retain) {
    std::uint16_t id = 0;
    if (o_.qos > 0) id = peer.packet_id = peer.packet_id == 65'535 ? std::uint16_t{1} : static_cast<std::uint16_t>(peer.packet_id + 1);
    mqtt::encode_publish(peer.out, version_, topic, payload, static_cast<Qos>(o_.qos), retain, false, id, {});
    ++sent_;
    mark(peer);
}

/// Each publisher keeps `window` messages under way; one is through when it was delivered `per_message` times.
void Load::keep_window(const std::vector<Peer*>& publishers, int window, std::uint64_t per_message, double seconds) {
    by_publisher_ = publishers;
    std::vector<std::uint64_t> copies(publishers.size());
    on_message_ = [&, per_message](Peer&, const mqtt::PublishView& message) {
        std::uint32_t index = 0;
        std::memcpy(&index, message.payload.data(), sizeof index);
        if (index >= publishers.size() || ++copies[index] < per_message) return;
        copies[index] = 0;
        auto& publisher = *publishers[index];
        publish(publisher, publisher.topic, message.payload);
    };
    for (std::size_t i = 0; i < publishers.size(); ++i) {
        auto text = payload_;
        const auto index = static_cast<std::uint32_t>(i);
        std::memcpy(text.data(), &index, sizeof index);
        for (int k = 0; k < window; ++k) publish(*publishers[i], publishers[i]->topic, text);
    }
    const auto start = monotonic_ms();
    const auto warm = static_cast<std::int64_t>(o_.warm_up * 1000), whole = warm + static_cast<std::int64_t>(seconds * 1000);
    auto last_delivered = delivered_;
    auto last_change = start;
    wait_until(
        [&] {
            const auto passed = monotonic_ms() - start;
            if (!started_ && passed >= warm) measure_begin();
            progress(o_.scenario.c_str(), std::min(1.0, static_cast<double>(passed) / static_cast<double>(whole)));
            if (delivered_ != last_delivered) last_delivered = delivered_, last_change = monotonic_ms();
            else if (monotonic_ms() - last_change > 5000) report_.error = fmt::format("no message arrived for 5 s ({} sent, {} of them refused, {} delivered): messages were lost", sent_, refused_, delivered_);
            return passed >= whole;
        },
        seconds + o_.warm_up + 10);
    measure_end();
    report_.figures.emplace_back("messages_per_second", static_cast<double>(report_.delivered) / report_.seconds);
}

void Load::p2p() {
    std::vector<Peer*> publishers;
    for (int i = 0; i < o_.pairs; ++i) {
        const auto topic = fmt::format("{}{}", prefix_, i);
        if (add(topic, "") == nullptr) return;
        auto* publisher = add("", topic);
        if (publisher == nullptr) return;
        publishers.push_back(publisher);
    }
    if (ready()) keep_window(publishers, o_.window, 1, o_.seconds);
}

void Load::fan_in() {
    if (add(prefix_ + "#", "") == nullptr) return;
    std::vector<Peer*> publishers;
    for (int i = 0; i < o_.publishers; ++i) {
        publishers.push_back(add("", fmt::format("{}{}", prefix_, i)));
        if (publishers.back() == nullptr) return;
    }
    if (ready()) keep_window(publishers, o_.window, 1, o_.seconds);
}

void Load::fan_out() {
    for (int i = 0; i < o_.subscribers; ++i)
        if (add(prefix_ + "all", "") == nullptr) return;
    auto* publisher = add("", prefix_ + "all");
    if (publisher != nullptr && ready()) keep_window({publisher}, o_.window, static_cast<std::uint64_t>(o_.subscribers), o_.seconds);
}

void Load::shared() {
    for (int i = 0; i < o_.subscribers; ++i)
        if (add("$share/group/" + prefix_ + "#", "") == nullptr) return;
    std::vector<Peer*> publishers;
    for (int i = 0; i < o_.publishers; ++i) {
        publishers.push_back(add("", fmt::format("{}{}", prefix_, i)));
        if (publishers.back() == nullptr) return;
    }
    if (ready()) keep_window(publishers, o_.window, 1, o_.seconds);
}

void Load::wildcard() {
    // Subscribers with + and # over a tree of plants, lines and machines; publishers walk through all topics.
    for (int i = 0; i < o_.subscribers; ++i) {
        const int machine = i % 20, line = (i / 20) % 10;
        const auto filter = i % 3 == 0 ? fmt::format("{}+/line{}/m{}/+", prefix_, line, machine) : i % 3 == 1 ? fmt::format("{}plant{}/+/m{}/#", prefix_, i % 10, machine) : fmt::format("{}plant{}/line{}/#", prefix_, i % 10, line);
        if (add(filter, "") == nullptr) return;
    }
    std::vector<std::string> names;
    for (int i = 0; i < o_.topics; ++i) names.push_back(fmt::format("{}plant{}/line{}/m{}/value", prefix_, i % 10, (i / 10) % 10, (i / 100) % 20));
    auto* publisher = add("", names[0]);
    if (publisher == nullptr || !ready()) return;
    on_message_ = [](Peer&, const mqtt::PublishView&) {};
    std::size_t next = 0;
    const auto start = monotonic_ms();
    const auto warm = static_cast<std::int64_t>(o_.warm_up * 1000), whole = warm + static_cast<std::int64_t>(o_.seconds * 1000);
    // How often one round over all topics is delivered is not known beforehand; rounds are sent when the last one is quiet.
    auto last = delivered_;
    auto quiet_since = monotonic_ms();
    while (report_.error.empty() && lost_ == 0) {
        const auto passed = monotonic_ms() - start;
        if (!started_ && passed >= warm) measure_begin();
        if (passed >= whole) break;
        progress("wildcard", static_cast<double>(passed) / static_cast<double>(whole));
        if (publisher->out.size() < 65'536 && (delivered_ != last || monotonic_ms() - quiet_since > 2)) {
            for (int k = 0; k < 20; ++k) publish(*publisher, names[next++ % names.size()], payload_);
            last = delivered_;
            quiet_since = monotonic_ms();
        }
        turn(1);
    }
    measure_end();
    report_.figures.emplace_back("messages_per_second", static_cast<double>(report_.delivered) / report_.seconds);
    report_.figures.emplace_back("deliveries_per_publish", static_cast<double>(report_.delivered) / static_cast<double>(std::max<std::uint64_t>(1, report_.sent)));
}

void Load::idle() {
    const auto before = o_.broker_pid > 0 ? io::process_use(o_.broker_pid).resident_bytes : 0;
    for (int i = 0; i < o_.connections; ++i) {
        if (add(o_.subscribe_idle ? fmt::format("{}{}", prefix_, i) : "", "") == nullptr) return;
        if (i % 200 == 199) turn(0);
        progress("idle", static_cast<double>(i) / o_.connections);
    }
    if (!ready()) return;
    on_message_ = [](Peer&, const mqtt::PublishView&) {};
    wait_until([] { return false; }, 1);
    if (o_.broker_pid > 0)
        report_.broker_bytes_per_connection = static_cast<double>(io::process_use(o_.broker_pid).resident_bytes - before) / o_.connections;
    measure_begin();
    wait_until([] { return false; }, o_.seconds);
    measure_end();
    report_.broker_cpu_us_per_message = -1;
    report_.figures.emplace_back("connections", static_cast<double>(connected_));
}

void Load::connect_storm() {
    measure_begin();
    on_message_ = [](Peer&, const mqtt::PublishView&) {};
    for (int i = 0; i < o_.connections; ++i) {
        if (add("", "") == nullptr) return;
        // At most 100 half-done at a time, so that no listen queue overflows.
        wait_until([&] { return peers_.size() - connected_ < 100; }, 10);
        progress("connect", static_cast<double>(i) / o_.connections);
        if (peers_.size() >= 1000 && connected_ == peers_.size()) {
            // Old ones go, so that the storm is not a matter of descriptors.
            for (auto& peer : peers_) {
                poller_.remove(peer->fd);
                io::close_now(peer->fd);
                peer->fd = -1;
            }
            delivered_ += peers_.size();
            dirty_.clear();
            peers_.clear();
            connected_ = 0;
        }
    }
    ready();
    delivered_ += connected_;
    measure_end();
    report_.figures.emplace_back("connects_per_second", static_cast<double>(report_.delivered) / report_.seconds);
}

void Load::latency() {
    std::vector<Peer*> publishers;
    for (int i = 0; i < o_.pairs; ++i) {
        const auto topic = fmt::format("{}{}", prefix_, i);
        if (add(topic, "") == nullptr) return;
        publishers.push_back(add("", topic));
        if (publishers.back() == nullptr) return;
    }
    if (!ready()) return;
    std::vector<double> micros;
    on_message_ = [&](Peer&, const mqtt::PublishView& message) {
        std::int64_t at = 0;
        std::memcpy(&at, message.payload.data() + 4, sizeof at);
        if (started_) micros.push_back(static_cast<double>(monotonic_ns() - at) / 1000);
    };
    const auto start = monotonic_ns();
    const auto interval = 1e9 / o_.rate;
    const auto total = static_cast<std::int64_t>((o_.seconds + o_.warm_up) * o_.rate);
    std::int64_t count = 0;
    auto text = payload_;
    while (count < total && report_.error.empty() && lost_ == 0) {
        // Messages are due at fixed times whatever the broker does (no coordinated omission): late ones carry their due time.
        const auto now = monotonic_ns();
        while (count < total && start + static_cast<std::int64_t>(static_cast<double>(count) * interval) <= now) {
            const auto due = start + static_cast<std::int64_t>(static_cast<double>(count) * interval);
            if (!started_ && static_cast<double>(count) >= o_.warm_up * o_.rate) measure_begin();
            std::memcpy(text.data() + 4, &due, sizeof due);
            auto& publisher = *publishers[static_cast<std::size_t>(count) % publishers.size()];
            publish(publisher, publisher.topic, text);
            ++count;
        }
        progress("latency", static_cast<double>(count) / static_cast<double>(total));
        const auto next = start + static_cast<std::int64_t>(static_cast<double>(count) * interval) - monotonic_ns();
        turn(next > 1'500'000 ? static_cast<int>(next / 1'000'000) : 0);
    }
    wait_until([&] { return delivered_ >= sent_; }, 2);
    measure_end();
    std::ranges::sort(micros);
    auto percentile = [&](double p) { return micros.empty() ? 0.0 : micros[std::min(micros.size() - 1, static_cast<std::size_t>(p * static_cast<double>(micros.size())))]; };
    for (const auto& [name, p] : {std::pair{"p50_us", 0.5}, std::pair{"p90_us", 0.9}, std::pair{"p99_us", 0.99}, std::pair{"p999_us", 0.999}, std::pair{"max_us", 1.0}})
        report_.figures.emplace_back(name, percentile(p));
    report_.figures.emplace_back("lost", static_cast<double>(sent_ - std::min(sent_, delivered_)));
}

void Load::retained() {
    auto* publisher = add("", "x");
    if (publisher == nullptr || !ready()) return;
    on_message_ = [](Peer&, const mqtt::PublishView&) {};
    const auto qos = std::exchange(o_.qos, 1);
    measure_begin();
    for (int i = 0; i < o_.topics; ++i) {
        publish(*publisher, fmt::format("{}{}/{}", prefix_, i % 100, i), payload_, true);
        if (!wait_until([&] { return sent_ - acknowledged_ < 100; }, 30)) break;
        progress("retained set", static_cast<double>(i) / o_.topics);
    }
    wait_until([&] { return acknowledged_ == sent_; }, 30);
    delivered_ += acknowledged_;
    measure_end();
    report_.figures.emplace_back("set_broker_us", report_.broker_cpu_us_per_message);
    o_.qos = qos;
    const auto before = delivered_;
    if (add(prefix_ + "#", "") == nullptr) return;
    measure_begin();
    wait_until([&] { return delivered_ - before >= static_cast<std::uint64_t>(o_.topics); }, 60);
    measure_end();
    report_.figures.emplace_back("get_broker_us", report_.broker_cpu_us_per_message);
    report_.figures.emplace_back("retained_messages", static_cast<double>(delivered_ - before));
    o_.qos = 1;
    for (int i = 0; i < o_.topics; ++i) {
        publish(*publisher, fmt::format("{}{}/{}", prefix_, i % 100, i), {}, true);
        if (!wait_until([&] { return sent_ - acknowledged_ < 100; }, 30)) break;
    }
    wait_until([&] { return acknowledged_ == sent_; }, 30);
}

void Load::offline() {
    o_.qos = std::max(1, o_.qos);
    const auto id = "bench-offline-" + random_text(6);
    auto* subscriber = add(prefix_ + "queue", "", id, false, 3600);
    auto* publisher = add("", prefix_ + "queue");
    if (subscriber == nullptr || publisher == nullptr || !ready()) return;
    on_message_ = [](Peer&, const mqtt::PublishView&) {};
    poller_.remove(subscriber->fd);
    io::close_now(subscriber->fd);
    subscriber->fd = -1;
    measure_begin();
    for (int i = 0; i < o_.messages; ++i) {
        publish(*publisher, publisher->topic, payload_);
        if (!wait_until([&] { return sent_ - acknowledged_ < static_cast<std::uint64_t>(o_.window); }, 30)) break;
        progress("offline fill", static_cast<double>(i) / o_.messages);
    }
    wait_until([&] { return acknowledged_ == sent_; }, 30);
    const auto taken = acknowledged_ - refused_;
    delivered_ += taken;
    measure_end();
    report_.figures.emplace_back("fill_broker_us", report_.broker_cpu_us_per_message);
    const auto before = delivered_;
    // The session is resumed: its subscription is still there.
    if (add("", "", id, false, 3600) == nullptr) return;
    measure_begin();
    wait_until([&] { return delivered_ - before >= taken; }, 60);
    measure_end();
    report_.figures.emplace_back("drain_broker_us", report_.broker_cpu_us_per_message);
    report_.figures.emplace_back("drained", static_cast<double>(delivered_ - before));
    if (refused_ > 0) report_.figures.emplace_back("refused", static_cast<double>(refused_));
}

LoadReport Load::run() {
    io::raise_descriptor_limit();
    report_.scenario = o_.scenario;
    on_message_ = [](Peer&, const mqtt::PublishView&) {};
    if (o_.scenario == "p2p") p2p();
    else if (o_.scenario == "fan-in") fan_in();
    else if (o_.scenario == "fan-out") fan_out();
    else if (o_.scenario == "shared") shared();
    else if (o_.scenario == "idle") idle();
    else if (o_.scenario == "connect") connect_storm();
    else if (o_.scenario == "latency") latency();
    else if (o_.scenario == "wildcard") wildcard();
    else if (o_.scenario == "retained") retained();
    else if (o_.scenario == "offline") offline();
    else report_.error = fmt::format("unknown scenario \"{}\"", o_.scenario);
    if (report_.error.empty() && lost_ > 0) report_.error = fmt::format("{} connections were lost", lost_);
    if (o_.progress) std::cerr << "\r                              \r" << std::flush;
    return report_;
}

}  // namespace

std::vector<std::pair<std::string, std::string>> load_scenarios() {
    return {{"p2p", "pairs of one publisher and one subscriber, each with a window of messages under way"},
            {"fan-in", "many publishers, one subscriber to all"},
            {"fan-out", "one publisher, many subscribers of one topic"},
            {"shared", "many publishers, a shared group"},
            {"idle", "open connections that do nothing; memory per connection"},
            {"connect", "a storm of CONNECTs"},
            {"latency", "a fixed rate; percentiles from due time to delivery"},
            {"wildcard", "many subscribers with + and #, one publisher over many topics"},
            {"retained", "set many retained messages, then get all by a wildcard"},
            {"offline", "fill the queue of an absent subscriber, then drain it"}};
}

LoadReport run_load(const LoadOptions& options) { return Load(options).run(); }

namespace {

/// A figure's name in words and its unit, from its name in JSON: `connects_per_second`, `p99_us`, `drained`.
std::pair<std::string, std::string> shown_figure(std::string name) {
    auto ends = [&](std::string_view tail) {
        if (!name.ends_with(tail)) return false;
        name.resize(name.size() - tail.size());
        return true;
    };
    std::string unit;
    if (ends("_per_second"))
        unit = name + "/s", name = name == "messages" ? "throughput" : "rate";
    else if (ends("_per_publish"))
        unit = name + "/publish", name = "fan-out";
    else if (name.ends_with("_broker_us") && ends("_broker_us"))
        unit = "µs/message", name += " broker CPU";
    else if (ends("_us"))
        unit = "µs";
    else if (name == "lost" || name == "drained" || name == "refused" || name == "retained_messages")
        unit = "messages";
    std::ranges::replace(name, '_', ' ');
    return {name, unit};
}

}   // namespace

int print_report(const LoadOptions& options, const LoadReport& r) {
    if (options.json) {
        std::string figures;
        for (const auto& [name, value] : r.figures) figures += fmt::format(",\"{}\":{:.3f}", name, value);
        std::string error;
        for (const char c : r.error) error += c == '"' || c == '\\' ? std::string("\\") + c : std::string(1, c);
        std::cout << fmt::format("{{\"scenario\":\"{}\",\"qos\":{},\"payload\":{},\"window\":{},\"sent\":{},\"delivered\":{},\"seconds\":{:.3f},\"broker_cpu_us_per_message\":{:.3f},"
                                 "\"own_cpu_us_per_message\":{:.3f},\"broker_bytes_per_connection\":{:.0f}{},\"error\":\"{}\"}}\n",
                                 r.scenario, options.qos, options.payload, options.window, r.sent, r.delivered, r.seconds, r.broker_cpu_us_per_message, r.own_cpu_us_per_message,
                                 r.broker_bytes_per_connection, figures, error);
        return r.error.empty() ? 0 : 1;
    }
    // Name, number, unit: three columns, so that none runs into the next.
    auto line = [](std::string_view name, const std::string& number, std::string_view unit) {
        std::cout << fmt::format("{:<24}{:>14}{}{}\n", name, number, unit.empty() ? "" : " ", unit);
    };
    std::cout << fmt::format("{:<24}{:>14}\n", "scenario", r.scenario);
    line("sent", std::to_string(r.sent), "messages");
    line("delivered", std::to_string(r.delivered), "messages");
    line("measured time", fmt::format("{:.2f}", r.seconds), "s");
    if (r.broker_cpu_us_per_message >= 0)
        line("broker CPU", fmt::format("{:.2f}", r.broker_cpu_us_per_message), "µs/message");
    line("bench CPU", fmt::format("{:.2f}", r.own_cpu_us_per_message), "µs/message");
    if (r.broker_bytes_per_connection >= 0)
        line("broker memory", fmt::format("{:.0f}", r.broker_bytes_per_connection), "bytes/connection");
    for (const auto& [name, value] : r.figures) {
        const auto [text, unit] = shown_figure(name);
        line(text, fmt::format("{:.{}f}", value, value == std::floor(value) ? 0 : 1), unit);
    }
    if (!r.error.empty()) std::cerr << "Error: " << r.error << "\n";
    return r.error.empty() ? 0 : 1;
}

}  // namespace penstock::tools
