#include "group_filter.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>

namespace cvrs {

namespace {

constexpr std::size_t kBuffersPerGroup = 2; // what goes in and what comes out

struct Padding {
    std::int64_t head;
    std::int64_t tail;
};

bool is_ascending(const std::vector<std::int64_t> &begins) {
    return begins.size() >= 2 && begins.front() == 0 &&
           std::adjacent_find(begins.begin(), begins.end(), std::greater_equal<>()) == begins.end();
}

Padding padding(std::size_t group, std::size_t groups, std::int64_t head, std::int64_t tail) {
    return {group == 0 ? head : 0, group + 1 == groups ? tail : 0};
}

// Frames of the longest group, padding included.
std::int64_t longest(const std::vector<std::int64_t> &begins, std::int64_t head, std::int64_t tail) {
    const std::size_t groups = begins.size() - 1;
    std::int64_t frames = 0;
    for (std::size_t g = 0; g < groups; ++g) {
        const Padding pad = padding(g, groups, head, tail);
        frames = std::max(frames, pad.head + begins[g + 1] - begins[g] + pad.tail);
    }
    return frames;
}

std::size_t bytes(std::int64_t frames, const FrameShape &shape) {
    return static_cast<std::size_t>(frames) * shape.bytes();
}

GroupTable checked(GroupTable table) {
    const bool whole = is_ascending(table.source_begin) && is_ascending(table.output_begin) &&
                       table.source_begin.size() == table.output_begin.size() &&
                       table.nearest_source.size() == static_cast<std::size_t>(table.output_begin.back()) &&
                       std::min({table.source_head, table.source_tail, table.output_head, table.output_tail}) >= 0;
    if (!whole)
        throw std::invalid_argument("the group table is not one of whole, ascending groups");
    return table;
}

} // namespace

GroupFilter::GroupFilter(GroupTable table, FrameShape source, FrameShape output, std::size_t cached_groups,
                         std::unique_ptr<Processor> processor)
    : table_(checked(std::move(table))), source_shape_(source), output_shape_(output), processor_(std::move(processor)),
      cache_(cached_groups),
      buffers_(kBuffersPerGroup,
               std::max(bytes(longest(table_.source_begin, table_.source_head, table_.source_tail), source_shape_),
                        bytes(longest(table_.output_begin, table_.output_head, table_.output_tail), output_shape_)),
               [this](std::size_t bytes) { return processor_->allocate(bytes); }) {}

std::size_t GroupFilter::group_of(std::int64_t output) const {
    const auto &begins = table_.output_begin;
    return static_cast<std::size_t>(std::upper_bound(begins.begin(), begins.end(), output) - begins.begin()) - 1;
}

GroupFilter::Range GroupFilter::sources_of(std::int64_t output) const {
    const std::size_t group = group_of(output);
    return {table_.source_begin[group], table_.source_begin[group + 1]};
}

std::int64_t GroupFilter::longest_source_range() const { return longest(table_.source_begin, 0, 0); }

std::shared_ptr<void> GroupFilter::cached(std::int64_t output) {
    const std::size_t group = group_of(output);
    const GroupCache::Group frames = cache_.find(static_cast<std::int64_t>(group));
    return frames ? (*frames)[static_cast<std::size_t>(output - table_.output_begin[group])] : nullptr;
}

std::shared_ptr<void> GroupFilter::make(std::int64_t output, Host &host) {
    if (auto frame = cached(output))
        return frame;
    const std::size_t group = group_of(output);
    const GroupCache::Group frames = make_group(group, host);
    cache_.insert(static_cast<std::int64_t>(group), frames);
    return (*frames)[static_cast<std::size_t>(output - table_.output_begin[group])];
}

GroupCache::Group GroupFilter::make_group(std::size_t group, Host &host) {
    const std::size_t groups = table_.source_begin.size() - 1;
    const Padding in_pad = padding(group, groups, table_.source_head, table_.source_tail);
    const Padding out_pad = padding(group, groups, table_.output_head, table_.output_tail);
    const std::int64_t in_begin = table_.source_begin[group], in_end = table_.source_begin[group + 1];
    const std::int64_t out_begin = table_.output_begin[group], out_end = table_.output_begin[group + 1];
    const std::size_t in_bytes = source_shape_.bytes();

    const BufferRing::Lease input = buffers_.acquire();
    const BufferRing::Lease output = buffers_.acquire();

    // The output frames are made first: they take their properties from source frames, which can
    // then be given back to the host before the long part begins.
    std::vector<OutputFrame> made;
    made.reserve(static_cast<std::size_t>(out_end - out_begin));
    for (std::int64_t n = out_begin; n < out_end; ++n)
        made.push_back(host.create(n, host.source(table_.nearest_source[static_cast<std::size_t>(n)])));

    std::byte *target = input.memory().data + static_cast<std::size_t>(in_pad.head) * in_bytes;
    for (std::int64_t n = in_begin; n < in_end; ++n, target += in_bytes) {
        gather(host.source(n).planes, source_shape_, target);
        host.done_with_source(n);
    }
    // Missing frames at either end repeat the frame next to them.
    std::byte *const first = input.memory().data + static_cast<std::size_t>(in_pad.head) * in_bytes;
    for (std::int64_t i = 0; i < in_pad.head; ++i)
        std::memcpy(input.memory().data + static_cast<std::size_t>(i) * in_bytes, first, in_bytes);
    for (std::int64_t i = 0; i < in_pad.tail; ++i, target += in_bytes)
        std::memcpy(target, target - in_bytes, in_bytes);

    const Verdict verdict = processor_->process(static_cast<std::int64_t>(group), input.memory(),
                                                in_pad.head + in_end - in_begin + in_pad.tail, output.memory(),
                                                out_pad.head + out_end - out_begin + out_pad.tail);

    const std::byte *source = output.memory().data + static_cast<std::size_t>(out_pad.head) * output_shape_.bytes();
    auto frames = std::make_shared<std::vector<GroupCache::Frame>>();
    frames->reserve(made.size());
    for (const OutputFrame &frame : made) {
        scatter(source, output_shape_, frame.planes);
        source += output_shape_.bytes();
        frames->push_back(frame.handle);
    }
    host.judged(verdict, made);
    return frames;
}

} // namespace cvrs
