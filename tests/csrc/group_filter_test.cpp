// Tests of csrc/frame_buffer and csrc/group_filter, which know neither VapourSynth nor Python.
// tests/test_frame_buffer.py builds and runs this, also with sanitizers.

#include "frame_buffer.h"
#include "group_filter.h"

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <tuple>

using namespace cvrs;

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                                       \
            std::exit(1);                                                                                              \
        }                                                                                                              \
    } while (false)

namespace {

Memory pageable(std::size_t bytes) {
    auto owner = std::make_shared<std::vector<std::byte>>(bytes);
    return {owner->data(), bytes, owner};
}

template <typename Error, typename Call> bool throws(Call &&call) {
    try {
        call();
    } catch (const Error &) {
        return true;
    }
    return false;
}

void gathers_and_scatters_strided_planes() {
    const FrameShape shape{3, 2};
    constexpr std::ptrdiff_t stride = 8;
    std::vector<std::byte> host(kPlanes * 2 * stride, std::byte{0xEE});
    ConstPlanes source;
    Planes target;
    for (std::size_t p = 0; p < kPlanes; ++p) {
        std::byte *const plane = host.data() + p * 2 * stride;
        for (std::size_t row = 0; row < 2; ++row)
            for (std::size_t x = 0; x < 3; ++x)
                plane[row * stride + x] = std::byte(100 * p + 10 * row + x);
        source[p] = {plane + stride, -stride}; // bottom row first
        target[p] = {plane, stride};
    }
    std::vector<std::byte> packed(shape.bytes());
    gather(source, shape, packed.data());
    for (std::size_t i = 0; i < packed.size(); ++i) {
        const std::size_t plane = i / 6, row = 1 - i / 3 % 2, x = i % 3;
        CHECK(packed[i] == std::byte(100 * plane + 10 * row + x));
    }
    scatter(packed.data(), shape, target);
    CHECK(target[1].data[0] == std::byte{110} && target[1].data[stride] == std::byte{100});
    CHECK(host[3] == std::byte{0xEE}); // the padding is left alone
}

void ring_is_bounded_and_uses_buffers_again() {
    int allocated = 0;
    BufferRing ring(2, 16, [&](std::size_t bytes) {
        ++allocated;
        return pageable(bytes);
    });
    const std::byte *first = nullptr;
    {
        const auto lease = ring.acquire();
        first = lease.memory().data;
        CHECK(lease.memory().size == 16);
    }
    const auto again = ring.acquire();
    CHECK(again.memory().data == first && allocated == 1);
    const auto other = ring.acquire();
    CHECK(other.memory().data != first && allocated == 2);
}

void ring_survives_a_failed_allocation() {
    bool fail = true;
    BufferRing ring(1, 16, [&](std::size_t bytes) {
        if (fail)
            throw std::runtime_error("no memory");
        return pageable(bytes);
    });
    CHECK(throws<std::runtime_error>([&] { ring.acquire(); }));
    fail = false;
    CHECK(ring.acquire().memory().data != nullptr);
}

void ring_serves_many_threads() {
    constexpr int kThreads = 8, kRounds = 500;
    BufferRing ring(3, sizeof(int), pageable);
    std::atomic<int> inside{0}, most{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t)
        threads.emplace_back([&, t] {
            for (int i = 0; i < kRounds; ++i) {
                const auto lease = ring.acquire();
                const int now = ++inside;
                int seen = most.load();
                while (seen < now && !most.compare_exchange_weak(seen, now)) {
                }
                auto *const value = reinterpret_cast<int *>(lease.memory().data);
                *value = t; // a data race unless each buffer has one user at a time
                std::this_thread::yield();
                CHECK(*value == t);
                --inside;
            }
        });
    for (auto &thread : threads)
        thread.join();
    CHECK(most <= 3);
}

void cache_drops_the_least_recently_used() {
    GroupCache cache(2);
    const auto group = [](int frames) {
        std::vector<GroupCache::Frame> made;
        for (int i = 0; i < frames; ++i)
            made.push_back(std::make_shared<int>(i));
        return std::make_shared<const std::vector<GroupCache::Frame>>(made);
    };
    const auto one = group(3);
    cache.insert(10, one);
    cache.insert(20, group(1));
    CHECK(cache.find(9) == nullptr && cache.find(10) == (*one)[0]);
    CHECK(cache.find(12) == (*one)[2] && cache.find(13) == nullptr);
    cache.insert(30, group(2));
    CHECK(cache.find(20) == nullptr && cache.find(11) == (*one)[1] && cache.find(31) != nullptr);
    const auto newer = group(3);
    cache.insert(10, newer);
    CHECK(cache.find(10) == (*newer)[0] && cache.find(30) != nullptr);
}

// Frames of one byte per plane. Source frame n holds n.
class FakeHost final : public Host {
  public:
    Range requested() const override { return there; }
    void request(Range sources) override { there = sources; }
    SourceFrame source(std::int64_t index) override {
        CHECK(index >= there.begin && index < there.end);
        read.insert(index);
        auto data = std::make_shared<std::array<std::byte, kPlanes>>();
        data->fill(std::byte(index));
        SourceFrame frame;
        for (std::size_t p = 0; p < kPlanes; ++p)
            frame.planes[p] = {data->data() + p, 1};
        frame.handle = data;
        frame.begins_scene = begins.count(index) != 0;
        frame.ends_scene = ends.count(index) != 0;
        return frame;
    }
    void done_with_sources() override { done = true; }
    OutputFrame create(std::int64_t, const Stands &stands) override {
        source(stands.like);
        made.push_back(stands);
        auto data = std::make_shared<std::array<std::byte, kPlanes>>();
        OutputFrame frame;
        for (std::size_t p = 0; p < kPlanes; ++p)
            frame.planes[p] = {data->data() + p, 1};
        frame.handle = data;
        return frame;
    }

    void judged(const Verdict &verdict, const std::vector<OutputFrame> &frames) override {
        verdicts.push_back(verdict);
        judged_frames += frames.size();
    }

    Range there{0, 5};
    std::set<std::int64_t> begins, ends; // scenes
    std::set<std::int64_t> read;
    bool done = false;
    std::vector<Verdict> verdicts;
    std::size_t judged_frames = 0;
    std::vector<Stands> made;
};

struct Log {
    int calls = 0;
    bool fail = false;
    std::int64_t first = -1;
    std::vector<int> source;
    std::vector<std::int64_t> cuts;
    std::vector<Placement> placements; // what to say next, last one first
    std::vector<std::int64_t> looked;
};

class FakeProcessor final : public Processor {
  public:
    explicit FakeProcessor(Log &log) : log_(log) {}
    Memory allocate(std::size_t bytes) override { return pageable(bytes); }
    Placement place(std::int64_t, std::int64_t first, const Memory &frames, std::int64_t count) override {
        for (std::int64_t i = 0; i < count; ++i) {
            CHECK(frames.data[i * 3] == std::byte(first + i));
            log_.looked.push_back(first + i);
        }
        const Placement placed = log_.placements.back();
        if (log_.placements.size() > 1)
            log_.placements.pop_back();
        return placed;
    }
    Verdict process(const Unit &unit, const std::vector<std::int64_t> &cuts, const Memory &source,
                    const Memory &output) override {
        log_.cuts = cuts;
        log_.first = unit.output_begin;
        ++log_.calls;
        if (log_.fail)
            throw std::runtime_error("broken");
        log_.source.clear();
        for (std::int64_t i = 0; i < static_cast<std::int64_t>(unit.sources.size()); ++i)
            log_.source.push_back(static_cast<int>(source.data[i * 3]));
        for (std::int64_t i = 0; i < unit.made * 3; ++i)
            output.data[i] = std::byte(i / 3 + 100);
        return {unit.output_begin != 3, "from " + std::to_string(unit.output_begin), {{"First", unit.output_begin}}};
    }

  private:
    Log &log_;
};

// Groups of 4 and 2 source frames by turns, of 4 output frames each; the clips begin inside the first
// and end inside the third.
GroupTable padded_table() { return {{0, 4, 6}, {0, 4, 8}, {0, 2, 2, 3, 4, 4, 5, 5}, 2, 1, 5, 8, 10, 12}; }

std::unique_ptr<GroupFilter> make_filter(Log &log, std::size_t cached = 2, bool aligns = false) {
    GroupFilter::Options options{FrameShape{1, 1}, FrameShape{1, 1}, 4, 4, aligns, cached};
    return std::make_unique<GroupFilter>(padded_table(), options, std::make_unique<FakeProcessor>(log));
}

int value(const std::shared_ptr<void> &frame) {
    return static_cast<int>(static_cast<std::array<std::byte, kPlanes> *>(frame.get())->back());
}

void groups_are_made_once_and_padded_at_the_ends() {
    Log log;
    const auto filter = make_filter(log);
    FakeHost host;
    CHECK(filter->sources_of(2).begin == 0 && filter->sources_of(2).end == 2);
    CHECK(filter->sources_of(7).begin == 4 && filter->sources_of(7).end == 5);
    CHECK(filter->cached(0) == nullptr);
    CHECK(value(filter->make(1, host)) == 102); // after one frame that is made and not shown
    CHECK((log.source == std::vector<int>{0, 0, 0, 1}));
    CHECK(host.done && host.read == (std::set<std::int64_t>{0, 1}));
    const auto &[one, two, three] = std::tie(host.made[0], host.made[1], host.made[2]);
    CHECK(one.like == 0 && one.first && !one.last && one.instead.empty());
    CHECK(two.like == 0 && !two.first && two.last && two.instead.empty());
    CHECK(three.like == 1 && three.first && three.last && three.instead == std::vector<std::int64_t>{1});
    CHECK(value(filter->cached(0)) == 101 && value(filter->make(2, host)) == 103 && log.calls == 1);
    CHECK(value(filter->make(3, host)) == 100);
    CHECK((log.source == std::vector<int>{2, 3}));
    CHECK(value(filter->make(7, host)) == 100);
    CHECK((log.source == std::vector<int>{4, 4, 4, 4}));
    CHECK(log.calls == 3 && filter->cached(0) == nullptr); // two groups are kept
    CHECK(log.first == 7 && host.verdicts.size() == 3 && host.judged_frames == 8);
    CHECK(host.verdicts[0].intact == true && host.verdicts[1].intact == false);
    CHECK(host.verdicts[2].warning == "from 7");
    CHECK(std::get<std::int64_t>(host.verdicts[2].properties.at("First")) == 7);
}

void a_group_that_failed_is_tried_again() {
    Log log;
    const auto filter = make_filter(log, 1);
    FakeHost host;
    for (int i = 0; i < 5; ++i) { // more often than there are buffers
        log.fail = true;
        CHECK(throws<std::runtime_error>([&] { filter->make(0, host); }));
        CHECK(filter->cached(0) == nullptr);
    }
    log.fail = false;
    CHECK(value(filter->make(0, host)) == 101 && log.calls == 6);
}

Unit unit_of(std::int64_t output, std::vector<std::int64_t> sources, std::vector<std::int64_t> shown) {
    Unit unit;
    unit.output_begin = output;
    unit.nearest.assign(shown.size(), sources.front());
    unit.sources = std::move(sources);
    unit.made = 4;
    unit.shown = std::move(shown);
    return unit;
}

void a_group_is_where_the_processor_finds_it() {
    Log log;
    const auto filter = make_filter(log, 2, true);
    FakeHost host;
    // It is where the table says: nothing more is asked for, and nothing is gathered twice.
    log.placements = {{unit_of(3, {2, 3}, {0, 1, 2, 3}), {}}};
    host.there = {2, 4};
    CHECK(value(filter->make(4, host)) == 101);
    CHECK((log.looked == std::vector<std::int64_t>{2, 3}) && (host.there.begin == 2 && host.there.end == 4));

    // It is elsewhere: more frames are looked at, and those of the group come last.
    log.looked.clear();
    log.placements = {{unit_of(0, {1, 2, 3, 3}, {2, 3, 3}), {}}, {std::nullopt, {0, 5}}};
    host.there = {0, 2};
    CHECK(filter->make(1, host) == nullptr && host.there.begin == 0 && host.there.end == 5);
    CHECK((log.looked == std::vector<std::int64_t>{0, 1}) && log.calls == 1);
    log.looked.clear();
    log.placements = {{unit_of(0, {1, 2, 3, 3}, {2, 3, 3}), {}}, {std::nullopt, {0, 5}}, {std::nullopt, {0, 5}}};
    CHECK(value(filter->make(1, host)) == 103 && log.calls == 2);
    CHECK((log.looked == std::vector<std::int64_t>{0, 1, 0, 1, 2, 3, 4})); // as many at once as there is room
    CHECK((log.source == std::vector<int>{1, 2, 3, 3}));
    CHECK(value(filter->cached(0)) == 102 && value(filter->cached(2)) == 103);

    // Frames that are known but not there are requested.
    log.placements = {{unit_of(7, {2, 4}, {0}), {}}};
    host.there = {4, 5};
    CHECK(filter->make(7, host) == nullptr && host.there.begin == 2 && host.there.end == 5);
    CHECK(value(filter->make(7, host)) == 100);

    // Who never says where it is does not keep the filter for ever.
    log.placements = {{std::nullopt, {4, 5}}};
    const auto other = make_filter(log, 2, true);
    CHECK(throws<std::runtime_error>([&] { other->make(7, host); }));
}

void cuts_are_known_between_frames_that_follow_one_another() {
    const auto cuts = [](std::vector<std::int64_t> sources, std::set<std::int64_t> begins,
                         std::set<std::int64_t> ends) {
        Log log;
        FakeHost host;
        host.begins = begins, host.ends = ends;
        log.placements = {{unit_of(3, sources, {0}), {}}};
        make_filter(log, 2, true)->make(3, host);
        return log.cuts;
    };
    CHECK(cuts({1, 2, 3, 4}, {}, {}).empty());
    CHECK((cuts({1, 2, 3, 4}, {3}, {}) == std::vector<std::int64_t>{2}));
    CHECK((cuts({1, 2, 3, 4}, {}, {2}) == std::vector<std::int64_t>{2}));
    CHECK((cuts({1, 2, 3, 4}, {2, 3}, {2}) == std::vector<std::int64_t>{1, 2}));
    CHECK(cuts({1, 2, 3, 4}, {1}, {4}).empty());
    CHECK(cuts({1, 3, 3, 2}, {3, 2}, {1, 3}).empty());
}

void bad_tables_are_refused() {
    Log log;
    for (int bad = 0; bad < 5; ++bad) {
        GroupTable table = padded_table();
        if (bad == 0)
            table.source_begin[1] = 6;
        else if (bad == 1)
            table.output_begin[0] = 1;
        else if (bad == 2)
            table.nearest_source.pop_back();
        else if (bad == 3)
            table.source_begin.pop_back();
        else
            table.output_head = -1;
        CHECK(throws<std::invalid_argument>(
            [&] { GroupFilter(table, GroupFilter::Options{}, std::make_unique<FakeProcessor>(log)); }));
    }
}

} // namespace

int main() {
    gathers_and_scatters_strided_planes();
    ring_is_bounded_and_uses_buffers_again();
    ring_survives_a_failed_allocation();
    ring_serves_many_threads();
    cache_drops_the_least_recently_used();
    groups_are_made_once_and_padded_at_the_ends();
    a_group_that_failed_is_tried_again();
    a_group_is_where_the_processor_finds_it();
    cuts_are_known_between_frames_that_follow_one_another();
    bad_tables_are_refused();
}
