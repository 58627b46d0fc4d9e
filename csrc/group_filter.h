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

// Frames begin .. end - 1.
struct Range {
    std::int64_t begin = 0;
    std::int64_t end = 0;
};

// vs_cvrs.timeline.GroupTable, field by field.
struct GroupTable {
    std::vector<std::int64_t> source_begin;
    std::vector<std::int64_t> output_begin;
    std::vector<std::int64_t> nearest_source;
    std::int64_t source_head = 0;
    std::int64_t output_head = 0;
    std::int64_t source_frames = 0;
    std::int64_t output_frames = 0;
    std::int64_t source_end = 0;
    std::int64_t output_end = 0;
};

// Output frames that are made together, of source frames that go in together.
struct Unit {
    std::int64_t output_begin = 0;
    std::vector<std::int64_t> sources; // in the order in which they go in; some may repeat
    std::int64_t made = 0;             // frames that come out
    std::vector<std::int64_t> shown;   // for each output frame, which of those it is
    std::vector<std::int64_t> nearest; // for each output frame, the source frame with its properties
    std::shared_ptr<void> found;       // what the processor knows of it
};

// Where a group is: a unit, or the source frames to be looked at before that can be said.
struct Placement {
    std::optional<Unit> unit;
    Range look;
};

struct SourceFrame {
    std::shared_ptr<const void> handle;
    ConstPlanes planes;
    bool begins_scene = false; // known of it: a cut lies before it
    bool ends_scene = false;   // behind it
};

struct OutputFrame {
    std::shared_ptr<void> handle;
    Planes planes;
};

// Which source frames an output frame stands for.
struct Stands {
    std::int64_t like = 0; // the one whose properties it takes
    bool first = true;     // of the output frames that take those
    bool last = true;
    std::vector<std::int64_t> instead; // the ones that it stands in place of, where it shows one of several
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

// What the filter asks of its host during one frame request.
class Host {
  public:
    virtual ~Host() = default;
    // The source frames that are there.
    virtual Range requested() const = 0;
    // Have the host call again when these are there too.
    virtual void request(Range sources) = 0;
    virtual SourceFrame source(std::int64_t index) = 0;
    // No source frame is needed any more.
    virtual void done_with_sources() = 0;
    // A new frame with the properties of the frame that it is like.
    virtual OutputFrame create(std::int64_t index, const Stands &stands) = 0;
    // A group's frames have their samples, and this was found out about them.
    virtual void judged(const Verdict &verdict, const std::vector<OutputFrame> &frames) = 0;
};

// What turns a group's source frames into its output frames. Throws std::exception on failure.
class Processor {
  public:
    virtual ~Processor() = default;
    virtual Memory allocate(std::size_t bytes) = 0;
    // Where the group of an output frame is. `count` source frames from `first` on lie in `frames`.
    virtual Placement place(std::int64_t output, std::int64_t first, const Memory &frames, std::int64_t count) = 0;
    // `cuts`: places in `unit.sources` at which another scene is known to begin.
    virtual Verdict process(const Unit &unit, const std::vector<std::int64_t> &cuts, const Memory &source,
                            const Memory &output) = 0;
};

class GroupFilter {
  public:
    struct Options {
        FrameShape source;
        FrameShape output;
        std::int64_t largest_source = 0; // frames of the largest group, before and after
        std::int64_t largest_output = 0;
        bool aligns = false; // the processor says where each group is; else the table does
        std::size_t cached_groups = 1;
        bool endless = false; // the source states no length: frames behind its end are errors
    };

    // Throws std::invalid_argument when the table is not one of whole, ascending groups.
    GroupFilter(GroupTable table, Options options, std::unique_ptr<Processor> processor);

    // The source frames that an output frame is looked for among first: those of its group in a clip
    // that nobody cut, and of an endless one the first of them, which tells how many there are.
    Range sources_of(std::int64_t output) const;

    // The output frame when its group is in the cache, else null.
    std::shared_ptr<void> cached(std::int64_t output);

    // The output frame; makes its group when nobody has done so before. Null where more source
    // frames were requested first. The host calls this once at a time (that is what
    // fmParallelRequests means), so that a group whose frames are requested in parallel is made by
    // the first request and found in the cache by the others. A group that fails leaves nothing
    // behind and is tried again by the next request.
    std::shared_ptr<void> make(std::int64_t output, Host &host);

  private:
    std::int64_t group_of(std::int64_t output) const;
    Unit table_unit(std::int64_t output) const;
    std::optional<Unit> aligned_unit(std::int64_t output, Host &host, const Memory &input, Range &gathered);
    GroupCache::Group make_unit(const Unit &unit, Host &host, const Memory &input, Range gathered);
    void gather_source(Host &host, std::int64_t index, const Memory &target, std::int64_t place) const;

    const GroupTable table_;
    const Options options_;
    const std::unique_ptr<Processor> processor_;
    GroupCache cache_;
    BufferRing buffers_;
};

} // namespace cvrs
