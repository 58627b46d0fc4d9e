#include "group_filter.h"

#include <algorithm>
#include <iterator>
#include <stdexcept>

namespace cvrs {

namespace {

constexpr std::size_t kBuffersPerGroup = 2; // what goes in and what comes out
constexpr int kLooks = 8;                   // more than any clip needs whose frames stay the same

bool is_ascending(const std::vector<std::int64_t> &begins) {
    return begins.size() >= 2 && begins.front() == 0 &&
           std::adjacent_find(begins.begin(), begins.end(), std::greater_equal<>()) == begins.end();
}

std::size_t bytes(std::int64_t frames, const FrameShape &shape) {
    return static_cast<std::size_t>(frames) * shape.bytes();
}

GroupTable checked(GroupTable table) {
    const bool whole = is_ascending(table.source_begin) && is_ascending(table.output_begin) &&
                       table.source_begin.size() == table.output_begin.size() &&
                       table.nearest_source.size() == static_cast<std::size_t>(table.output_begin.back()) &&
                       std::min(table.source_head, table.output_head) >= 0 &&
                       std::min(table.source_frames, table.output_frames) > 0;
    if (!whole)
        throw std::invalid_argument("the group table is not one of whole, ascending groups");
    return table;
}

// A group's frames on an axis, of which one period of groups is written out.
Range on_axis(const std::vector<std::int64_t> &begins, std::int64_t group, std::int64_t end) {
    const auto groups = static_cast<std::int64_t>(begins.size()) - 1;
    const std::int64_t origin = group / groups * begins.back();
    const auto within = static_cast<std::size_t>(group % groups);
    return {origin + begins[within], std::min(end, origin + begins[within + 1])};
}

// What a clip has of an axis that it begins `head` frames into.
Range in_clip(const Range &axis, std::int64_t head, std::int64_t frames) {
    return {std::max<std::int64_t>(axis.begin - head, 0), std::min(axis.end - head, frames)};
}

bool covers(const Range &range, const Range &other) { return range.begin <= other.begin && other.end <= range.end; }

// The frames from the first to the last that a unit needs.
Range hull(const Unit &unit) {
    Range range{unit.sources.front(), unit.sources.front() + 1};
    for (const auto *frames : {&unit.sources, &unit.nearest})
        for (const std::int64_t n : *frames)
            range = {std::min(range.begin, n), std::max(range.end, n + 1)};
    return range;
}

// The places in a unit's sources at which another scene is known to begin. Of frames that do not follow one another
// in the clip nothing is known.
std::vector<std::int64_t> cuts_of(const Unit &unit, Host &host) {
    std::vector<std::int64_t> cuts;
    bool ends = false;
    for (std::size_t i = 0; i < unit.sources.size(); ++i) {
        const SourceFrame frame = host.source(unit.sources[i]);
        const bool follows = i > 0 && unit.sources[i] == unit.sources[i - 1] + 1;
        if (follows && (ends || frame.begins_scene))
            cuts.push_back(static_cast<std::int64_t>(i));
        ends = frame.ends_scene;
    }
    return cuts;
}

// An output frame lasts until the next one, whose source frames lie behind its own.
Stands stands_for(const Unit &unit, std::size_t i) {
    const auto &nearest = unit.nearest;
    Stands result;
    result.like = nearest[i];
    result.first = i == 0 || nearest[i - 1] != nearest[i];
    const bool ends = i + 1 == nearest.size();
    result.last = ends || nearest[i + 1] != nearest[i];
    if (result.first && result.last)
        std::copy_if(unit.sources.begin(), unit.sources.end(), std::back_inserter(result.instead),
                     [&](std::int64_t n) { return n >= nearest[i] && (ends || n < nearest[i + 1]); });
    return result;
}

bool is_range(const std::vector<std::int64_t> &frames, const Range &range) {
    if (static_cast<std::int64_t>(frames.size()) != range.end - range.begin)
        return false;
    std::int64_t next = range.begin;
    return std::all_of(frames.begin(), frames.end(), [&next](std::int64_t n) { return n == next++; });
}

} // namespace

GroupFilter::GroupFilter(GroupTable table, Options options, std::unique_ptr<Processor> processor)
    : table_(checked(std::move(table))), options_(options), processor_(std::move(processor)),
      cache_(options.cached_groups),
      buffers_(kBuffersPerGroup,
               std::max(bytes(options.largest_source, options.source), bytes(options.largest_output, options.output)),
               [this](std::size_t bytes) { return processor_->allocate(bytes); }) {}

std::int64_t GroupFilter::group_of(std::int64_t output) const {
    const auto &begins = table_.output_begin;
    const std::int64_t place = output + table_.output_head;
    const auto after = std::upper_bound(begins.begin(), begins.end(), place % begins.back());
    const auto groups = static_cast<std::int64_t>(begins.size()) - 1;
    return place / begins.back() * groups + (after - begins.begin()) - 1;
}

Range GroupFilter::sources_of(std::int64_t output) const {
    const Range group = in_clip(on_axis(table_.source_begin, group_of(output), table_.source_end), table_.source_head,
                                table_.source_frames);
    return {group.begin, options_.aligns && options_.endless ? group.begin + 1 : group.end};
}

Unit GroupFilter::table_unit(std::int64_t output) const {
    const std::int64_t group = group_of(output);
    const Range source = on_axis(table_.source_begin, group, table_.source_end);
    const Range made = on_axis(table_.output_begin, group, table_.output_end);
    const Range there = in_clip(source, table_.source_head, table_.source_frames);
    const Range shown = in_clip(made, table_.output_head, table_.output_frames);
    const auto period = static_cast<std::int64_t>(table_.source_begin.size()) - 1;
    const std::int64_t origin = group / period * table_.source_begin.back() - table_.source_head;
    const auto nearby = [&there](std::int64_t n) { return std::clamp(n, there.begin, there.end - 1); };

    Unit unit;
    unit.output_begin = shown.begin;
    unit.made = made.end - made.begin;
    // Missing frames at either end repeat the frame next to them.
    for (std::int64_t n = source.begin; n < source.end; ++n)
        unit.sources.push_back(nearby(n - table_.source_head));
    for (std::int64_t n = shown.begin; n < shown.end; ++n) {
        const std::int64_t place = n + table_.output_head;
        const auto within = static_cast<std::size_t>(place % table_.output_begin.back());
        unit.shown.push_back(place - made.begin);
        unit.nearest.push_back(nearby(origin + table_.nearest_source[within]));
    }
    return unit;
}

std::shared_ptr<void> GroupFilter::cached(std::int64_t output) { return cache_.find(output); }

std::shared_ptr<void> GroupFilter::make(std::int64_t output, Host &host) {
    if (auto frame = cached(output))
        return frame;
    const BufferRing::Lease input = buffers_.acquire();
    Range gathered;
    const std::optional<Unit> unit =
        options_.aligns ? aligned_unit(output, host, input.memory(), gathered) : table_unit(output);
    if (!unit)
        return nullptr;
    const GroupCache::Group frames = make_unit(*unit, host, input.memory(), gathered);
    cache_.insert(unit->output_begin, frames);
    return frames->at(static_cast<std::size_t>(output - unit->output_begin));
}

// The unit that makes an output frame, with its source frames requested and there; nothing where the
// host has to come again. `gathered`: the frames that lie in `input` at the end.
std::optional<Unit> GroupFilter::aligned_unit(std::int64_t output, Host &host, const Memory &input, Range &gathered) {
    const auto room = static_cast<std::int64_t>(input.size / options_.source.bytes());
    Range look = sources_of(output);
    for (int looks = 0; looks < kLooks; ++looks) {
        if (!covers(host.requested(), look)) {
            host.request(look);
            return std::nullopt;
        }
        Placement placed;
        for (std::int64_t begin = look.begin; begin < look.end && !placed.unit; begin = gathered.end) {
            gathered = {begin, std::min(begin + room, look.end)};
            for (std::int64_t n = gathered.begin; n < gathered.end; ++n)
                gather_source(host, n, input, n - gathered.begin);
            placed = processor_->place(output, gathered.begin, input, gathered.end - gathered.begin);
        }
        if (placed.unit) {
            if (covers(host.requested(), hull(*placed.unit)))
                return std::move(placed.unit);
            host.request(hull(*placed.unit));
            return std::nullopt;
        }
        look = placed.look;
    }
    throw std::runtime_error("the group of a frame was not found among the frames around it");
}

GroupCache::Group GroupFilter::make_unit(const Unit &unit, Host &host, const Memory &input, Range gathered) {
    const BufferRing::Lease output = buffers_.acquire();

    // The output frames are made first: they take their properties from source frames, which can
    // then be given back to the host before the long part begins.
    std::vector<OutputFrame> made;
    made.reserve(unit.nearest.size());
    for (std::size_t i = 0; i < unit.nearest.size(); ++i)
        made.push_back(host.create(unit.output_begin + static_cast<std::int64_t>(i), stands_for(unit, i)));

    if (!is_range(unit.sources, gathered)) {
        std::int64_t place = 0;
        for (const std::int64_t n : unit.sources)
            gather_source(host, n, input, place++);
    }
    const std::vector<std::int64_t> cuts = cuts_of(unit, host);
    host.done_with_sources();

    const Verdict verdict = processor_->process(unit, cuts, input, output.memory());

    auto frames = std::make_shared<std::vector<GroupCache::Frame>>();
    frames->reserve(made.size());
    for (std::size_t i = 0; i < made.size(); ++i) {
        scatter(output.memory().data + bytes(unit.shown[i], options_.output), options_.output, made[i].planes);
        frames->push_back(made[i].handle);
    }
    host.judged(verdict, made);
    return frames;
}

void GroupFilter::gather_source(Host &host, std::int64_t index, const Memory &target, std::int64_t place) const {
    gather(host.source(index).planes, options_.source, target.data + bytes(place, options_.source));
}

} // namespace cvrs
