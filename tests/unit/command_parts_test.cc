// What the commands and pages are made of.
#include <gtest/gtest.h>

#include <zlib.h>

#include <cerrno>

#include "api/gzip.h"
#include "app/jsonpath.h"
#include "base/log_output.h"
#include "client/file_follower.h"
#include "harness/api_transport.h"
#include "io/socket.h"

namespace penstock {
namespace {

using resources::Json;

std::string unpacked(std::string packed) {
    z_stream stream{};
    inflateInit2(&stream, 15 + 16);
    std::string out(1 << 20, '\0');
    stream.next_in = static_cast<Bytef*>(static_cast<void*>(packed.data()));
    stream.avail_in = static_cast<uInt>(packed.size());
    stream.next_out = static_cast<Bytef*>(static_cast<void*>(out.data()));
    stream.avail_out = static_cast<uInt>(out.size());
    const int end = inflate(&stream, Z_FINISH);
    out.resize(end == Z_STREAM_END ? stream.total_out : 0);
    inflateEnd(&stream);
    return out;
}

TEST(Gzip, is_given_to_who_asks_and_is_the_same_text) {
    for (const char* yes : {"gzip", "gzip, deflate", "deflate, GZIP;q=0.5", "*", "br;q=1, *;q=0.1", "x-gzip"})
        EXPECT_TRUE(api::accepts_gzip(yes)) << yes;
    for (const char* no :
         {"", "identity", "br", "gzip;q=0", "gzip; q=0.000", "*;q=0", "gzip;q=0, *", "notgzip"})
        EXPECT_FALSE(api::accepts_gzip(no)) << no;
    for (const auto& text :
         {std::string(), std::string("a"), std::string(300'000, 'x'), std::string("\0\x01\xff", 3)})
        EXPECT_EQ(unpacked(api::gzip(text)), text);
    EXPECT_LT(api::gzip(std::string(300'000, 'x')).size(), 5000u);
}

TEST(Ports, below_1024_name_the_capability_and_where_to_give_it) {
    const auto why = io::why_not_bound(EACCES, 883);
    for (const char* part : {"Permission denied", "CAP_NET_BIND_SERVICE",
                             "AmbientCapabilities=CAP_NET_BIND_SERVICE", "setcap cap_net_bind_service=+ep /"})
        EXPECT_NE(why.find(part), std::string::npos) << why;
    EXPECT_EQ(io::why_not_bound(EADDRINUSE, 883).find("CAP_NET"), std::string::npos);
    EXPECT_EQ(io::why_not_bound(EACCES, 8883).find("CAP_NET"), std::string::npos);
    EXPECT_EQ(io::why_not_bound(EACCES, 0).find("CAP_NET"), std::string::npos);
}

TEST(JsonPath, conditions_slices_and_descent_as_kubectl_has_them) {
    const Json object = {
        {"status",
         {{"conditions", Json::array({{{"type", "Ready"}, {"status", "True"}, {"n", 3}},
                                      {{"type", "Issuing]"}, {"status", "False"}, {"n", 1}}})}}},
        {"ports", Json::array({1883, 8883, 18883})},
        {"spec", {{"name", "a"}, {"inner", {{"name", "b"}}}}}};
    auto at = [&](const std::string& text) {
        const auto out = app::evaluate_jsonpath(text, object);
        return out ? *out : "fault: " + out.error().message;
    };
    EXPECT_EQ(at("{.status.conditions[?(@.type==\"Ready\")].status}"), "True");
    EXPECT_EQ(at("{.status.conditions[?(@.type=='Issuing]')].status}"), "False");
    EXPECT_EQ(at("{.status.conditions[?(@.type!=\"Ready\")].n}"), "1");
    EXPECT_EQ(at("{.status.conditions[?(@.n>=2)].type}"), "Ready");
    EXPECT_EQ(at("{.status.conditions[?(@.absent)].type}"), "");
    EXPECT_EQ(at("{.ports[0:2]}"), "1883 8883");
    EXPECT_EQ(at("{.ports[-1:]}"), "18883");
    EXPECT_EQ(at("{.ports[:99]}"), "1883 8883 18883");
    EXPECT_EQ(at("{..name}"), "a b");
    EXPECT_EQ(at("{.ports[?(@.x==wrong)]}").find("fault: jsonpath"), 0u);
    EXPECT_EQ(at("{.ports[1:x]}").find("fault: jsonpath"), 0u);
    EXPECT_EQ(app::values_at(".ports[*]", object)->size(), 3u);
}

struct SameFile final : client::ManifestFiles {
    client::Look look() override {
        return {{.path = "m.yaml", .files = {{.path = "m.yaml", .size = 9, .modified_ns = 1}}}};
    }
    client::Writer writer_of(const std::string&) override { return client::Writer::none; }
    Result<std::string> read(const std::string&) override {
        return std::string("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: words}\ndata: {a: b}\n");
    }
};

TEST(Hangup, has_files_applied_again_that_did_not_change) {
    test::ApiWorld world;
    test::ApiTransport transport(world);
    client::FileFollower follower(transport, std::make_unique<SameFile>(),
                                  {.source = "m.yaml",
                                   .name_space = "azure-iot-operations",
                                   .now_ms = [] { return 1'000'000; },
                                   .wall_ms = [] { return 1'000'000; }});
    const auto& kind = *resources::find_kind("v1", "ConfigMap");
    auto is_there = [&] { return world.registry->get(kind, "azure-iot-operations", "words").has_value(); };
    EXPECT_EQ(follower.step().phase, client::FollowState::Phase::applied);
    ASSERT_TRUE(is_there());
    ASSERT_TRUE(world.registry->remove(kind, "azure-iot-operations", "words"));
    follower.step();
    EXPECT_FALSE(is_there()) << "what somebody deleted is not fought for at each look";
    follower.read_again();
    follower.step();
    EXPECT_TRUE(is_there());
}

}   // namespace
}   // namespace penstock
