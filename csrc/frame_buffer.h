// Group buffers and the cache of finished groups. Knows neither VapourSynth nor Python.

#pragma once

#include <array>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

namespace cvrs {

constexpr std::size_t kPlanes = 3;

// One plane of a host's frame: rows `stride` bytes apart.
template <typename Byte> struct BasicPlane {
    Byte *data = nullptr;
    std::ptrdiff_t stride = 0;
};
using ConstPlanes = std::array<BasicPlane<const std::byte>, kPlanes>;
using Planes = std::array<BasicPlane<std::byte>, kPlanes>;

struct FrameShape {
    std::size_t row_bytes = 0;
    std::size_t rows = 0;

    std::size_t bytes() const { return kPlanes * rows * row_bytes; }
};

// Copy a frame's planes to contiguous memory of shape.bytes() bytes, and back.
void gather(const ConstPlanes &source, const FrameShape &shape, std::byte *target);
void scatter(const std::byte *source, const FrameShape &shape, const Planes &target);

// Memory that somebody else provides (pageable, or pinned for a device); `owner` keeps it alive.
struct Memory {
    std::byte *data = nullptr;
    std::size_t size = 0;
    std::shared_ptr<void> owner;
};
using Allocator = std::function<Memory(std::size_t bytes)>;

// A bounded set of equally large buffers, each allocated when first needed and then used again.
class BufferRing {
  public:
    BufferRing(std::size_t slots, std::size_t bytes, Allocator allocate);
    BufferRing(const BufferRing &) = delete;
    BufferRing &operator=(const BufferRing &) = delete;

    // A buffer in use; gives itself back at the end of its life. Must not outlive the ring.
    class Lease {
      public:
        Lease(BufferRing &ring, std::size_t slot) : ring_(&ring), slot_(slot) {}
        Lease(Lease &&other) noexcept : ring_(std::exchange(other.ring_, nullptr)), slot_(other.slot_) {}
        Lease(const Lease &) = delete;
        Lease &operator=(const Lease &) = delete;
        Lease &operator=(Lease &&) = delete;
        ~Lease();

        const Memory &memory() const;

      private:
        BufferRing *ring_;
        std::size_t slot_;
    };

    // Waits while all buffers are in use. Calls the allocator with no lock held; what the allocator
    // throws comes through and leaves the ring as it was.
    Lease acquire();

  private:
    struct Slot {
        Memory memory;
        bool in_use = false;
    };

    void release(std::size_t slot) noexcept;

    const std::size_t bytes_;
    const Allocator allocate_;
    std::mutex mutex_;
    std::condition_variable freed_;
    std::vector<Slot> slots_;
};

// The finished frames of the most recently used groups.
class GroupCache {
  public:
    using Frame = std::shared_ptr<void>;
    using Group = std::shared_ptr<const std::vector<Frame>>;

    explicit GroupCache(std::size_t capacity) : capacity_(capacity) {}

    Frame find(std::int64_t output); // null when it is not there
    // `frames` are those from output frame `begin` on.
    void insert(std::int64_t begin, Group frames);

  private:
    using Entries = std::list<std::pair<std::int64_t, Group>>; // most recently used first

    Entries::iterator locate(std::int64_t output);

    const std::size_t capacity_;
    std::mutex mutex_;
    Entries entries_;
};

} // namespace cvrs
