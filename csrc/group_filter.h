// The group-of-frames filter: which source frames an output frame needs, and making the frames of a
// group together, once. Knows neither VapourSynth nor Python; does no frame-rate arithmetic.

#pragma once

#include "frame_buffer.h"

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

namespace cvrs {

// vs_cvrs.timeline.GroupTable, field by field.
struct GroupTable {
    std::vector<std::int64_t> source_begin;
    std::vector<std::int64_t> output_begin;
    std::vector<std::int64_t> nearest_source;
    std::int64_t source_head = 0;
    std::int64_t source_tail = 0;
    std::int64_t output_head = 0;
    std::int64_t output_tail = 0;
};

struct SourceFrame {
    std::shared_ptr<const void> handle;
    ConstPlanes planes;
};

struct OutputFrame {
    std::shared_ptr<void> handle;
    Planes planes;
};

// A frame property's value.
using Value = std::variant<std::int64_t, double, std::string>;
using Values = std::map<std::string, Value>;

// What was found out about a group while it was made.
struct Verdict {
    std::optional<bool> intact; // whether its source frames are as they were sent, where that is known
    std::string warning;        // to be logged, when not empty
    Values properties;          // of all the group's frames
};

// What the filter asks of its host during one frame request, when all source frames are there.
class Host {
  public:
    virtual ~Host() = default;
    virtual SourceFrame source(std::int64_t index) = 0;
    virtual void done_with_source(std::int64_t index) = 0;
    // A new frame with the properties of `like`.
    virtual OutputFrame create(std::int64_t index, const SourceFrame &like) = 0;
    // A group's frames have their samples, and this was found out about them.
    virtual void judged(const Verdict &verdict, const std::vector<OutputFrame> &frames) = 0;
};

// What turns a group's source frames into its output frames. Throws std::exception on failure.
class Processor {
  public:
    virtual ~Processor() = default;
    virtual Memory allocate(std::size_t bytes) = 0;
    virtual Verdict process(std::int64_t group, const Memory &source, std::int64_t source_frames, const Memory &output,
                            std::int64_t output_frames) = 0;
};

class GroupFilter {
  public:
    // Throws std::invalid_argument when the table is not one of whole, ascending groups.
    GroupFilter(GroupTable table, FrameShape source, FrameShape output, std::size_t cached_groups,
                std::unique_ptr<Processor> processor);

    struct Range {
        std::int64_t begin;
        std::int64_t end;
    };

    Range sources_of(std::int64_t output) const;
    std::int64_t longest_source_range() const;

    // The output frame when its group is in the cache, else null.
    std::shared_ptr<void> cached(std::int64_t output);

    // The output frame; makes its group when nobody has done so before. The host calls this once at
    // a time (that is what fmParallelRequests means), so that a group whose frames are requested in
    // parallel is made by the first request and found in the cache by the others. A group that fails
    // leaves nothing behind and is tried again by the next request.
    std::shared_ptr<void> make(std::int64_t output, Host &host);

  private:
    std::size_t group_of(std::int64_t output) const;
    GroupCache::Group make_group(std::size_t group, Host &host);

    const GroupTable table_;
    const FrameShape source_shape_;
    const FrameShape output_shape_;
    const std::unique_ptr<Processor> processor_;
    GroupCache cache_;
    BufferRing buffers_;
};

} // namespace cvrs
